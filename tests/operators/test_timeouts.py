from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from reactivex import Observable, Subject, abc
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, Comment, ContentTimeoutError, Restarted, ServerSentEvent, is_transient
from rxrouter.operators import BATCH, INTERACTIVE, REASONING, Operator, timeouts
from tests.operators.support import Clock, chunk, play, subscribed_scheduler

ROLE, HEL, LO = chunk({"role": "assistant", "content": ""}), chunk({"content": "Hel"}), chunk({"content": "lo"})
FINISH = chunk(choices=[{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}])


def timed_out(heard: list[Any]) -> tuple[int, ContentTimeoutError]:
    at, error = heard[-1]
    assert isinstance(error, ContentTimeoutError)
    return at, error


def test_timeouts_lets_everything_pass_that_is_in_time() -> None:
    source = [(1, ROLE), (2, HEL), (4, LO), (5, FINISH), (6, None)]

    heard, subscription = play(timeouts(first_content=2, content=2, total=6.5), *source)

    assert heard == source
    assert subscription == (0, 6)


@pytest.mark.parametrize(
    "nothing",
    [ROLE, chunk({}), chunk({"content": None}), chunk(usage={"cost": 0.1}), chunk({"annotations": [{"type": "x"}]})],
    ids=["role", "empty delta", "null", "usage", "annotation"],
)
def test_what_is_no_content_holds_off_neither_clock(nothing: ChatChunk) -> None:
    noise = [(tick, nothing) for tick in range(1, 20)]

    first = timed_out(play(timeouts(first_content=4), *noise)[0])
    gap = timed_out(play(timeouts(content=4), (0, HEL), *noise)[0])

    assert (first[0], first[1].clock) == (4, "first")
    assert (gap[0], gap[1].clock) == (4, "gap")


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning": "x"},
        {"reasoning_content": "x"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"refusal": "no"},
        {"images": [{"type": "image_url"}]},
        {"audio": {"data": "x"}},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_whatever_the_answer_is_made_of_is_content(delta: dict[str, Any]) -> None:
    heard, _ = play(timeouts(first_content=4, content=4), (3, chunk(delta)), (6, chunk(delta)), (9, chunk(delta)))

    assert timed_out(heard)[0] == 13


def test_content_of_any_choice_is_content() -> None:
    other = chunk({}, {"content": "second"})

    assert timed_out(play(timeouts(content=3), (1, HEL), (3, other), (5, other))[0])[0] == 8


def test_the_error_says_how_it_stood() -> None:
    head = {"id": "gen-7", "provider": "Venice"}

    heard, subscription = play(timeouts(content=3), (1, ROLE), (2, chunk({"content": "Hi"}, **head)))

    at, error = timed_out(heard)
    assert (at, subscription) == (5, (0, 5))
    assert (error.clock, error.limit, error.elapsed, error.chunks_seen) == ("gap", 3, 5.0, 2)
    assert (error.generation_id, error.provider, error.last_comment_age) == ("gen-7", "Venice", None)
    assert is_transient(error)
    assert str(error) == "no more content for 3 s; 2 chunks so far"


def test_the_source_is_left_before_the_error_is_told() -> None:
    log: list[str] = []

    def subscribe(_: abc.ObserverBase[ChatChunk], __: abc.SchedulerBase | None) -> abc.DisposableBase:
        class Leaving(abc.DisposableBase):
            def dispose(self) -> None:
                log.append("left")

        return Leaving()

    scheduler = TestScheduler()
    Observable(subscribe).pipe(timeouts(first_content=3)).subscribe(
        on_error=lambda _: log.append("told"), scheduler=scheduler
    )
    scheduler.advance_to(3.0)

    assert log == ["left", "told"]


def test_the_sooner_clock_ends_it() -> None:
    assert timed_out(play(timeouts(first_content=5, total=3))[0])[1].clock == "total"
    assert timed_out(play(timeouts(first_content=2, total=3))[0])[1].clock == "first"
    assert timed_out(play(timeouts(content=2, total=3), (2, HEL))[0])[1].clock == "total"


def test_the_whole_has_its_time_however_much_content_comes() -> None:
    heard, subscription = play(timeouts(total=10), *((tick, HEL) for tick in range(1, 20)))

    assert timed_out(heard)[0] == 10
    assert len(heard) == 11
    assert subscription == (0, 10)


def test_after_a_finish_reason_only_the_whole_is_timed() -> None:
    assert play(timeouts(content=2), (1, HEL), (2, FINISH), (50, None))[0][-1] == (50, None)
    assert play(timeouts(first_content=2), (1, FINISH), (50, None))[0][-1] == (50, None)
    assert timed_out(play(timeouts(content=2, total=20), (1, HEL), (2, FINISH))[0])[0] == 20


