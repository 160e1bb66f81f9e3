"""Values that wait for a reader: a bound, and a policy for what comes beyond it."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections import deque
from typing import Generic, TypeVar, cast

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._chain import Proof, close_chain
from rxrouter._errors import SlowReaderError
from rxrouter._gate import Barrier, call_on, current_gates
from rxrouter._wire.chunk import ChatChunk, merge, merge_key

T = TypeVar("T")

# Values that may wait beyond the bound. A source that is being paused may have that many on their way, in operators
# that wait (`delay`, `buffer_with_time`); an answer has far fewer that COALESCE can't merge. More fails the reader.
_IN_FLIGHT = 4096


class Overflow(enum.Enum):
    """What a full queue does with the next value; named where the queue is made, because text is what it is about."""

    PAUSE = "the source's socket is read no further until the reader has caught up; nothing is lost"
    COALESCE = "adjacent text, or deltas of one kind, become one value; nothing is lost, and no one waits"
    DROP_OLDEST = "the oldest waiting value is dropped, and counted"
    DROP_NEWEST = "the new value is dropped, and counted"
    LATEST = "only the newest value waits; the others are dropped, and counted"
    ERROR = "the reader gets SlowReaderError, the source is disposed"


class Queue(Generic[T]):
    """What a reader has not read yet: filled as an observer, emptied by `take`.

    An Iteration's is apart from it, so that the chain does not keep an Iteration alive that was left.
    """

    def __init__(self, high: int, low: int, overflow: Overflow) -> None:
        self.items: deque[T | _Group] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.proof = Proof.CUT
        """The judgement of the end, of a reader of a shared stream."""
        self.dropped = 0
        self._high = high
        self._low = low
        self._overflow = overflow
        self.gates: set[Barrier] = set()  # of the sources below the subscription
        self._held: list[Barrier] = []
        self._closed = False
        # A reader on one thread, the source on another: what both change. Re-entrant, because the garbage collector may
        # run inside, and close the queue of an Iteration that was left.
        self._lock = threading.RLock()
        self.source = SingleAssignmentDisposable()
        self.sources: set[abc.DisposableBase] = set()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None
        self._asleep = False

    def on_next(self, value: T) -> None:
        if self.ended:
            return
        items = self.items
        items.append(value)
        if len(items) >= self._high or (self._overflow is Overflow.LATEST and len(items) > 1):
            self._fill_up()
        if self._asleep:
            self._wake()

    def on_error(self, error: Exception) -> None:
        if not self.ended:
            self.error = error
            self.on_completed()

    def on_completed(self) -> None:
        self.ended = True
        if self._asleep:
            self._wake()

    def fail(self, error: Exception) -> None:
        """End with an error that an operator of the chain raised, and that no observer received."""
        close_chain(self.source, self.sources)
        self.on_error(error)

    def take(self) -> T:
        with self._lock:
            value = self.items.popleft()
        if self._held and len(self.items) <= self._low:
            self._release()
        return cast(T, value.value() if isinstance(value, _Group) else value)

    def close(self) -> None:
        """The reader has left: nothing waits any more, nobody is held."""
        with self._lock:
            self._closed = True
            self.items.clear()
        self.on_completed()
        self._release()

    def _release(self) -> None:
        with self._lock:
            held, self._held = self._held, []
        for gate in held:
            gate.release()

    async def filled(self) -> None:
        if self._reader is not None:
            raise RuntimeError("one Iteration has one reader")
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._reader, self._asleep = (loop, future), True
        try:
            if not self.items and not self.ended:  # asked again: another thread may have filled it meanwhile
                await future
        finally:
            self._reader, self._asleep = None, False

    def _wake(self) -> None:
        self._asleep = False  # woken once: many values may come before it runs
        reader = self._reader
        if reader is not None:
            loop, future = reader
            call_on(loop, lambda: None if future.done() else future.set_result(None))

    def _fill_up(self) -> None:
        """The value just appended made the queue full, or fuller than that."""
        waiting, policy = len(self.items), self._overflow
        if policy is Overflow.PAUSE:
            self._pause()
        elif policy is Overflow.ERROR:
            if waiting > self._high:
                self._fail()
        else:
            with self._lock:
                self._make_room()
            if len(self.items) > self._high + _IN_FLIGHT:  # what does not merge is no text
                self._fail()

    def _pause(self) -> None:
        gates, waiting = current_gates(self.gates), len(self.items)
        self._hold(gates)
        if waiting > self._high and (not gates or waiting > self._high + _IN_FLIGHT):
            self._fail()

    def _hold(self, gates: list[Barrier]) -> None:
        # A reader on another thread may just have emptied the queue: then there is nothing to wait for.
        with self._lock:
            if len(self.items) >= self._high and not self._closed:
                for gate in gates:
                    if gate not in self._held:
                        gate.hold()
                        self._held.append(gate)

    def _make_room(self) -> None:
        items, policy = self.items, self._overflow
        if policy is Overflow.LATEST:
            while len(items) > 1:
                items.popleft()
                self.dropped += 1
        elif len(items) > self._high:
            if policy is Overflow.COALESCE:
                self._coalesce()
            else:
                items.popleft() if policy is Overflow.DROP_OLDEST else items.pop()
                self.dropped += 1

    def _coalesce(self) -> None:
        value = self.items.pop()
        last = self.items.pop()
        group = last if isinstance(last, _Group) else _Group(last)
        self.items.append(group)
        if not group.add(value):
            self.items.append(value)

    def _fail(self) -> None:
        with self._lock:
            if len(self.items) <= self._high:  # a reader on another thread has just made room
                return
            self.items.pop()
        self.on_error(SlowReaderError(self._high))
        self.source.dispose()
        self._release()


class _Group:
    """Adjacent values that wait as one: pieces of text, or chunks with content of one kind."""

    __slots__ = ("_key", "_values")

    def __init__(self, first: object) -> None:
        self._values = [first]
        self._key = _merge_key(first)

    def add(self, value: object) -> bool:
        key = _merge_key(value)
        if key is None or key != self._key:
            return False
        self._values.append(value)
        return True

    def value(self) -> object:
        if len(self._values) == 1:
            return self._values[0]
        if self._key is str:
            return "".join(cast(list[str], self._values))
        return merge(cast(list[ChatChunk], self._values))


def _merge_key(value: object) -> object:
    if isinstance(value, str):
        return str
    return merge_key(value) if isinstance(value, ChatChunk) else None
