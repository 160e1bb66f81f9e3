"""The field rules by which chunks become an answer, and every recorded answer against a fold of its JSON."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, ChatCompletion, ChatRequest, Comment, ServerSentEvent, SSEParser, ToolCall, Usage
from rxrouter._wire.chunk import decode_odd
from rxrouter._wire.fold import CompletionFold
from tests.support import SHARED, needs_shared


def decode(data: bytes) -> ChatChunk:
    try:
        return msgspec.json.decode(data, type=ChatChunk)
    except msgspec.DecodeError:
        return decode_odd(data)


def complete(*chunks: dict[str, Any]) -> ChatCompletion:
    """What chunks of this JSON fold into."""
    fold = CompletionFold()
    for chunk in chunks:
        fold.add(decode(json.dumps(chunk).encode()))
    return fold.completion()


def of_choices(*choices: dict[str, Any]) -> ChatCompletion:
    """Of a chunk for each of these choices."""
    return complete(*({"choices": [choice]} for choice in choices))


def of_deltas(*deltas: dict[str, Any]) -> ChatCompletion:
    return of_choices(*({"index": 0, "delta": delta} for delta in deltas))


def of_calls(*pieces: dict[str, Any]) -> list[ToolCall]:
    return of_deltas(*({"content": None, "tool_calls": [piece]} for piece in pieces)).partial_tool_calls


def call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    """The whole call as the next request sends it."""
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def sent(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_pieces_of_text_reasoning_and_refusal_are_joined_in_order() -> None:
    completion = of_deltas(
        {"role": "assistant", "content": ""},
        {"reasoning": "Let "},
        {"reasoning_content": "me"},
        {"content": "Fo", "refusal": None},
        {"content": "ur"},
        {"content": None},
        {"refusal": "I "},
        {"refusal": "can't"},
    )

    assert completion.text == "Four"
    assert completion.reasoning == "Let me"
    assert completion.choices[0].refusal == "I can't"


def test_nothing_folds_into_an_empty_answer() -> None:
    completion = complete()

    assert completion == ChatCompletion()
    assert (completion.text, completion.reasoning, completion.tool_calls, completion.finish_reason) == (
        "",
        "",
        [],
        None,
    )
    assert completion.native_finish_reason is None


def test_the_head_is_what_the_first_chunk_says_that_says_something() -> None:
    completion = complete(
        {"choices": [], "model": "", "created": 0, "prompt_filter_results": []},
        {"id": "gen-1", "model": "a/b", "provider": "P", "created": 5, "system_fingerprint": "fp", "choices": []},
        {"id": "gen-2", "model": "c/d", "provider": "Q", "created": 6, "system_fingerprint": "", "choices": []},
    )

    assert (completion.id, completion.model, completion.provider) == ("gen-1", "a/b", "P")
    assert (completion.created, completion.system_fingerprint) == (5, "fp")


def test_service_tier_and_metadata_come_with_the_last_chunk() -> None:
    completion = complete(
        {"id": "gen-1", "model": "a/b", "choices": []},
        {"id": "gen-1", "choices": [], "usage": {}, "service_tier": "default", "openrouter_metadata": {"attempt": 1}},
    )

    assert completion.service_tier == "default"
    assert completion.openrouter_metadata == {"attempt": 1}


NOTHING: dict[str, Any] = {}


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
                {"index": 0, "function": {"arguments": '{"city":'}},
                {"index": 0, "function": {"arguments": '"Rome"}'}},
            ],
            id="first the name, then the arguments",
        ),
        pytest.param(
            [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city":"Rome"}'},
                }
            ],
            id="all in one piece",
        ),
        pytest.param(
            [
                {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather"}},
                {"index": 0, "type": "function", "function": {"arguments": '{"city":"Rome"}'}},
            ],
            id="no arguments at first, the type again",
        ),
        pytest.param(
            [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city"'},
                },
                {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": ':"Rome"}'}},
            ],
            id="null id and name",
        ),
        pytest.param(
            [
                {
                    "index": 0,
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "weather", "arguments": '{"city"'},
                },
                {"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": None}},
                {"index": 0, "id": "", "type": "", "function": {"name": "", "arguments": ':"Rome"}'}},
            ],
            id="empty id and name, null arguments",
        ),
        pytest.param(
            [
                {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"index": 0, "function": NOTHING},
                {"index": 0, "function": None},
                {"index": 0},
            ],
            id="pieces of nothing, no type",
        ),
        pytest.param(
            [
                {"index": 0, "id": "", "function": {"name": ""}},
                {"index": 0, "id": "call_1", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
                {"index": 0, "id": "call_1", "function": {"name": "weather again"}},
            ],
            id="late, then repeated",
        ),
        pytest.param(
            [
                {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}},
                {"index": None, "function": {"arguments": '{"city":"Rome"}'}},
                {"id": "call_1", "function": {"arguments": ""}},
            ],
            id="no index",
        ),
    ],
)
def test_pieces_of_a_call_make_one_call_with_null_empty_and_absent_alike(pieces: list[dict[str, Any]]) -> None:
    assert sent(of_calls(*pieces)) == [call("call_1", "weather", '{"city":"Rome"}')]


def test_interleaved_pieces_go_to_the_call_of_their_index() -> None:
    calls = of_calls(
        {"index": 0, "id": "a", "function": {"name": "one"}},
        {"index": 1, "id": "b", "function": {"name": "two", "arguments": "["}},
        {"index": 0, "function": {"arguments": "{}"}},
        {"index": 1, "function": {"arguments": "]"}},
    )

    assert sent(calls) == [call("a", "one", "{}"), call("b", "two", "[]")]


def test_several_calls_of_one_delta_stay_apart() -> None:
    pieces = [
        {"index": 0, "id": "a", "function": {"name": "one", "arguments": "{}"}},
        {"index": 1, "id": "b", "function": {"name": "one", "arguments": "{}"}},
    ]

    assert sent(of_deltas({"tool_calls": pieces}).partial_tool_calls) == [
        call("a", "one", "{}"),
        call("b", "one", "{}"),
    ]


@pytest.mark.parametrize("index", [{"index": 0}, {"index": None}, {}])
def test_another_id_under_the_same_index_or_none_is_another_call(index: dict[str, Any]) -> None:
    calls = of_calls(
        {**index, "id": "a", "function": {"name": "one", "arguments": "{"}},
        {**index, "function": {"arguments": "}"}},
        {**index, "id": "b", "function": {"name": "two", "arguments": "["}},
        {**index, "function": {"arguments": "]"}},
    )

    assert sent(calls) == [call("a", "one", "{}"), call("b", "two", "[]")]


def test_name_and_arguments_of_a_call_are_at_hand() -> None:
    (made,) = of_calls({"index": 0, "id": "a", "function": {"name": "one", "arguments": "{}"}})

    assert (made.name, made.arguments) == ("one", "{}")


def test_the_last_finish_counts_and_null_does_not_erase_it() -> None:
    completion = of_choices(
        {"index": 0, "delta": {}, "finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls", "native_finish_reason": "tool_calls"},
        {"index": 0, "delta": {}, "finish_reason": "tool_calls", "native_finish_reason": None},
        {"index": 0, "delta": {}, "finish_reason": "stop", "native_finish_reason": "STOP"},
        {"index": 0, "delta": {}, "finish_reason": None, "native_finish_reason": None},
    )

    assert completion.finish_reason == "stop"
    assert completion.native_finish_reason == "STOP"


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "cost": 0.5}
FINISH = {"index": 0, "delta": {"content": ""}, "finish_reason": "stop", "native_finish_reason": "end_turn"}


@pytest.mark.parametrize(
    "choices",
    [
        pytest.param([FINISH | {"finish_reason": None, "native_finish_reason": None}], id="until February 2026"),
        pytest.param([], id="March 2026"),
        pytest.param([FINISH], id="since March 2026"),
    ],
)
def test_usage_arrives_after_the_finish_in_the_shape_of_every_era(choices: list[dict[str, Any]]) -> None:
    completion = complete(
        {"model": "a/b", "choices": [FINISH | {"delta": {"content": "Hi"}}]}, {"choices": choices, "usage": USAGE}
    )

    assert completion.usage == Usage(1, 2, 3, 0.5)
    assert (completion.text, completion.finish_reason, completion.native_finish_reason) == ("Hi", "stop", "end_turn")


@pytest.mark.parametrize(
    "later", [{"usage": None}, {"model": "a/b"}, {"usage": None, "openrouter_metadata": {"attempt": 1}}]
)
def test_a_later_chunk_without_usage_does_not_erase_what_was_told(later: dict[str, Any]) -> None:
    assert complete({"choices": [], "usage": None}, {"choices": [], "usage": USAGE}, later).usage == Usage(1, 2, 3, 0.5)


def test_the_last_usage_counts() -> None:
    assert complete({"usage": USAGE}, {"usage": USAGE | {"cost": 0.75}}).usage == Usage(1, 2, 3, 0.75)


def details_of(*pieces: dict[str, Any]) -> list[dict[str, Any]]:
    return of_deltas(*({"reasoning_details": [piece]} for piece in pieces)).choices[0].reasoning_details


def test_reasoning_details_of_one_type_and_index_are_one() -> None:
    details = details_of(
        {"type": "reasoning.text", "text": "", "signature": "", "index": 0, "format": "anthropic-claude-v1"},
        {"type": "reasoning.text", "text": "Let ", "index": 0, "format": "another"},
        {"type": "reasoning.text", "text": "me", "signature": None, "index": 0, "format": None},
        {"type": "reasoning.text", "signature": "sig", "index": 0},
        {"type": "reasoning.text", "signature": None, "index": 0},
    )

    assert details == [
        {"type": "reasoning.text", "text": "Let me", "signature": "sig", "index": 0, "format": "anthropic-claude-v1"}
    ]


def test_the_last_signature_that_says_something_wins() -> None:
    details = details_of(
        {"type": "reasoning.text", "index": 0, "signature": "first"},
        {"type": "reasoning.text", "index": 0, "signature": "last"},
        {"type": "reasoning.text", "index": 0, "signature": ""},
    )

    assert details == [{"type": "reasoning.text", "index": 0, "signature": "last"}]


def test_reasoning_details_of_other_types_or_indexes_stay_apart_and_in_order() -> None:
    details = details_of(
        {"type": "reasoning.summary", "summary": "a", "index": 0},
        {"type": "reasoning.encrypted", "data": "x", "index": 0, "id": "rs_1"},
        {"type": "reasoning.summary", "summary": "b", "index": 1},
        {"type": "reasoning.summary", "summary": "c", "index": 0},
        {"type": "reasoning.encrypted", "data": "y", "index": 0, "id": None},
    )

    assert details == [
        {"type": "reasoning.summary", "summary": "ac", "index": 0},
        {"type": "reasoning.encrypted", "data": "xy", "index": 0, "id": "rs_1"},
        {"type": "reasoning.summary", "summary": "b", "index": 1},
    ]


@pytest.mark.parametrize("index", [{}, {"index": None}])
def test_reasoning_details_without_an_index_stay_apart(index: dict[str, Any]) -> None:
    pieces: list[dict[str, Any]] = [{"type": "reasoning.text", "text": text, "provider": "P", **index} for text in "ab"]

    assert details_of(*pieces) == pieces


def test_a_null_in_a_reasoning_detail_keeps_its_place_until_something_is_said() -> None:
    first = {"type": "reasoning.text", "text": None, "id": None, "index": 0}

    assert details_of(first) == [first]
    assert details_of(first, {"type": "reasoning.text", "text": "a", "id": "rs_1", "index": 0}) == [
        {"type": "reasoning.text", "text": "a", "id": "rs_1", "index": 0}
    ]


def test_choices_are_folded_apart_and_come_out_by_index() -> None:
    completion = complete(
        {"choices": [{"index": 1, "delta": {"content": "b"}}]},
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "B"}}]},
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        {"choices": [{"index": 0, "delta": {"content": "A"}, "finish_reason": "stop"}]},
    )

    assert [(c.index, c.text, c.finish_reason) for c in completion.choices] == [(0, "aA", "stop"), (1, "bB", "length")]
    assert completion.text == "aA"


def test_logprobs_add_up() -> None:
    completion = of_choices(
        {"index": 0, "delta": {}, "logprobs": None},
        {"index": 0, "delta": {}, "logprobs": {"content": [{"token": "a"}], "refusal": None}},
        {"index": 0, "delta": {}, "logprobs": {"content": [{"token": "b"}], "refusal": [{"token": "c"}]}},
    )

    assert completion.choices[0].logprobs == {"content": [{"token": "a"}, {"token": "b"}], "refusal": [{"token": "c"}]}


def test_logprobs_of_nulls_are_none() -> None:
    nulls = {"tokens": None, "token_logprobs": None, "top_logprobs": None, "text_offset": None}

    assert of_choices({"index": 0, "delta": {"content": "a"}, "logprobs": nulls}).choices[0].logprobs is None


def test_audio_grows_by_data_and_transcript() -> None:
    completion = of_deltas(
        {"audio": {"id": "audio_1", "transcript": "He"}},
        {"audio": {"transcript": "y", "data": "AA"}},
        {"audio": {"data": "BB", "id": None}},
        {"audio": {"expires_at": 5}},
    )

    assert completion.choices[0].audio == {"id": "audio_1", "transcript": "Hey", "data": "AABB", "expires_at": 5}
    assert completion.message.audio == {"id": "audio_1"}


def test_images_and_annotations_are_kept_in_order() -> None:
    images = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{x}"}} for x in ("AA", "BB")]
    notes = [{"type": "url_citation", "url_citation": {"url": f"https://{x}", "start_index": 0}} for x in "ab"]

    completion = of_deltas({"annotations": notes[:1]}, {"images": images}, {"content": "a", "annotations": notes[1:]})

    assert completion.choices[0].images == images
    assert completion.choices[0].annotations == notes
    assert sent(completion.message) == {
        "role": "assistant",
        "content": "a",
        "images": images,
        "annotations": notes,
    }


SIGNED: dict[str, Any] = {
    "id": "a",
    "type": "function",
    "extra_content": {"google": {"thought_signature": "c2lnbg=="}},
    "function": {"name": "one", "arguments": '{"a":1}', "provider_specific_fields": {"k": [1]}},
}


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        pytest.param({"content": "Hi"}, {"content": "Hi"}, id="text"),
        pytest.param({"content": ""}, {"content": ""}, id="nothing"),
        pytest.param({"content": "", "refusal": "No"}, {"content": "", "refusal": "No"}, id="refusal"),
        pytest.param({"content": "Hi", "reasoning": "Hm"}, {"content": "Hi", "reasoning": "Hm"}, id="reasoning"),
        pytest.param(
            {"content": "Hi", "reasoning_content": "Hm"},
            {"content": "Hi", "reasoning_content": "Hm"},
            id="reasoning under the name of DeepSeek",
        ),
        pytest.param(
            {
                "content": "Hi",
                "reasoning_content": "Hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}],
            },
            {
                "content": "Hi",
                "reasoning_content": "Hm",
                "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}],
            },
            id="reasoning under the name of DeepSeek with details",
        ),
        pytest.param(
            {"content": "Hi", "reasoning": "Hm", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
            {"content": "Hi", "reasoning_details": [{"type": "reasoning.text", "text": "Hm"}]},
            id="reasoning with details goes back once",
        ),
        pytest.param(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "one", "arguments": '{"a":1}'}}]},
            {"tool_calls": [call("a", "one", '{"a":1}')]},
            id="call",
        ),
        pytest.param(
            {"content": "Wait", "tool_calls": [{"index": 0, "id": "a", "function": {"name": "one", "arguments": ""}}]},
            {"content": "Wait", "tool_calls": [call("a", "one", "{}")]},
            id="call with empty arguments beside text",
        ),
        pytest.param(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "one"}}]},
            {"tool_calls": [call("a", "one", "{}")]},
            id="call that never got arguments",
        ),
        pytest.param(
            {"tool_calls": [{"index": 0, **SIGNED}]},
            {"tool_calls": [SIGNED]},
            id="unknown members of a call and of its function",
        ),
    ],
)
def test_the_message_can_be_sent_back(delta: dict[str, Any], message: dict[str, Any]) -> None:
    completion = of_choices({"index": 0, "delta": delta, "finish_reason": "stop"})

    request = ChatRequest(messages=[{"role": "user", "content": "?"}, completion.message])

    answer = json.loads(request.encode())["messages"][1]
    assert {"content": None} | answer == {"role": "assistant", "content": None} | message


def test_unknown_members_of_a_call_survive_pickle_and_the_chunk_that_stands_for_many() -> None:
    fold = CompletionFold()
    for delta in (
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "one"}, "extra_content": {"k": 1}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}, "extra_content": None, "other": "x"}]},
    ):
        fold.add(decode(json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()))
    again = CompletionFold()
    for chunk in fold.chunks():
        again.add(decode(chunk.raw))

    (called,) = again.completion().partial_tool_calls

    assert called.extra == {"extra_content": {"k": 1}, "other": "x"}
    assert pickle.loads(pickle.dumps(called)) == called


@pytest.mark.parametrize(
    "reasons",
    [
        [("length", None), ("tool_calls", None)],
        [(None, "max_tokens"), ("tool_calls", "end_turn")],
        [("content_filter", "safety"), ("tool_calls", "stop")],
    ],
)
def test_chunk_that_stands_for_many_proves_no_call_when_a_reason_before_the_last_cuts(reasons: list[Any]) -> None:
    fold, late = CompletionFold(), CompletionFold()
    piece = {"index": 0, "id": "a", "function": {"name": "f", "arguments": '{"a":1}'}}
    fold.add(decode(json.dumps({"choices": [{"delta": {"tool_calls": [piece]}}]}).encode()))
    for finish, native in reasons:
        choice = {"finish_reason": finish, "native_finish_reason": native}
        fold.add(decode(json.dumps({"choices": [choice]}).encode()))
    for chunk in fold.chunks():
        late.add(chunk)

    assert late.completion().state == fold.completion().state == "incomplete"
    assert late.completion().tool_calls == []


def test_the_message_is_that_of_the_first_choice_and_each_choice_has_its_own() -> None:
    completion = complete(
        {"choices": [{"index": 0, "delta": {"content": "a"}}, {"index": 1, "delta": {"content": "b"}}]}
    )

    assert completion.message == completion.choices[0].message
    assert completion.choices[1].message.content == "b"


def test_partial_call_keeps_its_arguments_empty_when_none_came() -> None:
    completion = of_deltas({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "one"}}]})

    _ = completion.message

    assert completion.partial_tool_calls[0].arguments == ""


WHOLE = {"index": 0, "id": "a", "function": {"name": "one", "arguments": '{"a":1}'}}
CUT = {"index": 1, "id": "b", "function": {"name": "two", "arguments": '{"b":'}}


@pytest.mark.parametrize(
    ("finish", "native", "pieces", "state", "released"),
    [
        ("tool_calls", None, [WHOLE], "complete", 1),
        ("stop", None, [WHOLE], "complete", 1),
        ("tool_calls", None, [WHOLE, CUT], "complete", 0),
        ("tool_calls", "length", [WHOLE], "incomplete", 0),
        ("length", None, [WHOLE], "incomplete", 0),
        ("content_filter", None, [], "incomplete", 0),
        ("stop", "SAFETY", [], "incomplete", 0),
        (None, None, [WHOLE], "complete", 0),
        ("perhaps", None, [WHOLE], "complete", 0),
    ],
)
def test_completion_releases_all_calls_or_none_when_its_source_has_finished(
    finish: str | None, native: str | None, pieces: list[Any], state: str, released: int
) -> None:
    choice = {"delta": {"tool_calls": pieces}, "finish_reason": finish, "native_finish_reason": native}
    completion = of_choices(choice)

    assert completion.state == state
    assert len(completion.tool_calls) == released
    assert len(completion.partial_tool_calls) == len(pieces) - released
    assert len(completion.message.tool_calls or ()) == released


@pytest.mark.parametrize("state", ["streaming", "stopped", "truncated", "failed"])
def test_completion_releases_no_call_when_its_source_has_not_finished(state: Any) -> None:
    fold = CompletionFold()
    fold.add(decode(json.dumps({"choices": [{"delta": {"tool_calls": [WHOLE]}, "finish_reason": "stop"}]}).encode()))
    completion = fold.completion(state)

    assert (completion.state, completion.tool_calls, len(completion.partial_tool_calls)) == (state, [], 1)
    assert completion.message.tool_calls is None


EVERYTHING: dict[str, Any] = {
    "id": "gen-1",
    "model": "a/b",
    "choices": [
        {
            "index": 0,
            "delta": {
                "content": "a",
                "reasoning": "b",
                "refusal": "c",
                "tool_calls": [{"index": 0, "id": "d", "function": {"name": "e", "arguments": "f"}}],
                "reasoning_details": [{"type": "reasoning.text", "index": 0, "text": "g", "signature": "h"}],
                "annotations": [{"type": "url_citation"}],
                "images": [{"type": "image_url"}],
                "audio": {"id": "i", "data": "j"},
            },
            "logprobs": {"content": [{"token": "k"}]},
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}


def test_an_answer_given_out_does_not_change_with_later_chunks() -> None:
    fold = CompletionFold()
    chunk = decode(json.dumps(EVERYTHING).encode())
    fold.add(chunk)
    early = fold.completion()
    as_it_was = sent(early)

    fold.add(decode(json.dumps(EVERYTHING | {"usage": USAGE | {"cost": 2}}).encode()))
    fold.add(decode(b'{"choices":[{"index":1,"delta":{"content":"b"}}]}'))

    assert sent(early) == as_it_was
    assert chunk == decode(json.dumps(EVERYTHING).encode())
    late = fold.completion()
    assert (late.text, late.reasoning, late.partial_tool_calls[0].arguments, len(late.choices)) == ("aa", "bb", "ff", 2)
    assert late.choices[0].audio == {"id": "i", "data": "jj"}


def test_an_answer_given_out_can_be_changed_without_harm_to_the_next() -> None:
    fold = CompletionFold()
    fold.add(decode(json.dumps(EVERYTHING).encode()))
    first = fold.completion()
    expected = sent(first)

    choice = first.choices[0]
    for grown in (
        choice.partial_tool_calls,
        choice.reasoning_details,
        choice.annotations,
        choice.images,
        first.choices,
    ):
        grown.clear()
    assert choice.audio is not None
    assert choice.logprobs is not None
    choice.audio.clear()
    choice.logprobs["content"].clear()

    assert sent(fold.completion()) == expected


@given(st.lists(st.tuples(st.sampled_from(["content", "reasoning", "refusal"]), st.text(max_size=3))))
def test_each_kind_of_text_is_the_concatenation_of_its_pieces(pieces: list[tuple[str, str]]) -> None:
    completion = of_deltas({"content": ""}, *({kind: piece} for kind, piece in pieces))

    choice = completion.choices[0]
    for kind, text in (("content", choice.text), ("reasoning", choice.reasoning), ("refusal", choice.refusal)):
        assert text == "".join(piece for k, piece in pieces if k == kind)


# Every recorded chat completion, against a fold of its own: json.loads of the data lines, and dicts.


def events_of(recording: Path) -> list[Any]:
    """The JSON objects of its data lines; all these recordings have LF and one data line an event."""
    lines = recording.read_text(encoding="utf-8").split("\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def is_chat_completion(recording: Path) -> bool:
    if b"\r\n" in recording.read_bytes():
        return False
    with_choices = [event for event in events_of(recording) if event.get("choices")]
    return any("delta" in choice for event in with_choices[:1] for choice in event["choices"])


RECORDINGS = [
    pytest.param(path, id=str(path.relative_to(SHARED / "recordings").with_suffix("")))
    for path in sorted((SHARED / "recordings").glob("**/*.sse"))
    if is_chat_completion(path)
]


def fold_by_hand(events: list[Any]) -> dict[int, Any]:
    choices: dict[int, Any] = {}
    for event in events:
        for choice in _list(event, "choices"):
            nothing: dict[str, Any] = {"text": "", "reasoning": "", "calls": {}, "finish": None, "native": None}
            whole = choices.setdefault(choice.get("index", 0), nothing)
            whole["finish"] = choice.get("finish_reason") or whole["finish"]
            whole["native"] = choice.get("native_finish_reason") or whole["native"]
            delta: Any = choice.get("delta") or {}
            parts = _list(delta, "content")
            text: Any = "".join(part.get("text", "") for part in parts) if parts else delta.get("content")
            whole["text"] += text or ""
            whole["reasoning"] += (
                delta.get("reasoning")
                or delta.get("reasoning_content")
                or "".join(x.get("text") or x.get("summary") or "" for x in _list(delta, "reasoning_details"))
                or "".join(thought.get("text", "") for part in parts for thought in _list(part, "thinking"))
            )
            for piece in _list(delta, "tool_calls"):
                made = whole["calls"].setdefault(piece["index"], {"id": "", "name": "", "arguments": ""})
                function: Any = piece.get("function") or {}
                made["id"] = made["id"] or piece.get("id") or ""
                made["name"] = made["name"] or function.get("name") or ""
                made["arguments"] += function.get("arguments") or ""
    return choices


def _list(value: Any, key: str) -> list[Any]:
    return value[key] if isinstance(value.get(key), list) else []


def usage_by_hand(events: list[Any]) -> list[Any] | None:
    told = [event["usage"] for event in events if event.get("usage")]
    if not told:
        return None
    cost: Any = told[-1].get("cost")
    if isinstance(cost, dict):
        cost = told[-1]["cost"]["total_cost"]
    return [*(told[-1].get(name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")), cost]


def completion_of(recording: Path) -> ChatCompletion:
    fold = CompletionFold()
    for item in SSEParser().split(recording.read_bytes()):
        data = item.data.encode() if isinstance(item, ServerSentEvent) else item
        if not isinstance(data, Comment) and data != b"[DONE]":
            fold.add(decode(data))
    return fold.completion()


@needs_shared
@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_recorded_answer_is_what_its_json_says(recording: Path) -> None:
    events = events_of(recording)
    expected = fold_by_hand(events)

    completion = completion_of(recording)

    got = {
        choice.index: {
            "text": choice.text,
            "reasoning": choice.reasoning,
            "calls": [
                {"id": c.id, "name": c.name, "arguments": c.arguments}
                for c in (choice.tool_calls or choice.partial_tool_calls)
            ],
            "finish": choice.finish_reason,
            "native": choice.native_finish_reason,
        }
        for choice in completion.choices
    }
    assert got == {index: whole | {"calls": list(whole["calls"].values())} for index, whole in expected.items()}
    usage = completion.usage
    assert usage_by_hand(events) == (
        None if usage is None else [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.cost]
    )
    for name in ("id", "model", "provider"):
        assert (getattr(completion, name) or None) == next((event[name] for event in events if event.get(name)), None)


@needs_shared
@pytest.mark.parametrize("recording", RECORDINGS)
def test_a_recorded_answer_can_be_sent_back(recording: Path) -> None:
    message = completion_of(recording).message

    request = ChatRequest(messages=[{"role": "user", "content": "?"}, message])

    answer = json.loads(request.encode())["messages"][1]
    assert answer["role"] == "assistant"
    assert all(made["type"] == "function" and made["function"]["arguments"] for made in answer.get("tool_calls", []))


@needs_shared
def test_the_recordings_are_there() -> None:
    assert len(RECORDINGS) >= 65


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning": "hm"},
        {"reasoning_content": "hm"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"reasoning": "hm", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
    ],
    ids=["reasoning", "another name", "details alone", "twice"],
)
def test_reasoning_is_folded_once_under_whatever_name_it_comes(delta: dict[str, Any]) -> None:
    fold = CompletionFold()
    for _ in range(2):
        fold.add(msgspec.convert({"choices": [{"delta": delta}]}, ChatChunk))

    assert fold.completion().reasoning == "hmhm"
