"""Marble diagrams that are executed: one character is one tick, played in virtual time against the real operators."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import reactivex
from msgspec import Struct
from reactivex import Observable, operators as ops

import rxrouter
import rxrouter.operators
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.testing.describing import describe
from rxrouter.testing.marble_file import read
from rxrouter.testing.played import Played, Told, play, same
from rxrouter.testing.rows import Window, marks, window, written, written_window

T = TypeVar("T")

_SHOWN = 20  # differences that a message has room for


class MarbleSpec(Struct, frozen=True):
    """One diagram: sources, what is done with them, and what comes out when.

    In the reading of RxJS and swirly: `-` is a tick in which nothing happens, a letter or digit a value, `|` the end,
    `#` an error, `#(x)` the error that the values call x, `(ab|)` all at the tick of the parenthesis (and as many ticks
    long as it is wide), `^` and `!` subscribing and leaving; spaces are for alignment. A tick is a second.

        % text() selects the words
        values: {"a": chunk(content="Hel"), "H": "Hel"}
        cold src:  --a--|
        subs src:  ^----!
        > src.pipe(text())
        out:       --H--|

    `values:` and `>` are Python and may go on in indented lines. They know the names of `rxrouter` and its operators,
    RxPY's `ops` and `rx`, `Restarted`, `chunk(**delta)`, and what is in `names`. A value that `values:` doesn't name is
    its own character, `#` is `Exception("#")`; errors are the same if their types, texts and facts are.

    `cold NAME:` says its row to each subscriber, `hot NAME:` once, to whoever is there; `^` in it is tick 0. A reader
    subscribes at tick 0 and leaves at `leave: ---!`; each `reader NAME: --^---!`, with an `out NAME:`, is one more.
    `subs NAME:` is a line for each subscription that a source gets, in order (all of them, if there is a line; one
    without `^` says that there is none). At one tick readers come, then go, then sources speak.
    """

    title: str
    expression: str
    outs: dict[str, str]  # per reader; the first one's name is ""
    readers: dict[str, Window]
    cold: dict[str, str] = {}
    hot: dict[str, str] = {}
    subscriptions: dict[str, list[str]] = {}
    values: str = "{}"
    names: dict[str, Any] = {}
    path: str = "<diagram>"
    lines: dict[str, int] = {}  # of title, values and expression

    @classmethod
    def load(cls, path: str | Path, names: dict[str, Any] | None = None) -> list[MarbleSpec]:
        """All diagrams of a file; each begins with its `% title`.

        Args:
            path: The file.
            names: What its Python knows besides.

        Raises:
            ValueError: a line is none that a diagram has, or can't be read; with its number.
        """
        return [cls(**msgspec.structs.asdict(parts), names=names or {}, path=str(path)) for parts in read(Path(path))]

    def play(self) -> Played:
        """What happens, in virtual time.

        Raises:
            ValueError: the diagram's own Python raises; with the file, the line and the title.
        """
        names = _NAMES | self.names
        values = {"#": Exception("#")} | self._python("values", lambda run: dict(run(names)))
        cold = {name: self.said(row, values) for name, row in self.cold.items()}
        hot = {name: self.said(row, values, hot=True) for name, row in self.hot.items()}
        readers = {name: self.readers[name] for name in self.outs}
        played = self._python(
            "expression", lambda run: play(lambda sources: run({**names, **sources}), cold, hot, readers)
        )
        return msgspec.structs.replace(played, values=values)

    def check(self) -> Played:
        """Plays the diagram, and returns what was played.

        Raises:
            AssertionError: it is wrong, with what was expected and what was played one under the other.
            ValueError: see `play`.
        """
        played = self.play()
        wrong = [line for reader in self.outs for line in self._wrong_out(reader, played)]
        wrong += [line for source in self.subscriptions for line in self._wrong_subscriptions(source, played)]
        if wrong:
            raise AssertionError("\n".join([f"{self.path}, line {self.lines['title']}: {self.title}", *wrong]))
        return played

    def said(self, row: str, values: Mapping[str, Any], *, hot: bool = False) -> tuple[Told, ...]:
        """What a row says, with what its names stand for.

        Raises:
            ValueError: `values` has no such error.
        """
        said: list[Told] = []
        for mark in marks(row, hot=hot):
            what = None if mark.kind == "complete" else values.get(mark.name, mark.name)
            if mark.kind == "error" and not isinstance(what, Exception):
                line = self.lines["title"]
                raise ValueError(f"{self.path}, line {line}: {self.title}: values has no error {mark.name!r}")
            said.append(Told(mark.tick, mark.kind, what))
        return tuple(said)

    def _wrong_out(self, reader: str, played: Played) -> list[str]:
        expected, told = self.said(self.outs[reader], played.values), played.readers[reader].told
        if len(expected) == len(told) and all(map(same, expected, told)):
            return []
        row = written([(what.tick, played.sign(what)) for what in told])
        return _pair(f"out {reader}", self.outs[reader], row) + _differences(expected, told)

    def _wrong_subscriptions(self, source: str, played: Played) -> list[str]:
        rows, heard = [row for row in self.subscriptions[source] if window(row)], played.sources[source]
        if [window(row) for row in rows] == [(one.since, one.until) for one in heard]:
            return []
        windows = [written_window(one.since, one.until) for one in heard]
        pairs = zip_longest(rows, windows, fillvalue="(none)")
        return [line for row, what in pairs for line in _pair(f"subs {source}", row, what)]

    def _python(self, part: str, use: Callable[[Callable[[dict[str, Any]], Any]], T]) -> T:
        """Gives `use` the part's code, to be run with names; what then raises is said with its place."""
        line = self.lines.get(part, 1)
        try:
            code = compile("\n" * (line - 1) + getattr(self, part), self.path, "eval")
            return use(lambda names: eval(code, names))  # noqa: S307 - a test file, like the code around it
        except Exception as error:
            inside = [
                frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path
            ]
            at = (inside or [getattr(error, "lineno", line)])[-1]  # a SyntaxError has it
            place = f"{self.path}, line {at}, {part} of {self.title!r}"
            raise ValueError(f"{place}: {type(error).__name__}: {error}") from error


def chunk(**delta: Any) -> ChatChunk:
    """A chunk with one choice and this delta; `usage` and the finish reasons go where they belong."""
    finish = {name: delta.pop(name, None) for name in ("finish_reason", "native_finish_reason")}
    return msgspec.convert({"usage": delta.pop("usage", None), "choices": [{"delta": delta, **finish}]}, ChatChunk)


def _pair(label: str, expected: str, played: str) -> list[str]:
    label = f"{label:10}"
    return [f"{label} expected  {expected}", f"{' ' * len(label)} played    {played}"]


def _differences(expected: Sequence[Told], told: Sequence[Told]) -> list[str]:
    found = [
        (what.tick, f"{'':10} tick {what.tick:g} {verb}: {_what(what)}")
        for verb, these, those in (("expected", expected, told), ("played", told, expected))
        for what in these
        if not any(same(what, other) for other in those)
    ]
    return [line for _, line in sorted(found, key=lambda one: one[0])][:_SHOWN]


def _what(told: Told) -> str:
    if told.kind == "complete":
        return "the end"
    return f"{describe(told.what)} {vars(told.what)}" if told.kind == "error" else describe(told.what)


_NAMES: dict[str, Any] = {
    **{name: getattr(module, name) for module in (rxrouter, rxrouter.operators) for name in module.__all__},
    "Restarted": Restarted,
    "chunk": chunk,
    "ops": ops,
    "rx": reactivex,
    "Observable": Observable,
}
