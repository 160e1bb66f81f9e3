"""LoopObservable: an Observable whose chains stay on the client's loop, and that can be awaited, iterated and run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Generator, Hashable
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from reactivex import ConnectableObservable, Observable, abc
from reactivex.internal import default_error, noop

from rxrouter._chain import ChainEnd, chain_end, close_chain, ending, lost_an_ending
from rxrouter._consume import Iteration, Subscription, for_each, iterate, last_value
from rxrouter._errors import ClientClosedError
from rxrouter._gate import as_exception, running_loop
from rxrouter._queue import Overflow
from rxrouter._source.loop import Home, LoopScheduler

T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")


class _Thread(threading.local):
    """The owner of the chain that is being subscribed on this thread, whose operators subscribe to its parts."""

    subscribing: Home | None = None


_thread = _Thread()


@contextmanager
def delivering() -> Generator[None]:
    """What is subscribed inside is a reader's, though a value be delivered while one subscribes."""
    before, _thread.subscribing = _thread.subscribing, None
    try:
        yield
    finally:
        _thread.subscribing = before


class LoopObservable(Observable[T_co]):
    """What a client returns: cold, and every chain on it runs on the client's loop unless a subscriber says otherwise.

    RxPY hands the subscription's scheduler up through all operators, and every fluent method goes through `pipe`: so
    `chunks.pipe(ops.timeout(30))` and `chunks.delay(1)` use timers of the loop, where they would start threads.
    """

    def __init__(self, source: abc.ObservableBase[T_co], home: Home, origin: Hashable | None = None) -> None:
        super().__init__()
        self._source = source
        self._home = home
        self.origin = origin
        """The client and the model that this chain begins with; None where it begins with no chat request."""

    def subscribe(
        self,
        on_next: abc.ObserverBase[T_co] | abc.OnNext[T_co] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> Subscription:
        """Subscribes, which sends the request; from any thread.

        Args:
            on_next: An observer, or what to do with each value; it runs on the client's loop.
            on_error: What to do with the error, if that is the end.
            on_completed: What to do at the end, if it is a good one.
            scheduler: Time for the chain's operators; the client's loop when None.
        Cancels: `dispose()` of what is returned, from anywhere; `await aclose()` also waits for the release.

        Raises:
            RuntimeError: the client's loop is closed or not running.
            ClientClosedError: the client is closed, and there is no loop left on which to say so.
        """
        home = self._home
        if home.closed and not home.running and (home.bound is not None or running_loop() is None):
            raise ClientClosedError(f"the {home.owner} is closed")
        home.bind()
        inner = scheduler or home.scheduler
        # An operator's subscription, below which a reader's is guarded; that of another client ends with this one, too.
        if _thread.subscribing is home:
            disposable = self._source.subscribe(on_next, on_error, on_completed, scheduler=inner)
            return Subscription(disposable, home.settled)
        guard = _Guard(home, on_next, on_error, on_completed, scheduler)
        home.readers.add(guard)
        if isinstance(inner, LoopScheduler) and not home.here() and _thread.subscribing is None:
            # The state of an operator belongs to one thread: `concat`, subscribed here, could meet the end of its first
            # source there, before it has noted that it subscribed.
            home.call(lambda: guard.attempt(self._connect, guard, inner))
        else:
            self._connect(guard, inner)
        return Subscription(guard, home.settled)

    def _connect(self, guard: _Guard, scheduler: abc.SchedulerBase) -> None:
        # A source that keeps the order of things by itself tells a reader that raises, too.
        tell = guard.on_reader if isinstance(self._source, Direct) else guard.on_next
        before, _thread.subscribing = _thread.subscribing, self._home
        try:
            with ending(guard.outer or guard, apart=guard.is_apart):
                chain = self._source.subscribe(tell, guard.on_error, guard.on_completed, scheduler=scheduler)
        except BaseException as raised:
            if not guard.over:
                raise
            # The subscriber has its ending already: a shared answer that was over came at once.
            guard.fail(as_exception(raised))
            return
        finally:
            _thread.subscribing = before
        guard.guard(chain)

    # Narrower than RxPY's, where anything may come out: an Observable comes out as one that can be awaited.
    @overload  # type: ignore[override]
    def pipe(self) -> LoopObservable[T_co]: ...
    @overload
    def pipe(self, a: Callable[[Observable[T_co]], Observable[R]], /) -> LoopObservable[R]: ...
    @overload
    def pipe(self, a: Callable[[Observable[T_co]], A], b: Callable[[A], Observable[R]], /) -> LoopObservable[R]: ...
    @overload
    def pipe(
        self, a: Callable[[Observable[T_co]], A], b: Callable[[A], B], c: Callable[[B], Observable[R]], /
    ) -> LoopObservable[R]: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[T_co]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], Observable[R]],
        /,
    ) -> LoopObservable[R]: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[T_co]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], D],
        e: Callable[[D], Observable[R]],
        /,
    ) -> LoopObservable[R]: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[T_co]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], D],
        e: Callable[[D], E],
        f: Callable[[E], Observable[R]],
        /,
    ) -> LoopObservable[R]: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[T_co]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], D],
        e: Callable[[D], E],
        f: Callable[[E], F],
        g: Callable[[F], Observable[R]],
        /,
    ) -> LoopObservable[R]: ...
    @overload
    def pipe(self, *operators: Callable[[Any], Any]) -> Any: ...

    def pipe(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, *operators: Callable[[Any], Any]
    ) -> Any:
        """The chain of the operators, left to right; it keeps the client's loop."""
        result: Any = self
        for operator in operators:
            result = operator(result)
        if result.__class__ is Observable:
            return LoopObservable(result, self._home, self.origin)
        if result.__class__ is ConnectableObservable:
            return _LoopConnectable(result, self._home)
        return result

    def __add__(self, other: Observable[T_co]) -> LoopObservable[T_co]:
        return LoopObservable(super().__add__(other), self._home)

    def __iadd__(self, other: Observable[T_co]) -> LoopObservable[T_co]:
        return self + other

    def __getitem__(self, key: slice | int) -> LoopObservable[T_co]:
        return LoopObservable(super().__getitem__(key), self._home)

    def __aiter__(self) -> Iteration[T_co]:
        return iterate(self)

    def iterate(self, *, high: int = 64, low: int = 16, overflow: Overflow = Overflow.PAUSE) -> Iteration[T_co]:
        """See `rxrouter.iterate`."""
        return iterate(self, high=high, low=low, overflow=overflow)

    async def for_each(
        self,
        action: Callable[[T_co], Awaitable[object]],
        *,
        high: int = 64,
        low: int = 16,
        overflow: Overflow = Overflow.PAUSE,
    ) -> None:
        """See `rxrouter.for_each`."""
        await for_each(self, action, high=high, low=low, overflow=overflow)

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._last().__await__()

    async def _last(self) -> T_co:
        future, subscription = last_value(self)
        try:
            return await asyncio.wrap_future(future)
        finally:
            subscription.dispose()

    def run(self, scheduler: abc.SchedulerBase | None = None) -> T_co:  # noqa: ARG002 - RxPY's
        """Blocks this thread until the end; returns the last value, or raises what the stream ended with.

        Args:
            scheduler: There because RxPY's `run` has it; the chain stays on the client's loop.

        Raises:
            RuntimeError: this is the thread of the client's loop: waiting here for what only the loop can do would
                never end. Use `await`.
            SequenceContainsNoElementsError: completed without a value.
        """
        if self._home.here():
            raise RuntimeError("run() would block the event loop that it waits for; use `await chunks` here")
        future, subscription = last_value(self)
        try:
            return future.result()
        finally:
            subscription.dispose()


