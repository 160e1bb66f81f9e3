"""The lines of a marble file, as the parts of its diagrams."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from msgspec import Struct

from rxrouter.testing.rows import Window, leaving, marks, window

_LINE = re.compile(r"(values|leave|out|(?:cold|hot|subs|reader|out) +\w+) *:(.*)")


class Parts(Struct):
    """What a file says of one diagram; its rows are known to be readable."""

    title: str
    lines: dict[str, int]  # where title, values and expression are
    values: str = "{}"
    cold: dict[str, str] = {}
    hot: dict[str, str] = {}
    subscriptions: dict[str, list[str]] = {}
    expression: str = ""
    outs: dict[str, str] = {}  # per reader; the first one's name is ""
    readers: dict[str, Window] = {}


def read(path: Path) -> list[Parts]:
    """The diagrams of a file.

    Raises:
        ValueError: a line is none that a diagram has, or can't be read, or is missing; with its number.
    """
    found: list[Parts] = []
    python = ""  # the part that an indented line goes on with
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            if line.startswith("%"):
                found.append(Parts(line[1:].strip(), {"title": number}))
            elif line.startswith(" ") and python:
                setattr(found[-1], python, f"{getattr(found[-1], python)}\n{line}")
            elif line.strip():
                python = _take(found, line, number)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {line!r}: {error}") from None
    for parts in found:
        if missing := _missing(parts):
            raise ValueError(f"{path}, line {parts.lines['title']}: {parts.title!r}: {missing}")
    return found


def _take(found: list[Parts], line: str, number: int) -> str:
    """Puts a line where it belongs; returns which Python it began, if it did."""
    if not found:
        raise ValueError("a diagram begins with its % title")
    parts = found[-1]
    if line.startswith(">"):
        return _python(parts, "expression", line[1:], number)
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(
            "no line of a diagram; these begin with %, values:, cold NAME:, hot NAME:, subs NAME:, >, out:, leave:,"
            " reader NAME:, out NAME:"
        )
    kind, _, name = match[1].partition(" ")
    name, row = name.strip(), match[2].strip()
    if kind == "values":
        return _python(parts, "values", row, number)
    if kind in {"cold", "hot"}:
        _once(name, {*parts.cold, *parts.hot})
        marks(row, hot=kind == "hot")
        (parts.hot if kind == "hot" else parts.cold)[name] = row
    elif kind == "subs":
        window(row)
        parts.subscriptions.setdefault(name, []).append(row)
    elif kind == "out":
        _once(name, parts.outs)
        marks(row)
        parts.outs[name] = row
    else:
        _once(name, parts.readers)
        stay = (0, leaving(row)) if kind == "leave" else window(row)
        if stay is None:
            raise ValueError("a reader has a ^ where it comes")
        parts.readers[name] = stay
    return ""


def _python(parts: Parts, part: str, code: str, number: int) -> str:
    _once(part, parts.lines)
    parts.lines[part] = number
    setattr(parts, part, code.strip())
    return part


def _once(name: str, known: Collection[str]) -> None:
    if name in known:
        raise ValueError("the diagram has this line already")


def _missing(parts: Parts) -> str:
    """What the diagram lacks, or has too much."""
    if not parts.expression or not parts.outs:
        return "a diagram has an expression (>) and what comes out of it (out:)"
    if "" in parts.outs:
        parts.readers.setdefault("", (0, None))
    for name in parts.outs.keys() ^ parts.readers.keys():
        return (
            f"reader {name} and out {name} belong together"
            if name
            else "leave: is the first reader's, whose out: is missing"
        )
    for name in parts.subscriptions.keys() - parts.cold.keys() - parts.hot.keys():
        return f"subs {name}: there is no source {name}"
    for name, rows in parts.subscriptions.items():
        if len(rows) > 1 and not all(map(window, rows)):
            return f"subs {name}: a subscription has a ^"
    return ""
