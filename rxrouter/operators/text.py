"""text(): the words of the answer."""

from __future__ import annotations

from reactivex import abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._thoughts import Think, of_thoughts, require_think
from rxrouter.operators._types import Operator, fused


def text(*, choice: int = 0, think: Think = "text") -> Operator[ChatChunk, str]:
    """Select the text of one choice, piece by piece; chunks without text say nothing.

    Marble:
        source   -a-r-b-c-u-|
        text()   -----H-L---|

    Args:
        choice: Which of the `n` answers.
        think: What a block `<think>…</think>` at the beginning of the text is, which some servers leave there:
            "text", as it was received, or "reasoning", which is left out here, and emitted by `reasoning(think=…)`.
    Emits: one non-empty string for each chunk that has one; joined, they are the answer.
    Errors: the source's. Nothing above `text()` folds the answer, so that the error has no `partial`. To have both,
        fold the same subscription: `chunks.pipe(ops.publish(lambda c: rx.merge(c.pipe(completion(),
        ops.ignore_elements()), c.pipe(text()))))`.
    Cancels: the source, on dispose.
    Source: OpenRouter "Streaming": choices[].delta.content.
    """
    require_think(think)
    if think == "reasoning":
        return of_thoughts(choice, "text")

    def read(emit: abc.OnNext[str]) -> abc.OnNext[ChatChunk]:
        def on_next(chunk: ChatChunk) -> None:
            for part in chunk.choices:
                if part.index == choice and (content := part.delta.content):
                    emit(content)

        return on_next

    return fused(read)
