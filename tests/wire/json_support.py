"""Documents for JSON tests, cut anywhere; and what of a cut one can be told, by a reading that is simple and slow."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from hypothesis import strategies as st

# Everything that a string can be cut in: escapes, both halves of surrogate pairs, halves alone, other alphabets.
strings = st.text() | st.lists(
    st.sampled_from(['"', "\\", "\n", "\t", "\x00", "/", "u", "d83d", "é", "😀", "\ud83d", "\ude00", "\u2028", "a"]),
    max_size=8,
).map("".join)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(strings, inner), max_leaves=20)

cuts = st.lists(st.floats(0, 1), max_size=30)


@st.composite
def documents(draw: st.DrawFn, values: st.SearchStrategy[Any] = values) -> str:
    """A document, in one of many spellings of its value."""
    text = json.dumps(
        draw(values),
        ensure_ascii=draw(st.booleans()),
        indent=draw(st.sampled_from([None, 0, 2, "\t"])),
        separators=draw(st.sampled_from([None, (",", ":"), (" , ", "\r\n:\t")])),
    )
    return draw(st.sampled_from(["", " ", "\r\n"])) + text + draw(st.sampled_from(["", "\t", " \n"]))


def cut(document: str, at: Sequence[float]) -> list[str]:
    """The document in pieces, cut at these parts of its length; some may be empty."""
    edges = [0, *sorted(round(part * len(document)) for part in at), len(document)]
    return [document[a:z] for a, z in pairwise(edges)]


def strict(text: str) -> Any:
    """`json.loads`, without the NaN and Infinity that RFC 8259 does not have."""
    return json.loads(text, parse_constant=_refuse)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


class Nothing:
    """No value can be told yet."""


def told(prefix: str) -> Any:
    """The value of the longest part of the prefix that makes a document when what is open in it is closed."""
    for end in range(len(prefix), -1, -1):
        part, rest = prefix[:end], prefix[end:]
        is_string, closing = _open(part)
        if (is_string and _is_half_pair(part, rest)) or (not is_string and _is_in_number(part, rest)):
            continue
        try:
            return strict(part + closing)
        except ValueError:
            continue
    return Nothing


def _open(part: str) -> tuple[bool, str]:
    """Whether the part ends in a string; and what closes all that is open at its end."""
    closing: list[str] = []
    is_string = is_escape = False
    for character in part:
        if is_escape:
            is_escape = False
        elif is_string and character == "\\":
            is_escape = True
        elif character == '"':
            is_string = not is_string
        elif not is_string and character in "[{":
            closing.append("]" if character == "[" else "}")
        elif not is_string and character in "]}":
            closing.pop()
    return is_string, '"' * is_string + "".join(reversed(closing))


def _is_half_pair(part: str, rest: str) -> bool:
    """Whether the part ends with the escape of a first half, whose second half may still come."""
    escapes = re.findall(r"\\(?:u....|.)|.", part, re.DOTALL)
    is_half = bool(escapes) and re.fullmatch(r"\\u[dD][89abAB]..", escapes[-1]) is not None
    return is_half and re.fullmatch(r"(?:\\(?:u[0-9a-fA-F]{0,3})?)?", rest) is not None


def _is_in_number(part: str, rest: str) -> bool:
    """Whether the part ends with a number that goes on, or may."""
    return (
        part[-1:] in {*"+-.eE0123456789"} and rest[:1] not in {*",]} \t\r\n"} and not part.endswith(("true", "false"))
    )


def same(one: Any, other: Any) -> bool:
    """Equal, with the same types and the same order of keys."""
    return one is other or repr(one) == repr(other)
