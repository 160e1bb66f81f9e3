"""Chunks in shapes that no standard has: the answer in them is read, and a field of the wrong type never costs it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxrouter import ChatChunk, ChunkDecodeError, Delta, Usage
from rxrouter._wire.chunk import FunctionDelta, ToolCallDelta, decode_odd, reasoning_of
from rxrouter._wire.fold import CompletionFold


def read(value: Any) -> ChatChunk:
    return decode_odd(value if isinstance(value, bytes) else json.dumps(value).encode())


def delta_of(members: str) -> Delta:
    """The delta of a chunk whose delta has these members, as they stand."""
    return read(b'{"choices": [{"index": 0, "delta": {%b}}]}' % members.encode()).choices[0].delta


@pytest.mark.parametrize(
    "number",
    [
        "0.005",
        "0.10",
        "1e-7",
        "1E5",
        "6",
        "-0",
        "9" * 400,
        "1.0",
        "123456789012345678901",
    ],
)
def test_content_that_is_a_number_reads_as_it_is_written(number: str) -> None:
    assert delta_of(f'"content": {number}').content == number
    assert delta_of(f'"reasoning_content": {number}').reasoning_content == number


@pytest.mark.parametrize(
    ("members", "content"),
    [
        ('"content": true', "true"),
        ('"content": false', "false"),
        ('"content": false, "reasoning_content": "Hm"', None),
        ('"content": {"text": "Hi"}', "Hi"),
        ('"content": {"type": "text", "text": "Hi"}', "Hi"),
        ('"content": ["Hi", {"text": "!"}]', "Hi!"),
        ('"content": "a\tb"', "a\tb"),
    ],
)
def test_content_of_another_type_is_its_text(members: str, content: str | None) -> None:
    assert delta_of(members).content == content


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "refusal"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('{"text": "Hm"}', "Hm"),
        ('{"content": "Hm"}', "Hm"),
        ('{"summary": [{"text": "H"}, {"text": "m"}]}', "Hm"),
        ('["H", "m"]', "Hm"),
        ('[{"type": "thinking", "thinking": "Hm"}]', "Hm"),
        ("false", None),
        ("true", None),
        ("{}", None),
        ("[]", None),
        ('{"n": 5}', None),
    ],
)
def test_a_thought_of_another_type_is_the_text_inside(name: str, value: str, text: str | None) -> None:
    delta = delta_of(f'"content": "Hi", "{name}": {value}')

    assert getattr(delta, name) == text
    assert delta.content == "Hi"


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}},
        {"index": 0, "delta": None, "message": {"role": "assistant", "content": "Hi"}},
        {"index": 0, "delta": {}, "message": {"role": "assistant", "content": "Hi"}},
        {"message": {"content": [{"type": "text", "text": "Hi"}]}},
        {"index": 0, "text": "Hi"},
        {"index": 0, "text": "Hi", "delta": None},
        {"index": 0, "delta": {"content": ""}, "text": "Hi"},
        {"index": 0, "delta": {"role": "assistant"}, "text": "Hi", "logprobs": None},
    ],
)
def test_an_answer_in_another_place_than_the_delta_is_read(choice: dict[str, Any]) -> None:
    assert read({"id": "c", "choices": [choice]}).choices[0].delta.content == "Hi"


def test_a_message_beside_a_delta_is_not_read_a_second_time() -> None:
    choice = {"delta": {"role": "assistant", "content": ""}, "message": {"role": "assistant", "content": "Hello"}}

    assert read({"choices": [choice]}).choices[0].delta.content == ""


def test_the_calls_of_a_message_are_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    delta = read({"choices": [{"message": {"content": None, "tool_calls": [call]}}]}).choices[0].delta

    assert list(delta.tool_calls) == [ToolCallDelta(None, "c1", "function", FunctionDelta("f", "{}"))]


def test_choices_that_are_one_object_are_read() -> None:
    assert read({"choices": {"index": 0, "delta": {"content": "Hi"}}}).choices[0].delta.content == "Hi"


def test_a_list_of_chunks_in_one_event_is_read_as_one() -> None:
    chunks = [{"id": "c", "choices": [{"delta": {"content": word}}]} for word in ("H", "i")]

    assert [choice.delta.content for choice in read(chunks).choices] == ["H", "i"]


def arguments_of(calls: str) -> list[str | None]:
    return [call.function.arguments for call in delta_of(f'"tool_calls": {calls}').tool_calls]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (
            '{"a": 0.10, "b": [1e-7, null, true], "c": {"d": "é\\n"}}',
            '{"a": 0.10, "b": [1e-7, null, true], "c": {"d": "é\\n"}}',
        ),
        ("{}", "{}"),
        ("[1]", "[1]"),
        ("5", "5"),
        ("false", None),
        ("null", None),
    ],
)
def test_arguments_of_another_type_are_their_json(arguments: str, text: str | None) -> None:
    assert arguments_of(f'[{{"function": {{"name": "f", "arguments": {arguments}}}}}]') == [text]


@pytest.mark.parametrize(
    "calls",
    [
        '{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}',
        '{"0": {"index": 0, "function": {"name": "f", "arguments": "{}"}}}',
        '[null, {"function": {"name": "f", "arguments": "{}"}}]',
        '[{"id": 7, "type": false, "function": {"name": "f", "arguments": "{}"}}]',
        '[{"name": "f", "arguments": {}, "id": false}]',
    ],
)
def test_calls_in_another_shape_are_calls(calls: str) -> None:
    [call] = delta_of(f'"tool_calls": {calls}').tool_calls

    assert (call.function.name, call.function.arguments) == ("f", "{}")


def test_the_id_of_a_call_that_is_a_number_is_its_digits() -> None:
    [call] = delta_of('"tool_calls": [{"id": 70, "function": {"arguments": false}}]').tool_calls

    assert call.id == "70"


@pytest.mark.parametrize("calls", ["false", "{}", "null", "[]", '""'])
def test_calls_that_are_empty_are_no_calls(calls: str) -> None:
    assert list(delta_of(f'"content": "Hi", "tool_calls": {calls}').tool_calls) == []


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_dropped(number: str) -> None:
    choice = f'{{"delta":{{"content":"Hi"}},"logprobs":{{"content":[{{"logprob":{number}}}]}}}}'

    chunk = decode_odd(f'{{"choices":[{choice}],"usage":{{"prompt_tokens":1,"cost":{number}}}}}'.encode())

    assert chunk.choices[0].delta.content == "Hi"
    assert chunk.usage == Usage(prompt_tokens=1)


@pytest.mark.parametrize("reason", ["null", "NULL", "None", "", "FINISH_REASON_UNSPECIFIED", 0, False, 1, [], {}])
def test_a_finish_reason_that_says_there_is_none_is_null(reason: Any) -> None:
    assert read({"choices": [{"delta": {"content": "Hi"}, "finish_reason": reason}]}).choices[0].finish_reason is None


@pytest.mark.parametrize("reason", ["stop", {"type": "stop"}, {"reason": "stop"}])
def test_a_finish_reason_in_an_object_is_read(reason: Any) -> None:
    assert read({"choices": [{"delta": {}, "finish_reason": reason}]}).choices[0].finish_reason == "stop"


SAID = {"prompt_tokens": 3, "completion_tokens": 2}


USAGE_ELSEWHERE: list[dict[str, Any]] = [
    {"choices": [{"delta": {}, "finish_reason": "stop", "usage": SAID}]},
    {"choices": [{"delta": {}, "usage": SAID}], "usage": None},
    {"choices": [{"delta": {}, "usage": SAID}], "usage": {"prompt_tokens": 0, "completion_tokens": 0}},
    {"choices": [{"delta": {}}], "usage": {}, "x_groq": {"id": "r", "usage": SAID}},
    {"choices": [], "x_groq": {"usage": SAID}},
    {"choices": [], "usage": {"input_tokens": 3, "output_tokens": 2}},
    {"choices": [], "usage": {"prompt_tokens": "3", "completion_tokens": 2.0}},
]


@pytest.mark.parametrize("chunk", USAGE_ELSEWHERE)
def test_usage_in_another_place_or_by_other_names_is_the_usage(chunk: dict[str, Any]) -> None:
    assert read(chunk).usage == Usage(prompt_tokens=3, completion_tokens=2)


@pytest.mark.parametrize(
    "number", ["-1", "-1000000", "9007199254740994", "1" + "0" * 400, "1" + "0" * 5000, "-0.5", '"many"', "[]"]
)
@pytest.mark.parametrize("name", ["prompt_tokens", "total_tokens", "cost"])
def test_a_number_that_no_usage_can_be_is_dropped(name: str, number: str) -> None:
    data = f'{{"choices":[{{"delta":{{"content":"Hi"}}}}],"usage":{{"completion_tokens":2,"{name}":{number}}}}}'

    chunk = decode_odd(data.encode())

    assert chunk.usage == Usage(completion_tokens=2)
    assert chunk.choices[0].delta.content == "Hi"


@pytest.mark.parametrize("number", ["0", "9007199254740992"])
def test_a_number_at_the_bounds_is_taken(number: str) -> None:
    usage = decode_odd(f'{{"choices":[],"usage":{{"prompt_tokens":{number},"cost":{number}}}}}'.encode()).usage

    assert usage == Usage(prompt_tokens=int(number), cost=float(number))


def test_any_count_of_wrong_fields_costs_no_answer() -> None:
    wrong: dict[str, Any] = {
        name: {"x": []} for name in ("id", "provider", "model", "object", "created", "service_tier", "user_id")
    }
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens", "cost", "is_byok"), -1)
    details = dict.fromkeys(("reasoning_tokens", "image_tokens", "audio_tokens", "cached_tokens"), "no")
    usage = counts | {"prompt_tokens_details": details, "completion_tokens_details": details, "cost_details": 5}
    calls: list[Any] = [{"id": [], "type": 5, "function": {"name": "f", "arguments": "{}"}} for _ in range(9)]
    delta: dict[str, Any] = {
        "content": "Hi",
        "role": 5,
        "audio": [],
        "annotations": [1] * 20,
        "images": 5,
        "tool_calls": calls,
    }
    choice: dict[str, Any] = {"index": 0, "delta": delta, "native_finish_reason": 5, "finish_reason": 5}

    chunk = read(wrong | {"choices": [choice], "usage": usage, "openrouter_metadata": 5, "debug": 5})

    assert chunk.choices[0].delta.content == "Hi"
    assert len(chunk.choices[0].delta.tool_calls) == 9


def test_a_large_event_of_wrong_fields_is_read_in_linear_time() -> None:
    def seconds(count: int) -> float:
        calls: list[Any] = [{"id": [], "function": {"name": "f", "arguments": {"a": [0.1, "\ud83d"]}}}] * count
        data = json.dumps({"choices": [{"native_finish_reason": 5, "message": {"tool_calls": calls}}] * 2}).encode()
        began = time.process_time()
        decode_odd(data)
        return time.process_time() - began

    ratio = float("inf")
    for _ in range(4):  # a busy machine may spoil one measurement; quadratic time spoils all, with a ratio of 64
        ratio = min(ratio, (seconds(4000) + 0.001) / (seconds(500) + 0.001))
        if ratio < 24:
            break
    assert ratio < 24


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 2**53, -1, "stop", "null", "\ud83d", "\ude00", "{}"])
    | st.floats()
    | st.text(max_size=4)
)
NAMES = [
    *(
        "choices",
        "index",
        "delta",
        "message",
        "text",
        "content",
        "reasoning",
        "reasoning_content",
        "refusal",
        "thinking",
    ),
    *("reasoning_details", "tool_calls", "function", "name", "arguments", "id", "type", "finish_reason", "usage"),
    *("x_groq", "prompt_tokens", "cost", "total_cost", "prompt_tokens_details", "cached_tokens", "is_byok", "created"),
    *("images", "image_url", "audio", "annotations", "logprobs", "error", "object", "debug", "input_tokens"),
]
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)
odd_deltas = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
odd_choices = st.dictionaries(st.sampled_from(NAMES), values | odd_deltas, max_size=4)
odd_chunks = st.fixed_dictionaries(
    {},
    optional={"choices": st.lists(odd_choices, max_size=3) | values, "usage": values, "x_groq": values, "id": values},
)


@given(odd_chunks | values)
@example({"choices": [{"delta": {"content": {"text": [{"text": {"text": 5}}]}}}]})
@example(
    {"choices": [{"delta": {"content": [{"type": []}], "tool_calls": [{"type": []}]}, "finish_reason": {"type": []}}]}
)
@example({"choices": [{"delta": {"tool_calls": {"a": {"b": 1}}}}]})
def test_any_json_is_a_chunk_or_a_chunk_decode_error(value: Any) -> None:
    data = json.dumps(value).encode()

    try:
        chunk = decode_odd(data)
    except ChunkDecodeError:
        return

    assert chunk.raw == data
    fold = CompletionFold()
    fold.add(chunk)
    whole = fold.completion()
    "".join([whole.text, whole.reasoning, *(str(reasoning_of(choice.delta)) for choice in chunk.choices)]).encode()


@given(odd_chunks)
def test_the_second_reading_of_a_chunk_is_the_first(value: dict[str, Any]) -> None:
    try:
        chunk = decode_odd(json.dumps(value).encode())
    except ChunkDecodeError:
        return

    assert decode_odd(chunk.raw) == chunk


@pytest.mark.parametrize(
    "data",
    [
        b'{"choices":[],"debug":{"question":{"text":"Hi","after":null}}}',
        b'{"choices":[{"delta":{"content":7},"logprobs":{"tokens":null}}],"openrouter_metadata":{"a":[{"b":null}]}}',
        b'{"choices":[{"delta":{"tool_calls":null,"reasoning_details":[{"signature":null}]}}],"debug":{"a":null}}',
    ],
)
def test_decode_odd_keeps_the_nulls_of_members_of_free_form(data: bytes) -> None:
    chunk = decode_odd(data)
    received = json.loads(data)

    assert chunk.debug == received.get("debug")
    assert chunk.openrouter_metadata == received.get("openrouter_metadata")
    for choice, member in zip(chunk.choices, received["choices"], strict=True):
        assert choice.logprobs == member.get("logprobs")
        assert list(choice.delta.reasoning_details) == member["delta"].get("reasoning_details", [])
