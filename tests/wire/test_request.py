"""Requests as they are written, as they are checked, and as they are sent."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from rxrouter import (
    AssistantMessage,
    AudioPart,
    ChatRequest,
    DeveloperMessage,
    FilePart,
    Function,
    FunctionTool,
    ImagePart,
    Provider,
    Reasoning,
    ResponseFormat,
    ServerTool,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    VideoPart,
)
from rxrouter._wire.message import File, FunctionCall, ImageURL, InputAudio, VideoURL
from rxrouter._wire.request import JSONSchema, chat_request

ASK: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


def request(**fields: Any) -> ChatRequest:
    everything: dict[str, Any] = {"messages": ASK, **fields}
    return ChatRequest(**everything)


def body(made: ChatRequest) -> dict[str, Any]:
    sent: dict[str, Any] = json.loads(made.encode())
    return sent


TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True},
    "cache_control": {"type": "ephemeral"},
}
SERVER_TOOL: dict[str, Any] = {"type": "openrouter:web_search", "parameters": {"max_results": 3}}

FIELDS: list[tuple[str, Any]] = [
    ("messages", [{"role": "system", "content": "Be brief"}, *ASK]),
    ("model", "openai/gpt-4.1-mini:floor"),
    ("models", ["a/b", "c/d"]),
    ("preset", "@preset/mine"),
    ("stream_options", {"include_usage": True}),
    ("usage", {"include": True}),
    ("max_completion_tokens", 1),
    ("max_tokens", 16),
    ("temperature", 0),
    ("temperature", 2.0),
    ("top_p", 0.5),
    ("top_k", 0),
    ("min_p", 0.1),
    ("top_a", 1),
    ("frequency_penalty", -2),
    ("presence_penalty", 2),
    ("repetition_penalty", 1.1),
    ("seed", -5),
    ("stop", "END"),
    ("stop", ["a", "b", "c", "d"]),
    ("logit_bias", {"50256": -100, "5": 0.5}),
    ("logprobs", True),
    ("top_logprobs", 20),
    ("n", 2),
    ("tools", [TOOL, SERVER_TOOL, {"type": "a tool of next year", "x": 1}]),
    ("tool_choice", "required"),
    ("tool_choice", {"type": "function", "function": {"name": "weather"}}),
    ("parallel_tool_calls", False),
    ("response_format", {"type": "json_object"}),
    ("response_format", {"type": "json_schema", "json_schema": {"name": "a-b_1", "schema": {}, "strict": True}}),
    ("response_format", {"type": "grammar", "grammar": "root ::= x"}),
    ("reasoning", {"effort": "xhigh", "summary": "auto", "exclude": True}),
    ("reasoning", {"max_tokens": 2000, "enabled": True, "context": "auto", "mode": "pro", "new": None}),
    ("reasoning_effort", "minimal"),
    ("include_reasoning", False),
    ("structured_outputs", True),
    ("verbosity", "low"),
    ("modalities", ["text", "image", "audio"]),
    ("audio", {"voice": "alloy", "format": "pcm16"}),
    ("image_config", {"aspect_ratio": "16:9"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("plugins", [{"id": "web", "max_results": 5}, {"id": "a plugin of next year", "x": []}]),
    ("provider", {"order": ["openai"], "sort": {"by": "price", "partition": "model"}, "zdr": True, "new": 1}),
    ("route", "fallback"),
    ("transforms", ["middle-out"]),
    ("web_search_options", {"search_context_size": "low"}),
    ("x_search_filter", {"from": "2026-01-01"}),
    ("service_tier", "flex"),
    ("cache_control", {"type": "ephemeral", "ttl": "1h"}),
    ("prompt_cache_key", "key"),
    ("prompt_cache_options", {"mode": "explicit"}),
    ("session_id", "s" * 256),
    ("user", "u"),
    ("metadata", {str(i): "x" for i in range(16)}),
    ("trace", {"trace_id": "t", "free": {"extra": 1}}),
    ("debug", {"echo_upstream_body": True}),
    ("stop_server_tools_when", [{"type": "step_count_is", "step_count": 3}]),
    ("deferred_tools", {"profile": "p"}),
]


@pytest.mark.parametrize(("field", "value"), FIELDS)
def test_a_field_is_sent_under_its_name_and_nothing_else_is(field: str, value: Any) -> None:
    made = request(**{field: value})

    assert body(made) == {"messages": ASK, "stream": True} | {field: value}


def test_every_field_of_the_request_is_in_the_table() -> None:
    assert {field for field, _ in FIELDS} == set(ChatRequest.__struct_fields__) - {"prompt", "stream", "extra"}


def test_a_prompt_is_sent_in_place_of_messages() -> None:
    assert body(ChatRequest(prompt="Once upon")) == {"prompt": "Once upon", "stream": True}


def test_stream_is_true_whatever_extra_says() -> None:
    assert body(request())["stream"] is True
    assert body(request(stream=True))["stream"] is True
    assert body(request(extra={"stream": False}))["stream"] is True


def test_extra_fields_are_merged_into_the_body_and_come_before_named_ones() -> None:
    made = request(model="a/b", extra={"safe_prompt": True, "model": "c/d", "nested": {"x": None}})

    assert body(made) == {
        "messages": ASK,
        "model": "c/d",
        "safe_prompt": True,
        "nested": {"x": None},
        "stream": True,
    }


def test_the_same_request_is_the_same_bytes() -> None:  # the response cache of OpenRouter hashes them (WIRE 2)
    fields: dict[str, Any] = {"temperature": 0.5, "model": "a/b", "provider": Provider(zdr=True)}

    assert request(**fields).encode() == request(**dict(reversed(fields.items()))).encode()


CALL: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        (SystemMessage("a"), {"role": "system", "content": "a"}),
        (DeveloperMessage("a", name="n"), {"role": "developer", "content": "a", "name": "n"}),
        (UserMessage("a"), {"role": "user", "content": "a"}),
        (UserMessage(""), {"role": "user", "content": ""}),
        (AssistantMessage("a"), {"role": "assistant", "content": "a"}),
        (
            AssistantMessage(tool_calls=[ToolCall("call_1", function=FunctionCall("weather", "{}"))]),
            {"role": "assistant", "tool_calls": [CALL]},
        ),
        (
            AssistantMessage("a", reasoning="r", reasoning_details=[{"type": "t", "x": None}], model="a/b"),
            {
                "role": "assistant",
                "content": "a",
                "reasoning": "r",
                "reasoning_details": [{"type": "t", "x": None}],
                "model": "a/b",
            },
        ),
        (ToolMessage("a", tool_call_id="call_1"), {"role": "tool", "content": "a", "tool_call_id": "call_1"}),
        (
            UserMessage(
                [
                    TextPart("a", cache_control={"type": "ephemeral"}),
                    ImagePart(ImageURL("https://a", detail="low")),
                    ImagePart({"url": "https://b", "new": 1}),
                    AudioPart(InputAudio("AA==", "wav")),
                    VideoPart(VideoURL("https://c")),
                    FilePart(File(filename="f.pdf", file_data="data:")),
                    {"type": "text", "text": "b", "new": 1},
                    {"type": "a part of next year"},
                ]
            ),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": "https://a", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://b", "new": 1}},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                    {"type": "video_url", "video_url": {"url": "https://c"}},
                    {"type": "file", "file": {"filename": "f.pdf", "file_data": "data:"}},
                    {"type": "text", "text": "b", "new": 1},
                    {"type": "a part of next year"},
                ],
            },
        ),
    ],
)
def test_a_message_is_sent_with_its_role_and_without_what_it_does_not_say(
    message: msgspec.Struct, sent: dict[str, Any]
) -> None:
    assert body(request(messages=[message]))["messages"] == [sent]


def test_structs_and_dicts_mix_in_one_conversation() -> None:
    asked = {"role": "user", "content": "a", "new": 1}
    answered = {"role": "assistant", "content": None, "tool_calls": [CALL | {"index": 0}]}

    made = request(
        messages=(SystemMessage("s"), asked, answered, ToolMessage("t", tool_call_id="call_1")),
        tools=[
            FunctionTool(Function("weather")),
            FunctionTool(TOOL["function"]),
            SERVER_TOOL,
            ServerTool("openrouter:x"),
        ],
    )

    sent = body(made)
    assert sent["messages"] == [
        {"role": "system", "content": "s"},
        asked,
        answered,
        {"role": "tool", "content": "t", "tool_call_id": "call_1"},
    ]
    assert sent["tools"] == [
        {"type": "function", "function": {"name": "weather"}},
        {"type": "function", "function": TOOL["function"]},
        SERVER_TOOL,
        {"type": "openrouter:x"},
    ]


@pytest.mark.parametrize(
    ("field", "struct", "sent"),
    [
        ("reasoning", Reasoning(effort="low", exclude=False), {"effort": "low", "exclude": False}),
        ("provider", Provider(order=["a"], max_price={"prompt": "1"}), {"order": ["a"], "max_price": {"prompt": "1"}}),
        ("provider", Provider(), {}),
        ("response_format", ResponseFormat("json_object"), {"type": "json_object"}),
        (
            "response_format",
            ResponseFormat("json_schema", JSONSchema("n", schema={"type": "object"}, strict=True)),
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True}},
        ),
    ],
)
def test_a_struct_is_sent_without_what_it_does_not_say(
    field: str, struct: msgspec.Struct, sent: dict[str, Any]
) -> None:
    assert body(request(**{field: struct}))[field] == sent


def tool_named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def bad(field: str, value: Any, error: type[Exception], match: str) -> Any:
    return pytest.param({field: value}, error, match, id=f"{field}: {value!r:.60}")


@pytest.mark.parametrize(
    ("fields", "error", "match"),
    [
        bad("messages", [], ValueError, "nothing to ask"),
        bad("messages", "Hi", TypeError, "a bare prompt goes first"),
        bad("messages", ASK[0], TypeError, "messages: Expected `array`"),
        bad("messages", ["Hi"], TypeError, r"messages\[0\]"),
        bad("messages", [*ASK, None], TypeError, r"messages\[1\]"),
        bad("messages", [{"content": "Hi"}], ValueError, "`role`"),
        bad("messages", [{"role": "robot", "content": "Hi"}], ValueError, r"messages\[0\]\.role"),
        bad("messages", [{"role": "user"}], ValueError, "`content`"),
        bad("messages", [{"role": "user", "content": None}], TypeError, r"messages\[0\]\.content"),
        bad("messages", [{"role": "user", "content": 5}], TypeError, r"messages\[0\]\.content"),
        bad("messages", [{"role": "user", "content": []}], ValueError, r"messages\[0\]\.content"),
        bad("messages", [{"role": "user", "content": [{"text": "Hi"}]}], ValueError, "`type`"),
        bad("messages", [{"role": "tool", "content": "Hi"}], ValueError, "`tool_call_id`"),
        bad("messages", [{"role": "assistant", "tool_calls": [{"id": "a"}]}], ValueError, "`function`"),
        bad("messages", [{"role": "user", "content": "Hi", "x": object}], TypeError, "can't be sent as JSON"),
        bad("messages", [ToolCall("a")], ValueError, "`role`"),
        bad("model", 5, TypeError, "model: Expected `str"),
        bad("models", "a/b", TypeError, "models: Expected `array"),
        bad("models", ["a/b", 5], TypeError, r"models\[1\]"),
        bad("max_tokens", 0, ValueError, "max_tokens: Expected `int` >= 1"),
        bad("max_tokens", "5", TypeError, "max_tokens: Expected `int"),
        bad("max_tokens", True, TypeError, "max_tokens: Expected `int"),  # noqa: FBT003
        bad("max_completion_tokens", -1, ValueError, "max_completion_tokens: Expected `int` >= 1"),
        bad("temperature", 2.1, ValueError, "temperature: Expected `float` <= 2"),
        bad("temperature", -0.1, ValueError, "temperature: Expected `float` >= 0"),
        bad("temperature", float("nan"), ValueError, "temperature"),
        bad("temperature", "hot", TypeError, "temperature: Expected `float"),
        bad("top_p", 1.1, ValueError, "top_p"),
        bad("min_p", -1, ValueError, "min_p"),
        bad("top_a", 2, ValueError, "top_a"),
        bad("top_k", -1, ValueError, "top_k"),
        bad("top_k", 1.5, TypeError, "top_k"),
        bad("frequency_penalty", 2.5, ValueError, "frequency_penalty"),
        bad("presence_penalty", -2.5, ValueError, "presence_penalty"),
        bad("repetition_penalty", -1, ValueError, "repetition_penalty"),
        bad("seed", "5", TypeError, "seed"),
        bad("stop", list("abcde"), ValueError, "stop: Expected `array` of length <= 4"),
        bad("stop", 5, TypeError, "stop"),
        bad("logit_bias", {"5": 101}, ValueError, "logit_bias"),
        bad("logit_bias", {5: 1}, TypeError, "logit_bias"),
        bad("logprobs", 1, TypeError, "logprobs"),
        bad("top_logprobs", 21, ValueError, "top_logprobs"),
        bad("n", 0, ValueError, "n: Expected `int` >= 1"),
        bad("tools", TOOL, TypeError, "tools: Expected `array`"),
        bad("tools", [{"function": {"name": "a"}}], ValueError, "`type`"),
        bad("tools", [{"type": "function"}], ValueError, "needs a `function`"),
        bad("tools", [{"type": "function", "function": {}}], ValueError, "`name`"),
        bad("tools", [tool_named("")], ValueError, r"tools\[0\]\.function\.name"),
        bad("tools", [tool_named("x" * 65)], ValueError, r"tools\[0\]\.function\.name"),
        bad("tools", [print], TypeError, "can't be sent as JSON"),
        bad("response_format", "json_object", TypeError, "response_format: Expected `object`"),
        bad("response_format", {"type": "json_schema", "json_schema": {}}, ValueError, "`name`"),
        bad("reasoning", "high", TypeError, "reasoning: Expected `object`"),
        bad("provider", "openai", TypeError, "provider: Expected `object`"),
        bad("plugins", ["web"], TypeError, r"plugins\[0\]"),
        bad("plugins", [{"max_results": 5}], ValueError, "`id`"),
        bad("session_id", "x" * 257, ValueError, "session_id"),
        bad("metadata", {str(i): "x" for i in range(17)}, ValueError, "metadata"),
        bad("metadata", {"a": 1}, TypeError, "metadata"),
        bad("stream", False, ValueError, "stream"),  # noqa: FBT003
        bad("extra", "x", TypeError, "extra"),
        bad("extra", [("a", 1)], TypeError, "extra"),
    ],
)
def test_what_is_wrong_is_refused_where_it_is_written(
    fields: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match) as caught:
        request(**fields)

    assert type(caught.value) is error


def test_an_unknown_field_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="temperatur"):
        request(temperatur=1)


def test_a_message_without_its_content_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="content"):
        UserMessage()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def test_a_refusal_does_not_quote_the_prompt() -> None:
    with pytest.raises(TypeError) as caught:
        request(messages=[{"role": "user", "content": [{"type": "text", "text": SECRET}, SECRET]}])

    assert SECRET not in str(caught.value)


def test_a_bare_prompt_is_one_message_of_the_user() -> None:
    made = chat_request("Why?", {"model": "a/b"})

    assert body(made) == {"messages": [{"role": "user", "content": "Why?"}], "model": "a/b", "stream": True}


def test_keywords_are_a_request() -> None:
    assert chat_request(None, {"messages": ASK, "seed": 5}) == request(seed=5)
    assert chat_request(None, {"prompt": "Once"}) == ChatRequest(prompt="Once")


def test_a_request_is_taken_as_it_is() -> None:
    made = request()

    assert chat_request(made, {}) is made


def test_fields_beside_a_request_replace_its_own_in_a_copy() -> None:
    made = request(model="a/b", seed=5)

    changed = chat_request(made, {"model": "c/d"})

    assert changed == request(model="c/d", seed=5)
    assert made == request(model="a/b", seed=5)


@pytest.mark.parametrize(
    ("given_first", "fields", "error", "match"),
    [
        pytest.param(None, {}, TypeError, "needs a prompt", id="nothing"),
        pytest.param(None, {"model": "a/b"}, TypeError, "needs a prompt", id="a model only"),
        pytest.param("Hi", {"messages": ASK}, TypeError, "not both", id="prompt and messages"),
        pytest.param("", {}, ValueError, "the prompt is empty", id="empty prompt"),
        pytest.param(" \n", {}, ValueError, "the prompt is empty", id="blank prompt"),
        pytest.param(ASK, {}, TypeError, "goes by keyword", id="messages first"),
        pytest.param(5, {}, TypeError, "not int", id="a number"),
        pytest.param(b"Hi", {}, TypeError, "not bytes", id="bytes"),
        pytest.param("Hi", {"temperatur": 1}, TypeError, "no such field: temperatur", id="unknown field"),
        pytest.param("Hi", {"b": 1, "a": 1}, TypeError, "no such field: a, b", id="unknown fields"),
        pytest.param("Hi", {"temperature": 9}, ValueError, "temperature", id="field out of range"),
        pytest.param(request(), {"temperature": 9}, ValueError, "temperature", id="replacement out of range"),
        pytest.param(request(), {"temperatur": 1}, TypeError, "temperatur", id="unknown replacement"),
        pytest.param(request(), {"messages": []}, ValueError, "nothing to ask", id="replacement by nothing"),
    ],
)
def test_a_call_that_makes_no_request_is_refused(
    given_first: Any, fields: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        chat_request(given_first, fields)


SECRET = "my secret"


@pytest.mark.parametrize(
    "value",
    [
        ChatRequest(messages=[{"role": "user", "content": SECRET}], prompt=SECRET, user=SECRET, extra={"x": SECRET}),
        SystemMessage(SECRET),
        DeveloperMessage(SECRET),
        UserMessage([TextPart(SECRET)], name=SECRET),
        AssistantMessage(SECRET, reasoning=SECRET),
        ToolMessage(SECRET, tool_call_id=SECRET),
        TextPart(SECRET),
        ImagePart(ImageURL(SECRET)),
        ImageURL(SECRET),
        AudioPart(InputAudio(SECRET, "wav")),
        InputAudio(SECRET, "wav"),
        VideoPart(VideoURL(SECRET)),
        VideoURL(SECRET),
        FilePart(File(SECRET)),
        File(SECRET),
        ToolCall("a", function=FunctionCall("f", SECRET)),
        FunctionCall("f", SECRET),
        FunctionTool(Function("f", SECRET)),
        Function("f", SECRET),
        ResponseFormat("grammar", grammar=SECRET),
    ],
    ids=lambda value: type(value).__name__,
)
def test_no_prompt_text_shows_in_a_repr(value: msgspec.Struct) -> None:
    assert SECRET not in repr([value])
    assert type(value).__name__ in repr(value)


def test_the_repr_of_a_request_says_the_model_and_how_many_messages() -> None:
    assert repr(request(model="a/b")) == "ChatRequest(model='a/b', 1 messages)"


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
unknown = st.dictionaries(st.text().map("x-{}".format), json_values, max_size=3)


def objects(**known: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these keys, and of some that nobody knows."""
    return st.builds(joined, unknown, st.fixed_dictionaries(known))


