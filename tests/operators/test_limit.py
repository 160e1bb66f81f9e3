from __future__ import annotations

import reactivex as rx
from reactivex import Subject
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, Limiter, TruncatedStreamError
from rxrouter.operators import limit, text
from tests.operators.support import chunk, play, play_all, subscribed_scheduler

HEL, LO = chunk({"content": "Hel"}), chunk({"content": "lo"})


def test_limit_changes_nothing_in_a_stream() -> None:
    heard, subscription = play(limit(Limiter(1)), (1, HEL), (2, LO), (3, None))

    assert heard == [(1, HEL), (2, LO), (3, None)]
    assert subscription == (0, 3)


def test_limit_passes_the_error_on() -> None:
    error = TruncatedStreamError()

    assert play(limit(Limiter(1)), (1, HEL), (2, error))[0] == [(1, HEL), (2, error)]


def test_limit_leaves_an_endless_source_when_disposed() -> None:
    assert play(limit(Limiter(1)), (9, HEL), disposed=5) == ([], (0, 5))


def test_limit_holds_the_permit_to_the_ending_and_not_to_the_first_chunk() -> None:
    limiter = Limiter(1)

    _, windows = play_all(
        lambda sources: rx.merge(*(source.pipe(limit(limiter)) for source in sources)),
        [(1, HEL), (5, LO), (6, None)],
        [(1, HEL), (3, None)],
        [(1, HEL), (9, None)],
    )

    assert windows == [[(0, 6)], [(6, 9)], [(9, 18)]]


def test_limit_works_on_anything() -> None:
    limiter = Limiter(1, tokens_per_minute=1000)

    assert play(lambda source: source.pipe(text(), limit(limiter)), (1, HEL), (2, None))[0] == [(1, "Hel"), (2, None)]
    assert limiter.running == 0


def test_limit_charges_what_it_is_told_a_request_takes() -> None:
    limiter, scheduler = Limiter(tokens_per_minute=100, tokens_per_request=10), TestScheduler()
    for tokens in (60, None, 30, 1):
        Subject[ChatChunk]().pipe(limit(limiter, tokens=tokens)).subscribe(scheduler=scheduler)

    assert limiter.waiting == 1


def test_limit_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(limit(Limiter(1)))

    assert reached is given
