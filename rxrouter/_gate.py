"""Backpressure, which RxPY has not: consumers hold a gate, the socket reader waits at it."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

_gate: ContextVar[Gate | None] = ContextVar("rxrouter_gate", default=None)
_scope: ContextVar[set[Gate] | None] = ContextVar("rxrouter_scope", default=None)


class Gate:
    """One source's gate, held by the consumers that are behind; the slowest wins.

    The source sets it in its task's context, which every synchronous operator, `share` and timer of the loop below it
    inherits: so a consumer finds the gate of whatever brought it the value, any number of operators away. Timers that
    an operator made at its subscription, before there was a source (`buffer_with_time`), have no gate in their context;
    for them a consumer opens a `scope`, in which the sources below its subscription leave their gates.
    """

    __slots__ = ("_holds", "_loop", "_scope", "_waiter", "closed", "shut")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closed = False  # what the source looks at after each value
        self.shut = False  # closed for good: the subscription is disposed
        self._loop = loop
        self._holds = 0
        self._waiter: asyncio.Future[None] | None = None
        self._scope: set[Gate] | None = None

    def enter(self) -> None:
        """Makes this the gate of the running task and of all that its values reach."""
        _gate.set(self)
        self._scope = _scope.get()
        if self._scope is not None:
            self._scope.add(self)

    def leave(self) -> None:
        """The source has ended."""
        if self._scope is not None:
            self._scope.discard(self)

    def is_of(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the source runs on this loop."""
        return self._loop is loop

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


def current_gates(scope: set[Gate]) -> list[Gate]:
    """The gate of the source whose value is being delivered, or those of the scope where a timer delivers it.

    None behind a thread hop, and of a source that has no gate: there, nothing could be paused.
    """
    if gate := _gate.get():
        return [gate]
    loop = running_loop()
    return [gate for gate in tuple(scope) if gate.is_of(loop)]


@contextmanager
def scope(gates: set[Gate]) -> Generator[None]:
    """Has the sources that are subscribed inside, or later by what was, keep their gates in the set."""
    token = _scope.set(gates)
    try:
        yield
    finally:
        _scope.reset(token)


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The loop that runs in this thread, None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
