"""NDJSON: one chunk a line."""

from __future__ import annotations

import msgspec

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.dialects.discreet import without_error
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Lines


class NDJSON:
    """Chunks as they were received, but for an error in them, a line each; blank lines keep the connection alive.

    A line with `error` is the last one, and an end that is none. A line with `restarted` says that what was said before
    it is void. Lines carry no ids: who comes back gets all of them.
    """

    framing = Lines("application/x-ndjson")

    def begin(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        """The chunk."""
        if not chunk.choices and isinstance(chunk, Restarted):
            return (msgspec.json.encode({"restarted": {"attempt": chunk.attempt}}),)
        return (without_error(chunk).raw,)

    def end(self) -> tuple[bytes, ...]:
        """Nothing: the body ends."""
        return ()

    def error(self, failure: Failure) -> tuple[bytes, ...]:
        """The error's line."""
        return (failure.body(),)
