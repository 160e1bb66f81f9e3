"""Which loop, which thread: the home of a client, and the scheduler of every chain that starts there."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxrouter._errors import ClientClosedError
from rxrouter._gate import call_on, running_loop

T = TypeVar("T")
State = TypeVar("State")

_JOIN_SECONDS = 5.0  # a thread that is not down by then is stuck in somebody's on_next


class Home:
    """The loop in which a client was first used; one of its own, on a daemon thread, where none was running.

    Args:
        owner: Whose it is, in words.
        way_out: How another is made, where the loop is gone.
    """

    def __init__(self, owner: str = "client", way_out: str = "async with OpenRouter() as client: …") -> None:
        self.owner = owner
        self.tasks: set[asyncio.Task[Any]] = set()  # what the client's requests need one for
        self.streams: set[Stream] = set()  # requests that run by callbacks alone
        self.readers = Readers(owner)
        self._way_out = way_out
        self.closed = False
        self._bound: tuple[asyncio.AbstractEventLoop, LoopScheduler] | None = None
        self._thread: threading.Thread | None = None
        self._end_thread: weakref.finalize[Any, Any] | None = None  # on close, on garbage collection, at exit
        self._lock = threading.Lock()

    def bind(self, *, own_thread: bool = False) -> asyncio.AbstractEventLoop:
        """The loop, found or started by the first who asks; with `own_thread`, never the one that runs here.

        Raises:
            RuntimeError: it is closed, or not running: what is handed to it would wait for ever.
        """
        bound = self._bound
        if bound is None:
            with self._lock:
                bound = self._bound or self._find_loop(None if own_thread else running_loop())
        loop = bound[0]
        if loop.is_closed() or not loop.is_running():
            state = "closed" if loop.is_closed() else "not running"
            raise RuntimeError(
                f"the event loop in which this {self.owner} was first used is {state};"
                f" make a new {self.owner} inside the loop that runs now ({self._way_out})"
            )
        return loop

    @property
    def scheduler(self) -> LoopScheduler:
        """Time and timers of the loop."""
        if self._bound is None:
            self.bind()
        assert self._bound is not None  # noqa: S101 - bind() sees to it
        return self._bound[1]

    @property
    def running(self) -> bool:
        """Whether there is a loop, and it runs."""
        return self._bound is not None and self._bound[0].is_running()

    @property
    def bound(self) -> asyncio.AbstractEventLoop | None:
        """The loop, in whatever state, if it was decided."""
        return self._bound[0] if self._bound is not None else None

    def here(self) -> bool:
        """Whether the loop, or the one that it would become, runs in this thread."""
        running = running_loop()
        return running is not None and (self.bound is None or self.bound is running)

    def call(self, action: Callable[[], None]) -> None:
        """Runs `action` on the loop: now if we are on it, otherwise soon; never, if the loop is closed."""
        if self._bound is not None:
            call_on(self._bound[0], action)

    def report(self, error: Exception, what: str) -> None:
        """Tells the loop's exception handler of what nobody else wants to know."""
        if (loop := self.bound) is not None:
            self.call(lambda: loop.call_exception_handler({"message": what, "exception": error}))

    async def settled(self) -> None:
        """Returns when every request that was cancelled has let go of its socket."""
        loop = self.bound
        if loop is None or not loop.is_running():  # what stands still holds nothing that could be waited for
            return
        if running_loop() is loop:
            await self._settled()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._settled(), loop))

    async def dismiss(self) -> None:
        """Ends what runs, but for the task that asks; those without a task in the turn that this takes."""
        current = asyncio.current_task()
        for task in self.tasks:
            if task is not current and not task.cancelling():
                task.cancel()
        for stream in self.streams:
            stream.stop()
        await asyncio.sleep(0)

    async def _settled(self) -> None:
        await asyncio.sleep(0)  # a transport that was closed closes its socket in the loop's next turn
        current = asyncio.current_task()
        while waiting := [task for task in self.tasks if task.cancelling() and task is not current]:
            await asyncio.wait(waiting)

    @property
    def own(self) -> bool:
        """Whether the loop is one of our own, on its own thread."""
        return self._thread is not None

    def end(self) -> None:
        """Ends the own thread, with all that runs on it; from another thread, waits for it, but not for ever."""
        if self._end_thread is not None and self._thread is not None:
            self._end_thread()
            if self._thread is not threading.current_thread():
                self._thread.join(_JOIN_SECONDS)

    def _find_loop(self, loop: asyncio.AbstractEventLoop | None) -> tuple[asyncio.AbstractEventLoop, LoopScheduler]:
        if loop is None:
            started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            thread = threading.Thread(target=_live, args=(started, self.readers), name="rxrouter loop", daemon=True)
            thread.start()
            loop, stop = started.result()
            self._thread = thread
            self._end_thread = weakref.finalize(self, _end_thread, loop, stop, thread)
        self._bound = loop, LoopScheduler(loop)
        return self._bound


