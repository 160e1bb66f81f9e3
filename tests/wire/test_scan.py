"""The grammar against json.loads: on documents, on what is nearly one, and at its bounds."""

from __future__ import annotations

import json
import sys
import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import example, given, strategies as st

from rxrouter import AnswerDecodeError
from rxrouter._wire.partial import PartialJSON
from rxrouter._wire.place import ANY
from rxrouter._wire.scan import DEPTH, KEEP, PASS, Scanner
from tests.wire.json_support import cut, cuts, documents, strict

# What matters to the grammar; whole documents and single signs of it, in any order, are nearly JSON.
SIGNS = [
    *'[]{},:"\\/ \n\x00\x1f\x7f-+.0123456789eEtrufalsn',
    *("null", "true", '"a"', '"a":', "1.5e-3", "NaN", "-Infinity", "{}", "[]", '{"a":1}'),
    *(r"\u00e9", r"\ud83d", r"\ude00", r"\u12", r"\x", "😀", "\ud83d", "\xa0", "\ufeff"),
]
nonsense = st.lists(st.sampled_from(SIGNS), max_size=12).map("".join)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A document in which something is missing, doubled or put in."""
    text = draw(documents())
    a, z = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    put: str = draw(st.sampled_from(SIGNS))
    return draw(st.sampled_from([text[:a] + text[z:], text[:z] + text[a:], text[:a] + put + text[a:]]))


def refusal(pieces: Iterable[str]) -> AnswerDecodeError | None:
    """How a document is refused, if it is."""
    reader = PartialJSON(ANY)
    try:
        for piece in pieces:
            reader.feed(piece)
        reader.finish()
    except AnswerDecodeError as error:
        return error
    return None


def is_json(text: str) -> bool:
    try:
        strict(text)
    except ValueError:
        return False
    return True


@given(nonsense | damaged(), cuts)
@example('{"a":1,}', [])
@example("[1,]", [])
@example("01", [])
@example("[1.]", [])
@example("-", [])
@example("1 2", [])
@example('"\n"', [])
@example('"\\u12x4"', [0.5])
@example("\ufeff1", [])
@example("\xa01", [])
@example("", [])
@example('"\\', [])
@example("1\\", [])
@example("nul\\", [0.9])
@example('{"a"}', [])
@example("{1:2}", [])
@example("[1}", [])
@example("Infinity", [])
@example("-Infinity", [0.1])
@example("1" * 5000, [])
def test_a_text_is_refused_exactly_when_json_refuses_it(text: str, at: list[float]) -> None:
    error = refusal(cut(text, at))

    assert (error is None) == is_json(text)
    assert error is None or 0 <= error.position <= len(text)


@given(documents(), cuts)
def test_the_end_of_a_document_is_known_when_it_is_there(document: str, at: list[float]) -> None:
    begun = document.rstrip()
    for text in (begun[:-1], begun[: len(begun) // 2]):
        error = refusal(cut(text, at))
        assert (error is None) == is_json(text)  # half of a number may be a number
        assert error is None or error.position == len(text)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ('{"a" 1}', 5, "expected a colon"),
        ('{"a":1 "b"', 7, "expected a comma or }"),
        ("[1}", 2, "expected a comma or ]"),
        ("[1,]", 3, "expected a value"),
        ("{,}", 1, "expected a key"),
        ("[nulx]", 4, "expected null"),
        ("[01]", 3, "expected a number"),
        ('["\n"]', 2, "Invalid control character"),
        ('["a\\x"]', 3, "Invalid \\escape"),
        ("{} {}", 3, "expected nothing behind the document"),
        ('{"a":[1', 7, "the text ends before the document does"),
        ('"a\\u12', 6, "the text ends before the document does"),
        ("", 0, "the text ends before the document does"),
    ],
)
def test_a_refusal_says_where_and_why(text: str, position: int, reason: str) -> None:
    for pieces in ([text], text):
        error = refusal(pieces)
        assert error is not None
        assert (error.reason, error.position) == (reason, position)
        assert str(error) == f"the answer's text was refused at character {position}: {reason}"


def test_what_is_no_json_is_refused_at_once() -> None:
    with pytest.raises(AnswerDecodeError):
        PartialJSON(ANY).feed("Here is your JSON")


@pytest.mark.parametrize("sign", ["[", '{"a":'])
def test_nesting_has_a_bound(sign: str) -> None:
    assert refusal([sign * DEPTH + "1" + ("]" if sign == "[" else "}") * DEPTH]) is None
    for pieces in ([sign * 100_000], [sign] * 100_000):
        error = refusal(pieces)
        assert error is not None
        assert error.reason == f"expected no more than {DEPTH} open arrays and objects"
        assert error.position == DEPTH * len(sign)


def test_nesting_of_what_nobody_looks_into_has_the_same_bound() -> None:
    with pytest.raises(AnswerDecodeError):
        Scanner(Listener(PASS)).feed("[" * (DEPTH + 1))


def test_the_bound_is_one_that_json_itself_reaches() -> None:
    assert sys.getrecursionlimit() - 200 > DEPTH
    json.loads("[" * DEPTH + "]" * DEPTH)


class Listener:
    """A sink that wants one thing of the outermost value."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.heard: list[object] = []

    def begin(self, _sign: str) -> int:
        return self.wanted

    def key(self, name: str) -> None:
        self.heard.append(name)

    def text(self, piece: str) -> None:
        self.heard.append(piece)

    def end(self, sign: str, raw: str | None) -> None:
        self.heard.append((sign, raw))

    def whole(self, raw: str) -> None:
        self.heard.append(raw)


@given(documents(), cuts)
def test_a_value_that_is_kept_comes_in_the_documents_own_words(document: str, at: list[float]) -> None:
    listener = Listener(KEEP)
    scanner = Scanner(listener)
    for piece in cut(document, at):
        scanner.feed(piece)
    scanner.finish()

    assert listener.heard == [document.strip()]


@given(documents(), cuts)
def test_of_a_value_that_is_passed_over_nothing_comes(document: str, at: list[float]) -> None:
    listener = Listener(PASS)
    scanner = Scanner(listener)
    for piece in cut(document, at):
        scanner.feed(piece)
    scanner.finish()

    assert listener.heard == []


def test_what_is_passed_over_takes_no_memory() -> None:
    scanner = Scanner(Listener(PASS))
    scanner.feed('{"a": ["')
    tracemalloc.start()
    try:
        for _ in range(200):
            scanner.feed("x" * 10_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 200_000
