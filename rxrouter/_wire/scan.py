"""Scanner: the grammar of JSON (RFC 8259), fed with pieces of a document in any cuts, in time linear in its text.

It tells a `Sink` what it meets, and asks it of each value that begins whether to be led through it, or to have its text
when it is whole, or neither. Text that is not wanted is not kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from json import JSONDecodeError, decoder
from typing import Protocol, cast

from rxrouter._errors import AnswerDecodeError

DEPTH = 500  # open arrays and objects; json.loads and msgspec give up at about 1,000, in a RecursionError

# What a sink wants of a value: nothing, to be led through it, its text, or (the sum) both.
PASS, FOLLOW, KEEP = 0, 1, 2

# The inside of a string to its quote, in C, and where that was: undocumented, but what json.loads has used since 2009.
_scan_string: Callable[[str, int], tuple[str, int]] = decoder.scanstring  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

_Match = Callable[[str, int], re.Match[str]]  # of what may also match nothing
_past_space = cast(_Match, re.compile(r"[ \t\n\r]*").match)
_past_number = cast(_Match, re.compile(r"[-+.0-9eE]*").match)
_is_number = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?").fullmatch

_SPACE = " \t\n\r"
_WORDS = {"t": "true", "f": "false", "n": "null"}
_CLOSING = {"[": "]", "{": "}"}

# What can't be told yet at the end of a text: the beginning of an escape, or the first half of a surrogate pair with
# what may become the second.
_BEGUN = re.compile(
    r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?|\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?)\Z"
)
_LONGEST_BEGUN = len(r"\ud83d\ude0")


class Sink(Protocol):
    """What a scanner talks to. A ValueError of its is the end of the document."""

    def begin(self, sign: str, /) -> int:
        """A value begins, with this sign; returns what is wanted of it. Numbers and literals can only be kept."""
        ...

    def key(self, name: str, /) -> None:
        """The key of the next value, in an object that is followed."""

    def text(self, piece: str, /) -> None:
        """A string that is followed goes on."""

    def end(self, sign: str, raw: str | None, /) -> None:
        """The value that is followed, and began with this sign, is whole; with its text, if that was to be kept."""

    def whole(self, raw: str, /) -> None:
        """The text of a value that was only to be kept."""


class _Nobody:
    """The sink of values that nobody wants to be led through."""

    def begin(self, _sign: str) -> int:
        return FOLLOW

    def key(self, _name: str) -> None: ...

    def text(self, _piece: str) -> None: ...

    def end(self, _sign: str, _raw: str | None) -> None: ...

    def whole(self, _raw: str) -> None: ...


_NOBODY = _Nobody()


class Scanner:
    """Pieces of a document in; what they mean, to a sink.

    Args:
        sink: Where to.
        ignores_rest: Whether anything may follow the document.
    """

    def __init__(self, sink: Sink, *, ignores_rest: bool = False) -> None:
        self._ignores_rest = ignores_rest
        self.done = False  # the document is whole
        self.position = 0  # characters before this text
        self._sink = sink
        self._step: Callable[[Scanner, int], int] = Scanner._between
        self._expected: Callable[[Scanner, str, int], int] = Scanner._value
        self._open: list[tuple[str, tuple[int, int] | None, Sink | None]] = []  # sign, where text is kept from, sink
        self._text = '"'  # this piece; the quote at its end is ours, and ends a string that has not ended
        self._end = 0  # where that quote is
        self._stop = 0  # where the value that ended last did
        self._held = ""  # the beginning of an escape
        self._parts: list[str] = []  # of a key, or of a number
        self._word = self._rest = ""  # a literal, and what of it is still to come
        self._wanted = PASS  # of a number or a literal
        self._kept: list[str] = []  # texts, from the one in which the outermost value that is to be kept began
        self._keeping = 0  # values

    def feed(self, piece: str) -> None:
        """Reads on.

        Raises:
            AnswerDecodeError: this is no JSON, or the sink refuses it.
        """
        if self.done and self._ignores_rest:
            return
        if self._held or "\\" in piece:
            text = self._cut(piece)
        elif self._step is Scanner._string and '"' not in piece and piece.isprintable():
            self._tell(piece)  # most pieces are like this, and no control character is printable
            return
        else:
            text = piece
        self._text = text + '"'
        self._end = end = len(text)
        if self._keeping:
            self._kept.append(text)
        at = self._stop = 0
        try:
            while at < end:
                at = self._step(self, at)
        except (ValueError, RecursionError) as error:
            raise self._refusal(error) from error.__cause__
        self.position += end

    def finish(self) -> None:
        """The text is at its end.

        Raises:
            AnswerDecodeError: the document is not.
        """
        if self._step is Scanner._number and not self._open:
            try:
                self._number_ended(0)
            except ValueError as error:
                raise self._refusal(error) from error.__cause__
        if not self.done or (self._held and not self._ignores_rest):
            raise AnswerDecodeError("the text ends before the document does", self.position + len(self._held))

    def _tell(self, piece: str) -> None:
        """All of the piece is inside a string."""
        if self._keeping:
            self._kept.append(piece)
        self.position += len(piece)
        if piece:
            self._sink.text(piece)

    def _cut(self, piece: str) -> str:
        """The text that can be told; the beginning of an escape waits for the next piece."""
        text = self._held + piece
        self._held = ""
        if text.endswith("\\") or "\\u" in text[-_LONGEST_BEGUN:]:
            begun = _BEGUN.search(text, len(text[:-_LONGEST_BEGUN].rstrip("\\")))
            if begun:
                self._held = begun[1]
                return text[: begun.start(1)]
        return text

    def _refusal(self, error: Exception) -> AnswerDecodeError:
        if isinstance(error, JSONDecodeError):
            return AnswerDecodeError(error.msg.removesuffix(" at"), self.position + error.pos)
        return AnswerDecodeError(str(error), self.position + self._stop)

    def _expecting(self, what: str, at: int) -> JSONDecodeError:
        return JSONDecodeError(f"expected {what}", self._text, at)

    # Steps: each reads on, and returns where it has come to.

    def _between(self, at: int) -> int:
        sign = self._text[at]
        if sign in _SPACE:
            at = _past_space(self._text, at).end()
            if at == self._end:
                return at
            sign = self._text[at]
        return self._expected(self, sign, at)

    def _string(self, at: int) -> int:
        piece, stop = _scan_string(self._text, at)
        if piece:
            self._sink.text(piece)
        return stop if stop > self._end else self._close(stop)

    def _name(self, at: int) -> int:
        piece, stop = _scan_string(self._text, at)
        self._parts.append(piece)
        if stop <= self._end:
            self._sink.key("".join(self._parts))
            self._step, self._expected = Scanner._between, Scanner._colon
        return stop

    def _number(self, at: int) -> int:
        stop = _past_number(self._text, at).end()
        self._parts.append(self._text[at:stop])
        if stop < self._end:
            self._number_ended(stop)
        return stop

    def _number_ended(self, stop: int) -> None:
        raw = "".join(self._parts)
        if not _is_number(raw):
            raise self._expecting("a number", stop)
        self._scalar(raw, stop)

    def _literal(self, at: int) -> int:
        came = self._text[at : min(at + len(self._rest), self._end)]
        if not self._rest.startswith(came):
            wrong = next(index for index, sign in enumerate(came) if sign != self._rest[index])
            raise self._expecting(self._word, at + wrong)
        self._rest = self._rest[len(came) :]
        stop = at + len(came)
        if not self._rest:
            self._scalar(self._word, stop)
        return stop

    # What may be expected between two tokens, to which a sign is put.

    def _value(self, sign: str, at: int) -> int:
        if sign == '"':
            self._begin(sign, at)
            self._step = Scanner._string
        elif sign in _CLOSING:
            if len(self._open) == DEPTH:
                raise self._expecting(f"no more than {DEPTH} open arrays and objects", at)
            self._begin(sign, at)
            self._expected = Scanner._first_value if sign == "[" else Scanner._first_key
        elif sign in _WORDS:
            self._wanted = self._sink.begin(sign)
            self._word = self._rest = _WORDS[sign]
            self._step = Scanner._literal
            return at
        elif sign in "-0123456789":
            self._wanted = self._sink.begin(sign)
            self._parts = []
            self._step = Scanner._number
            return at
        else:
            raise self._expecting("a value", at)
        return at + 1

    def _first_value(self, sign: str, at: int) -> int:
        return self._close(at + 1) if sign == "]" else self._value(sign, at)

    def _key(self, sign: str, at: int) -> int:
        if sign != '"':
            raise self._expecting("a key", at)
        self._parts = []
        self._step = Scanner._name
        return at + 1

    def _first_key(self, sign: str, at: int) -> int:
        return self._close(at + 1) if sign == "}" else self._key(sign, at)

    def _colon(self, sign: str, at: int) -> int:
        if sign != ":":
            raise self._expecting("a colon", at)
        self._expected = Scanner._value
        return at + 1

    def _comma(self, sign: str, at: int) -> int:
        opened = self._open[-1][0]
        if sign == _CLOSING[opened]:
            return self._close(at + 1)
        if sign != ",":
            raise self._expecting(f"a comma or {_CLOSING[opened]}", at)
        self._expected = Scanner._key if opened == "{" else Scanner._value
        return at + 1

    def _nothing(self, _sign: str, at: int) -> int:
        if self._ignores_rest:
            return self._end
        raise self._expecting("nothing behind the document", at)

    # Values.

    def _begin(self, sign: str, at: int) -> None:
        wanted = self._sink.begin(sign)
        mark = outer = None
        if wanted & KEEP:
            if not self._keeping:
                self._kept = [self._text[: self._end]]
            self._keeping += 1
            mark = len(self._kept) - 1, at
        if not wanted & FOLLOW:
            outer, self._sink = self._sink, _NOBODY
        self._open.append((sign, mark, outer))

    def _close(self, stop: int) -> int:
        self._stop = stop
        sign, mark, outer = self._open.pop()
        raw = self._since(mark, stop) if mark else None
        if outer is None:
            self._sink.end(sign, raw)
        else:
            self._sink = outer
            if raw is not None:
                outer.whole(raw)
        self._ended()
        return stop

    def _since(self, mark: tuple[int, int], stop: int) -> str:
        """The kept text from a mark to here."""
        first, at = mark
        texts = "".join(self._kept[first:])
        self._keeping -= 1
        if not self._keeping:
            self._kept = []
        return texts[at : len(texts) - self._end + stop]

    def _scalar(self, raw: str, stop: int) -> None:
        self._stop = stop
        if self._wanted:
            self._sink.whole(raw)
        self._ended()

    def _ended(self) -> None:
        """A value is whole."""
        self._step = Scanner._between
        self.done = not self._open
        self._expected = Scanner._nothing if self.done else Scanner._comma
