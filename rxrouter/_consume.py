"""Leave Rx: `async for` with a bounded queue, `for_each`, the last value by `await` or `run()`, and what to dispose."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Generic, Self, TypeVar

from reactivex import abc
from reactivex.internal import SequenceContainsNoElementsError

from rxrouter._chain import ending
from rxrouter._gate import as_exception, scope
from rxrouter._queue import Overflow, Queue

T = TypeVar("T")


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
        self._queue: Queue[T] = Queue(high, low, overflow)
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
            with scope(queue.gates), ending(queue):
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
            raise as_exception(error)
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

    def on_error(error: Exception) -> None:
        future.set_exception(as_exception(error))

    return future, source.subscribe(on_next, on_error, on_completed)
