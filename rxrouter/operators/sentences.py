"""sentences(): whole sentences, to be spoken or translated while the answer is still being written."""

from __future__ import annotations

import re

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.graphemes import boundary
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._types import Operator

_STOPS = ".!?…‽‼⁇⁈⁉؟۔।॥։።፧။៕"  # they end a sentence before whitespace,
_FULL_STOPS = "。！？｡"  # and these without
_CLOSERS = (
    "\"'”’»)]}」』）】》〉〕｣*_`\ufe0f"  # what follows a stop in its sentence: quotes, brackets, Markdown's marks
)
_OPENERS = "\"'“‘«([{*_"

# Where a sentence may end, and the whitespace that stays with it. Models do get into runs of dots or newlines without
# end; the bounds are for them.
_END = re.compile(
    rf"(?P<stop>[{_STOPS}{_FULL_STOPS}][{re.escape(_STOPS + _FULL_STOPS + _CLOSERS)}]{{0,63}})(?P<gap>\s{{0,255}})"
    r"|(?P<line>\n\s{0,255})"
)
_MARKER = re.compile(r"(?:#{1,6}|[-*+•]|(?:\d{1,9}|[A-Za-z])[.)])\s")  # of a heading, of a list item
_OPENING = re.compile(rf"\s{{0,32}}{_MARKER.pattern}")
_HALF_MARKER = re.compile(r"#{1,6}|[-*+•]|(?:\d{1,9}|[A-Za-z])[.)]?")
_LETTER = re.compile(r"[^\W\d_]")

# Words whose dot is no stop though a capital follows, and those whose dot is none before a number.
_TITLES = {
    *("Mr", "Mrs", "Ms", "Mx", "Dr", "Prof", "Rev", "Hon", "Gen", "Col", "Capt", "Lt", "Sgt", "Gov", "Sen", "Rep"),
    *("St", "Mt", "Sr", "Jr", "Mme", "Mlle", "Hr", "Fr", "Sra", "vs", "cf"),
}
_NUMBERED = {
    *("no", "nos", "nr", "fig", "figs", "eq", "sec", "ch", "vol", "p", "pp", "art", "approx", "ca"),
    *("jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"),
}
_DOTTED = re.compile(r"(?:[^\W\d_]{1,2}\.)+[^\W\d_]{1,2}")  # e.g, U.S, Ph.D

_SIGHT = 64  # characters that decisions look back, and into the beginning of a sentence
_WORD = 16  # characters of which the last word is looked up


