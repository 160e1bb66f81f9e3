"""reasoning(): what the model shows of its thinking."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter.operators._types import Operator, fused


def reasoning(*, choice: int = 0) -> Operator[ChatChunk, str]:
    """Select the reasoning text of one choice, piece by piece, said once though the wire says it twice.

    Marble:
        source        -a-r-s-e-b-|
        reasoning()   ---R-S-----|

    Args:
        choice: Which of the `n` answers.
    Emits: one non-empty string for each chunk that has reasoning: `reasoning`, `reasoning_content`, or the text and
        summaries of `reasoning_details`; encrypted reasoning has no text.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Reasoning tokens": choices[].delta.reasoning mirrors reasoning_details.
    """

    def read(emit: abc.OnNext[str]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice and (piece := reasoning_of(part.delta)):
                    emit(piece)

        return on_next

    return fused(read)
