from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, Subject, abc, operators as ops
from reactivex.disposable import Disposable
from reactivex.testing import TestScheduler

from rxrouter import (
    ChatChunk,
    ClientClosedError,
    EmptyAnswerError,
    Restarted,
    RetryPolicy,
    StatusError,
    TransportError,
    TruncatedStreamError,
    is_transient,
)
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators import completion, fallback, hedge, retry_transient, timeouts
from rxrouter.operators._retry_policy import AfterContent
from tests.operators.support import Notification, chunk, play, recorded, subscribed_scheduler

ROLE, HEL, LO = chunk({"role": "assistant"}), chunk({"content": "Hel"}), chunk({"content": "lo"})
SOON = RetryPolicy(first_delay=1, jitter=0)
RESTART = RetryPolicy(first_delay=1, jitter=0, after_content="restart")

Recorded = list[Notification]


def in_turn(scheduler: TestScheduler, *rows: Recorded) -> Observable[Any]:
    """A source that says one row to its first subscriber, the next to the next; the last one to all that follow."""
    left = [scheduler.create_cold_observable(*(recorded(at, what) for at, what in row)) for row in rows]
    return rx.defer(lambda _: left.pop(0) if len(left) > 1 else left[0])


def played(policy: RetryPolicy, *rows: Recorded, until: float = 800) -> Recorded:
    """What a reader hears when, of attempts that say this; ticks count from the subscription."""
    scheduler = TestScheduler()
    heard: Recorded = []

    def at() -> int:
        return round(scheduler.to_seconds(scheduler.now) * 1000) / 1000  # type: ignore[return-value]

    in_turn(scheduler, *rows).pipe(retry_transient(policy)).subscribe(
        lambda value: heard.append((at(), value)),
        lambda error: heard.append((at(), error)),
        lambda: heard.append((at(), None)),
        scheduler=scheduler,
    )
    scheduler.advance_to(until)
    return heard


def test_a_retry_before_content_is_invisible() -> None:
    failed = [(1, ROLE), (2, StatusError(502))]

    assert played(SOON, failed, failed, [(1, ROLE), (2, HEL), (3, None)]) == [(9, ROLE), (9, HEL), (10, None)]


def test_what_an_attempt_holds_is_said_before_its_error_if_that_is_the_end() -> None:
    error = StatusError(401)

    assert played(SOON, [(1, ROLE), (2, error)]) == [(2, ROLE), (2, error)]


def test_what_has_no_content_is_held_to_the_end_of_an_empty_answer() -> None:
    assert played(SOON, [(1, ROLE), (2, ROLE), (3, None)]) == [(3, ROLE), (3, ROLE), (3, None)]


def test_what_is_held_is_bounded() -> None:
    heard = played(SOON, [*((1, ROLE) for _ in range(2000)), (2, StatusError(502))])

    assert len(heard) == 2001
    assert heard[0] == (1, ROLE)


@pytest.mark.parametrize(
    ("failures", "pauses"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 8, 8])], ids=["one", "two", "up to the longest"]
)
def test_pauses_double_up_to_the_longest(failures: int, pauses: list[int]) -> None:
    policy = RetryPolicy(attempts=9, first_delay=1, max_delay=8, jitter=0)

    heard = played(policy, *([(0, StatusError(503))] for _ in range(failures)), [(0, HEL), (0, None)])

    assert heard == [(sum(pauses), HEL), (sum(pauses), None)]


@pytest.mark.parametrize(("drawn", "pause"), [(0.0, 4.0), (0.25, 3.0), (0.5, 2.0), (1.0, 0.0)])
def test_full_jitter_leaves_all_of_a_pause_to_chance(drawn: float, pause: float) -> None:
    policy = RetryPolicy(first_delay=4, random=lambda: drawn)

    assert policy.pause(StatusError(503), 1) == pause


def test_a_part_of_a_pause_can_be_left_to_chance() -> None:
    assert RetryPolicy(first_delay=4, jitter=0.25, random=lambda: 1.0).pause(StatusError(503), 1) == 3.0


