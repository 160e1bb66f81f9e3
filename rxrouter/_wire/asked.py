"""Asked: the tools that an answer asks for, and whether it is proven that it said all it wanted to say."""

from __future__ import annotations

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import is_whole
from rxrouter._wire.finish_reasons import cutting_reason, is_completing
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted


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
                self._completing |= is_completing(part.finish_reason)
        if not chunk.choices and isinstance(chunk, Restarted):
            self.reasons.clear()
            self._completing = False

    def calls(self) -> list[ToolCall]:
        """All calls, as far as they were received."""
        received = self.fold.completion("streaming")
        return [call for part in received.choices if part.index == self._choice for call in part.partial_tool_calls]

    @property
    def proven(self) -> bool:
        """Whether all calls may be run, if the stream has ended with proof."""
        return self.doubt() is None and all(map(is_whole, self.calls()))

    def doubt(self) -> str | None:
        """Why the model may not have said all; None if it has."""
        if reason := cutting_reason(self.reasons):
            return f"the answer ended by {reason!r}"
        if self.fold.is_ambiguous(self._choice):
            return "pieces that can be read as other calls"
        if self._completing:
            return None
        return f"no finish reason that completes among {self.reasons}" if self.reasons else "no finish reason"
