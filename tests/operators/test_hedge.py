from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from hypothesis import assume, given, strategies as st
from reactivex import Observable, Subject, abc, operators as ops
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler
from reactivex.testing.coldobservable import ColdObservable

from rxrouter import ChatChunk, ClientClosedError, StatusError, TransportError
from rxrouter._attempt import Attempt
from rxrouter.operators import Loss, hedge, text
from tests.operators.support import Clock, NoLoop, Notification, chunk, noting, play, play_all, subscribed_scheduler

ROLE, USAGE = chunk({"role": "assistant", "content": ""}), chunk(usage={"total_tokens": 3})
HEL, LO, HI = chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({"content": "Hi"})


def racing(
    delay: float, on_loss: Callable[[Loss], object] | None = None
) -> Callable[[list[Observable[ChatChunk]]], Observable[ChatChunk]]:
    return lambda sources: sources[0].pipe(hedge(*sources[1:], delay=delay, on_loss=on_loss))


def test_hedge_is_won_by_the_first_content_and_not_by_the_first_chunk() -> None:
    heard, windows = play_all(
        racing(delay=2),
        [(1, ROLE), (2, ROLE), (9, HEL), (10, None)],
        [(2, ROLE), (3, HI), (4, LO), (5, None)],
    )

    assert [id(what) for _, what in heard[:-1]] == [id(what) for what in (ROLE, HI, LO)]
    assert [at for at, _ in heard] == [5, 5, 6, 7]
    assert windows == [[(0, 5)], [(2, 7)]]


def test_hedge_starts_nothing_more_when_one_has_won() -> None:
    heard, windows = play_all(racing(delay=2), [(1, HEL), (5, LO), (6, None)], [(1, HI)])

    assert heard == [(1, HEL), (5, LO), (6, None)]
    assert windows == [[(0, 6)], []]


def test_hedge_starts_the_next_at_once_when_all_that_run_have_failed() -> None:
    heard, windows = play_all(
        racing(delay=5),
        [(1, ROLE), (2, StatusError(429))],
        [(1, StatusError(502))],
        [(1, HI), (2, None)],
    )

    assert heard == [(4, HI), (5, None)]
    assert windows == [[(0, 2)], [(2, 3)], [(3, 5)]]


def test_hedge_waits_anew_after_a_source_that_was_started_early() -> None:
    _, windows = play_all(
        racing(delay=5),
        [(2, StatusError(429))],
        [(9, HI)],
        [(9, HI)],
        disposed=9,
    )

    assert windows == [[(0, 2)], [(2, 9)], [(7, 9)]]


def test_a_race_that_is_over_leaves_no_timer() -> None:
    clock, never = Clock(), Subject[ChatChunk]()

    won, failed = Subject[ChatChunk](), Subject[ChatChunk]()
    won.pipe(hedge(never, delay=9)).subscribe(scheduler=clock)
    failed.pipe(hedge(never, delay=9)).subscribe(scheduler=clock)
    left = never.pipe(hedge(never, delay=9)).subscribe(scheduler=clock)
    assert len(clock.timers) == 3
    won.on_next(HI)
    assert len(clock.timers) == 2
    failed.on_error(StatusError(502))
    assert len(clock.timers) == 1
    left.dispose()
    assert len(clock.timers) == 0


def test_hedge_goes_on_with_those_that_run_when_one_fails() -> None:
    heard, windows = play_all(
        racing(delay=3),
        [(4, StatusError(502))],
        [(9, HI), (10, None)],
        [(20, LO)],
    )

    assert heard == [(12, HI), (13, None)]
    assert windows == [[(0, 4)], [(3, 13)], [(6, 12)]]


def test_hedge_ends_with_the_last_error_and_the_causes_of_all() -> None:
    errors = StatusError(429), StatusError(502), StatusError(404)

    heard, _ = play_all(
        racing(delay=1),
        [(9, errors[0])],
        [(1, errors[1])],
        [(20, USAGE), (21, errors[2])],
    )

    assert heard == [(23, USAGE), (23, errors[2])]
    assert errors[2].attempts == (errors[1], errors[0])


def test_hedge_never_follows_content_with_another_answer() -> None:
    before, late = StatusError(502), TransportError(phase="read")

    heard, windows = play_all(
        racing(delay=1),
        [(1, before)],
        [(5, HEL), (6, late)],
        [(9, HI)],
    )

    assert heard == [(6, HEL), (7, late)]
    assert windows == [[(0, 1)], [(1, 7)], [(2, 6)]]
    assert late.attempts == (before,)


@pytest.mark.parametrize("error", [ClientClosedError(), StatusError(400), ValueError("a callback raised")], ids=repr)
def test_hedge_ends_with_what_no_other_source_can_help(error: Exception) -> None:
    heard, windows = play_all(racing(delay=1), [(9, HEL)], [(2, error)], [(9, HI)])

    assert heard == [(3, error)]
    assert windows == [[(0, 3)], [(1, 3)], [(2, 3)]]


