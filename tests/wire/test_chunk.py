"""Chunks decoded permissively, kept as received, and merged without a change of what they say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, Choice, ChunkDecodeError, Delta, Usage
from rxrouter._wire.chunk import (
    CompletionTokensDetails,
    FunctionDelta,
    PromptTokensDetails,
    ToolCallDelta,
    decode_odd,
    has_content,
    is_chunk,
    merge,
    merge_key,
    reasoning_of,
)
from rxrouter._wire.fold import CompletionFold

decode = msgspec.json.Decoder(ChatChunk).decode

DETAILS: list[dict[str, Any]] = [{"type": "reasoning.text", "text": "Hm", "index": 0, "format": "anthropic-claude-v1"}]
ANNOTATIONS: list[dict[str, Any]] = [{"type": "url_citation", "url_citation": {"url": "https://a", "title": ""}}]
IMAGES: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
AUDIO: dict[str, Any] = {"id": "audio_1", "data": "AA==", "transcript": "Hi", "expires_at": 5}


def decoded(data: bytes) -> ChatChunk | ChunkDecodeError:
    try:
        return decode_odd(data)
    except ChunkDecodeError as error:
        return error


def of(field: str, value: Any) -> ChatChunk:
    """A chunk of one field, from JSON."""
    return decode(json.dumps({field: value}).encode())


def of_choice(field: str, value: Any) -> Choice:
    return of("choices", [{field: value}]).choices[0]


def of_delta(field: str, value: Any) -> Delta:
    return of_choice("delta", {field: value}).delta


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", "gen-1786465029-CAkq"),
        ("provider", "Amazon Bedrock"),
        ("model", "openai/gpt-4.1-mini"),
        ("object", "chat.completion.chunk"),
        ("created", 1786465029),
        ("created", 1786465029.5),
        ("system_fingerprint", ""),
        ("service_tier", "default"),
        ("error", {"code": 502, "message": "no"}),
        ("error", "no"),
        ("openrouter_metadata", {"attempt": 1}),
        ("debug", {"echo_upstream_body": {}}),
        ("user_id", "user_1"),
        ("alignment", {"score": 1}),
        ("safeguard_results", [1]),
    ],
)
def test_a_field_of_the_chunk_is_decoded(field: str, value: Any) -> None:
    assert getattr(of(field, value), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("index", 3),
        ("finish_reason", "stop"),
        ("finish_reason", "a reason of next year"),
        ("native_finish_reason", "MALFORMED_FUNCTION_CALL"),
        ("logprobs", {"content": [{"token": "a", "logprob": -1.5}]}),
        ("error", {"code": "server_error"}),
    ],
)
def test_a_field_of_a_choice_is_decoded(field: str, value: Any) -> None:
    assert getattr(of_choice(field, value), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "assistant"),
        ("content", "Olá 😀"),
        ("reasoning", "Hm"),
        ("reasoning_content", "Hm"),
        ("reasoning_details", DETAILS),
        ("refusal", "I can't"),
        ("annotations", ANNOTATIONS),
        ("images", IMAGES),
        ("audio", AUDIO),
    ],
)
def test_a_field_of_a_delta_is_decoded(field: str, value: Any) -> None:
    assert getattr(of_delta(field, value), field) == value


def test_a_piece_of_a_tool_call_is_decoded() -> None:
    piece = {"index": 1, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"a'}}

    delta = of_delta("tool_calls", [piece, {"index": 1}])

    assert delta.tool_calls == [
        ToolCallDelta(1, "call_1", "function", FunctionDelta("weather", '{"a')),
        ToolCallDelta(1),
    ]


def test_usage_is_decoded_with_its_details() -> None:
    chunk = of(
        "usage",
        {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "total_tokens": 3,
            "cost": 6e-7,
            "is_byok": False,
            "prompt_tokens_details": {
                "cached_tokens": 4,
                "cache_write_tokens": 5,
                "audio_tokens": 6,
                "video_tokens": 7,
            },
            "completion_tokens_details": {
                "reasoning_tokens": 8,
                "image_tokens": 9,
                "audio_tokens": 10,
                "accepted_prediction_tokens": 11,
                "rejected_prediction_tokens": 12,
            },
            "cost_details": {"upstream_inference_cost": None, "input_audio_cache_read_tokens": 0},
            "server_tool_use_details": {"web_search_requests": 1},
            "server_tool_use": {"web_search_requests": 1},
        },
    )

    assert chunk.usage == Usage(
        prompt_tokens=1,
        completion_tokens=2,
        total_tokens=3,
        cost=6e-7,
        is_byok=False,
        prompt_tokens_details=PromptTokensDetails(4, 5, 6, 7),
        cost_details={"upstream_inference_cost": None, "input_audio_cache_read_tokens": 0},
        completion_tokens_details=CompletionTokensDetails(8, 9, 10, 11, 12),
        server_tool_use_details={"web_search_requests": 1},
        server_tool_use={"web_search_requests": 1},
    )


def test_usage_of_counts_only_has_no_cost_rather_than_none_to_pay() -> None:
    usage = of("usage", {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}).usage

    assert usage is not None
    assert usage.cost is None


def test_an_empty_object_is_a_chunk_with_nothing_in_it() -> None:
    chunk = decode(b"{}")

    assert chunk == ChatChunk()
    assert list(chunk.choices) == []


def test_unknown_keys_and_values_are_kept_in_raw() -> None:
    data = (
        b'{ "id":"gen-1","obfuscation":"x","choices":[{"index":0,"seed":7,"delta":{"token_id":5},"finish_reason":"?"}]}'
    )

    chunk = decode_odd(data)

    assert chunk.raw == data
    assert chunk.choices[0].finish_reason == "?"


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()))
def test_raw_is_the_bytes_as_received(unknown: dict[str, Any]) -> None:
    data = json.dumps({f"x-{key}": value for key, value in unknown.items()} | {"id": "gen-1"}, indent=1).encode()

    assert decode_odd(data).raw == data


def test_raw_of_a_chunk_made_by_hand_is_its_json() -> None:
    chunk = ChatChunk(id="gen-1", choices=[Choice(delta=Delta(content="Hi"))])

    assert json.loads(chunk.raw) == {"id": "gen-1", "choices": [{"delta": {"content": "Hi"}}]}
    assert decode(chunk.raw) == chunk


@pytest.mark.parametrize("key", ["received", "raw", "_received"])
def test_no_key_of_the_json_can_set_what_was_received(key: str) -> None:
    data = json.dumps({key: "forged", "id": "gen-1"}).encode()

    by_hand = decode(data)

    assert decode_odd(data).raw == data
    assert json.loads(by_hand.raw) == {"id": "gen-1"}


NULLS = {
    "id": None,
    "provider": None,
    "model": None,
    "object": None,
    "created": None,
    "choices": [
        {
            "index": None,
            "delta": {
                "role": None,
                "content": None,
                "reasoning": None,
                "reasoning_content": None,
                "reasoning_details": None,
                "tool_calls": None,
                "refusal": None,
                "annotations": None,
                "images": None,
                "audio": None,
            },
            "finish_reason": None,
            "native_finish_reason": None,
            "logprobs": None,
            "error": None,
        },
        {"index": 1, "delta": None},
        {"index": 2, "delta": {"tool_calls": [{"index": None, "id": None, "type": None, "function": None}]}},
        {"index": 3, "delta": {"tool_calls": [{"function": {"name": None, "arguments": None}}]}},
    ],
    "system_fingerprint": None,
    "service_tier": None,
    "usage": {
        "prompt_tokens": None,
        "cost": None,
        "is_byok": None,
        "prompt_tokens_details": None,
        "completion_tokens_details": {"reasoning_tokens": None},
        "cost_details": None,
    },
    "error": None,
    "openrouter_metadata": None,
    "debug": None,
}


def test_nulls_everywhere_are_absent_fields() -> None:
    chunk = decode_odd(json.dumps(NULLS).encode())

    assert chunk == ChatChunk(
        choices=[
            Choice(),
            Choice(1),
            Choice(2, Delta(tool_calls=[ToolCallDelta()])),
            Choice(3, Delta(tool_calls=[ToolCallDelta()])),
        ],
        usage=Usage(completion_tokens_details=CompletionTokensDetails()),
    )
    assert decode_odd(b'{"choices":null,"usage":null}') == ChatChunk()


def test_numbers_as_strings_are_numbers() -> None:
    chunk = decode_odd(
        b'{"created":"1786465029","choices":[{"index":"1"}],'
        b'"usage":{"prompt_tokens":"12","cost":"0.5","is_byok":"false"}}'
    )

    assert chunk.created == 1786465029
    assert chunk.choices[0].index == 1
    assert chunk.usage == Usage(prompt_tokens=12, cost=0.5, is_byok=False)


def test_content_in_parts_becomes_text_and_reasoning() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Let "}, {"type": "text", "text": "me"}]},
        {"type": "text", "text": "Four"},
        {"type": "text", "text": "."},
        {"type": "reference", "reference_ids": [1]},
    ]

    delta = decode_odd(json.dumps({"choices": [{"delta": {"content": parts}}]}).encode()).choices[0].delta

    assert delta.content == "Four."
    assert reasoning_of(delta) == "Let me"


def test_content_in_parts_leaves_a_reasoning_field_alone() -> None:
    data = b'{"choices":[{"delta":{"reasoning":"Hm","content":[{"type":"thinking","thinking":[{"text":"Hm"}]}]}}]}'

    assert decode_odd(data).choices[0].delta.reasoning == "Hm"


def test_itemised_cost_becomes_a_cost_and_its_details() -> None:
    cost = {"input_tokens_cost": 0.1, "output_tokens_cost": 0.2, "request_cost": 5, "total_cost": 5.3}

    usage = decode_odd(json.dumps({"usage": {"prompt_tokens": 1, "cost": cost}}).encode()).usage

    assert usage is not None
    assert usage.cost == 5.3
    assert usage.cost_details == cost


def test_invalid_utf8_is_replaced_and_the_rest_is_kept() -> None:
    data = b'{"choices":[{"delta":{"content":"a\xffb"}}]}'

    chunk = decode_odd(data)

    assert chunk.choices[0].delta.content == "a\ufffdb"
    assert chunk.raw == data


@pytest.mark.parametrize(
    ("data", "path"),
    [
        pytest.param(b"", "", id="nothing"),
        pytest.param(b"Internal Server Error", "malformed", id="no JSON"),
        pytest.param(b'{"id":"gen-1"', "truncated", id="cut JSON"),
        pytest.param(b'{"choices":[{"delta":{"tool_calls":5}}]}', "$.choices[0].delta.tool_calls", id="calls a number"),
        pytest.param(b"[1]", "expected an object, got list", id="an array"),
        pytest.param(b'"Hi"', "expected an object, got str", id="a string"),
        pytest.param(b"null", "expected an object, got NoneType", id="null"),
        pytest.param(b"12", "expected an object, got int", id="a number"),
        pytest.param(b'{"choices":{}}', "$.choices", id="choices no array"),
    ],
)
def test_what_is_no_chunk_in_any_reading_is_an_error_that_says_where(data: bytes, path: str) -> None:
    with pytest.raises(ChunkDecodeError) as caught:
        decode_odd(data)

    assert path in caught.value.path
    assert caught.value.path in str(caught.value)
    assert caught.value.data == data


@pytest.mark.parametrize(
    "opening", [b"[", b'{"choices":', b'{"error":', b'{"a":', b'{"choices":[{"delta":{"audio":{"a":']
)
def test_deep_nesting_is_an_error_and_no_crash(opening: bytes) -> None:
    with pytest.raises(ChunkDecodeError):
        decode_odd(b'{"choices":' + opening * 100_000)


@given(st.binary())
def test_any_bytes_are_a_chunk_or_a_decode_error(data: bytes) -> None:
    result = decoded(data)

    assert data == (result.raw if isinstance(result, ChatChunk) else result.data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["text", "thinking"]), inner),
    max_leaves=5,
)


def objects_of(*fields: str, inner: st.SearchStrategy[Any] = json_values) -> st.SearchStrategy[Any]:
    """JSON objects with these keys and whatever values."""
    return st.dictionaries(st.sampled_from(fields), json_values | inner)


odd_deltas = objects_of(*Delta.__struct_fields__, inner=st.lists(objects_of("index", "id", "function", "text", "type")))
odd_choices = objects_of(*Choice.__struct_fields__, inner=odd_deltas)
odd_chunks = objects_of(
    *ChatChunk.__struct_fields__, inner=st.lists(odd_choices, max_size=2) | objects_of(*Usage.__struct_fields__)
)


@given(odd_chunks)
def test_any_values_under_the_names_of_the_wire_are_a_chunk_or_a_decode_error(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()

    result = decoded(data)

    assert data == (result.raw if isinstance(result, ChatChunk) else result.data)
    if isinstance(result, ChatChunk):
        folded([result])


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[{}]}',
        b'{"id":"gen-1"}',
        b'{"object":"chat.completion.chunk"}',
        b'{"choices":[],"usage":{}}',
        b'{"choices":[],"debug":{}}',
        b'{"openrouter_metadata":{}}',
    ],
)
def test_anything_of_a_chunk_makes_it_one(data: bytes) -> None:
    assert is_chunk(decode(data))


@pytest.mark.parametrize("data", [b"{}", b'{"type":"ping"}', b'{"choices":[]}', b'{"model":"a/b"}'])
def test_an_object_with_nothing_of_a_chunk_is_none(data: bytes) -> None:
    assert not is_chunk(decode_odd(data))


SUMMARY = {"type": "reasoning.summary", "summary": "Sum"}
ENCRYPTED = {"type": "reasoning.encrypted", "data": "gAAA"}


@pytest.mark.parametrize(
    ("delta", "reasoning"),
    [
        pytest.param(Delta(), None, id="nothing"),
        pytest.param(Delta(reasoning=""), None, id="empty"),
        pytest.param(Delta(reasoning="Hm"), "Hm", id="OpenRouter"),
        pytest.param(Delta(reasoning_content="Hm"), "Hm", id="DeepSeek"),
        pytest.param(Delta(reasoning="Hm", reasoning_content="Hm", reasoning_details=DETAILS), "Hm", id="said thrice"),
        pytest.param(Delta(reasoning_details=[*DETAILS, SUMMARY, ENCRYPTED]), "HmSum", id="details only"),
        pytest.param(Delta(reasoning_details=[ENCRYPTED]), None, id="encrypted only"),
        pytest.param(Delta(reasoning_details=[{"text": None}, {}]), None, id="details of nothing"),
    ],
)
def test_reasoning_is_said_once_whatever_its_names(delta: Delta, reasoning: str | None) -> None:
    assert reasoning_of(delta) == reasoning


@pytest.mark.parametrize(
    "delta",
    [
        Delta(content="Hi"),
        Delta(tool_calls=[ToolCallDelta(0)]),
        Delta(reasoning="Hm"),
        Delta(reasoning_content="Hm"),
        Delta(reasoning_details=[ENCRYPTED]),
        Delta(refusal="No"),
        Delta(images=IMAGES),
        Delta(audio=AUDIO),
    ],
)
def test_a_delta_of_the_answer_has_content(delta: Delta) -> None:
    assert has_content(delta)


@pytest.mark.parametrize("delta", [Delta(), Delta(role="assistant"), Delta(content=""), Delta(content="", refusal="")])
def test_a_delta_of_a_role_or_of_empty_strings_has_no_content(delta: Delta) -> None:
    assert not has_content(delta)


@pytest.mark.parametrize(
    ("chunk", "key"),
    [
        (ChatChunk(choices=[Choice(0, Delta(content="Hi"))]), (0, "content")),
        (ChatChunk(choices=[Choice(2, Delta(role="assistant", content="Hi"))]), (2, "content")),
        (ChatChunk(choices=[Choice(0, Delta(content="", reasoning="Hm"))]), (0, "reasoning")),
        (ChatChunk(choices=[Choice(0, Delta(reasoning_content="Hm"))]), (0, "reasoning")),
        (ChatChunk(choices=[Choice(0, Delta(reasoning_details=DETAILS))]), (0, "reasoning")),
        (ChatChunk(choices=[Choice(0, Delta(refusal="No"))]), (0, "refusal")),
        (ChatChunk(choices=[Choice(0, Delta(tool_calls=[ToolCallDelta(0)]))]), (0, "tool_calls")),
    ],
)
def test_a_chunk_of_one_kind_of_content_merges_with_its_like(chunk: ChatChunk, key: tuple[int, str]) -> None:
    assert (merge_key(chunk) or ())[-2:] == key


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(ChatChunk(), id="no choice"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a")), Choice(1, Delta(content="b"))]), id="choices"),
        pytest.param(ChatChunk(choices=[Choice()]), id="empty delta"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a", reasoning="b"))]), id="two kinds"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"), "stop")]), id="finish"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"), None, "STOP")]), id="native finish"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"), logprobs={})]), id="logprobs"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"), error={})]), id="error of a choice"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a", annotations=ANNOTATIONS))]), id="annotations"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a", images=IMAGES))]), id="images"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a", audio=AUDIO))]), id="audio"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"))], usage=Usage()), id="usage"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"))], error="no"), id="error"),
        pytest.param(ChatChunk(choices=[Choice(0, Delta(content="a"))], debug={}), id="debug"),
    ],
)
def test_a_chunk_with_structure_merges_with_none(chunk: ChatChunk) -> None:
    assert merge_key(chunk) is None


def test_raw_of_merged_chunks_is_the_json_of_the_whole() -> None:
    chunks = [decode_odd(b'{"id":"gen-1","choices":[{"delta":{"content":"%b"}}]}' % piece) for piece in (b"a", b"b")]

    merged = merge(chunks)

    assert json.loads(merged.raw) == {"id": "gen-1", "choices": [{"delta": {"content": "ab"}}]}
    assert chunks[0].choices[0].delta.content == "a"


words = st.sampled_from(["", "a", "b c", "é"])
maybe_words = st.none() | words
details = st.fixed_dictionaries(
    {"type": st.sampled_from(["reasoning.text", "reasoning.summary", "reasoning.encrypted"])},
    optional={
        "index": st.none() | st.integers(0, 1),
        "text": maybe_words,
        "summary": maybe_words,
        "data": maybe_words,
        "signature": maybe_words,
        "format": maybe_words,
        "id": maybe_words,
    },
)
calls = st.builds(
    ToolCallDelta,
    index=st.none() | st.integers(0, 1),
    id=st.sampled_from([None, "", "call_1", "call_2"]),
    type=st.sampled_from([None, "function"]),
    function=st.builds(FunctionDelta, name=maybe_words, arguments=maybe_words),
)
deltas = st.one_of(
    st.builds(Delta, content=words),
    st.builds(Delta, content=st.just(""), reasoning=maybe_words, reasoning_details=st.lists(details, max_size=2)),
    st.builds(Delta, reasoning_content=maybe_words),
    st.builds(Delta, refusal=words),
    st.builds(Delta, tool_calls=st.lists(calls, max_size=2)),
    st.builds(Delta, content=words, annotations=st.just(ANNOTATIONS)),
    st.builds(Delta, audio=st.just(AUDIO)),
)
choices = st.builds(
    Choice,
    index=st.integers(0, 1),
    delta=deltas,
    finish_reason=st.sampled_from([None, None, None, None, "stop"]),
    logprobs=st.sampled_from([None, None, None, {"content": [{"token": "a"}]}]),
)
chunks_of_a_stream = st.builds(
    ChatChunk,
    id=st.just("gen-1"),
    model=st.just("a/b"),
    provider=st.just("P"),
    created=st.none() | st.integers(0, 3),
    choices=st.lists(choices, min_size=1, max_size=1) | st.lists(choices, max_size=2),
    usage=st.sampled_from([None, None, None, None, Usage(total_tokens=3)]),
)


def merged_runs(chunks: list[ChatChunk]) -> list[ChatChunk]:
    runs: list[list[ChatChunk]] = []
    for chunk in chunks:
        key = merge_key(chunk)
        if runs and key is not None and merge_key(runs[-1][0]) == key:
            runs[-1].append(chunk)
        else:
            runs.append([chunk])
    return [run[0] if len(run) == 1 else merge(run) for run in runs]


def folded(chunks: list[ChatChunk]) -> Any:
    fold = CompletionFold()
    for chunk in chunks:
        fold.add(chunk)
    return fold.completion()


@given(st.lists(chunks_of_a_stream, max_size=12))
def test_merged_runs_fold_into_what_the_chunks_fold_into(chunks: list[ChatChunk]) -> None:
    assert folded(merged_runs(chunks)) == folded(chunks)


@pytest.mark.parametrize(
    "late",
    [
        pytest.param({"openrouter_metadata": {"attempt": 1}}, id="metadata beside text"),
        pytest.param({"created": 5}, id="its second beside the second text"),
        pytest.param({"created": 7}, id="a time beside the second text"),
        pytest.param({"id": "gen-1", "model": "a/b", "provider": "P", "created": 5}, id="head beside the second text"),
    ],
)
def test_what_only_a_later_chunk_of_a_run_says_survives_merging(late: dict[str, Any]) -> None:
    chunks = [
        ChatChunk(choices=[Choice(0, Delta(content="a"))]),
        ChatChunk(**late, choices=[Choice(0, Delta(content="b"))]),
    ]

    assert folded(merged_runs(chunks)) == folded(chunks)


def test_chunks_of_different_seconds_are_one_of_the_first() -> None:
    chunks = [ChatChunk(created=at, choices=[Choice(0, Delta(content="a"))]) for at in (5, 6)]

    assert merged_runs(chunks) == [ChatChunk(created=5, choices=[Choice(0, Delta(content="aa"))])]


@given(deltas.filter(has_content), st.integers(2, 5))
def test_a_run_of_equals_folds_into_what_its_chunks_fold_into(delta: Delta, count: int) -> None:
    chunks = [ChatChunk(id="gen-1", model="a/b", choices=[Choice(0, delta)])] * count

    assert folded(merged_runs(chunks)) == folded(chunks)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ('"id": 123', "id"),
        ('"created": "yesterday"', "created"),
        ('"system_fingerprint": 5', "system_fingerprint"),
        ('"openrouter_metadata": "none"', "openrouter_metadata"),
        ('"usage": []', "usage"),
        ('"service_tier": {"name": "flex"}', "service_tier"),
    ],
)
def test_a_field_of_the_wrong_type_that_the_answer_does_not_need_is_passed_over(wrong: str, field: str) -> None:
    data = f'{{"choices": [{{"delta": {{"content": "Hi"}}}}], {wrong}}}'.encode()

    chunk = decode_odd(data)

    assert chunk.choices[0].delta.content == "Hi"
    assert getattr(chunk, field) is None
    assert chunk.raw == data


def test_only_what_is_wrong_is_passed_over() -> None:
    usage = '{"cost": 0.5, "prompt_tokens": "many", "completion_tokens": 2}'
    delta = '{"content": "Hi", "annotations": ["none"], "reasoning_details": [{"text": "Hm"}]}'

    chunk = decode_odd(f'{{"choices": [{{"delta": {delta}}}], "usage": {usage}}}'.encode())

    assert chunk.usage == Usage(cost=0.5, completion_tokens=2)
    assert (chunk.choices[0].delta.content, list(chunk.choices[0].delta.annotations)) == ("Hi", [])
    assert chunk.choices[0].delta.reasoning_details == [{"text": "Hm"}]


def test_half_a_surrogate_pair_does_not_end_an_answer() -> None:
    chunk = decode_odd(rb'{"choices": [{"delta": {"content": "a\ud83d"}}]}')

    assert chunk.choices[0].delta.content == "a\ufffd"


def test_reasoning_details_of_an_unknown_shape_have_no_text() -> None:
    assert reasoning_of(Delta(reasoning_details=[{"type": "reasoning.summary", "summary": [{"text": "Hm"}]}])) is None


@pytest.mark.parametrize(
    ("content", "said", "thought"),
    [
        ('["hello", " world"]', "hello world", ""),
        ('[{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}]', "Hi", "Hm"),
        ('[{"type": "thinking", "thinking": [{"text": "H"}, "m"]}]', "", "Hm"),
        ('[{"type": "text", "text": ["x"]}, null, 5]', "", ""),
    ],
)
def test_content_in_parts_of_any_shape_is_text_and_thought(content: str, said: str, thought: str) -> None:
    delta = decode_odd(f'{{"choices": [{{"delta": {{"content": {content}}}}}]}}'.encode()).choices[0].delta

    assert (delta.content, delta.reasoning) == (said, thought)


@pytest.mark.parametrize(
    ("delta", "pieces"),
    [
        pytest.param(
            {"content": None, "function_call": {"name": "f", "arguments": '{"a":'}},
            [ToolCallDelta(0, "function_call", "function", FunctionDelta("f", '{"a":'))],
            id="legacy call",
        ),
        pytest.param({"content": "Hi", "function_call": None}, [], id="no legacy call"),
        pytest.param(
            {"tool_calls": [{"index": 0, "id": 12345678901234567890, "function": {"name": "f"}}]},
            [ToolCallDelta(0, "12345678901234567890", None, FunctionDelta("f"))],
            id="id that is a number",
        ),
        pytest.param(
            {"tool_calls": [{"index": 0, "name": "f", "arguments": "{}"}]},
            [ToolCallDelta(0, None, None, FunctionDelta("f", "{}"))],
            id="name and arguments beside the index",
        ),
        pytest.param(
            {"tool_calls": [{"index": 0, "function": {"name": "f", "k": 1}, "extra_content": {"g": {"s": "x"}}}]},
            [ToolCallDelta(0, None, None, FunctionDelta("f", None, {"k": 1}), {"extra_content": {"g": {"s": "x"}}})],
            id="members of other formats",
        ),
    ],
)
def test_calls_in_other_shapes_are_pieces_of_tool_calls(delta: dict[str, Any], pieces: list[ToolCallDelta]) -> None:
    data = json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode()
    try:
        chunk = msgspec.json.decode(data, type=ChatChunk)
    except msgspec.ValidationError:
        chunk = decode_odd(data)

    assert list(chunk.choices[0].delta.tool_calls) == pieces
