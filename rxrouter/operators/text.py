"""text(): the words of the answer."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._types import Operator


def text(*, choice: int = 0) -> Operator[ChatChunk, str]:
    """Select the text of one choice, piece by piece; chunks without text say nothing.

    Marble:
        source   -a-r-b-c-u-|
        text()   -----H-L---|

    Args:
        choice: Which of the `n` answers.
    Emits: one non-empty string for each chunk that has one; joined, they are the answer.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: OpenRouter "Streaming": choices[].delta.content.
    """

    def operator(source: Observable[ChatChunk]) -> Observable[str]:
        def subscribe(
            observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            emit = observer.on_next

            def on_next(chunk: ChatChunk) -> None:
                for part in chunk.choices:
                    if part.index == choice and (content := part.delta.content):
                        emit(content)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