def test_pauses_are_drawn_from_the_whole_range() -> None:
    policy = RetryPolicy(first_delay=1, max_delay=1, random=random.Random(7).random)
    pauses = [policy.pause(StatusError(503), 1) or 0.0 for _ in range(1000)]

    assert min(pauses) < 0.05
    assert max(pauses) > 0.95
    assert 0.45 < sum(pauses) / 1000 < 0.55


def test_the_pause_of_the_server_is_the_least_and_spread_by_a_part_of_the_first_delay() -> None:
    limited = StatusError(429, retry_after=7.5)

    assert RetryPolicy(first_delay=2, jitter=0).pause(limited, 1) == 7.5
    assert RetryPolicy(first_delay=2, random=lambda: 0.5).pause(limited, 2) == 8.5
    assert RetryPolicy(first_delay=2, jitter=0.5, random=lambda: 0.5).pause(limited, 1) == 8.0
    assert RetryPolicy(first_delay=2, max_retry_after=8, random=lambda: 0.5).pause(limited, 1) == 8.0


def test_a_pause_of_the_server_that_is_too_long_ends_it() -> None:
    policy = RetryPolicy(random=lambda: 0.5)

    assert policy.pause(StatusError(429, retry_after=60), 2) == 60
    assert policy.pause(StatusError(429, retry_after=60.1), 1) is None
    assert policy.pause(StatusError(429, retry_after=0), 1) == 0.25
    assert RetryPolicy(max_retry_after=0).pause(StatusError(429, retry_after=1), 1) is None


def test_attempts_are_all_attempts() -> None:
    first, second, third = StatusError(500), TransportError(phase="connect"), TruncatedStreamError()

    heard = played(SOON, [(0, first)], [(0, second)], [(0, third)], [(0, None)])
    alone = played(RetryPolicy(attempts=1), [(0, first)], [(0, None)])

    assert heard == [(3, third)]
    assert third.attempts == (first, second)
    assert alone == [(0, first)]
    assert first.attempts == ()


def test_facts_of_the_last_error_are_its_own() -> None:
    last = StatusError(503)
    last.generation_id, last.elapsed, last.chunks_seen = "gen-3", 0.5, 7

    played(SOON, [(0, StatusError(500))], [(0, StatusError(500))], [(0, last)])

    assert (last.generation_id, last.elapsed, last.chunks_seen) == ("gen-3", 0.5, 7)


@pytest.mark.parametrize(
    "error",
    [StatusError(400), StatusError(401), StatusError(402), StatusError(403), ClientClosedError(), ValueError("mine")],
    ids=str,
)
def test_what_stays_is_not_tried_again(error: Exception) -> None:
    assert played(SOON, [(1, error)], [(0, None)]) == [(1, error)]


def test_a_closed_client_is_never_tried_again() -> None:
    always = RetryPolicy(first_delay=1, jitter=0, retry_on=lambda error: True)
    closed = ClientClosedError()

    assert played(always, [(1, closed)], [(0, None)]) == [(1, closed)]
    assert played(always, [(1, ValueError("mine"))], [(0, None)]) == [(2, None)]


def test_what_retry_on_raises_is_the_end() -> None:
    def broken(_: Exception) -> bool:
        raise LookupError("mine")

    cause = StatusError(502)
    ((at, error),) = played(RetryPolicy(retry_on=broken), [(1, cause)])

    assert at == 1
    assert isinstance(error, LookupError)
    assert error.__cause__ is cause


def test_after_content_the_error_passes() -> None:
    error = TransportError(phase="read")

    assert played(SOON, [(1, HEL), (2, error)], [(0, None)]) == [(1, HEL), (2, error)]


def test_after_content_a_restart_is_marked_when_there_is_something_new() -> None:
    cut, refused = TransportError(phase="read"), StatusError(503)

    heard = played(RESTART, [(1, HEL), (2, cut)], [(1, ROLE), (2, refused)], [(1, ROLE), (2, LO), (3, None)])

    mark = heard[1][1]
    assert isinstance(mark, Restarted)
    assert (mark.attempt, mark.cause) == (3, refused)
    assert heard == [(1, HEL), (9, mark), (9, ROLE), (9, LO), (10, None)]


