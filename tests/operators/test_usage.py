from __future__ import annotations

from rxrouter import Usage
from rxrouter.operators import usage
from tests.operators.support import chunk, play, subscribed_scheduler

TEXT = chunk({"content": "Hi"})


def test_usage_emits_each_usage_when_it_is_said() -> None:
    first, last = chunk({"content": "a"}, usage={"completion_tokens": 1}), chunk(usage={"completion_tokens": 2})

    heard, subscription = play(usage(), (1, TEXT), (2, first), (3, last), (4, None))

    assert heard == [(2, Usage(completion_tokens=1)), (3, Usage(completion_tokens=2)), (4, None)]
    assert subscription == (0, 4)


def test_usage_is_never_invented() -> None:
    assert play(usage(), (1, TEXT), (2, None))[0] == [(2, None)]


def test_usage_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(usage(), (1, TEXT), (2, error))[0] == [(2, error)]


def test_usage_leaves_an_endless_source_when_disposed() -> None:
    assert play(usage(), (9, TEXT), disposed=5) == ([], (0, 5))


def test_usage_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(usage())

    assert reached is given
