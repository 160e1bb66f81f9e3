"""DocumentFinder: where a JSON document begins in a text that has other things before it."""

from __future__ import annotations

import re

from rxrouter._wire.thoughts import ThoughtSplitter

BOM = "\ufeff"

_MOST_HELD = 256  # characters; a sign with more white space behind it begins no document
_JSON_FENCES = {"json", "jsonc", "json5"}

_sign = re.compile(r"```|[{\[]")
_fence = re.compile(r"```[ \t]*([\w+-]*)[ \t]*")
# Of an object, its first key; of an array, a first element that no prose has behind a bracket.
_is_object = re.compile(r'\{\s*["}]').match
_is_array = re.compile(r'\[\s*[{\["]').match
_is_array_of_scalars = re.compile(r"\[\s*(?:[-\d\]]|true|false|null)").match
_is_open = re.compile(r"[{\[]\s*(?:t|tr|tru|f|fa|fal|fals|n|nu|nul)?\Z").match


class DocumentFinder:
    """Pieces of a text in, the document and what follows it out.

    The document is in a block fenced as JSON, or it is the first object or array: after thoughts, a sentence or a BOM,
    and not in a block fenced as another language. An array of numbers, or an empty one, must begin its line: elsewhere
    `[1]` is a footnote, and `[ ]` a box to tick.
    """

    def __init__(self) -> None:
        self.skipped = 0  # characters in front of the document
        self._thoughts = ThoughtSplitter()
        self.seen = 0  # characters of the text
        self._held = ""
        self._begins_line = True  # there is only white space between the last line's end and the held text
        self._in_code = False  # in a block of another language
        self.found = False

    def add(self, piece: str) -> str:
        """Return the document as far as it is in the piece, and anything behind it."""
        if self.found:
            return piece
        self.seen += len(piece)
        text = self._held + self._thoughts.add(piece).words
        self._held = ""
        begin = self._search(text)
        if begin is None:
            return ""
        self.skipped = self.seen - len(text) + begin
        return text[begin:]

    def _search(self, text: str) -> int | None:
        """Return where the document begins; None where it does not begin in this text."""
        at = 0
        while not self.found:
            found = _sign.search(text, at)
            if found is None:
                # Of a fence, one or two signs may have come.
                keep = len(text) - len(text.rstrip("`"))
                self._pass(text[at : len(text) - keep])
                self._held = text[len(text) - keep :]
                return None
            self._pass(text[at : found.start()])
            at = self._judge(text, found.start())
            if at < 0:
                return None
        return at

    def _judge(self, text: str, at: int) -> int:
        """Return where to go on behind this sign, or where the document begins; -1 if more has to come."""
        if text[at] == "`":
            fence = _fence.match(text, at)
            end = fence.end() if fence else at + 3
            if end == len(text) and end - at < _MOST_HELD:
                self._held = text[at:]
                return -1
            return self._enter(fence[1].lower() if fence else "", end)
        if self._in_code:
            return at + 1
        if _is_object(text, at) or _is_array(text, at) or (self._begins_line and _is_array_of_scalars(text, at)):
            self.found = True
            return at
        if len(text) - at < _MOST_HELD and _is_open(text, at):
            self._held = text[at:]
            return -1
        self._begins_line = False
        return at + 1

    def _enter(self, language: str, end: int) -> int:
        if self._in_code:
            self._in_code = False
        elif language in _JSON_FENCES:
            self.found = True
        else:
            self._in_code = bool(language)
        self._begins_line = True
        return end

    def _pass(self, text: str) -> None:
        last = text.rpartition("\n")[2]
        self._begins_line = not last.strip() and (self._begins_line or "\n" in text)
