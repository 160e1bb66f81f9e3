"""Intake: brings the chunks to the reader's loop, in order, and makes their source wait while the reader is behind."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._chain import ChunkProof, close_chain, ending
from rxrouter._errors import SlowReaderError
from rxrouter._gate import Barrier, as_exception, current_gates, scope
from rxrouter._source.loop import LoopScheduler
from rxrouter._source.observable import LoopObservable
from rxrouter._wire.chunk import ChatChunk

# What may wait for the socket, in bytes, before the source is paused; a socket's own buffer in asyncio is as large.
_HIGH = 1 << 16
# What may wait where nothing can be paused, before the reader is given up.
_MOST = 1 << 22
# The same for values on their way from another thread.
_CROSSING, _MOST_CROSSING = 256, 4096


class Intake(abc.ObserverBase[ChatChunk]):
    """Observes the chunks, on whatever thread they come; made on the loop, where it tells of them.

    Args:
        add: Takes a chunk.
        end: Takes the end: an error, or None.
        report: Takes what goes wrong where nobody reads any more.
    """

    __slots__ = (
        "__weakref__",
        "_add",
        "_closed",
        "_crossing",
        "_end",
        "_gates",
        "_loop",
        "_proof",
        "_report",
        "_source",
        "_thread",
        "holds",
        "size",
        "sources",
    )

    def __init__(
        self,
        add: Callable[[ChatChunk], None],
        end: Callable[[Exception | None], None],
        report: Callable[[str, Exception], None],
    ) -> None:
        self.size = 0  # what waits for the socket, in bytes; its owner keeps the count
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._add = add
        self._end = end
        self._report = report
        self._closed = False
        self.sources: set[abc.DisposableBase] = set()
        self._proof = ChunkProof()
        self._source = SingleAssignmentDisposable()
        self._gates: set[Barrier] = set()
        self.holds: list[Barrier] = []
        self._crossing: deque[Callable[[], None]] = deque()  # what came on other threads

    def subscribe(self, source: Callable[[], Observable[ChatChunk]]) -> None:
        """Begins."""
        with scope(self._gates), ending(self), self._proof.ledger.collecting():
            try:
                chunks = source()
                scheduler = None if isinstance(chunks, LoopObservable) else LoopScheduler(self._loop)
                self._source.disposable = chunks.subscribe(
                    self.on_next, self.on_error, self.on_completed, scheduler=scheduler
                )
            except BaseException as raised:  # noqa: BLE001 - a source may raise anything
                self.on_error(as_exception(raised))

    def on_next(self, value: ChatChunk) -> None:
        """A chunk."""
        self._proof.add(value)
        if get_ident() == self._thread and not self._crossing:
            self._add(value)
        else:
            self._cross(partial(self._add, value))
        if self.size >= _HIGH or self._crossing:
            self._hold()

    def on_error(self, error: Exception) -> None:
        """The end, if it is no good one."""
        self._cross(partial(self._end, error))

    def on_completed(self) -> None:
        """The good end, if the answer is proven."""
        self._cross(partial(self._end, self._proof.error(self._proof.ledger.proof)))

    def fail(self, error: Exception) -> None:
        """End by an error that an operator of the chain raised, and that no observer received."""
        self.on_error(error)

    def release(self) -> None:
        """Lets the source go on."""
        while self.holds:
            with suppress(IndexError):  # the other thread was quicker
                self.holds.pop().release()

    def close(self) -> None:
        """Disposes the source; what its owner does then must not depend on how that lets go."""
        self._closed = True
        if (raised := close_chain(self._source, self.sources)) is not None:
            self._report("the source of a relayed answer raised when it was disposed", as_exception(raised))
        self.release()

    def _cross(self, action: Callable[[], None]) -> None:
        """Has it done on the loop, behind what has come before."""
        if get_ident() == self._thread and not self._crossing:
            action()
            return
        self._crossing.append(action)
        with suppress(RuntimeError):  # the loop is closed, and the reader with it
            self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self._crossing.popleft()()
        if self.holds and not self._full:
            self.release()

    @property
    def _full(self) -> bool:
        return self.size >= _HIGH or len(self._crossing) >= _CROSSING

    def _hold(self) -> None:
        """Makes the source wait, if it is too far ahead; on the thread on which it just delivered."""
        if self.holds or not self._full:
            return
        for gate in current_gates(self._gates):
            gate.hold()
            self.holds.append(gate)
        if self._closed or not self._full:  # the other thread was quicker
            self.release()
        elif not self.holds and (self.size > _MOST or len(self._crossing) > _MOST_CROSSING):
            self._cross(partial(self._end, SlowReaderError(_MOST)))