def test_an_answer_of_nothing_wins_by_its_end() -> None:
    heard, windows = play_all(racing(delay=1), [(3, ROLE), (4, None)], [(9, HI)])

    assert heard == [(4, ROLE), (4, None)]
    assert windows == [[(0, 4)], [(1, 4)]]


def test_hedge_leaves_all_that_run_when_disposed_and_starts_no_other() -> None:
    heard, windows = play_all(racing(delay=3), [(9, HEL)], [(9, HI)], [(9, LO)], disposed=5)

    assert heard == []
    assert windows == [[(0, 5)], [(3, 5)], []]


def test_hedge_tells_nothing_more_to_who_has_left() -> None:
    heard = list[ChatChunk]()

    rx.of(ROLE, HEL, LO).pipe(hedge(rx.of(HI), delay=1), ops.take(1)).subscribe(heard.append)

    assert heard == [ROLE]


def test_hedge_is_won_by_a_source_that_speaks_while_it_is_subscribed() -> None:
    scheduler, heard = TestScheduler(), list[ChatChunk]()
    other = ColdObservable[ChatChunk](scheduler, [])

    rx.merge(rx.of(HEL, LO)).pipe(hedge(other, delay=1)).subscribe(heard.append, scheduler=scheduler)
    scheduler.start()

    assert heard == [HEL, LO]
    assert other.subscriptions == []


def test_hedge_takes_sources_that_fail_while_they_are_subscribed() -> None:
    heard = list[ChatChunk]()
    down = [rx.throw(StatusError(502)) for _ in range(3)]

    down[0].pipe(hedge(*down[1:], rx.of(HI), delay=60)).subscribe(heard.append)

    assert heard == [HI]


def test_hedge_works_on_what_is_made_of_chunks() -> None:
    def build(sources: list[Observable[ChatChunk]]) -> Observable[str]:
        whole, other = (source.pipe(text(), ops.to_list(), ops.map("".join)) for source in sources)
        return whole.pipe(hedge(other, delay=1))

    heard, _ = play_all(build, [(1, HEL), (9, None)], [(5, HI), (6, None)])

    assert heard == [(7, "Hi"), (7, None)]


def test_a_loss_is_told_of_whoever_was_started_in_vain() -> None:
    losses, error = list[Loss](), StatusError(502)

    play_all(
        racing(delay=2, on_loss=losses.append),
        [(20, HEL)],
        [(1, error)],
        [(5, HI), (6, None)],
        [(1, LO)],
    )

    assert losses == [Loss(1, (), 1, error), Loss(0, (), 7), Loss(2, (), 3)]


def test_a_race_that_nobody_wins_has_no_loser_but_those_before_the_last() -> None:
    losses, errors = list[Loss](), [StatusError(429), StatusError(502)]

    play_all(
        racing(delay=5, on_loss=losses.append),
        [(1, errors[0])],
        [(1, errors[1])],
    )

    assert losses == [Loss(0, (), 1, errors[0])]


def test_who_leaves_a_race_is_told_of_no_losses() -> None:
    losses = list[Loss]()

    play_all(
        racing(delay=1, on_loss=losses.append),
        [(9, HEL)],
        [(9, HI)],
        disposed=5,
    )

    assert losses == []


def test_an_on_loss_that_raises_ends_the_chain() -> None:
    def on_loss(_: Loss) -> None:
        raise ZeroDivisionError("division by zero")

    heard, windows = play_all(
        racing(delay=1, on_loss=on_loss),
        [(9, HEL)],
        [(2, HI), (3, None)],
    )

    assert [(at, type(what)) for at, what in heard] == [(3, ZeroDivisionError)]
    assert windows == [[(0, 3)], [(1, 3)]]


def test_a_loss_names_the_requests_of_its_own_source_alone() -> None:
    losses, scheduler = list[Loss](), TestScheduler()
    failed, slow, quick = Subject[ChatChunk](), Subject[ChatChunk](), Subject[ChatChunk]()
    failed.on_error(StatusError(502))
    others = posting(slow, "gen-2"), posting(quick, "gen-3", None)

    posting(failed, "gen-0", "gen-1").pipe(hedge(*others, delay=1, on_loss=losses.append)).subscribe(
        scheduler=scheduler
    )
    scheduler.advance_by(1)
    quick.on_next(HI)

    assert [(loss.index, loss.generation_ids) for loss in losses] == [(0, ("gen-0", "gen-1")), (1, ("gen-2",))]


def posting(source: Observable[ChatChunk], *generation_ids: str | None) -> Observable[ChatChunk]:
    """A source that shows these requests to who watches; None has no answer yet."""

    def subscribe(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None) -> abc.DisposableBase:
        for generation_id in generation_ids:
            attempt = Attempt()
            attempt.generation_id = generation_id
            attempt.tell()
        return source.subscribe(observer)

    return Observable(subscribe)


