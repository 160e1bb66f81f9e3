"""Backpressure, which RxPY has not: consumers hold a gate, the socket reader waits at it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_gate: ContextVar[Barrier | None] = ContextVar("rxrouter_gate", default=None)
_scope: ContextVar[set[Barrier] | None] = ContextVar("rxrouter_scope", default=None)


class Barrier:
    """What consumers that are behind hold; the slowest wins.

    A source sets its own in its context, which every synchronous operator and timer of the loop below it
    inherits: so a consumer finds the gate of whatever brought it the value, any number of operators away. Timers that
    an operator made at its subscription, before there was a source (`buffer_with_time`), have no gate in their context;
    for them a consumer opens a `scope`, in which the sources below its subscription leave their gates.
    """

    __slots__ = ("_holds", "closed", "left", "shut")

    def __init__(self) -> None:
        self.closed = False  # what is looked at before each value
        self.shut = False  # closed for good: the subscription is disposed
        self.left = False  # there is no source any more; what is still on its way from it ends by itself
        self._holds = 0

    def enter(self) -> None:
        """Makes this the gate of the running context, and of all that its values reach."""
        _gate.set(self)
        self.offer()

    def offer(self) -> None:
        """Leaves this in the scope, if there is one, for the consumer that opened it."""
        scope = _scope.get()
        if scope is not None:
            scope.add(self)

    def is_of(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether what is delivered on this loop may have come through it."""
        raise NotImplementedError

    def hold(self) -> None:
        """Closes the gate; each hold needs its release. From the thread on which a value was just delivered."""
        self._holds += 1
        self.closed = True

    def release(self) -> None:
        """Takes one hold back; from any thread."""
        raise NotImplementedError

    def _release(self) -> None:
        self._holds -= 1
        if not self._holds and not self.shut:
            self.closed = False
            self._open()

    def _open(self) -> None:
        raise NotImplementedError

    def shut_down(self) -> None:
        """Closes the gate for good; from any thread."""
        self.shut = True
        self.closed = True


class Gate(Barrier):
    """The gate of a source, at which it waits before it reads on."""

    __slots__ = ("_loop", "_waiter")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None

    def is_of(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether the source runs on this loop."""
        return self._loop is loop

    def release(self) -> None:
        """Takes one hold back; from any thread."""
        call_on(self._loop, self._release)

    def _open(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """There is no source any more, and nobody who waits."""
        self.left = True
        self._waiter = None

    def waiter(self) -> asyncio.Future[None]:
        """Done when nobody holds the gate any more; by the time that it is seen, somebody may again."""
        self._waiter = self._loop.create_future()
        return self._waiter

    async def opened(self) -> None:
        """Returns when nobody holds the gate."""
        while self.closed and not self.shut:
            await self.waiter()


class ReaderGate(Barrier):
    """The gate of one reader of several: held, it makes that reader wait, and no other.

    Args:
        call: Has something done on the thread that delivers.
        on_open: What to do when nobody holds it any more.
    """

    __slots__ = ("_call", "_on_open")

    def __init__(self, call: Callable[[Callable[[], None]], object], on_open: Callable[[], None]) -> None:
        super().__init__()
        self._call = call
        self._on_open = on_open

    def is_of(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Whether something is delivered on a loop at all: off it, nobody could be made to wait."""
        return loop is not None

    def release(self) -> None:
        """Takes one hold back; from any thread."""
        self._call(self._release)

    def _open(self) -> None:
        self._on_open()


def leave_gate() -> None:
    """Have consumers in the running context find no gate but those of their own scope.

    Where many readers share a source, one of them must not pause all.
    """
    _gate.set(None)


def current_gates(scope: set[Barrier]) -> list[Barrier]:
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
def scope(gates: set[Barrier]) -> Generator[None]:
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


def as_exception(raised: BaseException) -> Exception:
    """Return an exception that a callback raised as one that an `on_error` takes.

    Test frameworks and other concurrency libraries raise classes of their own that derive from BaseException, such as
    `pytest.fail`. They end the chain that raised, and no other; only a request to exit goes on to the loop.

    Raises:
        SystemExit: It was raised.
        KeyboardInterrupt: It was raised.
    """
    if isinstance(raised, SystemExit | KeyboardInterrupt):
        raise raised
    # No future takes a StopIteration, and either ends a loop as if all had been well.
    if isinstance(raised, Exception) and not isinstance(raised, StopIteration | StopAsyncIteration):
        return raised
    error = RuntimeError(f"a callback of a stream raised {type(raised).__name__}")
    error.__cause__ = raised
    return error


_inherited: set[asyncio.AbstractEventLoop] = set()
"""Loops of the parent, in a forked child. They are kept: collected, their transports would act on its sockets."""


def inherit(loop: asyncio.AbstractEventLoop) -> None:
    """Mark a loop in a forked child as the parent's: a call would wake the parent, and never run here."""
    _inherited.add(loop)


def is_inherited(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether the loop is one of the parent's, in a forked child."""
    return loop in _inherited


def call_on(loop: asyncio.AbstractEventLoop, action: Callable[[], object]) -> None:
    """Run `action` on the loop: now if it runs in this thread, otherwise soon; never, if closed or inherited."""
    if running_loop() is loop:
        action()
    elif loop not in _inherited:
        with suppress(RuntimeError):  # closed, perhaps this very moment: what it held is gone with it
            loop.call_soon_threadsafe(action)
