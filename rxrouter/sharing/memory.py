"""MemoryLog: generations in this process's memory, the ended ones for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rxrouter._errors import RouterError, UnknownGenerationError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.sharing.log import Status, Writer
from rxrouter.sharing.tape import Tape


class MemoryLog:
    """Keeps generations for the readers of one process.

    A generation costs what its chunks have in bytes, and 41 more for each. What has ended is forgotten by whichever of
    the three bounds is reached first, the oldest before the others; who still reads it reads on.

    Args:
        keep_seconds: How long a generation is kept after its end.
        keep_count: How many that have ended are kept.
        keep_bytes: How many bytes they may have together.
    """

    def __init__(
        self, *, keep_seconds: float = 600.0, keep_count: int = 1_000, keep_bytes: int = 64 * 1024 * 1024
    ) -> None:
        if not (keep_seconds >= 0 and keep_count >= 0 and keep_bytes >= 0):
            raise ValueError("what is kept is no less than nothing")
        self._keep_seconds = keep_seconds
        self._keep_count = keep_count
        self._keep_bytes = keep_bytes
        self._running: dict[str, _Writer] = {}
        self._ended: dict[str, tuple[Tape, float]] = {}  # and when it is to be forgotten; the oldest first
        self._ended_bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
        """See `Log`."""
        if key in self._running or key in self._ended:
            return None
        self._running[key] = writer = _Writer(self, key, on_lost)
        return writer

    def follow(self, key: str) -> Tape:
        """See `Log`."""
        tape = self._tape(key)
        if tape is None:
            tape = Tape()
            tape.end(UnknownGenerationError(key))
        return tape

    async def stop(self, key: str, error: RouterError) -> None:
        """See `Log`."""
        if key in self._running:
            writer = self._running[key]
            writer.end(error)
            writer.on_lost()
        elif key not in self._ended:
            raise UnknownGenerationError(key)

    async def status(self, key: str) -> Status:
        """See `Log`."""
        tape = self._tape(key)
        if tape is None:
            return Status("unknown")
        if key in self._running:
            return Status("running", len(tape.entries))
        return Status.ended(len(tape.entries), tape.error)

    async def aclose(self) -> None:
        """See `Log`."""
        self._ended.clear()
        self._ended_bytes = 0
        self._forget()

    def _tape(self, key: str) -> Tape | None:
        if key in self._running:
            return self._running[key].tape
        return self._ended[key][0] if key in self._ended else None

    def _forget(self) -> None:
        """Lets go of what is beyond a bound, and looks again when the next is too old."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._ended:
            key, (tape, until) = next(iter(self._ended.items()))
            if len(self._ended) <= self._keep_count and self._ended_bytes <= self._keep_bytes and until > loop.time():
                self._timer = loop.call_at(until, self._forget)
                break
            del self._ended[key]
            self._ended_bytes -= tape.size_bytes

    def ended(self, key: str, tape: Tape) -> None:
        """The tape has its last entry."""
        del self._running[key]
        self._ended[key] = tape, asyncio.get_running_loop().time() + self._keep_seconds
        self._ended_bytes += tape.size_bytes
        self._forget()


class _Writer:
    """Writes on a tape."""

    def __init__(self, log: MemoryLog, key: str, on_lost: Callable[[], None]) -> None:
        self.tape = Tape(on_over=lambda: log.ended(key, self.tape))
        self.on_lost = on_lost

    def append(self, chunk: ChatChunk) -> None:
        self.tape.on_next(chunk)

    def end(self, error: RouterError | None) -> None:
        self.tape.end(error)
