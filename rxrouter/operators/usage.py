"""usage(): what the generation used and cost."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk, Usage
from rxrouter.operators._types import Operator


def usage() -> Operator[ChatChunk, Usage]:
    """Select the usage: tokens, and the cost in credits.

    Marble:
        source    -a-b-u-|
        usage()   -----U-|

    Emits: once on OpenRouter, with the last chunk; each time it is said, by servers that count as they go (the last
        one is the total); never, where the server says none.
    Errors: the source's; a `StreamError` has the usage of a failed generation on it.
    Cancels: the source, on dispose; OpenRouter says no usage of a generation that was cancelled.
    Source: OpenRouter "Usage accounting"; WIRE 6 has its three eras.
    """

    def operator(source: Observable[ChatChunk]) -> Observable[Usage]:
        def subscribe(
            observer: abc.ObserverBase[Usage], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_next(chunk: ChatChunk) -> None:
                if chunk.usage is not None:
                    observer.on_next(chunk.usage)

            return source.subscribe(on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator
