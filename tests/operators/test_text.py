from __future__ import annotations

from rxrouter.operators import text
from tests.operators.support import chunk, play, subscribed_scheduler

HEL, LO = chunk({"content": "Hel"}), chunk({"content": "lo"})
ROLE, THOUGHT, USAGE = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning": "hm"}),
    chunk(usage={"cost": 1.0}),
)


def test_text_emits_the_content_when_it_comes_and_skips_what_has_none() -> None:
    heard, subscription = play(text(), (1, ROLE), (2, THOUGHT), (3, HEL), (4, LO), (5, USAGE), (6, None))

    assert heard == [(3, "Hel"), (4, "lo"), (6, None)]
    assert subscription == (0, 6)


def test_text_of_nothing_is_nothing() -> None:
    assert play(text(), (1, None))[0] == [(1, None)]


def test_text_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(text(), (1, HEL), (2, error))[0] == [(1, "Hel"), (2, error)]


def test_text_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(text(), (1, HEL), (9, LO), disposed=5)

    assert (heard, subscription) == ([(1, "Hel")], (0, 5))


def test_text_is_of_one_choice() -> None:
    both = chunk({"content": "first"}, {"content": "second"})

    assert play(text(choice=1), (1, both), (2, None))[0] == [(1, "second"), (2, None)]


def test_text_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(text())

    assert reached is given