def test_a_restart_that_comes_to_nothing_takes_nothing_back() -> None:
    cut, gone = TransportError(phase="read"), StatusError(401)

    heard = played(RESTART, [(1, HEL), (2, cut)], [(1, ROLE), (2, gone)])

    assert heard == [(1, HEL), (5, gone)]
    assert gone.attempts == (cut,)


def test_an_empty_answer_takes_back_what_was_shown() -> None:
    heard = played(RESTART, [(1, HEL), (2, TransportError(phase="read"))], [(1, None)])

    assert [type(value) for _, value in heard] == [ChatChunk, Restarted, type(None)]


def test_a_fold_behind_a_restart_has_the_last_answer() -> None:
    scheduler = TestScheduler()
    source = in_turn(scheduler, [(1, HEL), (2, TruncatedStreamError())], [(1, LO), (2, None)])
    answers: list[str] = []

    source.pipe(retry_transient(RESTART), completion()).subscribe(
        lambda whole: answers.append(whole.text), scheduler=scheduler
    )
    scheduler.advance_to(50)

    assert answers == ["lo"]


def test_attempts_are_counted_anew_after_content_by_choice() -> None:
    cut = [(1, HEL), (2, TransportError(phase="read"))]
    more = RetryPolicy(attempts=2, first_delay=1, jitter=0, after_content="restart", count_anew=True)
    once = RetryPolicy(attempts=2, first_delay=1, jitter=0, after_content="restart")

    assert played(more, cut, cut, cut, cut, [(1, LO), (2, None)])[-1] == (14, None)
    assert isinstance(played(once, cut, cut, [(1, LO), (2, None)])[-1][1], TransportError)


def finish(reason: str | None, native: str | None = None, *, index: int = 0) -> ChatChunk:
    return chunk(choices=[{"index": index, "delta": {}, "finish_reason": reason, "native_finish_reason": native}])


STOP, USAGE = finish("stop"), chunk(usage={"total_tokens": 3, "cost": 0.25})


def test_an_empty_answer_is_tried_again_when_it_is_finished() -> None:
    heard = played(SOON, [(1, ROLE), (2, STOP), (3, USAGE), (4, None)], [(1, HEL), (2, STOP), (3, None)])

    assert heard == [(6, HEL), (7, STOP), (8, None)]


@pytest.mark.parametrize("reason", ["stop", "end_turn", "eos", "tool_calls"])
def test_an_empty_answer_is_tried_again_when_any_reason_completes_it(reason: str) -> None:
    assert played(SOON, [(1, finish(reason)), (2, None)], [(1, HEL), (2, None)]) == [(4, HEL), (5, None)]


@pytest.mark.parametrize(
    "end",
    [
        finish("length"),
        finish("max_tokens"),
        finish("content_filter"),
        finish("stop", "MAX_TOKENS"),
        finish("stop", "SAFETY"),
        finish("a new reason"),
        ROLE,
    ],
    ids=["length", "max_tokens", "filter", "native length", "native filter", "unknown", "without a reason"],
)
def test_an_answer_without_content_passes_when_its_reason_explains_it(end: ChatChunk) -> None:
    assert played(SOON, [(1, end), (2, None)], [(1, HEL), (2, None)]) == [(2, end), (2, None)]


def test_an_empty_answer_passes_when_one_of_its_choices_was_cut() -> None:
    cut = finish("length", index=1)

    assert played(SOON, [(1, STOP), (2, cut), (3, None)], [(1, HEL)]) == [(3, STOP), (3, cut), (3, None)]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "a"},
        {"reasoning": "hm"},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"images": [{"type": "image_url"}]},
        {"audio": {"data": "x"}},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_an_answer_with_any_content_is_not_empty(delta: dict[str, object]) -> None:
    shown = chunk(delta)

    assert played(SOON, [(1, shown), (2, STOP), (3, None)]) == [(1, shown), (2, STOP), (3, None)]


