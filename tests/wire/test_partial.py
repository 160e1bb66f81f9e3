"""The growing value against repaired prefixes of its document; and that what a reader keeps of it never changes."""

# pyright: reportPrivateUsage=false
# Whether anything is counted is a matter of the interpreter.

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxrouter._wire import partial
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.partial import PartialJSON
from rxrouter._wire.place import ANY
from tests.wire.json_support import Nothing, cut, cuts, documents, strict, told


def grown(pieces: Iterable[str]) -> Iterator[list[Any]]:
    """What is emitted with each piece, and with the end; nothing is kept here."""
    reader = PartialJSON(ANY)
    for piece in pieces:
        reader.feed(piece)
        yield emissions(reader)
    reader.finish()
    yield emissions(reader)


def emissions(reader: PartialJSON) -> list[Any]:
    heard: list[Any] = []
    reader.tell(heard.append)
    return heard


@given(documents(), cuts)
@example(r'"\ud83d\ude00"', [0.1, 0.3, 0.5, 0.6, 0.9])
@example(r'"\\\ud83d"', [0.2, 0.3, 0.5, 0.9])
@example(r'"\\ud83d"', [0.2, 0.3, 0.5, 0.9])
@example(r'"\ud83d\n"', [0.75, 0.85])
@example(r'"\ud83d\ud83d\ude00"', [0.3, 0.5, 0.6])
@example('"\\ud83d\ude00"', [0.8])
@example('"\\\\uabc\ud83d"', [0.9])
@example('{"a": 1, "b": 2, "a": "x"}', [0.7, 0.9])
@example("[1e5, -0.0, 12]", [0.1, 0.2, 0.4, 0.9])
@example("-1.5E+3", [0.2, 0.5])
@example("[true, false, null]", [0.1, 0.2, 0.25, 0.5, 0.6, 0.8, 0.9])
def test_the_value_is_that_of_the_repaired_prefix_and_is_emitted_when_it_changes(
    document: str, at: list[float]
) -> None:
    pieces = cut(document, at)
    seen, last = "", repr(Nothing)

    for piece, heard in zip([*pieces, None], grown(pieces), strict=True):
        seen += piece or ""
        expected = repr(strict(seen) if piece is None else told(seen))
        assert [repr(value) for value in heard] == ([] if expected == last else [expected])
        last = expected


@given(documents())
def test_character_by_character_it_is_the_same(document: str) -> None:
    last = [repr(value) for heard in grown(document) for value in heard][-1]

    assert last == repr(strict(document))


@given(documents(), cuts, st.randoms(use_true_random=False))
def test_what_a_reader_keeps_never_changes(document: str, at: list[float], random: Random) -> None:
    reader = PartialJSON(ANY)
    kept: list[tuple[Any, str]] = []

    def keep(value: Any) -> None:
        part = part_of(value, random)
        if random.random() < 0.5:
            kept.append((part, repr(part)))

    for piece in cut(document, at):
        reader.feed(piece)
        reader.tell(keep)
        assert [repr(part) for part, _ in kept] == [then for _, then in kept]
        kept = [one for one in kept if random.random() < 0.8]


def part_of(value: Any, random: Random) -> Any:
    """The value, or something in it."""
    inner = as_list(value) or list(as_object(value).values())
    if not inner or random.random() < 0.3:
        return value
    return part_of(inner[-1] if random.random() < 0.8 else random.choice(inner), random)


PIECES = ['{"a": [', '{"b": ["', *"xyz", '", "', *"xyz", '"], "c": {"d": "', *"xyz", '"', "}}, ", *"12", "]}"]


def test_what_all_readers_have_kept_is_as_it_was() -> None:
    kept = [(value, repr(value)) for heard in grown(PIECES) for value in heard]

    assert [repr(value) for value, _ in kept] == [then for _, then in kept]
    assert len({then for _, then in kept}) == len(kept) > 10


def test_for_a_reader_who_keeps_nothing_nothing_is_copied() -> None:
    reader, roots, inner = PartialJSON(ANY), set[int](), set[int]()

    def note(value: Any) -> None:
        roots.add(id(value))
        inner.add(id(value.get("a")))

    for piece in PIECES:
        reader.feed(piece)
        reader.tell(note)

    assert (len(roots), len(inner)) == (1, 1)


def test_what_a_reader_has_let_go_is_copied_no_more() -> None:
    reader, roots = PartialJSON(ANY), list[int]()
    kept: list[Any] = []

    for at, piece in enumerate(PIECES):
        reader.feed(piece)
        reader.tell(lambda value: roots.append(id(value)))
        if at == 2:
            reader.feed("k")
            reader.tell(kept.append)
        if at == 4:
            kept.clear()

    assert len(set(roots[4:])) == 1
    assert len(set(roots)) == 2


def test_where_nothing_is_counted_everything_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [repr(value) for heard in grown(PIECES) for value in heard]

    def many(_: object) -> int:
        return sys.maxsize

    monkeypatch.setattr(partial, "_references", many)
    kept = [value for heard in grown(PIECES) for value in heard]

    assert [repr(value) for value in kept] == expected
    assert len({id(value) for value in kept}) == len(kept)


def test_an_inner_list_is_kept_without_its_parents() -> None:
    reader = PartialJSON(ANY)
    reader.feed('{"a": [[1, ')
    (value,) = emissions(reader)
    inner = value["a"][0]
    del value
    reader.feed("2, ")

    (value,) = emissions(reader)
    assert (inner, value) == ([1], {"a": [[1, 2]]})


def test_a_string_is_kept_without_its_parents() -> None:
    reader = PartialJSON(ANY)
    reader.feed('["abc')
    text = emissions(reader)[0][0]
    reader.feed("def")

    assert (text, emissions(reader)) == ("abc", [["abcdef"]])
