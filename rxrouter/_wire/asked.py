"""Asked: the tools that an answer asks for, and whether it is proven that it said all it wanted to say."""

from __future__ import annotations

import re

import msgspec

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import with_arguments
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted

# Finish reasons that say: the model was done. OpenRouter's two, and those of servers that don't translate (WIRE 4.2).
_COMPLETING = {
    *("tool_calls", "stop", "function_call", "tool_use", "end_turn"),
    *("stop_sequence", "complete", "completed", "eos"),
}
# Reasons that say: it was not, whatever stands beside them (WIRE 9: finish "tool_calls", native "length").
_CUT = re.compile(
    r"length|max|limit|exceed|too_many|truncat|incomplete|cancel|abort|kill|interrupt|pause|evict|timeout"
    r"|error|fail|malformed|unexpected|overload|insufficient|resource|unavailable"
    r"|safety|filter|refus|recitation|block|prohibited|spii|sensitive|flagged|guardrail|moderat|^other$",
    re.IGNORECASE,
)
_object = msgspec.json.Decoder(dict[str, object]).decode


class Asked:
    """What one answer asks for, and all reasons that were given for its end: they come more than once, and change.

    Args:
        choice: Which of the `n` answers.
    """

    def __init__(self, choice: int) -> None:
        self.fold = CompletionFold()
        self.reasons: list[str] = []
        self._completing = False
        self._choice = choice

    def add(self, chunk: ChatChunk) -> None:
        """One more chunk."""
        self.fold.add(chunk)
        for part in chunk.choices:
            if part.index == self._choice:
                self.reasons += filter(None, (part.finish_reason, part.native_finish_reason))
                self._completing |= (part.finish_reason or "").lower() in _COMPLETING
        if not chunk.choices and isinstance(chunk, Restarted):
            self.reasons.clear()
            self._completing = False

    def calls(self) -> list[ToolCall]:
        """All calls, as far as they were received."""
        whole = self.fold.completion()
        return [call for part in whole.choices if part.index == self._choice for call in part.tool_calls]

    def doubt(self) -> str | None:
        """Why the model may not have said all; None if it has."""
        for reason in self.reasons:
            if _CUT.search(reason):
                return f"the answer ended by {reason!r}"
        if self._completing:
            return None
        return f"no finish reason that completes among {self.reasons}" if self.reasons else "no finish reason"


def is_whole(call: ToolCall) -> bool:
    """Whether a call has a name, and arguments that are a JSON object."""
    try:
        _object(with_arguments(call).arguments)
    except (ValueError, RecursionError):
        return False
    return bool(call.name)
