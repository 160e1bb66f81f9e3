"""One rule for which tool call a piece belongs to, and every reader of calls follows it."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import reactivex
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, ToolCall
from rxrouter._wire.asked import Asked
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.tool_call_index import ToolCallIndex
from rxrouter.operators import json_items, partial_json, tool_calls
from rxrouter.relay import UIMessages
from tests.strategies import calls, decoded

Piece = dict[str, Any]
Called = tuple[str, str]
ABSENT = "absent"


def piece(index: int | str | None = ABSENT, name: Any = ABSENT, arguments: Any = ABSENT, **more: Any) -> Piece:
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v != ABSENT}
    return ({} if index == ABSENT else {"index": index}) | more | {"function": function}


def chunk(*pieces: Piece) -> ChatChunk:
    return decoded({"id": "gen-1", "choices": [{"index": 0, "delta": {"tool_calls": list(pieces)}}]})


FINISH = decoded({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})


def released(chunks: list[ChatChunk]) -> list[Called] | None:
    """What `tool_calls()` emits; None where it refuses."""
    emitted, errors = list[ToolCall](), list[Exception]()
    reactivex.from_iterable([*chunks, FINISH]).pipe(tool_calls()).subscribe(emitted.append, errors.append)
    assert not (emitted and errors)
    return None if errors else [(call.name, call.arguments) for call in emitted]


def relayed(chunks: list[ChatChunk]) -> list[Called] | None:
    """The calls that a page may run."""
    encoder = UIMessages()
    said = [line for one in [*chunks, FINISH] for line in encoder.chunk(one)]
    events = [json.loads(line) for line in [*said, *encoder.end()] if line.startswith(b"{")]
    shown: dict[str, str] = {}
    for event in events:
        if event["type"] == "tool-input-delta":
            shown[event["toolCallId"]] = shown.get(event["toolCallId"], "") + event["inputTextDelta"]
    if any(event["type"] == "error" for event in events):
        assert not any(event["type"] == "tool-input-available" for event in events)
        return None
    available = [event for event in events if event["type"] == "tool-input-available"]
    return [(event["toolName"], shown.get(event["toolCallId"]) or "{}") for event in available]


def document(chunks: list[ChatChunk], number: int, operator: Callable[..., Any] = partial_json) -> Any:
    """The last value of the arguments of one call; None where there is no document."""
    values, errors = list[Any](), list[Exception]()
    reactivex.from_iterable(chunks).pipe(operator(tool_call=number)).subscribe(values.append, errors.append)
    return None if errors else values[-1]


# The name of a case, its pieces, and the calls.
CASES: dict[str, tuple[list[Piece], list[Called] | None]] = {
    "new id on each fragment": (
        [piece(0, "delete", "", id="a1"), piece(0, None, '{"keep":', id="a2"), piece(0, None, "true}", id="a3")],
        [("delete", '{"keep":true}')],
    ),
    "new index on each fragment": (
        [piece(0, "delete", "", id="a"), piece(1, arguments='{"keep":'), piece(2, arguments="true}"), piece(3)],
        [("delete", '{"keep":true}')],
    ),
    "new index and new id on each fragment": (
        [
            piece(0, "delete", "", id="a"),
            piece(1, "", "", id="b"),
            piece(2, "", '{"keep":true}', id="c"),
            piece(3, "", "", id="d"),
        ],
        [("delete", '{"keep":true}')],
    ),
    "new index and the same id on each fragment": (
        [piece(0, "delete", "", id="a"), piece(1, None, '{"keep":', id="a"), piece(2, None, "true}", id="a")],
        [("delete", '{"keep":true}')],
    ),
    "calls at index 0 with empty ids": (
        [piece(0, "f", '{"a":1}', id=""), piece(0, "g", "{}", id="")],
        [("f", '{"a":1}'), ("g", "{}")],
    ),
    "streamed calls at index 0 with empty ids": (
        [
            piece(0, "f", "", id=""),
            piece(0, arguments='{"a":', id=""),
            piece(0, arguments="1}", id=""),
            piece(0, "g", "", id=""),
            piece(0, arguments="{}", id=""),
        ],
        [("f", '{"a":1}'), ("g", "{}")],
    ),
    "one tool twice at index 0 with empty ids": (
        [piece(0, "f", '{"a":1}', id=""), piece(0, "f", '{"a":2}', id="")],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "one tool twice, streamed at index 0 with empty ids": (
        [
            piece(0, "f", "", id=""),
            piece(0, arguments='{"a":1}', id=""),
            piece(0, "f", "", id=""),
            piece(0, arguments='{"a":2}', id=""),
        ],
        [("f", '{"a":1}'), ("f", '{"a":2}')],
    ),
    "calls at index 0 with own ids": (
        [piece(0, "now", "", id="a"), piece(0, "f", '{"a":1}', id="b")],
        [("now", "{}"), ("f", '{"a":1}')],
    ),
    "pieces without index go to the call of their id": (
        [
            piece(name="f", arguments="", id="a"),
            piece(name="g", arguments="", id="b"),
            piece(arguments='{"a":1}', id="a"),
            piece(arguments='{"b":1}', id="b"),
        ],
        [("f", '{"a":1}'), ("g", '{"b":1}')],
    ),
    "name in two pieces": (
        [piece(0, "get_", id="a", type="function"), piece(0, "weather", "{}")],
        [("get_weather", "{}")],
    ),
    "name in two pieces with the id on both": (
        [piece(0, "get_", "", id="a", type="function"), piece(0, "weather", "", id="a", type="function")],
        [("get_weather", "{}")],
    ),
    "name in full on each piece": (
        [piece(0, "f", "", id="a"), piece(0, "f", '{"a":', id="a"), piece(0, "f", "1}", id="a"), piece(0, "f", "")],
        [("f", '{"a":1}')],
    ),
    "name in full on each piece, without ids": (
        [piece(0, "f", ""), piece(0, "f", '{"a":'), piece(0, "f", "1}"), piece(0, "f", "")],
        [("f", '{"a":1}')],
    ),
    "an empty object before the real one": (
        [piece(0, "f", "{}", id="a"), piece(0, arguments='{"a":1}')],
        [("f", '{"a":1}')],
    ),
    "an empty object before the real one, in one piece": ([piece(0, "f", '{} {"a":1}', id="a")], [("f", '{"a":1}')]),
    "an empty object before pieces of the real one": (
        [piece(0, "f", "{", id="a"), piece(0, arguments="}"), piece(0, arguments="{"), piece(0, arguments='"a":1}')],
        [("f", '{"a":1}')],
    ),
    "an empty object alone": ([piece(0, "f", "{", id="a"), piece(0, arguments="}")], [("f", "{}")]),
    "the name of a second call behind its id": (
        [piece(0, "f", "{}", id="a"), piece(1, id="b"), piece(1, "g", "{}")],
        [("f", "{}"), ("g", "{}")],
    ),
    # From here on the pieces can be read as other calls, and running one of these would be a guess.
    "two empty objects": ([piece(0, "f", "{}", id="a"), piece(0, arguments="{}")], None),
    "an empty object before one that is cut": ([piece(0, "f", "{}", id="a"), piece(0, arguments='{"a":')], None),
    "new id and the whole name on each fragment": (
        [piece(0, "delete", "", id="a1"), piece(0, "delete", '{"keep":true}', id="a2")],
        None,
    ),
    "new index and the same id and name on each fragment": (
        [piece(0, "delete", "", id="a"), piece(1, "delete", '{"keep":true}', id="a")],
        None,
    ),
    "another nameless object under a new index": (
        [piece(0, "f", "{}", id="a"), piece(1, arguments='{"a":1}', id="b")],
        None,
    ),
    "another nameless object under a new id": (
        [piece(0, "f", '{"a":1}', id="a"), piece(0, arguments='{"b":1}', id="b")],
        None,
    ),
    "stray arguments beside a call without any": (
        [piece(0, "f", "", id="a"), piece(1, "g", "", id="b"), piece(2, arguments='{"a":1}')],
        None,
    ),
    "a second call of which only the id came": ([piece(0, "f", "{}", id="a"), piece(1, id="b")], None),
    "two names without arguments or ids": ([piece(0, "get_", "", id=""), piece(0, "weather", "{}", id="")], None),
    "a name that grows": ([piece(0, "get", id="a"), piece(0, "get_weather", "{}")], None),
    "an empty object, then another under the repeated name": (
        [piece(0, "f", "{}", id=""), piece(0, "f", '{"a":1}', id="")],
        None,
    ),
    "a call that was interrupted by another": ([piece(0, "f", '{"a":', id=""), piece(0, "g", "{}", id="")], None),
}


@pytest.mark.parametrize(("pieces", "right"), CASES.values(), ids=CASES)
def test_pieces_find_their_call_and_a_doubtful_call_is_never_released(
    pieces: list[Piece], right: list[Called] | None
) -> None:
    apart, together = [chunk(one) for one in pieces], [chunk(*pieces)]

    assert released(apart) == relayed(apart) == right
    assert released(together) == relayed(together) == right


@pytest.mark.parametrize("pieces", [pieces for pieces, right in CASES.values() if right is None])
def test_a_doubt_survives_the_chunk_that_stands_for_many(pieces: list[Piece]) -> None:
    for cut in range(1, len(pieces) + 1):
        fold = CompletionFold()
        for one in pieces[:cut]:
            fold.add(chunk(one))

        assert released([*fold.chunks(), *map(chunk, pieces[cut:])]) is None


def test_the_first_id_of_a_call_is_its_id() -> None:
    asked = Asked(0)
    for one in CASES["new id on each fragment"][0]:
        asked.add(chunk(one))

    assert [call.id for call in asked.calls()] == ["a1"]


def test_arguments_of_a_call_are_found_by_its_number_whatever_its_index() -> None:
    zeros = [chunk(piece(0, "f", '{"a":[1]}', id="a")), chunk(piece(0, "g", '{"a":[2]}', id="b"))]
    numbered = [chunk(piece(2, "f", '{"a":[1]}', id="a")), chunk(piece(1, "g", '{"a":[2]}', id="b"))]

    assert [document(zeros, number) for number in (0, 1, 2)] == [{"a": [1]}, {"a": [2]}, None]
    assert [document(numbered, number) for number in (0, 1, 2)] == [None, {"a": [2]}, {"a": [1]}]
    assert document(zeros, 1, partial(json_items, "/a")) == 2


objects = st.dictionaries(st.sampled_from("ab"), st.text('{}"\\ x', max_size=4) | st.integers(0, 9), max_size=2)
arguments_of = objects.map(json.dumps) | st.just("")
asked_for = st.lists(st.tuples(st.sampled_from(["f", "g", "get_it"]), arguments_of), max_size=3)
HABITS = [
    *("plain", "no index", "names", "new ids", "new indexes", "own ids at 0", "no ids at 0"),
    *("name cut", "empty object first", "index from 1", "whole"),
]
CERTAIN = {"plain", "no index", "names", "name cut", "index from 1", "whole"}


def cut(draw: st.DrawFn, text: str) -> list[str]:
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def of_call(draw: st.DrawFn, habit: str, number: int, called: Called) -> list[Piece]:
    """One call as a server with this habit sends it; what is new in each piece is set later."""
    name, arguments = called
    index: Any = {"no index": ABSENT, "own ids at 0": 0, "no ids at 0": 0, "index from 1": number + 1}.get(
        habit, number
    )
    own = {"id": "" if habit == "no ids at 0" else f"c{number}", "type": "function"}
    if habit == "whole":
        return [piece(index, name, arguments, **own)]
    texts = ["", *cut(draw, arguments)] if draw(st.booleans()) else cut(draw, arguments)
    later: dict[str, Any] = draw(st.sampled_from([{}, {"id": ""}, {"id": None}, {"type": "function"}]))
    named = ABSENT
    if habit == "names":
        named, later = name, own
    first = [piece(index, name, texts.pop(0), **own)]
    if habit == "name cut":
        texts.insert(0, first[0]["function"]["arguments"])
        at = draw(st.integers(1, len(name)))
        first = [piece(index, part, **own) for part in (name[:at], name[at:]) if part]
    if habit == "empty object first":
        texts.insert(0, first[0]["function"]["arguments"])
        first[0]["function"]["arguments"] = "{}"
    return first + [piece(index, named, text, **later) for text in texts]


@st.composite
def habits(draw: st.DrawFn) -> tuple[str, list[Called], list[list[Piece]]]:
    """A habit, calls, and the pieces of each as a server with this habit sends them."""
    habit = draw(st.sampled_from(HABITS))
    calls = draw(asked_for)
    sent = [of_call(draw, habit, number, called) for number, called in enumerate(calls)]
    for count, one in enumerate(one for pieces in sent for one in pieces):
        if habit == "new indexes":
            one["index"] = count
        if habit in {"new ids", "new indexes"} and one["function"].get("name", ABSENT) == ABSENT:
            one["id"] = f"n{count}"
    return habit, calls, sent


@given(habits(), st.sampled_from(["apart", "together"]))
def test_readers_of_calls_agree_and_release_only_the_calls_of_the_model_when_servers_cut_them_by_any_habit(
    sent: tuple[str, list[Called], list[list[Piece]]], way: str
) -> None:
    habit, expected, pieces = sent
    expected = [(name, arguments or "{}") for name, arguments in expected]
    chunks = [chunk(*some) for some in pieces]
    if way == "apart":
        chunks = [chunk(one) for some in pieces for one in some]

    calls = released(chunks)

    assert calls == relayed(chunks)
    if habit == "no ids at 0" and calls is not None:
        # A name that comes again before any arguments may be that of the same call: it is run once.
        assert [call for call in calls if call[1] != "{}"] == [call for call in expected if call[1] != "{}"]
        assert set(calls) <= set(expected)
    else:
        assert calls == expected or (calls is None and habit not in CERTAIN)
    fold = CompletionFold()
    for one in chunks:
        fold.add(one)
    assert released(fold.chunks()) == calls
    fold.add(FINISH)
    whole = fold.completion()
    assert [(call.name, call.arguments or "{}") for call in whole.tool_calls] == (calls or [])
    assert calls is None or not whole.partial_tool_calls
    index = ToolCallIndex()
    for some in pieces:
        for part in some:
            index.add(chunk(part).choices[0].delta.tool_calls[0])
    for call, (_, arguments) in zip(index.calls, calls or (), strict=calls is not None):
        assert document(chunks, call.number) == (json.loads(arguments) if call.has_arguments else None)


@given(habits(), st.data())
def test_readers_of_calls_agree_when_pieces_of_several_calls_come_by_turns(
    sent: tuple[str, list[Called], list[list[Piece]]], data: st.DataObject
) -> None:
    habit, expected, pieces = sent
    mixed: list[Piece] = []
    while left := [some for some in pieces if some]:
        mixed.append(data.draw(st.sampled_from(left)).pop(0))
    chunks = [chunk(one) for one in mixed]

    calls = released(chunks)

    assert calls == relayed(chunks)
    if habit in {"plain", "names", "name cut", "index from 1"}:
        assert calls is not None
        assert sorted(calls) == sorted((name, arguments or "{}") for name, arguments in expected)


@given(st.lists(st.lists(calls, max_size=3), max_size=8))
def test_readers_of_calls_agree_on_any_pieces(pieces: list[list[Piece | None]]) -> None:
    chunks = [decoded({"choices": [{"index": 0, "delta": {"tool_calls": some}}]}) for some in pieces]

    assert released(chunks) == relayed(chunks)
