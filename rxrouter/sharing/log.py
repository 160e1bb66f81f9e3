"""Log: what a hub asks of the place where it keeps generations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from msgspec import Struct

from rxrouter._errors import GenerationStopped, RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.sharing._entries import another
from rxrouter.sharing.tape import Tape

State = Literal["unknown", "running", "completed", "stopped", "failed"]


class Status(Struct, frozen=True):
    """How far a generation is."""

    state: State
    entries: int = 0  # the number of the last one
    error: RouterError | None = None  # what it ended with, if that is no good end

    @classmethod
    def ended(cls, entries: int, error: RouterError | None) -> Status:
        """That of a generation that ended so."""
        if error is None:
            return cls("completed", entries)
        error = another(error)
        error.partial = None  # who wants the answer follows it
        return cls("stopped" if isinstance(error, GenerationStopped) else "failed", entries, error)


class Writer(Protocol):
    """The right to write one generation; nobody else has it."""

    def append(self, chunk: ChatChunk) -> None:
        """Adds an entry; at once, without waiting for anybody."""
        ...

    def end(self, error: RouterError | None) -> None:
        """Adds the ending, unless somebody else has; it is the last entry."""
        ...


class Log(Protocol):
    """Numbered entries under keys, of which the last is the ending; all of it on the hub's loop.

    `MemoryLog` is the example to read; one that keeps them elsewhere feeds a `Tape` for each key that is read here.
    """

    async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
        """The right to write under this key, for the first who asks; None if there is a generation already.

        Args:
            key: The generation's.
            on_lost: Called when it has come to its end otherwise than by its writer.
        Errors: LogLostError, if the log is out of reach.
        """
        ...

    def follow(self, key: str) -> Tape:
        """The generation as it is known here, from its first entry on; it goes on by itself.

        A tape that has nothing to tell ends with UnknownGenerationError.
        """
        ...

    async def stop(self, key: str, error: RouterError) -> None:
        """Ends a generation from any process; nothing, if it has ended.

        Errors: UnknownGenerationError; LogLostError.
        """
        ...

    async def status(self, key: str) -> Status:
        """How far a generation is.

        Errors: LogLostError.
        """
        ...

    async def aclose(self) -> None:
        """Lets go of everything that was opened, when what was written is kept."""
        ...