def test_a_chain_ends_with_an_empty_answer_error_when_its_attempts_are_spent() -> None:
    *said, (at, error) = played(SOON, [(1, ROLE), (2, STOP), (3, USAGE), (4, None)])

    assert said == [(15, ROLE), (15, STOP), (15, USAGE)]
    assert at == 15
    assert isinstance(error, EmptyAnswerError)
    assert is_transient(error)
    assert (error.finish_reason, error.generation_id, error.chunks_seen, error.usage) == (
        "stop",
        "gen-1",
        3,
        USAGE.usage,
    )
    assert [type(attempt) for attempt in error.attempts] == [EmptyAnswerError] * 2


def test_an_empty_answer_passes_when_the_policy_leaves_it() -> None:
    policy = RetryPolicy(first_delay=1, jitter=0, retry_empty=False)

    assert played(policy, [(1, STOP), (2, None)], [(1, HEL), (2, None)]) == [(2, STOP), (2, None)]


def test_an_empty_answer_error_is_the_end_when_retry_on_refuses_it() -> None:
    policy = RetryPolicy(first_delay=1, jitter=0, retry_on=lambda error: isinstance(error, StatusError))

    ((_, stop), (at, error)) = played(policy, [(1, STOP), (2, None)], [(1, HEL), (2, None)])

    assert (at, stop) == (2, STOP)
    assert isinstance(error, EmptyAnswerError)


def test_a_restart_is_tried_again_when_its_answer_is_empty() -> None:
    heard = played(RESTART, [(1, HEL), (2, TransportError(phase="read"))], [(1, STOP), (2, None)], [(1, LO), (2, None)])

    assert [type(value) for _, value in heard] == [ChatChunk, Restarted, ChatChunk, type(None)]
    assert heard[2] == (8, LO)


def test_another_source_is_asked_when_each_attempt_of_one_is_empty() -> None:
    for route in (fallback(rx.of(HEL)), hedge(rx.of(HEL), delay=99)):
        scheduler, heard = TestScheduler(), list[ChatChunk]()
        empty = in_turn(scheduler, [(1, STOP), (2, None)])
        empty.pipe(retry_transient(SOON), route).subscribe(heard.append, scheduler=scheduler)
        scheduler.advance_to(50)

        assert heard == [HEL]


def test_other_values_than_chunks_are_content_each() -> None:
    error = StatusError(502)

    assert played(SOON, [(1, error)], [(1, "word"), (2, error)]) == [(3, "word"), (4, error)]


def test_nothing_is_subscribed_after_a_dispose_in_the_pause() -> None:
    scheduler = TestScheduler()
    cold = scheduler.create_cold_observable(*_errors(1))
    subscription = cold.pipe(retry_transient(SOON)).subscribe(on_error=lambda _: None, scheduler=scheduler)
    scheduler.advance_to(1.5)

    subscription.dispose()
    subscription.dispose()
    scheduler.advance_to(50)

    assert len(cold.subscriptions) == 1


def test_a_reader_that_leaves_at_the_mark_hears_and_pays_no_more() -> None:
    scheduler = TestScheduler()
    source = in_turn(scheduler, [(1, HEL), (2, TransportError(phase="read"))], [(1, LO), (2, LO), (3, None)])
    heard: list[Any] = []

    source.pipe(
        retry_transient(RESTART), ops.take_while(lambda value: not isinstance(value, Restarted), inclusive=True)
    ).subscribe(heard.append, scheduler=scheduler)
    scheduler.advance_to(50)

    assert [type(value) for value in heard] == [ChatChunk, Restarted]


def test_each_subscription_has_its_own_budget() -> None:
    scheduler = TestScheduler()
    cold = scheduler.create_cold_observable(*_errors(1))
    chain = cold.pipe(retry_transient(SOON))
    for _ in range(2):
        chain.subscribe(on_error=lambda _: None, scheduler=scheduler)
    scheduler.advance_to(50)

    assert len(cold.subscriptions) == 6


