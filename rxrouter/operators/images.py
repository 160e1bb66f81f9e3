"""images(): the pictures that the model made."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.media import Image, image_of
from rxrouter.operators._types import Operator, fused


def images(*, choice: int = 0) -> Operator[ChatChunk, Image]:
    """Select the pictures that the model made; each comes whole, in one chunk.

    Marble:
        source     -a-i-|
        images()   ---I-|

    Args:
        choice: Which of the `n` answers.
    Emits: one `Image` for each; `.data` of it are the picture's bytes.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Image generation": choices[].delta.images; WIRE 4.3 recorded one of 1.9 MB.
    """

    def read(emit: abc.OnNext[Image]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice:
                    for told in part.delta.images:
                        if image := image_of(told):
                            emit(image)

        return on_next

    return fused(read)
