from __future__ import annotations

from rxrouter import ChatCompletion, RouterError, TruncatedStreamError, Usage
from rxrouter.operators import completion
from tests.operators.support import chunk, play, subscribed_scheduler

HEL, LO = chunk({"content": "Hel"}), chunk({"content": "lo"})


def test_completion_emits_the_whole_answer_at_the_end() -> None:
    heard, subscription = play(completion(), (1, HEL), (2, LO), (3, chunk(usage={"cost": 0.5})), (4, None))

    (at, whole), ending = heard
    assert isinstance(whole, ChatCompletion)
    assert (at, whole.text, whole.usage) == (4, "Hello", Usage(cost=0.5))
    assert ending == (4, None)
    assert subscription == (0, 4)


def test_completion_of_an_empty_answer_is_empty() -> None:
    heard, _ = play(completion(), (1, None))

    assert heard == [(1, ChatCompletion(state="truncated")), (1, None)]
    assert heard[0][1].text == ""


def test_completion_puts_what_came_on_the_error() -> None:
    error = TruncatedStreamError()

    heard, _ = play(completion(), (1, HEL), (2, error))

    assert heard == [(2, error)]
    assert error.partial.text == "Hel"


def test_completion_passes_a_foreign_error_on() -> None:
    error = ValueError("a callback above raised")

    assert play(completion(), (1, HEL), (2, error))[0] == [(2, error)]
    assert not isinstance(error, RouterError)


def test_completion_leaves_an_endless_source_when_disposed() -> None:
    assert play(completion(), (1, HEL), (9, LO), disposed=5) == ([], (0, 5))


def test_completion_starts_anew_with_each_subscription() -> None:
    operator = completion()

    for _ in range(2):
        assert play(operator, (1, HEL), (2, None))[0][0][1].text == "Hel"


def test_completion_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(completion())

    assert reached is given