class Direct(abc.ObservableBase[T_co]):
    """Serves its subscribers as they are, without the observer that RxPY puts around each.

    For a source that tells nothing after its end, or after it was disposed, and that ends a reader that raises by its
    own `on_error`: those two calls are a third of what a chunk costs on its way from the decoder to a reader.

    Args:
        begin: Serves one observer; what it returns ends that.
    """

    __slots__ = ("_begin",)

    def __init__(self, begin: Callable[[abc.ObserverBase[T_co]], abc.DisposableBase]) -> None:
        self._begin = begin

    def subscribe(
        self,
        on_next: abc.ObserverBase[T_co] | abc.OnNext[T_co] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,  # noqa: ARG002 - the source has its own
    ) -> abc.DisposableBase:
        """Begins."""
        observer: Any = on_next
        if not isinstance(on_next, abc.ObserverBase):
            observer = _Observer(on_next or noop, on_error or default_error, on_completed or noop)
        return self._begin(observer)


class _Observer:
    """Three callbacks."""

    __slots__ = ("on_completed", "on_error", "on_next")

    def __init__(self, on_next: Any, on_error: abc.OnError, on_completed: abc.OnCompleted) -> None:
        self.on_next = on_next
        self.on_error = on_error
        self.on_completed = on_completed


class _LoopConnectable(LoopObservable[T_co]):
    """The same of `publish()` and `replay()`: `connect` and `auto_connect` stay on the loop, too."""

    def __init__(self, source: ConnectableObservable[T_co], home: Home) -> None:
        super().__init__(source, home)
        self._connectable = source

    def connect(self, scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase | None:
        """Subscribes the shared source, which sends the request."""
        return self._connectable.connect(scheduler or self._home.scheduler)

    def auto_connect(self, subscriber_count: int = 1) -> LoopObservable[T_co]:
        """Connects with the `subscriber_count`-th subscriber; with 0, now."""
        if not subscriber_count:
            self.connect()
            return self
        return LoopObservable(self._connectable.auto_connect(subscriber_count), self._home)


class _Guard(abc.DisposableBase):
    """The subscription of one subscriber, which receives exactly one ending, whatever raises in its chain.

    A callback of the subscriber that raises ends this chain by its own `on_error`. Without the guard the exception
    would go to the code that delivered the value: a timer, another subscriber's `share`, or a `retry`, which would pay
    for the mistake again. Where an operator raises while it passes an ending on, no observer below it can receive
    anything any more; the source, the timer, or the shared stream then calls `fail`.
    """

    __slots__ = (
        "__weakref__",
        "_chain",
        "_disposed",
        "_home",
        "_on_completed",
        "_on_error",
        "_over",
        "is_apart",
        "on_reader",
        "outer",
        "sources",
    )

    def __init__(
        self,
        home: Home,
        on_next: abc.ObserverBase[Any] | abc.OnNext[Any] | None,
        on_error: abc.OnError | None,
        on_completed: abc.OnCompleted | None,
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        observer: Any = on_next
        if hasattr(observer, "on_next"):
            on_next, on_error, on_completed = observer.on_next, observer.on_error, observer.on_completed
        self.sources: set[abc.DisposableBase] = set()
        self._home = home
        self.on_reader: Any = on_next or _ignore
        self._on_error = on_error
        self._on_completed = on_completed
        end = chain_end()
        self.outer = _outer_end(end, scheduler, on_error, on_completed)
        # A callback of another chain subscribes; not a hub or a relay, which is the end of its chain itself.
        self.is_apart = self.outer is None and end is not None and getattr(on_error, "__self__", None) is not end
        self._over = False
        self._disposed = False
        self._chain: abc.DisposableBase | None = None

    def attempt(self, connect: Callable[..., None], *arguments: object) -> None:
        """Subscribe the chain later than its subscriber asked for it, who receives by `on_error` what that raises."""
        if self._disposed:
            return
        try:
            connect(*arguments)
        except BaseException as raised:  # noqa: BLE001 - an operator may raise anything
            self.fail(as_exception(raised))

    @property
    def over(self) -> bool:
        """Whether the subscriber has received its ending."""
        return self._over

    def guard(self, chain: abc.DisposableBase) -> None:
        """Dispose of the chain at every end, which releases this object, too."""
        self._chain = chain
        # It may have ended before there was a chain.
        if self._disposed:
            self.dispose()

    def dispose(self) -> None:
        """Cancel; from any thread."""
        self._disposed = True
        chain, self._chain = self._chain, None
        if chain is not None and (raised := close_chain(chain, self.sources)) is not None:
            self._home.report(as_exception(raised), "a chain raised while it was disposed")

    def on_next(self, value: Any) -> None:
        try:
            self.on_reader(value)
        except BaseException as raised:  # noqa: BLE001 - a callback may raise anything
            error = as_exception(raised)
            self.on_reader = _ignore
            self.fail(error)
            if self.outer is not None and lost_an_ending(raised):
                self._fail_outside(error, "a callback of a stream raised")

    def on_error(self, error: Exception) -> None:
        if not self._end():
            return
        if self._on_error is None:
            self._home.report(error, "unhandled error of a stream; subscribe with on_error")
            return
        try:
            self._on_error(error)
        except BaseException as raised:  # noqa: BLE001 - a callback may raise anything
            self._fail_outside(as_exception(raised), "on_error of a stream raised")

    def on_completed(self) -> None:
        if not self._end() or self._on_completed is None:
            return
        try:
            self._on_completed()
        except BaseException as raised:  # noqa: BLE001 - a callback may raise anything
            self._fail_outside(as_exception(raised), "on_completed of a stream raised")

    def fail(self, error: Exception) -> None:
        """End the chain with `error`, or report it to the loop if the chain has ended."""
        if self._over or self._disposed:
            self._over = True
            self._fail_outside(error, "a callback of a stream raised after its end")
        else:
            self.on_error(error)

    def _fail_outside(self, error: Exception, what: str) -> None:
        """Pass on an error of a chain that has ended: to the chain that it is a part of, or to the loop."""
        if self.outer is not None:
            self.outer.fail(error)
        else:
            self._home.report(error, what)

    def _end(self) -> bool:
        """Return whether this is the end: there is one, and none after `dispose`."""
        if self._over or self._disposed:
            return False
        self._over = True
        self.dispose()
        return True


def _outer_end(end: ChainEnd | None, scheduler: object, *callbacks: object) -> ChainEnd | None:
    """Return the end of the chain that a new subscription is a part of; None if it is a chain of its own.

    An operator that subscribes while its chain runs, such as `flat_map`, does so in the context of that chain. So does
    a callback of the chain's subscriber, but its subscription is not the chain's, and neither are its failures. An
    operator passes the scheduler of its own subscriber on, or callbacks of Rx.
    """
    if end is None or scheduler is not None:
        return end
    modules = (getattr(callback, "__module__", None) or "" for callback in callbacks)
    return end if any(module.startswith(("reactivex.", "rxrouter.operators.")) for module in modules) else None


def _ignore(_: Any) -> None:
    pass
