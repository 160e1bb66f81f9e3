"""Which loop, which thread: the home of a client, and the scheduler of every chain that starts there."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from contextvars import Context
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar

from reactivex import abc, typing
from reactivex.scheduler.periodicscheduler import PeriodicScheduler

from rxrouter._chain import chain_end
from rxrouter._gate import as_exception, call_on, inherit, is_inherited, running_loop
from rxrouter._source.own_thread import run_loop
from rxrouter._source.resources import Readers, Resources, Stream, finish

T = TypeVar("T")
State = TypeVar("State")

_JOIN_SECONDS = 5.0  # a thread that is not down by then is stuck in somebody's on_next
_CLOSE_SECONDS = 5.0  # so is a loop that has not closed a client by then

_homes: weakref.WeakSet[Home] = weakref.WeakSet()
# What a forked child has from its parent is kept: when it is collected, it would close what is the parent's.
_left_to_parent: list[object] = []


class Home:
    """The loop in which a client was first used; one of its own, on a daemon thread, where none was running.

    When that loop is closed and nothing is open on it, the next use decides anew. So it does in a forked child, for a
    client whose loop runs on another thread than the one that forks; the parent's resources are neither used nor closed
    there.

    Args:
        owner: What it is called in messages.
        way_out: How another is made, where the loop is gone.
        moves: Whether it may change to another loop; not, where something is bound to the first one for good.
    """

    def __init__(
        self, owner: str = "client", way_out: str = "async with OpenRouter() as client: …", *, moves: bool = True
    ) -> None:
        self.owner = owner
        self.closed = False
        self.resources = Resources(owner)
        self._way_out = way_out
        self._moves = moves
        self._bound: tuple[asyncio.AbstractEventLoop, LoopScheduler] | None = None
        self._thread_id = 0  # of the thread in which the loop was found running
        self._thread: threading.Thread | None = None
        self._thread_over: Future[None] | None = None
        self._end_thread: weakref.finalize[Any, Any] | None = None  # on close, on garbage collection, at exit
        self._loop_guard: AsyncGenerator[None] | None = None
        self._keep_guard: weakref.finalize[Any, Any] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        _homes.add(self)

    @property
    def tasks(self) -> set[asyncio.Task[Any]]:
        """The tasks of requests."""
        return self.resources.tasks

    @property
    def streams(self) -> set[Stream]:
        """The requests that run by callbacks alone."""
        return self.resources.streams

    @property
    def readers(self) -> Readers:
        """The subscriptions."""
        return self.resources.readers

    @property
    def refuses(self) -> bool:
        """Whether a new request ends with ClientClosedError at once."""
        return self.closed or self.resources.ending

    def bind(self, *, own_thread: bool = False) -> asyncio.AbstractEventLoop:
        """Return the loop, found or started by the first call; with `own_thread`, never the one that runs here.

        Raises:
            RuntimeError: it is closed, not running, or the parent's of this process: a call would wait for ever.
        """
        bound = self._bound
        if bound is None or not _is_alive(bound[0]):
            before = self.resources
            with self._lock:
                bound = self._bound
                if bound is None or self._may_move(bound[0]):
                    bound = self._find_loop(None if own_thread else running_loop())
            if before is not self.resources:
                # Chains that wait in a timer of a loop that was closed under them; without the lock, for callbacks run.
                before.readers.close(loop_ends=True)
        loop = bound[0]
        if not _is_alive(loop):
            raise RuntimeError(
                f"the event loop in which this {self.owner} was first used {_state(loop)};"
                f" make a new {self.owner} inside the loop that runs now ({self._way_out})"
            )
        return loop

    @property
    def scheduler(self) -> LoopScheduler:
        """Time and timers of the loop."""
        if self._bound is None:
            self.bind()
        assert self._bound is not None  # noqa: S101 - bind() sets it
        return self._bound[1]

    @property
    def running(self) -> bool:
        """Whether there is a loop, and it runs in this process."""
        return self._bound is not None and _is_alive(self._bound[0])

    @property
    def bound(self) -> asyncio.AbstractEventLoop | None:
        """The loop, in whatever state, if it was decided."""
        return self._bound[0] if self._bound is not None else None

    def here(self) -> bool:
        """Whether the loop, or the one that it would become, runs in this thread."""
        running = running_loop()
        bound = self.bound
        return running is not None and (bound is None or bound is running or self._may_move(bound))

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
        if loop is None or not self.running:  # what stands still holds nothing that could be waited for
            return
        if running_loop() is loop:
            await self._settled()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._settled(), loop))

    async def _settled(self) -> None:
        await asyncio.sleep(0)  # a transport that was closed closes its socket in the loop's next turn
        current = asyncio.current_task()
        while waiting := [task for task in self.tasks if task.cancelling() and task is not current]:
            await asyncio.wait(waiting)

    async def aclose(self) -> None:
        """End everything, and return when it is closed; cancelled, the ending goes on, and can be waited for again.

        A loop that stands still is not waited for. On a loop that is closed, chains that still wait receive their end.
        """
        self.closed = True
        loop = self.bound
        if loop is not None and running_loop() is loop:
            await asyncio.shield(self._end_here())
            self.stop_thread()
        elif self._thread_over is not None:
            # Its loop stands still for moments, between the steps of its end.
            self.stop_thread()
            over, _ = await asyncio.wait([asyncio.wrap_future(self._thread_over)], timeout=_JOIN_SECONDS)
            if over:
                self.end()
        elif loop is None or not self.running:
            self._end_on_dead_loop()
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._end_from_elsewhere(), loop))

    def close(self) -> None:
        """Do the same, without waiting where that would block the own loop; elsewhere not for ever."""
        self.closed = True
        loop = self.bound
        if self.own:
            self.end()
        elif loop is None or loop.is_closed() or is_inherited(loop):
            self._end_on_dead_loop()
        elif running_loop() is loop:
            self._end_here()
        elif loop.is_running():
            ending = asyncio.run_coroutine_threadsafe(self._end_from_elsewhere(), loop)
            # A callback may block the loop: it closes when that returns.
            with suppress(TimeoutError, CancelledError):
                ending.result(_CLOSE_SECONDS)
        elif running_loop() is None:
            loop.run_until_complete(self._end_from_elsewhere())

    @property
    def own(self) -> bool:
        """Whether the loop is one of our own, on its own thread."""
        return self._thread is not None

    def end(self) -> None:
        """End the own thread, with all that runs on it; from another thread, wait for it, but not for ever."""
        self.stop_thread()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_SECONDS)

    async def end_resources(self) -> None:
        """End all that is open; on the loop, in a task that is not one of the requests'."""
        await self.resources.end()
        if self._loop_guard is not None:
            finish(self._loop_guard)

    def stop_thread(self) -> None:
        """Have the own thread end everything, and then itself."""
        if self._end_thread is not None and (found := self._end_thread.detach()) is not None:
            loop, stop, _ = found[2]
            call_on(loop, stop.set)

    def leave_to_parent(self) -> None:
        """Begin anew in a forked child: all that is open belongs to the parent, and its locks may be held for ever."""
        self._lock = threading.Lock()
        bound, own, resources = self._bound, self.own, self.resources
        _left_to_parent.append((resources, self._thread_over, self._ending))
        if bound is not None and not bound[0].is_closed():
            inherit(bound[0])
        resources.leave_to_parent(self._loop_guard)
        if self._end_thread is not None:
            self._end_thread.detach()
        if self._keep_guard is not None:
            self._keep_guard.detach()
        self._thread = self._end_thread = self._loop_guard = self._ending = self._thread_over = None
        self.resources = Resources(self.owner)
        # The loop of a thread that there is not in the child, such as an application's.
        elsewhere = bound is not None and bound[0].is_running() and self._thread_id != threading.get_ident()
        if self._moves and (own or elsewhere):
            self._bound = None

    async def _end_from_elsewhere(self) -> None:
        await asyncio.shield(self._end_here())

    def _end_here(self) -> asyncio.Task[None]:
        """Begin the ending on the loop, or join the one that is under way."""
        if self._ending is None or self._ending.done():
            loop = asyncio.get_running_loop()
            # In the context of the caller may be the gate of a stream, which is not to be held.
            self._ending = loop.create_task(self.end_resources(), name="rxrouter close", context=Context())
        return self._ending

    def _end_on_dead_loop(self) -> None:
        if (loop := self.bound) is not None and loop.is_closed():
            self.readers.close(loop_ends=True)

    def _may_move(self, loop: asyncio.AbstractEventLoop) -> bool:
        return self._moves and loop.is_closed() and self.resources.idle and not self.closed

    def _find_loop(self, loop: asyncio.AbstractEventLoop | None) -> tuple[asyncio.AbstractEventLoop, LoopScheduler]:
        if self._bound is not None:
            self.resources = Resources(self.owner)
            self._thread = self._end_thread = self._loop_guard = self._ending = self._thread_over = None
        if loop is None:
            loop = self._start_thread()
        else:
            if self._keep_guard is not None:
                self._keep_guard.detach()
            self._loop_guard = self.resources.end_with_loop()
            # In a cycle that is collected, aiohttp's session would warn before the guard closes it. What a finalizer
            # refers to is no part of the cycle: the guard goes by itself, after the client.
            self._keep_guard = weakref.finalize(self, _release, self._loop_guard)
            self._keep_guard.atexit = False
            self._thread_id = threading.get_ident()
        self._bound = loop, LoopScheduler(loop)
        self.resources.scheduler = self._bound[1]
        return self._bound

    def _start_thread(self) -> asyncio.AbstractEventLoop:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        over: Future[None] = Future()
        thread = threading.Thread(
            target=run_loop, args=(started, over, self.resources), name="rxrouter loop", daemon=True
        )
        thread.start()
        loop, stop = started.result()
        self._thread, self._thread_over, self._thread_id = thread, over, thread.ident or 0
        self._end_thread = weakref.finalize(self, _end_thread, loop, stop, thread)
        return loop


