"""refusal(): why the model won't answer."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._types import Operator, fused


def refusal(*, choice: int = 0) -> Operator[ChatChunk, str]:
    """Select the words with which the model refuses, piece by piece; a refusal is no text of the answer.

    Marble:
        source      -a-r-s-|
        refusal()   ---R-S-|

    Args:
        choice: Which of the `n` answers.
    Emits: one non-empty string for each chunk that has one.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenAI "Structured outputs", refusals: choices[].delta.refusal; WIRE 4.3.
    """

    def read(emit: abc.OnNext[str]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice and (piece := part.delta.refusal):
                    emit(piece)

        return on_next

    return fused(read)
