"""citations(): the sources that the answer refers to."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.media import Citation, citation_of
from rxrouter.operators._types import Operator, fused


def citations(*, choice: int = 0) -> Operator[ChatChunk, Citation]:
    """Select the sources that the answer refers to, each as it is named.

    Marble:
        source        -c-a-d-|
        citations()   -C---D-|

    Args:
        choice: Which of the `n` answers.
    Emits: one `Citation` for each `url_citation`; parsed files are annotations, too, but no citations.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Web search": choices[].delta.annotations; WIRE 4.6.
    """

    def read(emit: abc.OnNext[Citation]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice:
                    for annotation in part.delta.annotations:
                        if citation := citation_of(annotation):
                            emit(citation)

        return on_next

    return fused(read)
