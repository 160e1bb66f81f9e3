"""tool_calls(): the tools that the model wants run, with proof that it said all it wanted to say."""

from __future__ import annotations

import re

import msgspec
from reactivex import Observable, abc

from rxrouter._errors import IncompleteToolCallError, RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import state_after, with_arguments
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._types import Operator

# Finish reasons that say: the model was done. OpenRouter's two, and those of servers that don't translate (WIRE 4.2).
_COMPLETING = {
    "tool_calls",
    "stop",
    "function_call",
    "tool_use",
    "end_turn",
    "stop_sequence",
    "complete",
    "completed",
    "eos",
}
# Reasons that say: it was not, whatever stands beside them (WIRE 9: finish "tool_calls", native "length").
_CUT = re.compile(
    r"length|max|limit|exceed|too_many|error|malformed|incomplete|cancel|abort|fail|interrupt|timeout|pause"
    r"|safety|filter|refus|recitation|block|prohibited|spii|unexpected",
    re.IGNORECASE,
)
_object = msgspec.json.Decoder(dict[str, object]).decode


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
    Errors: the source's, with what was received as `partial`; `IncompleteToolCallError` with the `calls` that lack
        proof, behind those that have it.
    Cancels: the source, on dispose.
    Source: WIRE 4.5 and 9; most of today's clients run half a call (PEERS 0.1).
    """

    def operator(source: Observable[ChatChunk]) -> Observable[ToolCall]:
        def subscribe(
            observer: abc.ObserverBase[ToolCall], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            asked = _Asked(observer, choice)
            return source.subscribe(asked.on_next, asked.on_error, asked.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Asked:
    """What one answer asks for, and all reasons that were given for its end: they come more than once, and change."""

    def __init__(self, observer: abc.ObserverBase[ToolCall], choice: int) -> None:
        self._observer = observer
        self._choice = choice
        self._fold = CompletionFold()
        self._reasons: list[str] = []

    def on_next(self, chunk: ChatChunk) -> None:
        self._fold.add(chunk)
        for part in chunk.choices:
            if part.index == self._choice:
                self._reasons += filter(None, (part.finish_reason, part.native_finish_reason))
        if not chunk.choices and isinstance(chunk, Restarted):
            self._reasons.clear()

    def on_error(self, error: Exception) -> None:
        if isinstance(error, RouterError):
            error.partial = self._fold.completion(state_after(error))
        self._observer.on_error(error)

    def on_completed(self) -> None:
        whole = self._fold.completion()
        calls = [call for part in whole.choices if part.index == self._choice for call in part.tool_calls]
        doubt = _doubt(self._reasons)
        proven = [call for call in calls if not doubt and _is_whole(call)]
        for call in proven:
            self._observer.on_next(with_arguments(call))
        if proven == calls:
            self._observer.on_completed()
            return
        cut = [call for call in calls if call not in proven]
        error = IncompleteToolCallError(doubt or "arguments that are no JSON object", cut, self._reasons)
        error.partial = whole
        error.generation_id = whole.id
        self._observer.on_error(error)


def _doubt(reasons: list[str]) -> str | None:
    """Why the model may not have said all; None if it has."""
    for reason in reasons:
        if _CUT.search(reason):
            return f"the answer ended by {reason!r}"
    if not any(reason.lower() in _COMPLETING for reason in reasons):
        return f"{reasons[-1]!r} is no finish reason that is known to complete" if reasons else "no finish reason"
    return None


def _is_whole(call: ToolCall) -> bool:
    try:
        _object(with_arguments(call).arguments)
    except (ValueError, RecursionError):
        return False
    return bool(call.name)
