"""Encoder: one answer, said in one dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from rxrouter._wire.chunk import ChatChunk
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Framing


class Encoder(Protocol):
    """Says one answer: `begin`, a `chunk` each, then `end` or `error`; each gives payloads, which become frames.

    It is deterministic: the same values give the same payloads, so a reader that comes back can be told the rest. One
    that says each chunk alone may have a method `skip`, too, which is then called with those that the reader has, if
    they have choices.
    """

    @property
    def framing(self) -> Framing:
        """How its payloads are sent."""
        ...

    def begin(self) -> Iterable[bytes]:
        """What comes before the first chunk."""
        ...

    def chunk(self, chunk: ChatChunk) -> Iterable[bytes]:
        """What this chunk says; a `Restarted` says that all before it is void.

        Raises:
            Exception: the dialect can't say it; the answer ends with this error.
        """
        ...

    def end(self) -> Iterable[bytes]:
        """The good end."""
        ...

    def error(self, failure: Failure) -> Iterable[bytes] | None:
        """Any other end; None if the dialect has no word for it, and the body is to break off."""
        ...


Dialect = Callable[[], Encoder]
"""Makes the encoder of a response: one of this package's classes, or `lambda: AGUI(thread_id=…, run_id=…)`."""