def joined(some: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    return some | others


contents: st.SearchStrategy[Any] = st.text() | st.lists(objects(type=st.text()), min_size=1, max_size=4)
calls = objects(
    id=st.text(),
    type=st.just("function"),
    function=objects(name=st.text(min_size=1, max_size=64), arguments=st.text()),
)
conversations = st.lists(
    objects(role=st.sampled_from(["system", "developer", "user"]), content=contents)
    | objects(role=st.just("tool"), content=contents, tool_call_id=st.text())
    | objects(role=st.just("assistant"), content=st.none() | contents, tool_calls=st.lists(calls, max_size=2)),
    min_size=1,
    max_size=4,
)


@given(conversations)
@example([{"role": "user", "content": '\0\u2028\x85\ufeff\r\n"\\</script>😀'}])
@example([{"role": "user", "content": [{"type": "", "x-": 10**400}]}])
def test_a_conversation_of_plain_dicts_arrives_as_it_was_written(conversation: list[dict[str, Any]]) -> None:
    assert body(ChatRequest(messages=conversation))["messages"] == conversation


@given(unknown)
def test_extra_fields_arrive_as_they_were_written(extra: dict[str, Any]) -> None:
    assert body(request(extra=extra)) == {"messages": ASK, "stream": True} | extra


@pytest.mark.parametrize(
    "begun",
    [AssistantMessage(content="Sure: "), {"role": "assistant", "content": "Sure: "}],
    ids=["struct", "dict"],
)
def test_a_request_continued_ends_with_the_beginning_of_its_answer(begun: Any) -> None:
    plain = ChatRequest(messages=[UserMessage("hi")], model="a/b", temperature=0.5)
    prefilled = ChatRequest(messages=[UserMessage("hi"), begun])

    assert plain.continued("one two").messages == [UserMessage("hi"), AssistantMessage(content="one two")]
    assert plain.continued("one two").temperature == 0.5
    assert prefilled.continued("one").messages == [UserMessage("hi"), AssistantMessage(content="Sure: one")]
    assert len(plain.messages) == 1


def test_a_request_continued_does_not_end_with_white_space() -> None:
    request = ChatRequest(messages=[UserMessage("hi")])

    assert request.continued("one two \n\n").messages[-1] == AssistantMessage(content="one two")
