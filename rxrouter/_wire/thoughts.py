"""ThoughtSplitter: `<think>…</think>` at the beginning of a text, apart from the words behind it."""

from __future__ import annotations

import re
from typing import NamedTuple

# Of models whose servers do not set the thoughts apart: DeepSeek R1 and Qwen, and those that are trained on them.
_TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>")
_MOST_SPACE = 256  # characters before the block; more of it is text


class Split(NamedTuple):
    """What a piece of text holds."""

    thoughts: str
    words: str


class ThoughtSplitter:
    """Pieces of a text in, cut anywhere; thoughts and words out, as soon as it is known which they are.

    Only a block at the beginning of the text, behind white space, is thoughts. The white space around it belongs to
    neither. What is held is shorter than a tag, or white space.
    """

    def __init__(self) -> None:
        self._held = ""
        self._closing = ""  # of the block that is open
        self._has_begun = False  # the block, or the words of a text without one
        self._is_past_space = False

    def add(self, piece: str) -> Split:
        """Return what is known to be thoughts, and words."""
        text = self._held + piece
        self._held = ""
        if not self._has_begun:
            text = self._begun(text)
        if self._closing:
            return self._inside(text)
        return Split("", self._words(text))

    def finish(self) -> Split:
        """Return what was held when the text ends."""
        held, self._held = self._held, ""
        return Split(held, "") if self._closing else Split("", held)

    def _begun(self, text: str) -> str:
        """Return the text behind the tag that opens a block; of another text, all of it; hold what may open one."""
        head = text.lstrip()
        space = len(text) - len(head)
        lowered = head[: len(max(_TAGS, key=len))].lower()
        for tag in _TAGS if space <= _MOST_SPACE else ():
            if lowered.startswith(tag):
                self._has_begun = True
                self._closing = f"</{tag[1:]}"
                return head[len(tag) :]
        if space <= _MOST_SPACE and any(tag.startswith(lowered) for tag in _TAGS):
            self._held = text
            return ""
        self._has_begun = self._is_past_space = True
        return text

    def _inside(self, text: str) -> Split:
        found = re.search(self._closing, text, re.IGNORECASE)
        if found is None:
            keep = _overlap(text, self._closing)
            self._held = text[len(text) - keep :]
            return Split(text[: len(text) - keep], "")
        self._closing = ""
        return Split(text[: found.start()], self._words(text[found.end() :]))

    def _words(self, text: str) -> str:
        if self._is_past_space or not text:
            return text
        words = text.lstrip()
        self._is_past_space = bool(words)
        return words


def _overlap(text: str, tag: str) -> int:
    """Return how many characters at the end of the text begin the tag."""
    return next((size for size in range(min(len(tag) - 1, len(text)), 0, -1) if text[-size:].lower() == tag[:size]), 0)