def _is_alive(loop: asyncio.AbstractEventLoop) -> bool:
    return loop.is_running() and not loop.is_closed() and not is_inherited(loop)


def _release(_: AsyncGenerator[None]) -> None:
    """Do nothing: the call drops the last reference that does not come from the client."""


def _end_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event, thread: threading.Thread) -> None:
    call_on(loop, stop.set)
    if thread is not threading.current_thread():
        thread.join(_JOIN_SECONDS)


def _leave_to_parent() -> None:
    for home in list(_homes):
        home.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _state(loop: asyncio.AbstractEventLoop) -> str:
    if is_inherited(loop):
        return "is that of the process which has forked this one"
    return "is closed" if loop.is_closed() else "is not running"


class Pause(Protocol):
    """A chain that waits for its next attempt, and has no request that would end it."""

    def dismiss(self, error: Exception) -> None:
        """End the chain now."""
        ...


class LoopScheduler(PeriodicScheduler):
    """A loop's time as a scheduler: thread-safe in both directions, unaffected by steps of the wall clock.

    Both of RxPY's own fail somewhere: AsyncIOScheduler off its thread, AsyncIOThreadSafeScheduler when it is disposed
    on a thread without a loop, and both when the wall clock steps or the loop's time is virtual (RX 2a, 2e).

    Attributes:
        pauses: Chains that the closing of the client ends in their pauses, while the folds below can still add the
            partial answer.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.pauses: weakref.WeakSet[Pause] = weakref.WeakSet()
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
        """Whether the loop is, or is the parent's of this process: nothing that is scheduled here will ever run."""
        return self._loop.is_closed() or is_inherited(self._loop)

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
        if self._disposed:  # by another thread, in this very turn
            return
        try:
            self._result = self._action()
        except BaseException as raised:
            error, end = as_exception(raised), chain_end()
            if end is None:
                raise
            # No source sees what an operator raises in a timer.
            end.fail(error)

    def _cancel(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        if self._result is not None:
            self._result.dispose()
