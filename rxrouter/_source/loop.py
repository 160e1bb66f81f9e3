"""Which loop, which thread: the home of a client, and the scheduler of every chain that starts there."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from reactivex import abc, typing
from reactivex.disposable import CompositeDisposable, Disposable, SingleAssignmentDisposable
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxrouter._gate import running_loop

T = TypeVar("T")
State = TypeVar("State")

_JOIN_SECONDS = 5.0  # a thread that is not down by then is stuck in somebody's on_next


class Home:
    """The loop in which a client was first used; one of its own, on a daemon thread, where none was running."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()  # the client's running requests
        self.closed = False
        self._bound: tuple[asyncio.AbstractEventLoop, LoopScheduler] | None = None
        self._own: weakref.finalize[Any, Any] | None = None  # ends the thread: on close, on garbage collection, at exit
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
                f"the event loop in which this OpenRouter client was first used is {state};"
                " make a new client inside the loop that runs now (async with OpenRouter() as client: …)"
            )
        return loop

    @property
    def scheduler(self) -> LoopScheduler:
        """Time and timers of the loop."""
        return self._bound[1] if self._bound is not None else LoopScheduler(self.bind())

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
        loop = self.bound
        if loop is None or running_loop() is loop:
            action()
            return
        try:
            loop.call_soon_threadsafe(action)
        except RuntimeError:
            if not loop.is_closed():
                raise

    async def settled(self) -> None:
        """Returns when every request that was cancelled has let go of its socket."""
        loop = self.bound
        if loop is None or not loop.is_running():  # what stands still holds nothing that could be waited for
            return
        if running_loop() is loop:
            await self._settled()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._settled(), loop))

    async def _settled(self) -> None:
        current = asyncio.current_task()
        while waiting := [task for task in self.tasks if task.cancelling() and task is not current]:
            await asyncio.wait(waiting)

    def end(self) -> None:
        """Ends the thread, if there is one, with all that runs on it; from another thread, waits for it."""
        if self._own is not None:
            self._own()

    def _find_loop(self, loop: asyncio.AbstractEventLoop | None) -> tuple[asyncio.AbstractEventLoop, LoopScheduler]:
        if loop is None:
            started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            thread = threading.Thread(target=asyncio.run, args=(_live(started),), name="rxrouter loop", daemon=True)
            thread.start()
            loop, stop = started.result()
            self._own = weakref.finalize(self, _end_thread, loop, stop, thread)
        self._bound = loop, LoopScheduler(loop)
        return self._bound


async def _live(started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    """The life of a loop of our own; asyncio.run() cancels, awaits and closes whatever is left."""
    stop = asyncio.Event()
    started.set_result((asyncio.get_running_loop(), stop))
    await stop.wait()


def _end_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    if loop.is_closed():
        return
    loop.call_soon_threadsafe(stop.set)
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

    @property
    def now(self) -> datetime:
        """The wall clock as it was when the scheduler was made, moved on by the loop's time."""
        return self._epoch + timedelta(seconds=self._loop.time())

    def schedule(self, action: typing.ScheduledAction[State], state: State | None = None) -> abc.DisposableBase:
        """Runs the action in the loop's next turn."""
        return self.schedule_relative(0.0, action, state)

    def schedule_relative(
        self, duetime: typing.RelativeTime, action: typing.ScheduledAction[State], state: State | None = None
    ) -> abc.DisposableBase:
        """Runs the action after `duetime` (seconds, or a timedelta)."""
        timer = _Timer(self._loop, self.to_seconds(duetime))
        result = SingleAssignmentDisposable()

        def run() -> None:
            result.disposable = self.invoke_action(action, state=state)

        timer.start(run)
        return CompositeDisposable(result, Disposable(timer.cancel))

    def schedule_absolute(
        self, duetime: typing.AbsoluteTime, action: typing.ScheduledAction[State], state: State | None = None
    ) -> abc.DisposableBase:
        """Runs the action at `duetime`, by this scheduler's `now`."""
        return self.schedule_relative(self.to_datetime(duetime) - self.now, action, state)


class _Timer:
    """One call of a loop, started and cancelled from any thread."""

    __slots__ = ("_cancelled", "_handle", "_loop", "_seconds")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._handle: asyncio.Handle | None = None
        self._cancelled = False

    def start(self, run: Callable[[], None]) -> None:
        if running_loop() is not self._loop:
            self._loop.call_soon_threadsafe(self._start_here, run)
        else:
            self._start_here(run)

    def _start_here(self, run: Callable[[], None]) -> None:
        if not self._cancelled:
            if self._seconds <= 0:
                self._handle = self._loop.call_soon(self._fire, run)
            else:
                self._handle = self._loop.call_later(self._seconds, self._fire, run)

    def _fire(self, run: Callable[[], None]) -> None:
        if not self._cancelled:  # by another thread, in this very turn
            run()

    def cancel(self) -> None:
        self._cancelled = True
        if running_loop() is not self._loop:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._cancel_here)
        else:
            self._cancel_here()

    def _cancel_here(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
