"""Backpressure, which RxPY has not: consumers hold a gate, the socket reader waits at it."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar

_gate: ContextVar[Gate | None] = ContextVar("rxrouter_gate", default=None)


class Gate:
    """One source's gate, held by the consumers that are behind; the slowest wins.

    The source sets it in its task's context, which every synchronous operator, `share` and timer of the loop below it
    inherits: so a consumer finds the gate of whatever brought it the value, any number of operators away.
    """

    __slots__ = ("_holds", "_loop", "_waiter", "closed", "shut")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closed = False  # what the source looks at after each value
        self.shut = False  # closed for good: the subscription is disposed
        self._loop = loop
        self._holds = 0
        self._waiter: asyncio.Future[None] | None = None

    def enter(self) -> None:
        """Makes this the gate of the running task and of all that its values reach."""
        _gate.set(self)

    def hold(self) -> None:
        """Closes the gate; each hold needs its release. From the loop's thread: a value was just delivered there."""
        self._holds += 1
        self.closed = True

    def release(self) -> None:
        """Takes one hold back; from any thread."""
        if running_loop() is self._loop:
            self._release()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._holds -= 1
        if not self._holds and not self.shut:
            self.closed = False
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_result(None)

    def shut_down(self) -> None:
        """Closes the gate for good; from any thread."""
        self.shut = True
        self.closed = True

    async def opened(self) -> None:
        """Returns when nobody holds the gate."""
        while self.closed and not self.shut:
            self._waiter = self._loop.create_future()
            await self._waiter


def current_gate() -> Gate | None:
    """The gate of the source whose value is being delivered; None behind a thread hop or a source without one."""
    return _gate.get()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
