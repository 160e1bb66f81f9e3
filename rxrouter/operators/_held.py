"""Held: text that waits to be shown and leaves in whole grapheme clusters; what coalesce and smooth have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable, SerialDisposable
from reactivex.internal.concurrency import synchronized
from reactivex.scheduler import TimeoutScheduler, VirtualTimeScheduler

from rxrouter._source.loop import LoopScheduler
from rxrouter._wire.chunk import ChatChunk, kind_of, merge, merge_key, split, text_and_structure, text_of
from rxrouter._wire.graphemes import whole

T = TypeVar("T", str, ChatChunk)

_STRING = ("string",)  # where a chunk has its merge key
_LONGEST = 64  # characters of a cluster; people's have a dozen, so it is for marks without end


def held(make: Callable[[abc.ObserverBase[Any], abc.SchedulerBase], Held]) -> Callable[[Observable[T]], Observable[T]]:
    """An operator that has a `Held` of its own for each subscription."""

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            waiting = make(observer, scheduler or TimeoutScheduler.singleton())
            return waiting.subscribe(source, scheduler)

        return Observable(subscribe)

    return operator


class Held(ABC):
    """Adjacent deltas of one kind, waiting as one text; another kind, structure and the ending let it go before them.

    All is settled before a value is emitted: the reader may dispose meanwhile, or make the source say more.
    """

    def __init__(self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase) -> None:
        self.size = 0  # characters that wait
        self.timed = False  # a timer runs
        self._observer = observer
        self._scheduler = scheduler
        self._timer = SerialDisposable()
        self._on_timer = self._fire
        self._key: tuple[object, ...] = ()
        self._texts: list[str] = []
        self._chunks: deque[tuple[ChatChunk, int]] = deque()  # with the sizes of their texts; none where strings wait
        self._seen = 0  # characters that were looked at for whole clusters
        self._whole = 0  # characters of those that are

    @abstractmethod
    def added(self) -> None:
        """There is more."""

    @abstractmethod
    def due(self) -> None:
        """The timer has run out."""

    def subscribe(self, source: Observable[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        """Subscribes the source; what is returned disposes it and the timer."""
        on_next, on_error, on_completed = self.on_next, self.on_error, self.on_completed
        if not isinstance(self._scheduler, LoopScheduler | VirtualTimeScheduler):  # its timers may be threads
            alone = synchronized(Observable[Any]().lock)  # the source's own is also that of its other subscribers
            on_next, on_error, on_completed = alone(on_next), alone(on_error), alone(on_completed)
            self._on_timer = alone(self._fire)
        return CompositeDisposable(self._timer, source.subscribe(on_next, on_error, on_completed, scheduler=scheduler))

    def on_next(self, value: str | ChatChunk) -> None:
        """Text waits; all else passes, behind it."""
        if isinstance(value, str):
            if value:
                self._hold(_STRING, value)
            return
        key = merge_key(value)
        text = text_of(value, key) if key is not None else ""
        if key is not None and text:
            self._hold(key, text, value)
        else:
            structure = value if key is not None else self._without_text(value)
            self.flush()
            self._observer.on_next(structure)

    def on_error(self, error: Exception) -> None:
        """The error, behind the text."""
        self.flush()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        """The end, behind the text."""
        self.flush()
        self._observer.on_completed()

    def wait(self, seconds: float) -> None:
        """Has `due` called in so many seconds."""
        self.timed = True
        self._timer.disposable = self._scheduler.schedule_relative(seconds, self._on_timer)

    def stop(self) -> None:
        """Has it not called."""
        if self.timed:
            self.timed = False
            self._timer.disposable = Disposable()

    @property
    def is_text(self) -> bool:
        """Whether what waits is for people; arguments of tool calls are not."""
        return self._key[-1] != "tool_calls"

    @property
    def text(self) -> str:
        """All that waits."""
        if len(self._texts) > 1:
            self._texts = ["".join(self._texts)]
        return self._texts[0] if self._texts else ""

    @property
    def whole(self) -> int:
        """How many characters nothing that follows can change: all but the last cluster, which may go on.

        One that is too long counts as whole: there are runs of marks without end.
        """
        if not self.is_text:
            return self.size
        if self._seen < self.size:
            self._whole = whole(self.text, self._seen) or self._whole
            self._seen = self.size
            if self.size - self._whole > _LONGEST:
                self._whole = self.size
        return self._whole

    def flush(self) -> None:
        """Emits what waits, whole or not: nothing that follows belongs to it."""
        self.stop()
        self.show(self.size)

    def show(self, size: int) -> None:
        """Emits the first `size` characters, as one value."""
        if size:
            self._observer.on_next(self._take(size))

    def drop(self) -> None:
        """Forgets what waits."""
        self.stop()
        if self.size:
            self._take(self.size)

    def _fire(self, _: abc.SchedulerBase, __: Any = None) -> None:
        self.timed = False
        self.due()

    def _hold(self, key: tuple[object, ...], text: str, chunk: ChatChunk | None = None) -> None:
        before = None
        if key != self._key:
            self.stop()
            before = self._take(self.size) if self.size else None
            self._key = key
        self._append(text, chunk)
        if before is not None:
            self._observer.on_next(before)
        self.added()

    def _without_text(self, chunk: ChatChunk) -> ChatChunk:
        """The structure of a chunk; its text goes with what waits, if it is more of that: there may be a cluster."""
        kind = kind_of(chunk)
        if not self.size or kind is None or kind != self._key[-2:] or not (text := text_of(chunk, kind)):
            return chunk
        more, structure = text_and_structure(chunk, self._chunks[-1][0])
        self._append(text, more)
        return structure

    def _append(self, text: str, chunk: ChatChunk | None) -> None:
        self._texts.append(text)
        self.size += len(text)
        if chunk is not None:
            self._chunks.append((chunk, len(text)))

    def _take(self, size: int) -> str | ChatChunk:
        text = self.text
        self._texts = [text[size:]]
        self.size -= size
        self._seen = max(self._seen - size, 0)
        self._whole = max(self._whole - size, 0)
        return self._take_chunks(size) if self._chunks else text[:size]

    def _take_chunks(self, size: int) -> ChatChunk:
        taken: list[ChatChunk] = []
        while self._chunks and self._chunks[0][1] <= size:
            chunk, length = self._chunks.popleft()
            taken.append(chunk)
            size -= length
        if size:
            chunk, length = self._chunks[0]
            first, rest = split(chunk, self._key, size)
            taken.append(first)
            self._chunks[0] = rest, length - size
        return taken[0] if len(taken) == 1 else merge(taken)