def test_content_after_the_finish_of_one_choice_is_timed_again() -> None:
    assert timed_out(play(timeouts(content=3), (1, HEL), (2, FINISH), (9, LO))[0])[0] == 12


def test_one_choice_that_has_finished_does_not_stop_the_clock_of_another() -> None:
    both = chunk({"content": "a"}, {"content": "b"})
    second = chunk(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}])

    assert timed_out(play(timeouts(content=3), (1, both), (2, FINISH))[0])[0] == 4
    assert play(timeouts(content=3), (1, both), (2, FINISH), (3, second), (50, None))[0][-1] == (50, None)


def test_choices_of_a_void_answer_are_not_waited_for() -> None:
    both = chunk({"content": "a"}, {"content": "b"})

    heard, _ = play(timeouts(content=3), (1, both), (2, Restarted(attempt=2)), (3, HEL), (4, FINISH), (50, None))

    assert heard[-1] == (50, None)


@pytest.mark.parametrize("said", [(), (HEL,)], ids=["at once", "after content"])
def test_a_source_that_can_t_be_subscribed_leaves_no_timer(said: tuple[ChatChunk, ...]) -> None:
    class Closed(Observable[ChatChunk]):
        def subscribe(self, on_next: Any = None, *_: Any, **__: Any) -> abc.DisposableBase:
            for value in said:
                on_next(value)
            raise RuntimeError("closed")

    clock = Clock()
    with pytest.raises(RuntimeError, match="closed"):
        Closed().pipe(timeouts(content=5, total=9)).subscribe(scheduler=clock)

    assert clock.timers == set()


def test_no_timer_waits_while_no_content_does() -> None:
    clock = Clock()
    chunks = Subject[ChatChunk]()
    errors: list[Exception] = []
    chunks.pipe(timeouts(content=5)).subscribe(on_error=errors.append, scheduler=clock)
    before = len(clock.timers)
    chunks.on_next(HEL)
    armed = len(clock.timers)
    chunks.on_next(FINISH)
    clock.pass_ms(20_000)
    after = len(clock.timers)
    chunks.on_next(LO)
    clock.pass_ms(6_000)

    assert (before, armed, after) == (0, 1, 0)
    assert isinstance(errors[0], ContentTimeoutError)


def test_a_clock_alone_needs_no_other() -> None:
    assert play(timeouts(first_content=2), (1, HEL), (400, None))[0][-1] == (400, None)
    assert play(timeouts(content=2), (400, HEL), (401, None))[0][-1] == (401, None)


def test_in_other_streams_every_value_is_content_but_comments_and_empty_texts() -> None:
    events: list[tuple[int, Any]] = [(1, ServerSentEvent(data="x")), (3, Comment(" alive")), (4, "")]

    heard, _ = play(timeouts(content=4), *events)

    assert timed_out(heard)[0] == 5


def test_timeouts_leaves_an_endless_source_when_disposed() -> None:
    assert play(timeouts(content=3), (1, HEL), (9, LO), disposed=2) == ([(1, HEL)], (0, 2))


def test_timeouts_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(timeouts(content=3), (1, HEL), (2, error))[0] == [(1, HEL), (2, error)]


def test_timeouts_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(timeouts(total=1))

    assert reached is given


def test_each_subscription_has_its_own_clocks() -> None:
    operator: Operator[ChatChunk, ChatChunk] = timeouts(first_content=3)

    assert [timed_out(play(operator)[0])[0] for _ in range(2)] == [3, 3]


def test_one_timer_is_armed_again_and_again_and_never_for_a_chunk() -> None:
    class Counting(TestScheduler):
        armed = 0

        def schedule_relative(self, *arguments: Any, **more: Any) -> abc.DisposableBase:
            self.armed += 1
            return super().schedule_relative(*arguments, **more)

    scheduler = Counting()
    chunks = Subject[ChatChunk]()
    chunks.pipe(timeouts(first_content=5, content=5)).subscribe(scheduler=scheduler)
    for tick in range(1, 1001):
        scheduler.advance_to(tick / 100)  # ten seconds
        chunks.on_next(HEL)

    assert scheduler.armed < 10


@pytest.mark.parametrize("preset", [INTERACTIVE, REASONING, BATCH])
def test_a_preset_can_be_given_and_changed(preset: MappingProxyType[str, float]) -> None:
    assert timed_out(play(timeouts(**preset))[0])[1].limit == preset["first_content"]
    assert timed_out(play(timeouts(**preset | {"total": 7.0}))[0])[0] == 7


def test_limits_are_checked_where_they_are_written() -> None:
    with pytest.raises(ValueError, match="needs a limit"):
        timeouts()
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="content is a number of seconds > 0"):
            timeouts(content=wrong)
