"""The play of a marble diagram, in virtual time: who subscribed and left when, and was told what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import reactivex
from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.testing import ReactiveTest, TestScheduler

from rxrouter.testing.rows import TICKS, Kind, Window

_ZERO = TICKS  # where tick 0 is on the scheduler's clock; hot sources begin before it


class Told(Struct, frozen=True):
    """What somebody was told at a tick: a value, an error, or the end."""

    tick: float  # seconds; whole, unless an operator speaks between two ticks
    kind: Kind
    what: Any = None


class Heard(Struct, frozen=True):
    """One subscription: from when until when, and what was told in it."""

    since: float
    until: float | None  # None: it was there to the end of the play
    told: tuple[Told, ...]


class Played(Struct, frozen=True):
    """What happened when a diagram was played.

    Attributes:
        sources: Per source its subscriptions, in their order.
        readers: Per reader its own; the first reader's name is "".
        values: What the names in the rows stand for.
    """

    sources: Mapping[str, tuple[Heard, ...]]
    readers: Mapping[str, Heard]
    values: Mapping[str, Any] = {}

    def sign(self, told: Told) -> str:
        """How a row writes it: `|`, `#(x)`, or the value's name; its own character, or `?`, if it has none."""
        if told.kind == "complete":
            return "|"
        name = next((name for name, known in self.values.items() if same(known, told.what)), None)
        if told.kind == "error":
            return "#" if name in {None, "#"} else f"#({name})"
        return name or (told.what if isinstance(told.what, str) and len(told.what) == 1 else "?")


def same(one: Any, other: Any) -> bool:
    """Equality that sees into errors, which Python finds equal only to themselves, and that knows 1 from True."""
    if one == other and isinstance(one, bool) is isinstance(other, bool):
        return True
    if type(one) is not type(other) or not isinstance(one, Exception | Struct):
        return False
    mine, its = _facts(one), _facts(other)
    return mine.keys() == its.keys() and all(same(mine[name], its[name]) for name in mine)


def _facts(value: Exception | Struct) -> dict[str, Any]:
    if isinstance(value, Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    return {"": str(value), **vars(value)}


def play(
    build: Callable[[Mapping[str, Observable[Any]]], Observable[Any]],
    cold: Mapping[str, Sequence[Told]],
    hot: Mapping[str, Sequence[Told]],
    readers: Mapping[str, Window],
) -> Played:
    """Plays what is built on the sources to the readers; at one tick these come, then go, then sources speak.

    Args:
        build: Gets the sources by name; returns what the readers subscribe to.
        cold: What each source says to each subscriber, ticks counting from the subscription.
        hot: What each source says to whoever is there.
        readers: When each comes and leaves.
    Raises: what raises in it, where no reader is told of it.
    """
    scheduler = TestScheduler()
    built: list[Observable[Any]] = []
    heard: dict[str, list[_Subscription]] = {name: [] for name in (*cold, *hot)}
    reading: dict[str, _Subscription] = {}

    def at(tick: int, act: Callable[[], None]) -> None:
        scheduler.schedule_absolute(float(_ZERO + tick), lambda _, __: act())

    def come(name: str) -> None:
        reading[name] = _Subscription(scheduler)
        reading[name].begin(built[0], reactivex.Observer(on_error=lambda _: None))

    def leave(name: str) -> None:
        reading[name].dispose()

    for name, (since, _) in readers.items():  # what is scheduled first comes first at its tick
        at(since, partial(come, name))
    for name, (_, until) in readers.items():
        if until is not None:
            at(until, partial(leave, name))
    sources: dict[str, Observable[Any]] = {
        **{name: scheduler.create_cold_observable(_messages(row, 0)) for name, row in cold.items()},
        **{name: scheduler.create_hot_observable(_messages(row, _ZERO)) for name, row in hot.items()},
    }
    result = build({name: _watched(source, scheduler, heard[name]) for name, source in sources.items()})
    if not hasattr(result, "subscribe"):
        raise TypeError(f"it makes a {type(result).__name__}, no Observable")
    built.append(result)
    at(TICKS, scheduler.stop)
    scheduler.start()
    return Played(
        {name: tuple(subscription.heard for subscription in all_of_it) for name, all_of_it in heard.items()},
        {name: reading[name].heard for name in readers},
    )


class _Subscription(abc.DisposableBase):
    """Notes what is told in a subscription, and when it begins and ends."""

    def __init__(self, scheduler: TestScheduler) -> None:
        self._scheduler = scheduler
        self._since = self._tick()
        self._until: float | None = None
        self._told: list[Told] = []
        self._inner: abc.DisposableBase = Disposable()

    @property
    def heard(self) -> Heard:
        return Heard(self._since, self._until, tuple(self._told))

    def begin(self, source: Observable[Any], observer: abc.ObserverBase[Any]) -> None:
        def on_next(value: Any) -> None:
            self._told.append(Told(self._tick(), "value", value))
            observer.on_next(value)

        def on_error(error: Exception) -> None:
            self._end(Told(self._tick(), "error", error))
            observer.on_error(error)

        def on_completed() -> None:
            self._end(Told(self._tick(), "complete"))
            observer.on_completed()

        self._inner = source.subscribe(on_next, on_error, on_completed, scheduler=self._scheduler)

    def dispose(self) -> None:
        if self._until is None:
            self._until = self._tick()
        self._inner.dispose()

    def _end(self, ending: Told) -> None:
        self._told.append(ending)
        self._until = ending.tick

    def _tick(self) -> float:
        tick = round(self._scheduler.to_seconds(self._scheduler.now) - _ZERO, 6)  # datetimes have microseconds
        return round(tick) if tick == round(tick) else tick


def _watched(source: Observable[Any], scheduler: TestScheduler, subscriptions: list[_Subscription]) -> Observable[Any]:
    def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        subscription = _Subscription(scheduler)
        subscriptions.append(subscription)
        subscription.begin(source, observer)
        return subscription

    return Observable(subscribe)


def _messages(row: Sequence[Told], zero: int) -> list[Any]:
    messages: list[Any] = []
    for told in row:
        at = zero + round(told.tick)
        if told.kind == "value":
            messages.append(ReactiveTest.on_next(at, told.what))
        elif told.kind == "error":
            messages.append(ReactiveTest.on_error(at, told.what))
        else:
            messages.append(ReactiveTest.on_completed(at))
    return messages
