"""reasoning(): what the model shows of its thinking."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter.operators._types import Operator


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

    def operator(source: Observable[ChatChunk]) -> Observable[str]:
        def subscribe(
            observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            emit = observer.on_next

            def on_next(chunk: ChatChunk) -> None:
                for part in chunk.choices:
                    if part.index == choice and (piece := reasoning_of(part.delta)):
                        emit(piece)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
