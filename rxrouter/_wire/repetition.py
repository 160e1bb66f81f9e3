"""Take out of a whole message what deltas have said before it: some servers, such as MiniMax, end streams with one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from msgspec.structs import replace

from rxrouter._wire.chunk import ChatChunk, Choice, Delta

Kind = Literal["content", "reasoning", "tool_calls", "refusal", "annotations", "images", "audio"]

# A delta with any member; beside it, a message is passed over.
_has_delta = re.compile(rb'"delta"\s*:\s*\{\s*"').search
_REASONING = ("reasoning", "reasoning_content", "reasoning_details")
_NOTHING = Delta()


class Repetition:
    """The kinds of content that deltas have had.

    Attributes:
        plain: Those of the first choice in chunks that are not given to `strip`.
    """

    __slots__ = ("_by_choice", "plain")

    def __init__(self) -> None:
        self.plain = set[Kind]()
        self._by_choice: dict[int, set[Kind]] = {}

    def strip(self, chunk: ChatChunk) -> ChatChunk:
        """Take note of the deltas of a chunk; return it without the parts of a message that came before."""
        if b'"message"' not in chunk.raw or _has_delta(chunk.raw):
            for choice in chunk.choices:
                self._by_choice.setdefault(choice.index, set()).update(_kinds_of(choice.delta))
            return chunk
        return replace(chunk, choices=[self._stripped(choice) for choice in chunk.choices])

    def _stripped(self, choice: Choice) -> Choice:
        before = self._by_choice.get(choice.index, set[Kind]()) | (set[Kind]() if choice.index else self.plain)
        repeated = before.intersection(_kinds_of(choice.delta))
        names = [name for kind in repeated for name in (_REASONING if kind == "reasoning" else (kind,))]
        empty = {name: getattr(_NOTHING, name) for name in names}
        return replace(choice, delta=replace(choice.delta, **empty)) if empty else choice


def _kinds_of(delta: Delta) -> Iterator[Kind]:
    if delta.content:
        yield "content"
    if delta.reasoning or delta.reasoning_content or delta.reasoning_details:
        yield "reasoning"
    if delta.tool_calls:
        yield "tool_calls"
    if delta.refusal:
        yield "refusal"
    if delta.annotations:
        yield "annotations"
    if delta.images:
        yield "images"
    if delta.audio:
        yield "audio"
