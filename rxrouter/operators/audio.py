"""audio(): the spoken answer."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.media import Audio, audio_of
from rxrouter.operators._types import Operator, fused


def audio(*, choice: int = 0) -> Operator[ChatChunk, Audio]:
    """Select the pieces of the spoken answer: sound, and what it says.

    Marble:
        source    -a-d-t-|
        audio()   -A-D-T-|

    Args:
        choice: Which of the `n` answers.
    Emits: one `Audio` for each chunk that has one; which fields it has differs from piece to piece.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenAI "Audio", stream: choices[].delta.audio; WIRE 4.3.
    """

    def read(emit: abc.OnNext[Audio]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice and part.delta.audio is not None:
                    emit(audio_of(part.delta.audio))

        return on_next

    return fused(read)
