"""Backpressure, which RxPY has not: consumers hold a gate, the socket reader waits at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
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

    __slots__ = ("_holds", "_loop", "_waiter", "closed", "left", "shut")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.closed = False  # what the source looks at after each value
        self.shut = False  # closed for good: the subscription is disposed
        self.left = False  # there is no source any more; what is still on its way from it ends by itself
        self._loop = loop
        self._holds = 0
        self._waiter: asyncio.Future[None] | None = None

    def enter(self) -> None:
        """Makes this the gate of the running task and of all that its values reach."""
        _gate.set(self)
        scope = _scope.get()
        if scope is not None:
            scope.add(self)

    def is_of(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the source runs on this loop."""
        return self._loop is loop

    def hold(self) -> None:
        """Closes the gate; each hold needs its release. From the loop's thread: a value was just delivered there."""
        self._holds += 1
        self.closed = True

    def release(self) -> None:
        """Takes one hold back; from any thread."""
        call_on(self._loop, self._release)

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
    """The gate of the source whose value is being delivered; those of the scope, where a timer may deliver it.

    None behind a thread hop, and of a source that has no gate: there, nothing could be paused.
    """
    gate = _gate.get()
    known = [gate] if gate is not None else []
    if gate in scope and known and not known[0].left:
        return known
    loop = running_loop()  # a timer made below another source (`flat_map`, `catch`) has that one's gate in its context
    return known + [gate for gate in tuple(scope) if gate.is_of(loop)]


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


def call_on(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Runs `action` on the loop: now if that runs in this thread, otherwise soon; never, if the loop is closed."""
    if running_loop() is loop:
        action()
    else:
        with suppress(RuntimeError):  # closed, perhaps this very moment: what it held is gone with it
            loop.call_soon_threadsafe(action)
