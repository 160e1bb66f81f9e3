"""completion(): the whole answer, at its end."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import ChatCompletion
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators._answer import AnswerSubscription
from rxrouter.operators._types import Operator


def completion() -> Operator[ChatChunk, ChatCompletion]:
    """Fold all chunks into one `ChatCompletion`: text, reasoning, tool calls, finish reason, usage.

    Marble:
        source         -a-b-f-|
        completion()   -------(C|)

    Emits: one completion when the source completes; nothing before. Its `state` is `complete` only if the answer is
        proven: an operator above that ends the stream early, such as `take_while`, makes it `stopped`; a length limit
        or a filter of the model makes it `incomplete`. Chunks that do not come from a client or a hub are proven by
        their finish reasons; without these the state is `truncated`.
    Errors: the source's, with the completion so far as `partial` on a `RouterError`; see `ChatCompletion.state`.
    Cancels: the source, on dispose.
    Source: OpenRouter "Streaming", https://openrouter.ai/docs/api-reference/streaming
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ChatCompletion]:
        def subscribe(
            observer: abc.ObserverBase[ChatCompletion], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            fold = CompletionFold()
            answer = AnswerSubscription(fold)

            def on_completed() -> None:
                observer.on_next(answer.completion())
                observer.on_completed()

            return answer.subscribe(source, fold.add, observer, on_completed, scheduler)

        return Observable(subscribe)

    return operator
