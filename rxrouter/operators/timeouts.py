"""timeouts(): an end for streams that say nothing, whatever keeps them alive."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Literal, TypeVar

from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter._attempt import AT_ONCE, Attempt, watching
from rxrouter._errors import ContentTimeoutError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._clock import clock_of
from rxrouter.operators._content import is_content

T = TypeVar("T")

# Presets, in seconds: `timeouts(**REASONING)`, `timeouts(**REASONING | {"total": 600})`. PEERS C.1 and P4 have what
# they rest on: models that think are silent for two to three minutes; others ask for 600 s, and for an hour at most.
INTERACTIVE = MappingProxyType({"first_content": 30.0, "content": 30.0, "total": 300.0})
REASONING = MappingProxyType({"first_content": 180.0, "content": 120.0, "total": 1800.0})
BATCH = MappingProxyType({"first_content": 600.0, "content": 300.0, "total": 3600.0})

# Silence is looked at twice, this far apart, before it is given up: where the loop was blocked, a timer is due before
# the values that have come meanwhile are seen.
_LOOK_SECONDS = 0.05
_ROUNDING_SECONDS = 0.001  # of timers, and of datetimes


def timeouts(
    *, first_content: float | None = None, content: float | None = None, total: float | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """End a stream that brings no content in time; keep-alive comments, roles and empty deltas are none.

    Marble:
        source       -r-a-b-e-e-e-
        timeouts()   -r-a-b-e#(x)

    Behind a retry, the clocks are what the reader waits, over all attempts; before it, each attempt has its own. Those
    for content don't run while a slow reader pauses the socket, nor when every choice that has begun has finished, for
    only usage is to come then.

    Args:
        first_content: Seconds from subscribing to the first content.
        content: Seconds from one content to the next.
        total: Seconds from subscribing to the end, whatever comes, and whoever is slow.
    Emits: what the source does. In streams of other values than chunks each is content, but for comments and "".
    Errors: ContentTimeoutError, which says which clock, and how it stood; it is transient. The source's.
    Cancels: the source, on dispose; before the error, too.
    Source: OpenRouter's comments keep the idle timers of every client alive for ever (PEERS 0.1, P4, P5); RX 2e.

    Raises:
        ValueError: no limit is given, or one is not > 0.
    """
    limits = _Limits(first_content, content, total)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            clocks = _Clocks(limits, observer, scheduler or TimeoutScheduler.singleton())
            clocks.watch(source, scheduler)
            return clocks

        return Observable(subscribe)

    return operator


class _Limits(Struct, frozen=True):
    first_content: float | None
    content: float | None
    total: float | None

    def __post_init__(self) -> None:
        given = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        if not given:
            raise ValueError("timeouts() needs a limit: first_content=, content= or total=, in seconds")
        for name, value in given.items():
            if not value > 0:
                raise ValueError(f"{name} is a number of seconds > 0, or None")


class _Due(Struct, frozen=True, order=True):
    """When a clock is over, if nothing comes."""

    at: float
    clock: Literal["first", "gap", "total"]
    limit: float


class _Clocks(abc.DisposableBase):
    """The clocks of one subscription: a value only notes the time, one timer looks at what is due."""

    def __init__(self, limits: _Limits, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase) -> None:
        self._limits = limits
        self._observer = observer
        self._scheduler = scheduler
        self._now = clock_of(scheduler)
        self._attempts: deque[Attempt] = deque(maxlen=AT_ONCE)
        self._source = SingleAssignmentDisposable()
        self._timer = SerialDisposable()
        self._seen = 0
        self._last: Any = None
        self._begun = False  # there was content
        self._choices = set[int]()  # that were seen
        self._finished = set[int]()
        self._resting = limits.first_content is None  # no content is waited for
        self._began = self._since = self._now()

    def watch(self, source: Observable[Any], scheduler: abc.SchedulerBase | None) -> None:
        """Starts the clocks, and what they are for."""
        try:
            with watching(self._attempts.append):
                self._source.disposable = source.subscribe(
                    self._on_next, self._observer.on_error, self._observer.on_completed, scheduler=scheduler
                )
        except BaseException:
            self.dispose()
            raise
        self._look()

    def dispose(self) -> None:
        self._timer.dispose()
        self._source.dispose()

    def _on_next(self, value: Any) -> None:
        self._seen += 1
        self._last = value
        self._observer.on_next(value)
        if is_content(value):  # noted when the reader is done with it: while it was at work, nobody listened
            self._since = self._now()
            self._begun = True
            if self._resting:
                self._resting = False
                self._look()
        if isinstance(value, ChatChunk):
            self._note_ends(value)

    def _note_ends(self, chunk: ChatChunk) -> None:
        """No more content is waited for when every choice that was seen has finished."""
        for choice in chunk.choices:
            self._choices.add(choice.index)
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
                self._resting = self._finished == self._choices
        if not chunk.choices and isinstance(chunk, Restarted):
            self._choices.clear()
            self._finished.clear()

    def _look(self, _: abc.SchedulerBase | None = None, seen: _Due | None = None) -> None:
        now = self._now()
        due = self._next_due(now)
        if due is None:
            return
        left = due.at - now
        if due == seen and left <= _ROUNDING_SECONDS:
            self._end(due, now)
        elif left > _LOOK_SECONDS + _ROUNDING_SECONDS:
            self._timer.disposable = self._scheduler.schedule_relative(left - _LOOK_SECONDS, self._look)
        else:
            self._timer.disposable = self._scheduler.schedule_relative(max(left, _LOOK_SECONDS), self._look, due)

    def _next_due(self, now: float) -> _Due | None:
        limits = self._limits
        clocks: list[_Due] = []
        if limits.total is not None:
            clocks.append(_Due(self._began + limits.total, "total", limits.total))
        if self._resting:
            return min(clocks, default=None)
        paused = any(attempt.paused for attempt in self._attempts)
        resumed = max((attempt.resumed or 0.0 for attempt in self._attempts), default=0.0)
        since = now if paused else max(self._since, resumed)
        if limits.first_content is not None and not self._begun:
            clocks.append(_Due(since + limits.first_content, "first", limits.first_content))
        elif limits.content is not None:
            clocks.append(_Due(since + limits.content, "gap", limits.content))
        return min(clocks, default=None)

    def _end(self, due: _Due, now: float) -> None:
        self._source.dispose()
        attempt = self._attempts[-1] if self._attempts else Attempt()
        chunk = self._last if isinstance(self._last, ChatChunk) else ChatChunk()
        self._observer.on_error(
            ContentTimeoutError(
                due.clock,
                due.limit,
                elapsed=now - self._began,
                chunks_seen=self._seen,
                last_comment_age=None if attempt.last_comment is None else now - attempt.last_comment,
                generation_id=attempt.generation_id or chunk.id,
                provider=chunk.provider,
            )
        )