class Stream(Protocol):
    """A request that nobody could cancel."""

    def stop(self) -> None:
        """Ends it, in the loop's next turn."""
        ...


class Reader(Protocol):
    """Somebody who waits for an ending."""

    def on_error(self, error: Exception) -> None:
        """Takes it, if there was none before."""
        ...


class Readers:
    """Who waits for an ending on a client's loop: a chain may still wait in a timer when its request is long over."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._waiting: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._lock = threading.Lock()

    def add(self, reader: Reader) -> None:
        """Keeps it in mind, not alive."""
        with self._lock:
            self._waiting.add(reader)

    def close(self) -> None:
        """Ends what would have no end any more."""
        with self._lock:
            waiting = list(self._waiting)
        for reader in waiting:
            reader.on_error(ClientClosedError(f"the {self._owner} is closed"))


def with_the_loop(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    """Has `close` called when what is returned is closed: by us, or by `asyncio.run` as it shuts its loop down."""
    guard = _guard(close)
    with suppress(StopIteration):  # as far as its yield, without waiting for a turn of the loop
        guard.__anext__().send(None)
    return guard


async def _guard(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await close()


def _live(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]], readers: Readers) -> None:
    """The life of a loop of our own.

    As `asyncio.run` has it, but for the default executor's end: at the interpreter's exit that would want a thread,
    and Python 3.12 refuses to start one.
    """
    try:
        loop = asyncio.new_event_loop()
    except OSError as error:  # no file descriptors left
        started.set_exception(error)
        return
    stop = asyncio.Event()
    loop.call_soon(started.set_result, (loop, stop))
    try:
        loop.run_until_complete(stop.wait())
        if tasks := asyncio.all_tasks(loop):
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
        readers.close()
    finally:
        loop.close()


def _end_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    call_on(loop, stop.set)
    if thread is not threading.current_thread():
        thread.join(_JOIN_SECONDS)


class LoopScheduler(PeriodicScheduler):
    """A loop's time as a scheduler: thread-safe in both directions, unaffected by steps of the wall clock.

    Both of RxPY's own fail somewhere: AsyncIOScheduler off its thread, AsyncIOThreadSafeScheduler when it is disposed
    on a thread without a loop, and both when the wall clock steps or the loop's time is virtual (RX 2a, 2e).
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._epoch = datetime.fromtimestamp(time.time(), UTC) - timedelta(seconds=loop.time())
        self._epoch_seconds = self.to_seconds(self._epoch)

    @property
    def now(self) -> datetime:
        """The wall clock as it was when the scheduler was made, moved on by the loop's time."""
        return self._epoch + timedelta(seconds=self._loop.time())

    def seconds(self) -> float:
        """`now` as Unix time; for who looks with every chunk: a datetime takes 2 µs, this 0.3."""
        return self._epoch_seconds + self._loop.time()

    @property
    def closed(self) -> bool:
        """Whether the loop is: nothing that is scheduled here will ever run."""
        return self._loop.is_closed()

    def call(self, action: Callable[[], None]) -> None:
        """Runs `action` on the loop: now if we are on it, otherwise soon."""
        call_on(self._loop, action)

    def schedule(self, action: typing.ScheduledAction[State], state: State | None = None) -> abc.DisposableBase:
        """Runs the action in the loop's next turn."""
        return self.schedule_relative(0.0, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[State], state: State | None = None
    ) -> abc.DisposableBase:
        """Runs the action after `duetime` (seconds, or a timedelta)."""
        return _Timer(self._loop, self.to_seconds(duetime), lambda: self.invoke_action(action, state=state))

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[State], state: State | None = None
    ) -> abc.DisposableBase:
        """Runs the action at `duetime`, by this scheduler's `now`."""
        return self.schedule_relative(self.to_datetime(duetime) - self.now, action, state)


class _Timer(abc.DisposableBase):
    """One call of a loop, made and disposed on any thread; disposed later, so is what the call returned."""

    __slots__ = ("_action", "_disposed", "_handle", "_loop", "_result", "_seconds")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, action: Callable[[], abc.DisposableBase]
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._action = action
        self._handle: asyncio.Handle | None = None
        self._result: abc.DisposableBase | None = None
        self._disposed = False
        self._here(self._start)

    def dispose(self) -> None:
        self._disposed = True
        self._here(self._cancel)

    def _here(self, call: Callable[[], None]) -> None:
        call_on(self._loop, call)

    def _start(self) -> None:
        if self._seconds <= 0:
            self._handle = self._loop.call_soon(self._fire)
        else:
            self._handle = self._loop.call_later(self._seconds, self._fire)

    def _fire(self) -> None:
        if not self._disposed:  # by another thread, in this very turn
            self._result = self._action()

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._result is not None:
            self._result.dispose()
