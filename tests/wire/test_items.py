"""The elements of one array against those that json.loads finds there."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import assume, example, given, strategies as st

from rxrouter import AnswerDecodeError
from rxrouter._wire.items import JSONItems, steps_of
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.place import place_of
from tests.wire.json_support import cut, cuts, documents, strict, values

keys = st.sampled_from(["", "a", "b", "0", "1", "~", "/", "a/b", "~1", "é"])
shaped = st.recursive(
    st.lists(values, max_size=3) | values,
    lambda inner: st.dictionaries(keys, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=6,
)
paths = st.lists(keys, max_size=3)


def items(path: str, pieces: Iterable[str], type: Any = None) -> list[Any]:  # noqa: A002
    reader, heard = JSONItems(steps_of(path), place_of(type)), list[Any]()
    for piece in pieces:
        reader.feed(piece)
        reader.tell(heard.append)
    reader.finish()
    reader.tell(heard.append)
    return heard


def at_path(value: Any, steps: list[str]) -> Any:
    """What RFC 6901 finds; None if there is nothing."""
    for step in steps:
        elements = {str(index): element for index, element in enumerate(as_list(value))}
        value = (elements | as_object(value)).get(step)
    return value


def pointer(steps: list[str]) -> str:
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


@given(documents(shaped), cuts, paths)
@example('{"a":[1,[2],{"b":"x"}],"b":[3]}', [0.1, 0.5], ["a"])
@example('{"a":{"b":[1,2]},"b":[3]}', [0.1, 0.5], ["a", "b"])
@example("[[0],[1,2],[3]]", [0.1, 0.5], ["1"])
@example('[{"0":[1]},{"0":[2]}]', [0.5], ["1", "0"])
@example("[1,2,3]", [0.3], [])
@example("12", [0.5], [])
@example('{"":{"":[1]}}', [0.5], ["", ""])
def test_the_elements_are_those_at_the_path(document: str, at: list[float], steps: list[str]) -> None:
    assume(steps != [""])  # that is "/", which here is the whole document
    array = at_path(strict(document), steps)

    if isinstance(array, list):
        assert repr(items(pointer(steps), cut(document, at))) == repr(as_list(array))
    else:
        with pytest.raises(AnswerDecodeError, match="there is no array at"):
            items(pointer(steps), cut(document, at))


@given(documents(st.lists(st.integers())))
def test_the_root_may_be_written_as_a_slash(document: str) -> None:
    assert items("/", document) == items("", document) == json.loads(document)


@given(documents(st.lists(st.dictionaries(st.just("n"), st.integers() | st.text(), min_size=1))), cuts)
def test_typed_elements_are_those_of_msgspec(document: str, at: list[float]) -> None:
    pieces = cut(document, at)
    expected: list[dict[str, Any]] = json.loads(document)

    if all(isinstance(n, int) for one in expected for n in one.values()):
        assert items("", pieces, dict[str, int]) == expected
    else:
        with pytest.raises(AnswerDecodeError, match=r"Expected `int`, got `str` - at `\$\[\d+\]\[\.\.\.\]`"):
            items("", pieces, dict[str, int])


def test_an_element_is_told_when_it_closes() -> None:
    reader, heard = JSONItems(["a"], place_of(None)), list[Any]()

    for piece, expected in [
        ('{"x":[0],"a":[{"b":1', []),
        ("}", [{"b": 1}]),
        (",12", []),
        (",", [12]),
        ('"x', []),
        ('"', ["x"]),
        (",tru", []),
        ("e", [True]),
        (",[],[[1]]", [[], [[1]]]),
        ('],"y":[2]}', []),
    ]:
        reader.feed(piece)
        reader.tell(heard.append)
        assert heard == expected
        heard.clear()


def test_a_refused_element_is_named_and_those_before_it_are_told() -> None:
    reader, heard = JSONItems(["a", "b"], place_of(list[int])), list[Any]()

    with pytest.raises(AnswerDecodeError) as refused:
        reader.feed('{"a":{"b":[[1],[2],[3,"secret"]')
    reader.tell(heard.append)

    assert heard == [[1], [2]]
    assert refused.value.reason == "Expected `int`, got `str` - at `$.a.b[2][1]`"
    assert refused.value.position == len('{"a":{"b":[[1],[2],[3,"secret"]')


def test_a_document_without_the_array_is_refused_when_it_is_whole() -> None:
    reader = JSONItems(["a"], place_of(None))
    reader.feed('{"b":[1],"a":{"a":[2]}')

    with pytest.raises(AnswerDecodeError) as refused:
        reader.feed("}")

    assert (refused.value.reason, refused.value.position) == ("there is no array at `$.a`", 23)


@pytest.mark.parametrize("text", ["", "[1, 2", "{", "[1,]", "[1] [2]"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(AnswerDecodeError):
        items("", text)


@pytest.mark.parametrize("path", ["a", "$.a", "/a~", "/~2"])
def test_a_path_that_is_no_pointer_is_refused_where_it_is_written(path: str) -> None:
    with pytest.raises(ValueError, match="is no JSON Pointer"):
        steps_of(path)


@pytest.mark.parametrize("before", ['{"b":[', '{"a":['])
def test_what_was_told_and_what_is_beside_the_path_takes_no_memory(before: str) -> None:
    reader = JSONItems(["a"], place_of(None))
    reader.feed(before)
    element = '"' + "x" * 10_000 + '",'
    told: list[int] = []
    tracemalloc.start()
    try:
        for _ in range(200):
            reader.feed(element[:5000])
            reader.feed(element[5000:])
            reader.tell(lambda item: told.append(len(item)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert len(told) == (200 if before == '{"a":[' else 0)
    assert peak < 200_000
