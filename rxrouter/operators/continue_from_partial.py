"""continue_from_partial(): go on with an answer that was cut, from where it was cut."""

from __future__ import annotations

import msgspec
from reactivex import Observable, abc

from rxrouter._attempt import watching
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._continuing import Continuing, GoOn
from rxrouter.operators._retry_policy import RetryPolicy
from rxrouter.operators._types import Operator


def continue_from_partial(
    go_on: GoOn | None = None,
    *,
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
) -> Operator[ChatChunk, ChatChunk]:
    """Ask for the rest of an answer that was cut: its text is sent back as the beginning that the model goes on from.

    Marble:
        source                    -a-b#(x)
        rest                      -b-c-|
        continue_from_partial()   -A-B----C-|

    Before the first content it is `retry_transient()`, also for an empty answer; so it is, with
    `after_content="restart"`, while there is no text to send back.
    What the continuation repeats of the text is taken away: its longest overlap with the end of what was
    shown, unless that repeats itself there; its beginning is held until that is known, and where it is cut before, not
    shown: the answer is then shorter, but never garbled. Usage and cost are those of
    all attempts that have said theirs; `max_tokens` counts anew. Each chunk keeps the id of its own generation.

    Args:
        go_on: Makes the stream to go on with from the answer so far: of another model, or for one that takes no
            assistant message as the last, `lambda partial: client.chat(messages=[*messages, partial.message, GO_ON])`.
            When None, the same request is sent again with that message; the source must then be one `client.chat()`,
            any number of operators away.
        policy: How often, and when; its `after_content` is not asked.
    Emits: one answer, in the chunks of several attempts.
    Errors: as of `retry_transient()`; ContinuationRefusedError, chained from what cut the answer, where it can't be
        continued: a tool call, JSON or media had begun, its reasoning is encrypted, it is several answers, or it had
        come to its end; what `go_on` raised.
    Cancels: the attempt that runs, or the pause, on dispose.
    Source: PEERS P7; OpenRouter "Assistant prefill". Not every model takes it: some answer with a 400, which passes.
    """
    policy = msgspec.structs.replace(policy, after_content="continue")

    def operator(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
        def subscribe(
            observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            attempts = Continuing(source, policy, observer, scheduler, go_on)
            with watching(attempts.post):
                attempts.start()
            return attempts

        return Observable(subscribe)

    return operator