def test_thousands_of_failures_at_once_need_no_stack() -> None:
    tried = 0

    def fail(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        nonlocal tried
        tried += 1
        observer.on_error(StatusError(503))
        return Disposable()

    errors: list[Exception] = []
    scheduler = TestScheduler()
    policy = RetryPolicy(attempts=5_000, first_delay=0, max_delay=0)
    Observable(fail).pipe(retry_transient(policy)).subscribe(on_error=errors.append, scheduler=scheduler)
    scheduler.advance_to(500)

    assert tried == 5_000
    assert isinstance(errors[0], StatusError)
    assert len(errors[0].attempts) == 4_999


def test_every_attempt_has_the_context_of_the_subscription() -> None:
    of_subscription = ContextVar("of_subscription", default="none")
    found: list[str] = []

    def fail(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        found.append(of_subscription.get())
        observer.on_error(StatusError(503))
        return Disposable()

    scheduler = TestScheduler()
    token = of_subscription.set("reader's")
    Observable(fail).pipe(retry_transient(SOON)).subscribe(on_error=lambda _: None, scheduler=scheduler)
    of_subscription.reset(token)
    scheduler.advance_to(50)

    assert found == ["reader's"] * 3


def test_pauses_stay_finite_however_many_there_were() -> None:
    policy = RetryPolicy(attempts=10_000, jitter=0)

    assert policy.pause(StatusError(503), 9_999) == 8.0


@pytest.mark.virtual
@pytest.mark.parametrize("after_content", ["fail", "restart", "continue"])
@pytest.mark.parametrize("ending", ["completes", "fails", "is left", "is left in a pause"])
async def test_nothing_of_a_subscription_waits_for_the_collector(ending: str, after_content: AfterContent) -> None:
    class Reader:
        def on_next(self, _: object) -> None:
            pass

    async def run() -> weakref.ref[Reader]:
        reader, attempts = Reader(), [Subject[ChatChunk](), Subject[ChatChunk]()]
        left = list(attempts)
        policy = RetryPolicy(first_delay=1, jitter=0, after_content=after_content)
        source: Observable[ChatChunk] = rx.defer(lambda _: left.pop(0))
        subscription = source.pipe(timeouts(total=99), retry_transient(policy), timeouts(total=99)).subscribe(
            reader.on_next, lambda _: None, scheduler=LoopScheduler(asyncio.get_running_loop())
        )
        attempts[0].on_error(StatusError(502))
        if ending == "is left in a pause":
            subscription.dispose()
        await asyncio.sleep(2)
        attempts[1].on_next(HEL)
        if ending == "completes":
            attempts[1].on_completed()
        elif ending == "fails":
            attempts[1].on_error(StatusError(401))
        else:
            subscription.dispose()
        return weakref.ref(reader)

    gc.collect()
    gc.disable()
    try:
        reader = await run()
        await asyncio.sleep(0)
        assert reader() is None
    finally:
        gc.enable()


def test_retry_transient_leaves_an_endless_source_when_disposed() -> None:
    assert play(retry_transient(), (1, HEL), (9, LO), disposed=5) == ([(1, HEL)], (0, 5))


def test_retry_transient_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(retry_transient())

    assert reached is given


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"attempts": 0}, "attempts is the number of all of them"),
        ({"first_delay": -1}, "first_delay is a number of seconds"),
        ({"max_delay": float("inf")}, "max_delay is a number of seconds"),
        ({"first_delay": float("nan")}, "first_delay is a number of seconds"),
        ({"first_delay": 9}, "longer than max_delay"),
        ({"jitter": 1.5}, "jitter is from 0"),
        ({"max_retry_after": -1}, "max_retry_after is a number of seconds"),
        ({"after_content": "ignore"}, "after_content is one of fail, restart, continue"),
    ],
    ids=["attempts", "negative", "endless", "no number", "longer", "jitter", "retry after", "after content"],
)
def test_a_policy_is_checked_where_it_is_written(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RetryPolicy(**wrong)


def test_a_policy_that_is_none_is_refused_where_it_is_written() -> None:
    wrong: Callable[..., Any] = retry_transient
    with pytest.raises(TypeError, match="policy is a RetryPolicy"):
        wrong(3)
    with pytest.raises(TypeError, match="attempts is a whole number"):
        RetryPolicy(attempts="3")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="retry_empty must be True or False, got 'no'"):
        RetryPolicy(retry_empty="no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def _errors(at: int) -> list[Any]:
    return [recorded(at, StatusError(502))]
