"""tool_calls(): the tools that the model wants run, with proof that it said all it wanted to say."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._errors import IncompleteToolCallError, RouterError
from rxrouter._wire.asked import Asked
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import is_whole, state_after, with_arguments
from rxrouter._wire.message import ToolCall
from rxrouter.operators._types import Operator


def tool_calls(*, choice: int = 0) -> Operator[ChatChunk, ToolCall]:
    """Select whole tool calls, to be run. A call that was cut is an error, and never a call.

    Proof is, all together: the source completed; a finish reason that completes; no reason, native or not, that speaks
    of a length, an error or a filter; and arguments that are a whole JSON object.

    Marble:
        source         -n-g-f-|
        tool_calls()   -------(C|)

    Args:
        choice: Which of the `n` answers.
    Emits: when the source completes, each call in order; its `arguments` parse, `{}` where the model sent none. Nothing
        for an answer without calls.
    Errors: the source's, with what was received as `partial`; `IncompleteToolCallError` with all `calls` of
        the answer, if one of them lacks proof.
    Cancels: the source, on dispose.
    Source: WIRE 4.5 and 9; most of today's clients run half a call (PEERS 0.1).
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ToolCall]:
        def subscribe(
            observer: abc.ObserverBase[ToolCall], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            reading = _Reading(observer, choice)
            return source.subscribe(reading.on_next, reading.on_error, reading.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Reading:
    """Folds an answer, and says at its end what it asks for."""

    def __init__(self, observer: abc.ObserverBase[ToolCall], choice: int) -> None:
        self._observer = observer
        self._asked = Asked(choice)
        self.on_next = self._asked.add

    def on_error(self, error: Exception) -> None:
        if isinstance(error, RouterError):
            error.partial = self._asked.fold.completion(state_after(error))
        self._observer.on_error(error)

    def on_completed(self) -> None:
        calls, doubt = self._asked.calls(), self._asked.doubt()
        if not calls or (doubt is None and all(map(is_whole, calls))):
            for call in calls:
                self._observer.on_next(with_arguments(call))
            self._observer.on_completed()
            return
        error = IncompleteToolCallError(doubt or "arguments that are no JSON object", calls, self._asked.reasons)
        error.partial = whole = self._asked.fold.completion("truncated")
        error.generation_id = whole.id
        self._observer.on_error(error)
