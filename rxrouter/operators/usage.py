"""usage(): what the generation used and cost."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk, Usage
from rxrouter.operators._types import Operator, fused


def usage() -> Operator[ChatChunk, Usage]:
    """Select the usage: tokens, and the cost in credits.

    Marble:
        source    -a-b-u-|
        usage()   -----U-|

    Emits: once on OpenRouter, with the last chunk; each time it is said, by servers that count as they go (the last
        one is the total); never, where the server says none.
    Errors: the source's; a `StreamError` has the usage of a failed generation on it.
    Cancels: the source, on dispose; OpenRouter says no usage of a generation that was cancelled.
    Source: OpenRouter "Usage accounting"; WIRE 6 has its three eras.
    """

    def read(emit: abc.OnNext[Usage]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            if chunk.usage is not None:
                emit(chunk.usage)

        return on_next

    return fused(read)
