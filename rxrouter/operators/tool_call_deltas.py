"""tool_call_deltas(): tool calls in the making."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk, ToolCallDelta
from rxrouter.operators._types import Operator, fused


def tool_call_deltas(*, choice: int = 0) -> Operator[ChatChunk, ToolCallDelta]:
    """Select the pieces of tool calls as they come, to show them in the making; never to run them: see `tool_calls`.

    Marble:
        source               -a-n-g-|
        tool_call_deltas()   ---N-G-|

    Args:
        choice: Which of the `n` answers.
    Emits: each piece as the wire has it; pieces of one call share the index, the first has its id and name.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Tool calling": choices[].delta.tool_calls; WIRE 4.5 has the variants.
    """

    def read(emit: abc.OnNext[ToolCallDelta]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice:
                    for piece in part.delta.tool_calls:
                        emit(piece)

        return on_next

    return fused(read)
