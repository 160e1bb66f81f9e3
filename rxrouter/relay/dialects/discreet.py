"""What a chunk says of the answer, without what the model's side says of its error."""

from __future__ import annotations

import msgspec

from rxrouter._wire.chunk import ChatChunk


def without_error(chunk: ChatChunk) -> ChatChunk:
    """The chunk itself, if there is no error in it.

    What the model's side writes there is not for readers; they are told at the end, as far as `explain` says.
    """
    for choice in chunk.choices:
        if choice.error is not None or choice.finish_reason == "error":
            break
    else:
        if chunk.error is None:
            return chunk
    choices = [
        msgspec.structs.replace(
            choice,
            error=None,
            native_finish_reason=None,
            finish_reason=None if choice.finish_reason == "error" else choice.finish_reason,
        )
        for choice in chunk.choices
    ]
    return msgspec.structs.replace(chunk, error=None, choices=choices)
