"""completion(): the whole answer, at its end."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import ChatCompletion, state_after
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators._types import Operator


def completion() -> Operator[ChatChunk, ChatCompletion]:
    """Fold all chunks into one `ChatCompletion`: text, reasoning, tool calls, finish reason, usage.

    Marble:
        source         -a-b-f-|
        completion()   -------(C|)

    Emits: one completion when the source completes; nothing before.
    Errors: the source's, with the completion so far as `partial` on a `RouterError`: its state is "truncated" where the
        connection cut it, else "failed".
    Cancels: the source, on dispose.
    Source: OpenRouter "Streaming"; the field rules are those of WIRE 4.4, 4.5 and 6.
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ChatCompletion]:
        def subscribe(
            observer: abc.ObserverBase[ChatCompletion], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            fold = CompletionFold()

            def on_error(error: Exception) -> None:
                if isinstance(error, RouterError):
                    error.partial = fold.completion(state_after(error))
                observer.on_error(error)

            def on_completed() -> None:
                observer.on_next(fold.completion())
                observer.on_completed()

            return source.subscribe(fold.add, on_error, on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