def sentences() -> Operator[str | ChatChunk, str]:
    """Select whole sentences, each as soon as the text goes on behind it: for speech, or for translation.

    Marble:
        source        -a-b-c-|
        sentences()   ---H---(R|)

    For texts from `text()` or `reasoning()`, and for chunks: of these the first choice's content, in which tool calls
    and a finish reason end a sentence, and `Restarted` drops the one that is unfinished. Sentences that were emitted
    can't be taken back: behind a `Restarted` come those of the new answer, from its beginning.

    A sentence ends with a stop and whitespace (`。！？` need none), with a blank line, and with the line of a heading
    or a list item; closing quotes and brackets belong to it. Dots of numbers, addresses, initials, list numbers and
    common abbreviations are no stops; nor is anything before a small letter, unless the sentence began with one.
    What such rules can't know: "He left the U.S. She stayed" is one sentence to them, and so is "plan B. Then";
    an abbreviation that is not listed ends one before a capital; code and tables are read as text; languages
    that are written without stops, as Thai, have paragraphs only.

    Emits: strings that joined are the text, whitespace with the sentence before it; at the end, the rest.
    Errors: the source's, behind the unfinished sentence.
    Cancels: the source, on dispose.
    Source: to a speech engine each piece is an utterance, so a wrong cut is heard as a pause (NeMo-Speech.cpp 36);
        UAX #29 has the stops of other scripts.
    """

    def operator(source: Observable[str | ChatChunk]) -> Observable[str]:
        def subscribe(
            observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            speech = _Speech(observer)
            return source.subscribe(speech.on_next, speech.on_error, speech.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Speech:
    """The Rx side."""

    def __init__(self, observer: abc.ObserverBase[str]) -> None:
        self._observer = observer
        self._splitter = _Splitter()

    def on_next(self, value: str | ChatChunk) -> None:
        if isinstance(value, str):
            self._say(value)
        elif isinstance(value, Restarted):
            self._splitter = _Splitter()
        else:
            for part in value.choices:
                if part.index == 0:
                    self._say(part.delta.content or "")
                    if part.delta.tool_calls or part.finish_reason is not None:
                        self._flush()

    def on_error(self, error: Exception) -> None:
        self._flush()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._flush()
        self._observer.on_completed()

    def _say(self, text: str) -> None:
        self._splitter.add(text)
        while sentence := self._splitter.next():
            self._observer.on_next(sentence)

    def _flush(self) -> None:
        rest = self._splitter.rest
        self._splitter = _Splitter()
        if rest:
            self._observer.on_next(rest)


class _Splitter:
    """Text in, sentences out; where the text was cut on its way makes no difference.

    An end is decided when the first character behind its whitespace is there; behind a newline, when that shows whether
    a heading or a list item begins.
    """

    def __init__(self) -> None:
        self._parts: list[str] = []  # of the sentence; all is decided in them
        self._tail = ""  # what follows them
        self._start = 0  # where in the tail
        self._at = 0  # where in the tail the next end may be
        self._blank = True  # there is only whitespace in it up to there
        self._line = True  # the sentence begins a line
        self._item = False  # its line is a heading or a list item
        self._small: bool | None = None  # it begins with a small letter; None: nobody has looked yet

    def add(self, text: str) -> None:
        """Takes more of the text."""
        self._tail += text

    def next(self) -> str:
        """The next sentence; empty, if there is none yet."""
        while (end := _END.search(self._tail, self._at)) and self._is_decided(end):
            self._go_on(end.end())
            if self._is_end(end):
                return self._cut(end)
        self._go_on(end.start() if end else len(self._tail))
        self._settle()
        return ""

    @property
    def rest(self) -> str:
        """All that is left."""
        return "".join([*self._parts, self._tail[self._start :]])

    def _go_on(self, at: int) -> None:
        self._blank = self._blank and not self._tail[self._at : at].strip()
        self._at = at

    def _is_decided(self, end: re.Match[str]) -> bool:
        if end.end() == len(self._tail):
            return False
        return _newlines(end) != 1 or not _HALF_MARKER.fullmatch(self._tail, end.end())

    def _is_end(self, end: re.Match[str]) -> bool:
        behind = end.end()
        if self._blank:
            return False
        if self._is_marker(end) or not boundary(self._tail, behind):
            return False
        newlines = _newlines(end)
        if newlines > 1 or (newlines and (self._item or _MARKER.match(self._tail, behind))):
            return True
        return end["stop"] is not None and self._is_stop(end)

    def _is_stop(self, end: re.Match[str]) -> bool:
        stop, after = end["stop"], self._tail[end.end()]
        if any(character in _FULL_STOPS for character in stop):
            return True
        if not end["gap"] or (after.islower() and not self._small):
            return False
        before = self._tail[max(self._start, end.start() - _WORD) : end.start()]
        return stop.rstrip(_CLOSERS) != "." or not _is_abbreviation(before, after)

    def _is_marker(self, end: re.Match[str]) -> bool:
        """Whether it is in the sentence's list number; only its first end can be, so with that the opening is read."""
        return self._small is None and end.start() < self._open(end.start(), end.end() + 1)

    def _open(self, until: int, known: int) -> int:
        """Reads the opening of the sentence, of which the first letter is before `until`; says where it begins.

        It begins behind a marker. That may be in what is `known`, however the text was cut: of what was decided now,
        the character behind it.
        """
        marker = _OPENING.match(self._tail, self._start, known) if self._line else None
        body = marker.end() if marker else self._start
        letter = _LETTER.search(self._tail, body, min(until, self._start + _SIGHT))
        self._small = letter is not None and letter[0].islower()
        self._item = marker is not None or (self._item and not self._line)
        return body

    def _cut(self, end: re.Match[str]) -> str:
        sentence = "".join([*self._parts, self._tail[self._start : end.end()]])
        self._parts = []
        self._start = end.end()
        self._blank = True
        self._line = _newlines(end) > 0
        self._small = None
        return sentence

    def _settle(self) -> None:
        """Puts away what no decision looks back to, so that a long sentence is not copied with each delta."""
        keep = max(self._start, self._at - _SIGHT)
        if keep > self._start:
            if self._small is None:
                self._open(self._at, self._at)
            self._parts.append(self._tail[self._start : keep])
        self._tail = self._tail[keep:]
        self._at -= keep
        self._start = 0


def _newlines(end: re.Match[str]) -> int:
    return (end["gap"] or end["line"] or "").count("\n")


def _is_abbreviation(before: str, after: str) -> bool:
    """Whether the dot between these is the word's own."""
    if not before or before[-1].isspace():
        return False
    word = before.rsplit(maxsplit=1)[-1].lstrip(_OPENERS)
    return (
        word in _TITLES
        or (len(word) == 1 and word.isupper() and word != "I")
        or _DOTTED.fullmatch(word) is not None
        or (after.isdigit() and word.lower() in _NUMBERED)
    )
