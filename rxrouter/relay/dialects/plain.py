"""PlainText: the answer's words, and nothing else."""

from __future__ import annotations

from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Bare


class PlainText:
    """The text of the first choice, or its refusal; what AI SDK calls a text stream.

    There is no word for an error, so the body breaks off, as a file does that was not downloaded to its end; nor for
    taking back, so a `Restarted` breaks it off, too. ASGI has no message for that: the application just stops, and a
    middleware that ends bodies itself makes this one look whole, as may a proxy. Who must know of errors reads another
    dialect. Nothing keeps a silent connection alive.
    """

    # Browsers that may sniff wait for 512 bytes before they show any.
    framing = Bare("text/plain; charset=utf-8", {"X-Content-Type-Options": "nosniff"})

    def begin(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def chunk(self, chunk: ChatChunk) -> list[bytes]:
        """The text."""
        if not chunk.choices and isinstance(chunk, Restarted):
            raise chunk.cause or RouterError("the answer began anew")
        deltas = [choice.delta for choice in chunk.choices if choice.index == 0]
        return [text.encode(errors="replace") for delta in deltas for text in (delta.content, delta.refusal) if text]

    def end(self) -> tuple[bytes, ...]:
        """Nothing: the body ends."""
        return ()

    def error(self, failure: Failure) -> None:  # noqa: ARG002 - it can't be told
        """Nothing that could be told from text."""
        return
