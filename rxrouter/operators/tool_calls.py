"""tool_calls(): the tools that the model wants run, with proof that it said all it wanted to say."""

from __future__ import annotations

from reactivex import Observable, abc

from rxrouter._errors import IncompleteToolCallError
from rxrouter._wire.asked import Asked
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import is_whole, with_arguments
from rxrouter._wire.message import ToolCall
from rxrouter.operators._answer import AnswerSubscription
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
    Errors: the source's, with the answer so far as `partial`; `IncompleteToolCallError` with all `calls` of the answer,
        if one of them lacks proof, or if an operator above has stopped the stream.
    Cancels: the source, on dispose.
    Source: WIRE 4.5 and 9; most of today's clients run half a call (PEERS 0.1).
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ToolCall]:
        def subscribe(
            observer: abc.ObserverBase[ToolCall], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            subscription = _ToolCallSubscription(observer, choice)
            return subscription.begin(source, scheduler)

        return Observable(subscribe)

    return operator


class _ToolCallSubscription:
    """Folds an answer, and releases all of its calls at the end, or no call."""

    def __init__(self, observer: abc.ObserverBase[ToolCall], choice: int) -> None:
        self._observer = observer
        self._asked = Asked(choice)
        self._answer = AnswerSubscription(self._asked.fold)

    def begin(self, source: Observable[ChatChunk], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        return self._answer.subscribe(source, self._asked.add, self._observer, self._on_completed, scheduler)

    def _on_completed(self) -> None:
        calls = self._asked.calls()
        reason = self._unproven() if calls else None
        if reason is None and not all(map(is_whole, calls)):
            reason = "arguments that are no JSON object"
        if reason is None:
            for call in calls:
                self._observer.on_next(with_arguments(call))
            self._observer.on_completed()
            return
        error = IncompleteToolCallError(reason, calls, self._asked.reasons)
        error.partial = answer = self._answer.completion()
        # All chunks came, but not all of the answer: its calls are not what the model meant.
        answer.state = "incomplete" if answer.state == "complete" else answer.state
        error.generation_id = answer.id
        self._observer.on_error(error)

    def _unproven(self) -> str | None:
        """Return why the answer is not proven; None if it is."""
        if self._answer.state == "stopped":
            return "the stream was stopped before the answer had finished"
        return self._asked.doubt()
