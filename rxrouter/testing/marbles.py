"""Marble diagrams that are executed: one character is one tick, played in virtual time against the real operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import reactivex
from msgspec import Struct
from reactivex import Observable, operators as ops
from reactivex.testing import ReactiveTest, TestScheduler

import rxrouter.operators
from rxrouter import _errors
from rxrouter._wire.chunk import ChatChunk

_SUBSCRIBED = 200  # where TestScheduler.start subscribes; ticks count from here
_END = 1000  # later than any diagram


class Mark(Struct, frozen=True):
    """What a row says at one tick: a value by its name, the end, or an error by its name."""

    tick: int
    kind: str  # "value", "complete", "error"
    name: str = ""


class MarbleSpec(Struct, frozen=True):
    """One diagram: sources, what is done with them, and what comes out when.

    In the reading of RxJS and swirly: `-` is a tick in which nothing happens, any other character a value, `|` the end,
    `#` an error, `#(x)` the error that the values call x, `(ab|)` all at the tick of the parenthesis (and as many ticks
    long as it is wide), `^` and `!` subscribing and leaving; spaces are for alignment.

        % text() selects the words
        values: {"a": chunk(content="Hel"), "H": "Hel"}
        cold src:  --a--|
        subs src:  ^----!
        > src.pipe(text())
        out:       --H--|

    `values:` is a Python expression, which knows rxrouter's operators and errors, `chunk(**delta)`, and what is in
    `names`; a value without a name in it is its own character. `leave: ---!` is where the reader disposes.
    """

    title: str
    expression: str
    out: str
    sources: dict[str, str]
    subscriptions: dict[str, str]
    values: str = "{}"
    leave: str = ""
    names: dict[str, Any] = {}

    @classmethod
    def load(cls, path: str | Path, names: dict[str, Any] | None = None) -> list[MarbleSpec]:
        """All diagrams of a file; each begins with its `% title`.

        Raises:
            ValueError: a line is none that a diagram has, with its number.
        """
        return list(_parse(Path(path), names or {}))

    def play(self) -> tuple[list[tuple[int, Any]], dict[str, tuple[int, int | None]]]:
        """What came out (the value, an Exception, or None for the end) at which tick; and when each source was used."""
        names = _NAMES | self.names
        values: dict[str, Any] = eval(self.values, dict(names))  # noqa: S307 - a test file, like the code around it
        scheduler = TestScheduler()
        cold = {name: scheduler.create_cold_observable(*_messages(row, values)) for name, row in self.sources.items()}
        leave = [mark.tick for mark in marks(self.leave) if mark.name == "!"]
        observer = scheduler.start(
            lambda: eval(self.expression, names | cold),  # noqa: S307 - likewise
            disposed=_SUBSCRIBED + leave[0] if leave else _END,
        )
        told = [(round(m.time) - _SUBSCRIBED, _told(m.value)) for m in observer.messages]
        used: dict[str, tuple[int, int | None]] = {}
        for name, source in cold.items():
            for subscription in source.subscriptions:
                left = round(subscription.unsubscribe) - _SUBSCRIBED
                used[name] = round(subscription.subscribe) - _SUBSCRIBED, left if left < _END else None
        return told, used

    def check(self) -> None:
        """Plays the diagram.

        Raises:
            AssertionError: it is wrong, with what was expected and what was played one under the other.
        """
        names = _NAMES | self.names
        values: dict[str, Any] = eval(self.values, dict(names))  # noqa: S307 - likewise
        expected = [(mark.tick, _value(mark, values)) for mark in marks(self.out)]
        told, used = self.play()
        wrong: list[str] = []
        if [_plain(x) for x in told] != [_plain(x) for x in expected]:
            wrong += [f"expected  {self.out}", f"played    {_row(told, values)}", *_differences(expected, told)]
        for name, row in self.subscriptions.items():
            window = {mark.name: mark.tick for mark in marks(row)}
            if used.get(name) != (window.get("^"), window.get("!")):
                wrong.append(f"subs {name}: expected {row}, played {used.get(name)}")
        if wrong:
            raise AssertionError("\n".join([self.title, *wrong]))


def chunk(**delta: Any) -> ChatChunk:
    """A chunk with one choice and this delta; `usage` and `finish_reason` go where they belong."""
    choice = {"delta": delta, "finish_reason": delta.pop("finish_reason", None)}
    return msgspec.convert({"choices": [choice], "usage": delta.pop("usage", None)}, ChatChunk)


def marks(row: str) -> list[Mark]:
    """The marks of a row, in order."""
    found: list[Mark] = []
    tick, group = 0, None
    characters = iter(enumerate(row := row.replace(" ", "")))
    for at, character in characters:
        now = tick if group is None else group
        if character == "(":
            group = tick
        elif character == ")":
            group = None
        elif character == "#":
            name = "#"
            if row[at + 1 : at + 2] == "(" and group is None:
                name = row[at + 2 : row.index(")", at)]
                for _ in range(len(name) + 2):
                    next(characters)
                    tick += 1
            found.append(Mark(now, "error", name))
        elif character == "|":
            found.append(Mark(now, "complete"))
        elif character != "-":
            found.append(Mark(now, "value", character))
        tick += 1
    return found


def _parse(path: Path, names: dict[str, Any]) -> Iterator[MarbleSpec]:
    rows: dict[str, Any] = {}
    for number, line in enumerate([*path.read_text().splitlines(), "% "], 1):
        head, _, rest = line.partition(":")
        kind, _, name = head.strip().partition(" ")
        if line.startswith("%"):
            if rows:
                yield MarbleSpec(**rows, names=names)
            rows = {"title": line[1:].strip(), "sources": {}, "subscriptions": {}}
        elif kind in {"cold", "subs"} and name:
            rows["sources" if kind == "cold" else "subscriptions"][name.strip()] = rest.strip()
        elif line.startswith(">"):
            rows["expression"] = line[1:].strip()
        elif head in {"values", "out", "leave"}:
            rows[head] = rest.strip()
        elif line.startswith(" ") and rows.get("values"):
            rows["values"] += line
        elif line.strip():
            raise ValueError(f"{path}, line {number}: {line!r} is no line of a diagram")


def _messages(row: str, values: dict[str, Any]) -> list[Any]:
    messages: list[Any] = []
    for mark in marks(row):
        value = _value(mark, values)
        if mark.kind == "value":
            messages.append(ReactiveTest.on_next(mark.tick, value))
        elif mark.kind == "error":
            messages.append(ReactiveTest.on_error(mark.tick, value))
        else:
            messages.append(ReactiveTest.on_completed(mark.tick))
    return messages


def _value(mark: Mark, values: dict[str, Any]) -> Any:
    if mark.kind == "complete":
        return None
    if mark.kind == "error":
        return values.get(mark.name) or Exception("#")
    return values.get(mark.name, mark.name)


def _told(notification: Any) -> Any:
    if notification.kind == "N":
        return notification.value
    return notification.exception if notification.kind == "E" else None


def _plain(what: tuple[int, Any]) -> tuple[int, Any]:
    """With an error as its type, words and facts: exceptions are equal only to themselves."""
    tick, value = what
    return (tick, (type(value), str(value), vars(value))) if isinstance(value, Exception) else what


def _row(told: Sequence[tuple[int, Any]], values: dict[str, Any]) -> str:
    """What was played, as a row."""
    row = ""
    for tick in sorted({tick for tick, _ in told}):
        signs = [_sign(value, values) for at, value in told if at == tick]
        row += "-" * (tick - len(row)) + (signs[0] if len(signs) == 1 else f"({''.join(signs)})")
    return row


def _sign(value: Any, values: dict[str, Any]) -> str:
    if value is None:
        return "|"
    named = [name for name, known in values.items() if _plain((0, known)) == _plain((0, value))]
    if isinstance(value, Exception):
        return f"#({named[0]})" if named else "#"
    return named[0] if named else value if isinstance(value, str) and len(value) == 1 else "?"


def _differences(expected: Sequence[tuple[int, Any]], told: Sequence[tuple[int, Any]]) -> list[str]:
    return [
        f"  {sign} tick {tick}: {'end' if value is None else repr(value)}"
        for sign, these, those in (("-", expected, told), ("+", told, expected))
        for tick, value in these
        if _plain((tick, value)) not in [_plain(x) for x in those]
    ]


_NAMES: dict[str, Any] = {
    **{name: getattr(_errors, name) for name in dir(_errors) if name.endswith("Error")},
    **{name: getattr(rxrouter.operators, name) for name in rxrouter.operators.__all__},
    "chunk": chunk,
    "ops": ops,
    "rx": reactivex,
    "Observable": Observable,
}
