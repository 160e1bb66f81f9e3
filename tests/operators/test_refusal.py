from __future__ import annotations

from rxrouter.operators import refusal
from tests.operators.support import chunk, play, subscribed_scheduler

WORDS, SORRY, NO = chunk({"content": "Well,"}), chunk({"content": "", "refusal": "Sorry, "}), chunk({"refusal": "no."})


def test_refusal_emits_the_words_of_a_refusal_and_no_text() -> None:
    heard, subscription = play(refusal(), (1, WORDS), (2, SORRY), (3, NO), (4, None))

    assert heard == [(2, "Sorry, "), (3, "no."), (4, None)]
    assert subscription == (0, 4)


def test_refusal_of_nothing_is_nothing() -> None:
    assert play(refusal(), (1, None))[0] == [(1, None)]


def test_refusal_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(refusal(), (1, SORRY), (2, error))[0] == [(1, "Sorry, "), (2, error)]


def test_refusal_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(refusal(), (1, SORRY), (9, SORRY), disposed=5)

    assert (heard, subscription) == ([(1, "Sorry, ")], (0, 5))


def test_refusal_is_of_one_choice() -> None:
    both = chunk({"refusal": "first"}, {"refusal": "second"})

    assert play(refusal(choice=1), (1, both), (2, None))[0] == [(1, "second"), (2, None)]


def test_refusal_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(refusal())

    assert reached is given
