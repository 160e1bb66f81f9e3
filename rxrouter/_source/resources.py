"""Everything that a client has open on one loop, and the one order in which it is closed."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from rxrouter._errors import ClientClosedError
from rxrouter._limiter import dismiss_waiting
from rxrouter._source.idle_connections import CleanConnector

if TYPE_CHECKING:
    from rxrouter._source.loop import LoopScheduler

# Turns in which a chain may still end by the error of its request; a `retry` takes two of them for each of its tries.
_LAST_TURNS = 16


class Stream(Protocol):
    """A request that runs by callbacks alone: it has no task that could be cancelled."""

    def stop(self) -> None:
        """End it in the loop's next turn."""
        ...


class Reader(Protocol):
    """A subscription, which receives one ending."""

    def on_error(self, error: Exception) -> None:
        """Take the ending, unless there was one before."""
        ...


class Readers:
    """The subscriptions of one loop: a chain may still wait in a timer or a queue when its request is long over."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._waiting: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._loop_ends = False

    def add(self, reader: Reader) -> None:
        """Remember the subscription, without keeping it alive.

        Raises:
            ClientClosedError: the loop runs no further turn, so that the subscription would wait for ever.
        """
        with self._lock:
            if self._loop_ends:
                raise ClientClosedError(f"the event loop of the {self._owner} is shutting down")
            self._waiting.add(reader)

    def close(self, *, loop_ends: bool = False) -> None:
        """End all that wait with ClientClosedError; with `loop_ends`, `add` raises from now on."""
        with self._lock:
            self._loop_ends = self._loop_ends or loop_ends
            waiting = list(self._waiting)
            self._waiting.clear()
        failures: list[Exception] = []
        exits: list[BaseException] = []
        for reader in waiting:
            try:
                reader.on_error(ClientClosedError(f"the {self._owner} is closed"))
            except Exception as raised:  # noqa: BLE001 - the next one's ending must not be lost by it
                failures.append(raised)
            except BaseException as raised:  # noqa: BLE001 - likewise
                exits.append(raised)
        if exits:
            raise exits[0]
        if failures:
            raise ExceptionGroup("callbacks raised at the end of their chains", failures)


class Resources:
    """What a client has open on one loop: requests, receipts, waiting chains, the session.

    A client that moves to another loop, or into a forked child, begins with new ones. The thread of an own loop refers
    to this object, and not to the client, which may be collected meanwhile.

    Attributes:
        tasks: Those of requests, also of requests that are being cancelled.
        streams: Requests that run by callbacks alone.
        readers: The subscriptions.
        before_readers: Called at the end, when all requests have ended, before chains that wait are ended.
        scheduler: By which chains wait in a limiter.
        session: The aiohttp session that was made here, if there is one.
        ended: Whether all is closed. What begins after that ends with ClientClosedError.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self.tasks: set[asyncio.Task[Any]] = set()
        self.streams: set[Stream] = set()
        self.readers = Readers(owner)
        self.before_readers: weakref.WeakMethod[Callable[[], Awaitable[None]]] | None = None
        self.session: aiohttp.ClientSession | None = None
        self.scheduler: LoopScheduler | None = None
        self.ending = False
        self.ended = False

    @property
    def idle(self) -> bool:
        """Whether nothing is open that only the loop could close."""
        return self.ended or not (self.tasks or self.streams or self.session)

    async def end(self) -> None:
        """Close everything, in one order; cancelled, it can be called again, and finishes."""
        self.ending = True
        exits: list[BaseException] = []
        if self.scheduler is not None:
            # First: the ending of a request would start those that wait for its place.
            dismiss_waiting(self.scheduler, partial(ClientClosedError, f"the {self._owner} is closed"))
            for pause in list(self.scheduler.pauses):
                try:
                    pause.dismiss(ClientClosedError(f"the {self._owner} is closed"))
                except BaseException as raised:  # noqa: BLE001 - an exit, which waits for the other endings
                    exits.append(raised)
        await self._end_requests()
        close_receipts = None if self.before_readers is None else self.before_readers()
        if close_receipts is not None:
            await close_receipts()
        self.readers.close()
        # A callback may have begun something at its ending.
        await self._end_requests()
        if self.session is not None:
            await self.session.close()
            # A transport that was closed closes its socket in the loop's next turn.
            await asyncio.sleep(0)
        self.ended = True
        if exits:
            raise exits[0]

    def dismiss(self) -> None:
        """End every request but that of the task that asks."""
        current = _current_task()
        for task in self.tasks:
            if task is not current and not task.cancelling():
                task.cancel()
        for stream in tuple(self.streams):
            stream.stop()

    def end_with_loop(self) -> AsyncGenerator[None]:
        """Return a generator that calls `end` when the running loop is shut down, as `asyncio.run` does it.

        It does so, too, when it is collected.
        """
        guard = _loop_guard(self._end_last)
        # As far as its yield, without waiting for a turn of the loop.
        with suppress(StopIteration):
            guard.__anext__().send(None)
        return guard

    def leave_to_parent(self, guard: AsyncGenerator[None] | None) -> None:
        """Close nothing, and send nothing: in a forked child all of it belongs to the parent."""
        self.ended = True
        if self.session is not None:
            if isinstance(self.session.connector, Connector):
                self.session.connector.is_parents = True
            self.session.detach()
        if guard is not None:
            finish(guard)

    async def _end_requests(self) -> None:
        for _ in range(_LAST_TURNS):
            self.dismiss()
            await asyncio.sleep(0)
            if not (self.tasks or self.streams):
                break
        current = _current_task()
        while waiting := [task for task in self.tasks if task is not current]:
            self.dismiss()
            await asyncio.wait(waiting)

    async def _end_last(self) -> None:
        if not self.ended:
            await self.end()
            self.readers.close(loop_ends=True)


def finish(guard: AsyncGenerator[None]) -> None:
    """Finish the generator of `end_with_loop` of resources that have ended; it has nothing to await."""
    with suppress(StopIteration):
        guard.aclose().send(None)


async def _loop_guard(end: Callable[[], Awaitable[None]]) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        await end()


class Connector(CleanConnector):
    """One that closes nothing when it is collected in a forked child.

    Both processes have one epoll object: a child that unregisters a socket there silences the parent's. Over TLS it
    would even send the end of the connection.
    """

    is_parents = False

    def __del__(self, *warnings: Any) -> None:
        if not self.is_parents:
            super().__del__(*warnings)


def _current_task() -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
