"""Chunks for operator tests, by the real decoder, and sources of them in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable
from reactivex.testing import ReactiveTest, TestScheduler
from reactivex.testing.subscription import Subscription

from rxrouter import ChatChunk
from rxrouter.operators import Operator

T = TypeVar("T")

_SUBSCRIBED = 200  # the tick at which TestScheduler.start subscribes; ticks here count from it

Notification = tuple[int, Any]
"""When, and a value; an Exception for on_error, None for on_completed."""


def chunk(*deltas: dict[str, Any], **more: Any) -> ChatChunk:
    """A chunk with one choice a delta, as it comes out of the decoder."""
    choices = [{"index": index, "delta": delta} for index, delta in enumerate(deltas)]
    return msgspec.json.decode(msgspec.json.encode({"id": "gen-1", "choices": choices, **more}), type=ChatChunk)


def finished(*deltas: dict[str, Any], **more: Any) -> ChatChunk:
    """A chunk that ends each of its choices: chunks without a source of ours are proven by that alone."""
    made = chunk(*deltas, **more)
    for choice in made.choices:
        choice.finish_reason = "stop"
    return made


def play(
    operator: Operator[ChatChunk, T], *source: Notification, disposed: int = 800
) -> tuple[list[Notification], tuple[int, int]]:
    """What the operator says when, for a cold source that says this; and when it was subscribed and left."""
    scheduler = TestScheduler()
    cold = scheduler.create_cold_observable(*(recorded(at, what) for at, what in source))
    observer = scheduler.start(lambda: cold.pipe(operator), disposed=_SUBSCRIBED + disposed)
    heard = [(_at(m.time), _told(m.value)) for m in observer.messages]
    subscription: Subscription = cold.subscriptions[0]
    return heard, (_at(subscription.subscribe), _at(subscription.unsubscribe))


class Clock(TestScheduler):
    """Virtual time that knows which timers wait in it."""

    __test__ = False

    def __init__(self) -> None:
        super().__init__()
        self.timers = set[object]()

    @property
    def ms(self) -> int:
        return round(self.to_seconds(self.now) * 1000)

    def pass_ms(self, ms: int) -> None:
        self.advance_by(ms / 1000)

    def schedule_relative(self, duetime: Any, action: Any, state: Any = None) -> abc.DisposableBase:
        timer = SerialDisposable()
        self.timers.add(timer)

        def due(scheduler: abc.SchedulerBase, state: Any = None) -> Any:
            self.timers.discard(timer)
            return action(scheduler, state)

        timer.disposable = super().schedule_relative(duetime, due, state)

        def cancel() -> None:
            self.timers.discard(timer)
            timer.dispose()

        return Disposable(cancel)


def play_all(
    build: Callable[[list[Observable[ChatChunk]]], Observable[T]],
    *sources: Sequence[Notification],
    disposed: int = 800,
) -> tuple[list[Notification], list[list[tuple[int, int]]]]:
    """The same for what is built of several cold sources; and when each of them was subscribed and left."""
    scheduler = TestScheduler()
    cold = [scheduler.create_cold_observable(*(recorded(at, what) for at, what in source)) for source in sources]
    observer = scheduler.start(lambda: build([*cold]), disposed=_SUBSCRIBED + disposed)
    heard = [(_at(m.time), _told(m.value)) for m in observer.messages]
    return heard, [[(_at(one.subscribe), _at(one.unsubscribe)) for one in source.subscriptions] for source in cold]


def noting(note: Callable[[], object], source: Observable[T]) -> Observable[T]:
    """The source, and a note of each time that it is subscribed."""

    def start(_: abc.SchedulerBase) -> Observable[T]:
        note()
        return source

    return reactivex.defer(start)


def subscribed_scheduler(operator: Operator[ChatChunk, Any]) -> tuple[abc.SchedulerBase, abc.SchedulerBase | None]:
    """The scheduler that a subscriber gave, and the one that reached the source through the operator."""
    reached: list[abc.SchedulerBase | None] = []

    def subscribe(observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        reached.append(scheduler)
        return Observable[ChatChunk]().subscribe(observer)

    given = TestScheduler()
    Observable(subscribe).pipe(operator).subscribe(scheduler=given)
    return given, reached[0]


def recorded(at: int, what: Any) -> Any:
    if isinstance(what, Exception):
        return ReactiveTest.on_error(at, what)
    return ReactiveTest.on_completed(at) if what is None else ReactiveTest.on_next(at, what)


def _at(time: float) -> int:
    return round(time) - _SUBSCRIBED


def _told(notification: Any) -> Any:
    if notification.kind == "N":
        return notification.value
    return notification.exception if notification.kind == "E" else None


class NoLoop(Observable[ChatChunk]):
    """As a client's whose loop is closed: it raises where it is subscribed."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def subscribe(self, *_: Any, **__: Any) -> abc.DisposableBase:
        raise self._error
