"""share_generation(): one answer, paid once, for many readers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter._chain import ProofLedger, close_chain, ending
from rxrouter._gate import as_exception, scope
from rxrouter._queue import Overflow
from rxrouter._source.loop import LoopScheduler
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators._fanout import Fanout, FanoutReader, Unread, raise_soon

T = TypeVar("T")

Replay = Literal["all", "snapshot"] | int | None
Memory = tuple[Callable[[Any], object], Callable[[], Sequence[Any]]]
"""How to remember a value, and how to recall what a late reader is to get."""


def share_generation(
    replay: Replay = "all",
    *,
    grace: float = 0.0,
    high: int = 1024,
    overflow: Overflow = Overflow.COALESCE,
) -> Callable[[Observable[T]], Observable[T]]:
    """Give one answer to many readers: one POST, one bill, and nobody who raises, sleeps or leaves harms the others.

    The first reader subscribes the source. Those who come later get what they missed, then go on live, without gap or
    repeat; also after a good end. After an error, or when all have left, the next reader begins a new generation: so a
    `retry` below works.

    Marble:
        source               -a-b-|
        share_generation()   -a-b-|

    Args:
        replay: What a late reader gets of the time before it: "all"; "snapshot", one chunk that says what all said (of
            chunks only); the last so many; None for nothing.
        grace: How long the source is kept when the last reader has left, in seconds; coming back stops the clock.
        high: How many values may wait for one reader that is behind.
        overflow: What happens to it then; PAUSE makes all wait for the slowest.
    Emits: the source's values, to each reader in order.
    Errors: the source's, to all; what a reader raised, to that one alone.
    Cancels: the source, when the last reader has left and the grace is over.
    Source: RxPY's `share` loses the end, repeats errors and lets one observer break all (RX 2b, 2f, 2h).

    Raises:
        ValueError: `replay` is none of these, `high` is not positive, `grace` is negative.
    """
    counts = isinstance(replay, int) and not isinstance(replay, bool) and replay >= 0
    if not (counts or replay in (None, "all", "snapshot")):
        raise ValueError(f'replay is "all", "snapshot", a number of values or None, not {replay!r}')
    if high < 1:
        raise ValueError(f"high is at least 1, not {high}")
    if not grace >= 0:
        raise ValueError(f"grace is a number of seconds >= 0, not {grace}")

    def operator(source: Observable[T]) -> Observable[T]:
        current: list[_Generation[T]] = []  # the one that runs or has completed; none before, and after a failure

        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            reader = FanoutReader(observer, scheduler)
            reader.gate.offer()

            def join() -> None:
                if current and current[0].is_stranded:
                    current.clear()
                begins = not current
                if begins:
                    begun = _Generation[T](
                        _memory(replay), high, overflow, grace=grace, scheduler=scheduler, forget=current.clear
                    )
                    current.append(begun)
                generation = current[0]
                generation.join(reader)
                if begins:
                    generation.connect(source)

            reader.call(join)
            return reader

        return Observable(subscribe)

    return operator


class _Generation(Fanout[T]):
    """One subscription of the source."""

    def __init__(  # noqa: PLR0913 - what was asked for, and by whom
        self,
        memory: Memory,
        high: int,
        overflow: Overflow,
        *,
        grace: float,
        scheduler: abc.SchedulerBase | None,
        forget: Callable[[], None],
    ) -> None:
        remember, self._recall = memory
        super().__init__(high, overflow, remember, self._begin_grace)
        self.sources: set[abc.DisposableBase] = set()
        self._ledger = ProofLedger()
        self._grace = grace
        self._scheduler = scheduler
        self._forget = forget
        self._upstream = SingleAssignmentDisposable()
        self._timer = SerialDisposable()

    @property
    def is_stranded(self) -> bool:
        """Whether it runs on a loop that is closed, or that is the parent's of this process: it never goes on."""
        return not self.over and isinstance(self._scheduler, LoopScheduler) and self._scheduler.closed

    def connect(self, source: Observable[T]) -> None:
        try:
            with scope(self.gates), ending(self), self._ledger.collecting(alone=True):
                self._upstream.disposable = source.subscribe(self, scheduler=self._scheduler)
        except BaseException as raised:  # noqa: BLE001 - a source may raise anything
            self.on_error(as_exception(raised))

    def join(self, reader: FanoutReader[T], unread: Unread[T] | None = None) -> None:
        self._timer.disposable = None
        before = self._recall()
        super().join(reader, self.queue(before) if before else unread)

    def fail(self, error: Exception) -> None:
        self._leave_source()
        if self._ending:
            raise_soon(error, self._scheduler)
        else:
            self.on_error(error)

    def on_completed(self) -> None:
        self.proof = self._ledger.proof
        super().on_completed()

    def on_error(self, error: Exception) -> None:
        self.proof = self._ledger.proof
        self._forget()  # before it is told: who subscribes again in on_error begins anew
        super().on_error(error)

    def _begin_grace(self) -> None:
        if self._grace:
            scheduler = self._scheduler or TimeoutScheduler.singleton()
            self._timer.disposable = scheduler.schedule_relative(self._grace, self._close)
        else:
            self._close()

    def _close(self, *_: object) -> None:
        self._forget()
        self._leave_source()

    def _leave_source(self) -> None:
        if (raised := close_chain(self._upstream, self.sources)) is not None:
            raise_soon(as_exception(raised), self._scheduler)


def _memory(replay: Replay) -> Memory:
    if replay == "snapshot":
        fold = CompletionFold()

        def add(value: Any) -> None:
            if not isinstance(value, ChatChunk):
                raise TypeError(f'replay="snapshot" is for chunks, not for {type(value).__name__}')
            fold.add(value)

        return add, fold.chunks
    kept = deque[Any](maxlen=None if replay == "all" else int(replay or 0))
    return kept.append, lambda: list(kept)
