"""reasoning(): what the model shows of its thinking."""

from __future__ import annotations

from typing import Literal

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter.operators._thoughts import Think, of_thoughts, require_think
from rxrouter.operators._types import Operator, fused


def reasoning(*, choice: int = 0, think: Think | Literal[True] = "text") -> Operator[ChatChunk, str]:
    """Select the reasoning text of one choice, piece by piece, said once though the wire says it twice.

    Marble:
        source        -a-r-s-e-b-|
        reasoning()   ---R-S-----|

    Args:
        choice: Which of the `n` answers.
        think: What a block `<think>…</think>` at the beginning of the text is, which some servers leave there:
            "text", or "reasoning" (in short True), which is emitted here, and left out by `text(think="reasoning")`.
    Emits: one non-empty string for each chunk that has reasoning: `reasoning`, `reasoning_content`, or the text and
        summaries of `reasoning_details`; encrypted reasoning has no text.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Reasoning tokens": choices[].delta.reasoning mirrors reasoning_details.
    """
    if think is True:
        think = "reasoning"
    require_think(think)
    if think == "reasoning":
        return of_thoughts(choice, "reasoning")

    def read(emit: abc.OnNext[str]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice and (piece := reasoning_of(part.delta)):
                    emit(piece)

        return on_next

    return fused(read)
