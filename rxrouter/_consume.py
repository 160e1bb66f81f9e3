"""Leave Rx: `async for` with a bounded queue, `for_each`, the last value by `await` or `run()`, and what to dispose."""

from __future__ import annotations

import asyncio
import enum
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from reactivex import abc
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.internal import SequenceContainsNoElementsError

from rxrouter._errors import SlowReaderError
from rxrouter._gate import Gate, call_on, current_gates, scope
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


class Subscription(abc.DisposableBase):
    """A running subscription: `dispose()` from anywhere, any number of times; `aclose()` waits for the release."""

    __slots__ = ("_disposable", "_settled")

    def __init__(self, disposable: abc.DisposableBase, settled: Callable[[], Awaitable[None]]) -> None:
        self._disposable = disposable
        self._settled = settled

    def dispose(self) -> None:
        """Cancels: nothing arrives any more, and the requests of this subscription are closed."""
        self._disposable.dispose()

    async def aclose(self) -> None:
        """Cancels, and returns when every socket and task of this subscription is released."""
        self._disposable.dispose()
        await self._settled()


class Iteration(Generic[T]):
    """An Observable being pulled: subscribed with the first value asked for, disposed when it is left.

    Leaving an `async for` that made its own Iteration disposes at once; one that is kept in a variable is for
    `async with`, or for `aclose()`.
    """

    def __init__(self, source: abc.ObservableBase[T], high: int, low: int, overflow: Overflow) -> None:
        self._source = source
        self._queue: _Queue[T] = _Queue(high, low, overflow)
        self._subscription: abc.DisposableBase | None = None
        self._closed = False
        if not 0 <= low < high:
            raise ValueError(f"0 <= low < high, not low={low}, high={high}")

    @property
    def dropped(self) -> int:
        """How many values the overflow policy has dropped."""
        return self._queue.dropped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        queue = self._queue
        if self._subscription is None and not self._closed:
            with scope(queue.gates):
                self._subscription = self._source.subscribe(queue.on_next, queue.on_error, queue.on_completed)
            queue.source.disposable = self._subscription
        while True:
            ended = queue.ended  # before the look at the values: another thread may add the last, and then end
            if queue.items:
                return queue.take()
            if ended:
                break
            await queue.filled()
        error, queue.error = queue.error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Leaves: cancels the source, and returns when it has let go of everything."""
        self._dispose()
        if isinstance(self._subscription, Subscription):
            await self._subscription.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        self._dispose()

    def _dispose(self) -> None:
        self._closed = True
        if self._subscription is not None:
            self._subscription.dispose()
        self._queue.close()


class _Queue(Generic[T]):
    """The Rx side of an Iteration, apart from it so that the chain does not keep an Iteration alive that was left."""

    def __init__(self, high: int, low: int, overflow: Overflow) -> None:
        self.items: deque[T | _Group] = deque()
        self.ended = False
        self.error: Exception | None = None
        self.dropped = 0
        self._high = high
        self._low = low
        self._overflow = overflow
        self.gates: set[Gate] = set()  # of the sources below the subscription
        self._held: list[Gate] = []
        self._closed = False
        # A reader on one thread, the source on another: what both change. Re-entrant, because the garbage collector may
        # run inside, and close the queue of an Iteration that was left.
        self._lock = threading.RLock()
        self.source = SingleAssignmentDisposable()
        self._reader: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def on_next(self, value: T) -> None:
        if self.ended:
            return
        items = self.items
        items.append(value)
        if len(items) >= self._high or (self._overflow is Overflow.LATEST and len(items) > 1):
            self._fill_up()
        if self._reader is not None:
            self._wake()

    def on_error(self, error: Exception) -> None:
        if not self.ended:
            self.error = error
            self.on_completed()

    def on_completed(self) -> None:
        self.ended = True
        if self._reader is not None:
            self._wake()

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
        self._reader = loop, loop.create_future()
        try:
            if not self.items and not self.ended:  # asked again: another thread may have filled it meanwhile
                await self._reader[1]
        finally:
            self._reader = None

    def _wake(self) -> None:
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

    def _hold(self, gates: list[Gate]) -> None:
        with (
            self._lock
        ):  # a reader on another thread may just have emptied the queue: then there is nothing to wait for
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


def iterate(
    source: abc.ObservableBase[T], *, high: int = 64, low: int = 16, overflow: Overflow = Overflow.PAUSE
) -> Iteration[T]:
    """Pull an Observable with `async for`, through a queue with a bound and a named policy.

    Args:
        source: Any Observable; PAUSE needs one whose values come from a client's stream on its loop.
        high: Values that may wait; at this many the policy begins.
        low: Values at which a paused source goes on.
        overflow: What happens at `high`; see `Overflow`.
    Emits: the source's values, in order; fewer or merged ones where the policy says so.
    Errors: the source's error after the values before it; SlowReaderError if the queue overflows and nothing can pause.
    Cancels: leaving the loop disposes the subscription, which closes the socket.
    """
    return Iteration(source, high, low, overflow)


async def for_each(
    source: abc.ObservableBase[T],
    action: Callable[[T], Awaitable[object]],
    *,
    high: int = 64,
    low: int = 16,
    overflow: Overflow = Overflow.PAUSE,
) -> None:
    """Await `action(value)` for one value after the other; returns when the source has completed.

    Args:
        source: See `iterate`.
        action: A coroutine function; while it runs, values wait.
        high: See `iterate`.
        low: See `iterate`.
        overflow: See `iterate`.
    Errors: the source's error, or what `action` raised.
    Cancels: an `action` that raises, or cancelling the caller, disposes the subscription.
    """
    async with iterate(source, high=high, low=low, overflow=overflow) as values:
        async for value in values:
            await action(value)


def last_value(source: abc.ObservableBase[T]) -> tuple[Future[T], abc.DisposableBase]:
    """Subscribes; the future gets the last value when the source completes, or its error."""
    future: Future[T] = Future()
    last: list[T] = []

    def on_next(value: T) -> None:
        last[:] = [value]

    def on_completed() -> None:
        if last:
            future.set_result(last[0])
        else:
            future.set_exception(SequenceContainsNoElementsError())

    return future, source.subscribe(on_next, future.set_exception, on_completed)
