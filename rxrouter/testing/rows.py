"""The rows of a marble diagram, in the reading of RxJS: one character is one tick."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

Kind = Literal["value", "error", "complete"]
Window = tuple[int, int | None]
"""From subscribing to leaving, in ticks; None for staying to the end."""

TICKS = 1000  # that long is a play; what comes after the expected end is seen too

_MARK = re.compile(r"#\((\w+)\)|.")
_TIME_JUMP = re.compile(r"(?<!\S)\d+(\.\d+)?(ms|s|m)(?!\S)")
_WINDOW = re.compile(r"-*(\^(-*!)?|\(\^!\))?-*")
_LEAVE = re.compile(r"-*!-*")


class Mark(Struct, frozen=True):
    """What a row says at one tick: a value or an error by its name, or the end."""

    tick: int
    kind: Kind
    name: str = ""


def marks(row: str, *, hot: bool = False) -> list[Mark]:
    """What a source says, or a reader hears, in order; in a hot row ticks count from the `^`, if there is one.

    Raises:
        ValueError: the row can't be read.
    """
    row = _characters(row)
    zero = max(row.find("^"), 0) if hot else 0
    found: list[Mark] = []
    group: int | None = None
    for sign in _MARK.finditer(row):
        character, tick = sign[0][0], sign.start() - zero
        if character == "(" and group is None and row[sign.end() : sign.end() + 1] != ")":
            group = tick
        elif character == ")" and group is not None:
            group = None
        elif character == "^" and hot and group is None and tick == 0:
            pass
        elif character != "-" or group is not None:
            if found and found[-1].kind != "value":
                raise ValueError(f"there is no {sign[0]!r} after the end")
            found.append(_mark(tick if group is None else group, sign))
    if group is not None:
        raise ValueError("a group is open: ( has no )")
    return found


def window(row: str) -> Window | None:
    """From `^`, subscribing, to `!`, leaving; to None if nobody left, and None if nobody came.

    Raises:
        ValueError: the row can't be read.
    """
    row = _characters(row)
    if not _WINDOW.fullmatch(row):
        raise ValueError("it has one ^ where the subscription begins, and at most one ! where it ends; (^!) is both")
    if "^" not in row:
        return None
    since = row.index("^") - ("(" in row)
    return since, (since if "(" in row else row.index("!") if "!" in row else None)


def leaving(row: str) -> int:
    """The tick of the `!`.

    Raises:
        ValueError: the row can't be read.
    """
    row = _characters(row)
    if not _LEAVE.fullmatch(row):
        raise ValueError("it has one ! where the reader leaves")
    return row.index("!")


def written(said: list[tuple[float, str]]) -> str:
    """The row of these marks, given as in a row; with `…` where they are closer than a row can say."""
    row = ""
    for tick in sorted({tick for tick, _ in said}):
        signs = [sign for at, sign in said if at == tick]
        closer = tick < len(row) or tick != round(tick)
        row += "…" if closer else "-" * (round(tick) - len(row))
        row += signs[0] if len(signs) == 1 else f"({''.join(signs)})"
    return row


def written_window(since: float, until: float | None) -> str:
    """The row of a subscription."""
    if since != round(since) or until != (until and round(until)):
        return f"from {since:g} to {'the end' if until is None else f'{until:g}'}"
    row = "-" * round(since)
    if until is None:
        return row + "^"
    return row + ("(^!)" if since == until else "^" + "-" * (round(until - since) - 1) + "!")


def _characters(row: str) -> str:
    """The row without the spaces, which are there for alignment."""
    if jump := _TIME_JUMP.search(row):
        raise ValueError(f"{jump[0]!r}: time jumps are not read here, each tick is a character")
    row = row.replace(" ", "")
    if len(row) > TICKS:
        raise ValueError(f"it is longer than a play, which has {TICKS} ticks")
    return row


def _mark(tick: int, sign: re.Match[str]) -> Mark:
    character = sign[0][0]
    if character == "#":
        return Mark(tick, "error", sign[1] or "#")
    if character == "|":
        return Mark(tick, "complete")
    if character.isalnum():
        return Mark(tick, "value", character)
    raise ValueError(f"{character!r} is no mark here: a value is one letter or digit, and a group is (ab)")
