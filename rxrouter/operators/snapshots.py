"""snapshots(): the growing answer."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import ChatCompletion
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators._answer import AnswerSubscription
from rxrouter.operators._types import Operator


def snapshots() -> Operator[ChatChunk, ChatCompletion]:
    """Fold chunks into the answer so far, again and again: what a screen needs that draws all of it each time.

    A snapshot is as of its chunk and never changes; it is read when somebody looks at it, so those that are thrown away
    (by `ops.sample`) cost next to nothing, however long the answer is.

    Marble:
        source        -a-b-f-|
        snapshots()   -A-B-F-(C|)

    Emits: one completion for each chunk, with state "streaming", and at the end the one that `completion()` gives;
        after a `Restarted` they begin anew.
    Errors: the source's, with the completion so far as `partial` on a `RouterError`.
    Cancels: the source, on dispose.
    Source: the field rules are those of `completion()`; folding anew for each chunk took others seconds (PEERS P19).
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ChatCompletion]:
        def subscribe(
            observer: abc.ObserverBase[ChatCompletion], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            fold = CompletionFold()
            answer = AnswerSubscription(fold)

            def on_next(chunk: ChatChunk) -> None:
                fold.add(chunk)
                observer.on_next(fold.snapshot())

            def on_completed() -> None:
                observer.on_next(answer.completion())
                observer.on_completed()

            return answer.subscribe(source, on_next, observer, on_completed, scheduler)

        return Observable(subscribe)

    return operator