def test_hedge_alone_is_the_source() -> None:
    error = StatusError(502)

    assert play(hedge(delay=1), (1, ROLE), (2, error))[0] == [(2, ROLE), (2, error)]


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="Observables, not str"):
        hedge("a/b", delay=1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_delay_that_is_none_is_refused() -> None:
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="delay"):
            hedge(delay=wrong)


def test_hedge_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(hedge(delay=1))

    assert reached is given


Runner = tuple[int, str]
"""When it has its first content, or ends without one; and whether that is "content", "fails" or "completes"."""


def race(runners: list[Runner], delay: int) -> tuple[list[int], int, int]:
    """A race as the docstring has it: when each runner starts, which one's ending or content decides it, and when."""
    starts, failed = [0], set[int]()
    while True:
        news = sorted(
            (starts[at] + after, at) for at, (after, _) in enumerate(runners[: len(starts)]) if at not in failed
        )
        due = starts[-1] + delay
        now, at = news[0]
        assume(len({now for now, _ in news} | {due}) == len(news) + 1)  # what comes first at one tick is not said
        if len(starts) < len(runners) and due < now:
            starts.append(due)
        elif runners[at][1] != "fails" or len(failed) == len(runners) - 1:
            return starts, at, now
        else:
            failed.add(at)
            if len(failed) == len(starts):
                starts.append(now)


@given(
    st.lists(st.tuples(st.integers(1, 90), st.sampled_from(["content", "fails", "completes"])), min_size=1, max_size=5),
    st.integers(1, 40),
)
def test_a_race_has_one_winner_whose_answer_is_all_that_is_heard(runners: list[Runner], delay: int) -> None:
    starts, winner, decided = race(runners, delay)
    answers: list[list[Notification]] = []
    for at, (after, how) in enumerate(runners):
        error = StatusError(500 + at) if how == "fails" else None
        own = [
            chunk({"content": ""}, id=f"{at}"),
            chunk({"content": "a"}, id=f"{at}"),
            chunk({"content": "b"}, id=f"{at}"),
        ]
        answers.append(
            [(0, own[0]), (after, own[1]), (after + 7, own[2]), (after + 9, None)]
            if how == "content"
            else [(0, own[0]), (after, error)]
        )

    heard, windows = play_all(racing(delay=delay), *answers)

    answer = answers[winner]
    assert heard == [(max(starts[winner] + at, decided), what) for at, what in answer]
    assert [window[0][0] for window in windows if window] == starts
    for at, window in enumerate(windows[: len(starts)]):
        end = starts[at] + answers[at][-1][0]
        assert window == [(starts[at], end if at == winner else min(end, decided))]


def test_hedge_goes_on_where_a_source_can_t_be_subscribed() -> None:
    heard, _ = play_all(
        lambda sources: sources[0].pipe(hedge(NoLoop(RuntimeError()), sources[1], delay=1)),
        [(3, StatusError(502))],
        [(1, HI), (2, None)],
    )

    assert heard[0][1] is HI
    assert heard[-1][1] is None


def test_hedge_tells_why_a_source_can_t_be_subscribed() -> None:
    no_loop, last = RuntimeError("no loop"), StatusError(502)

    assert play(hedge(NoLoop(no_loop), delay=1), (3, last))[0] == [(3, last)]
    assert last.attempts == (no_loop,)
    assert play(hedge(NoLoop(no_loop), delay=4), (3, StatusError(502)))[0] == [(3, no_loop)]
    for error in (LookupError("no more"), ClientClosedError()):
        assert play(hedge(NoLoop(error), delay=1), (3, last))[0] == [(1, error)]


class Late(TestScheduler):
    """Time whose timers have begun to fire, on another thread, when they are cancelled."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.due: list[Callable[[], object]] = []

    def schedule_relative(self, duetime: Any, action: Any, state: Any = None) -> abc.DisposableBase:  # noqa: ARG002 - RxPY's
        self.due.append(lambda: action(self, state))
        return Disposable()


@pytest.mark.parametrize("how", ["won", "failed", "left"])
def test_hedge_starts_no_source_when_its_timer_fires_after_the_decision(how: str) -> None:
    clock, source, started = Late(), Subject[ChatChunk](), list[str]()
    other = noting(lambda: started.append("other"), rx.never())
    subscription = source.pipe(hedge(other, delay=1)).subscribe(on_error=lambda _: None, scheduler=clock)

    if how == "won":
        source.on_next(HI)
    elif how == "failed":
        source.on_error(ClientClosedError())
    else:
        subscription.dispose()
    for fire in clock.due:
        fire()

    assert started == []


def test_hedge_starts_the_next_source_at_once_when_its_delay_is_zero() -> None:
    heard, windows = play_all(racing(delay=0), [(9, HEL)], [(3, HI), (4, None)])

    assert windows[1][0][0] <= 1
    assert [what for _, what in heard] == [HI, None]
