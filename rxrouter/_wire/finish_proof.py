"""Judge by finish reasons, and by what stands with and behind them, whether an answer is proven finished."""

from __future__ import annotations

from enum import IntEnum


class _Standing(IntEnum):
    """How far one choice is; the order matters."""

    OPEN = 0
    # Content came behind a finish: what finish reasons say beside content proves nothing any more.
    REOPENED = 1
    # Finished, but the server may go on: it runs the tool itself, or finishes every chunk.
    DOUBTFUL = 2
    FINISHED = 3


class FinishProof:
    """Finish reasons of all choices: a finish with content behind it has lost its proof.

    Time for one chunk does not grow with the number of choices.
    """

    __slots__ = ("_counts", "_standings")

    def __init__(self) -> None:
        self._standings: dict[int, _Standing] = {}
        # How many choices have each standing.
        self._counts = [0] * len(_Standing)

    def begin(self, index: int) -> None:
        """Take notice of a choice that has content."""
        if index not in self._standings:
            self._standings[index] = _Standing.OPEN
            self._counts[_Standing.OPEN] += 1

    def add(self, index: int, finish_reason: str | None, *, content: bool) -> None:
        """Take what one chunk has for one choice.

        Args:
            index: The choice.
            finish_reason: Its finish reason; None or "" where it has not finished.
            content: Whether the chunk has any content for it.
        """
        self.begin(index)
        before = after = self._standings[index]
        if content and before is not _Standing.OPEN:
            after = _Standing.REOPENED
        elif finish_reason and before is _Standing.REOPENED:
            after = _Standing.DOUBTFUL
        elif finish_reason and before is _Standing.OPEN:
            after = _Standing.DOUBTFUL if content or _asks_for_tools(finish_reason) else _Standing.FINISHED
        self._counts[before] -= 1
        self._counts[after] += 1
        self._standings[index] = after

    def add_from_elsewhere(self, index: int, finish_reason: str | None, *, content: bool) -> None:
        """Take a chunk from elsewhere, of which no [DONE] is known: a finish beside content counts, as one behind it.

        Its source completes by itself. In a body, the same chunk may be one of many that a cut has left.
        """
        if content:
            self.add(index, None, content=True)
        self.add(index, finish_reason, content=False)

    def __bool__(self) -> bool:
        """Whether there was any choice."""
        return bool(self._standings)

    @property
    def any_finished(self) -> bool:
        """Whether content that follows may take a proof away."""
        return bool(self._counts[_Standing.DOUBTFUL] or self._counts[_Standing.FINISHED])

    def proven(self, choices: int) -> bool:
        """Whether so many choices, and all that there are, have finished."""
        open_ones = self._counts[_Standing.OPEN] + self._counts[_Standing.REOPENED]
        return len(self._standings) >= choices and not open_ones

    def unambiguous(self, choices: int) -> bool:
        """Whether only usage and [DONE] can be still to come."""
        return self.proven(choices) and not self._counts[_Standing.DOUBTFUL]


def _asks_for_tools(finish_reason: str) -> bool:
    reason = finish_reason.lower()
    return "tool" in reason or "function" in reason
