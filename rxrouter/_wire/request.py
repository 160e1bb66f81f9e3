"""ChatRequest: what goes up, checked where it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from rxrouter._wire.message import AssistantMessage, Discreet, Message, with_members
from rxrouter._wire.surrogates import encoded

Positive = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Function(Discreet, frozen=True):
    """A function the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(Discreet, tag_field="type", tag="function", frozen=True):
    """A tool of yours."""

    function: Function | Mapping[str, Any]
    cache_control: Mapping[str, Any] | None = None


class ServerTool(Discreet, frozen=True):
    """A tool that OpenRouter runs itself, such as `openrouter:web_search`."""

    type: str
    parameters: Mapping[str, Any] | None = None


class Reasoning(Discreet, frozen=True):
    """How much the model thinks, and how much of it is shown; `effort` or `max_tokens`, not both."""

    effort: str | None = None  # max, xhigh, high, medium, low, minimal, none
    max_tokens: int | None = None
    enabled: bool | None = None
    exclude: bool | None = None
    summary: str | None = None  # auto, concise, detailed
    context: str | None = None  # auto, all_turns, current_turn
    mode: str | None = None  # standard, pro


class Provider(Discreet, frozen=True):
    """Which providers may answer, and in which order."""

    order: Sequence[str] | None = None
    only: Sequence[str] | None = None
    ignore: Sequence[str] | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    data_collection: str | None = None  # allow, deny
    zdr: bool | None = None
    enforce_distillable_text: bool | None = None
    quantizations: Sequence[str] | None = None
    sort: str | Mapping[str, Any] | None = None  # price, throughput, latency, exacto
    max_price: Mapping[str, Any] | None = None  # US dollars a million tokens
    preferred_min_throughput: float | Mapping[str, float] | None = None  # tokens a second
    preferred_max_latency: float | Mapping[str, float] | None = None  # seconds
    options: Mapping[str, Any] | None = None


class JSONSchema(Discreet, frozen=True):
    """The shape of a structured answer."""

    name: str
    description: str | None = None
    schema: Mapping[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(Discreet, frozen=True):
    """text, json_object, json_schema, grammar or python."""

    type: str
    json_schema: JSONSchema | Mapping[str, Any] | None = None
    grammar: str | None = None


class ChatRequest(Discreet, frozen=True):
    """The body of `POST /chat/completions`; None is not sent, and plain dicts do wherever a struct does.

    Dicts are sent as they are, unknown keys included; body fields that have no name here go into `extra`.

    Raises:
        TypeError: a field has the wrong type, or is missing.
        ValueError: a value is out of its range, or there is nothing to ask.
    """

    messages: Sequence[Message | Mapping[str, Any]] = ()
    model: str | None = None  # author/slug, author/slug:variant, openrouter/auto, @preset/slug
    models: Sequence[str] | None = None  # fallbacks, tried in order
    preset: str | None = None
    prompt: str | None = None  # instead of messages
    # sampling
    max_completion_tokens: Positive | None = None
    max_tokens: Positive | None = None  # deprecated by OpenRouter, and still what most servers know
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    min_p: Fraction | None = None
    top_a: Fraction | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0, le=2)] | None = None
    seed: int | None = None
    stop: str | Sequence[str] | None = None
    logit_bias: Mapping[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    n: Positive | None = None
    verbosity: str | None = None  # low, medium, high, xhigh, max
    # tools and form
    tools: Sequence[FunctionTool | ServerTool | Mapping[str, Any]] | None = None
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    stop_server_tools_when: Sequence[Mapping[str, Any]] | None = None
    deferred_tools: Mapping[str, Any] | None = None
    response_format: ResponseFormat | Mapping[str, Any] | None = None
    structured_outputs: bool | None = None
    reasoning: Reasoning | Mapping[str, Any] | None = None
    reasoning_effort: str | None = None
    include_reasoning: bool | None = None
    modalities: Sequence[str] | None = None  # text, image, audio
    audio: Mapping[str, Any] | None = None  # voice, format
    image_config: Mapping[str, Any] | None = None
    prediction: Mapping[str, Any] | None = None
    # routing
    provider: Provider | Mapping[str, Any] | None = None
    plugins: Sequence[Mapping[str, Any]] | None = None
    route: str | None = None
    service_tier: str | None = None
    transforms: Sequence[str] | None = None
    web_search_options: Mapping[str, Any] | None = None
    x_search_filter: Mapping[str, Any] | None = None
    # caching, bookkeeping
    cache_control: Mapping[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: Mapping[str, Any] | None = None
    session_id: Annotated[str, Meta(max_length=256)] | None = None
    user: str | None = None
    metadata: Annotated[Mapping[str, str], Meta(max_length=16)] | None = None
    trace: Mapping[str, Any] | None = None
    debug: Mapping[str, Any] | None = None
    stream_options: Mapping[str, Any] | None = None  # no effect on OpenRouter; others send usage only when asked
    usage: Mapping[str, Any] | None = None  # likewise
    stream: Literal[True] | None = None  # always sent
    extra: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        messages: object = self.messages
        if isinstance(messages, str):
            raise TypeError("messages is a list of messages; a bare prompt goes first: chat('…')")
        if not self.messages and self.prompt is None:
            raise ValueError("messages is empty: there is nothing to ask")
        for name, value in zip(_CHECKS, _checked_fields(self), strict=True):
            if value is not None:
                _check(name, value, _CHECKS[name])
        # Refuses text that can't be sent where it is written.
        encoded(self)

    def __repr__(self) -> str:
        return f"ChatRequest(model={self.model!r}, {len(self.messages)} messages)"

    def encode(self) -> bytes:
        """The JSON body; `stream` is set, whatever `extra` says."""
        messages: list[Any] = [with_members(message) for message in self.messages]
        if any(sent is not given for sent, given in zip(messages, self.messages, strict=True)):
            return replace(self, messages=messages).encode()
        if self.extra is None and self.messages:
            plain = msgspec.json.encode(self)
            return plain if self.stream else plain[:-1] + b',"stream":true}'
        body = {f: v for f in self.__struct_fields__ if (v := getattr(self, f)) is not None and f != "extra"}
        if not self.messages:
            del body["messages"]
        return encoded(body | dict(self.extra or {}) | {"stream": True})

    def continued(self, text: str) -> ChatRequest:
        """The same request with the beginning of its answer as the last message, from which the model goes on.

        Source: OpenRouter "Assistant prefill", https://openrouter.ai/docs/api-reference/overview
        """
        messages = list(self.messages)
        last = msgspec.to_builtins(messages[-1])
        if last.get("role") == "assistant" and isinstance(last.get("content"), str):  # the caller had begun the answer
            text = last["content"] + text
            del messages[-1]
        # Anthropic refuses a last message that ends with white space.
        return msgspec.structs.replace(self, messages=[*messages, AssistantMessage(content=text.rstrip())])


def chat_request(prompt_or_request: str | ChatRequest | None, fields: dict[str, Any]) -> ChatRequest:
    """What `client.chat(...)` was given, as a request.

    Raises:
        TypeError: neither a prompt nor messages, or both, or a field that is none.
        ValueError: see `ChatRequest`.
    """
    if isinstance(prompt_or_request, ChatRequest):
        return msgspec.structs.replace(prompt_or_request, **fields) if fields else prompt_or_request
    if isinstance(prompt_or_request, str):
        if "messages" in fields or "prompt" in fields:
            raise TypeError("give a prompt or messages=, not both")
        if not prompt_or_request.strip():
            raise ValueError("the prompt is empty: there is nothing to ask")
        fields["messages"] = [{"role": "user", "content": prompt_or_request}]
    elif prompt_or_request is not None:
        raise TypeError(
            f"chat() takes a prompt, a ChatRequest or keywords, not {type(prompt_or_request).__name__}"
            " (a list of messages goes by keyword: messages=[…])"
        )
    elif "messages" not in fields and "prompt" not in fields:
        raise TypeError("chat() needs a prompt, a ChatRequest or messages=[…]")
    unknown = sorted(set(fields) - set(ChatRequest.__struct_fields__))
    if unknown:
        raise TypeError(
            f"no such field: {', '.join(unknown)} (what OpenRouter has and this version has not goes into extra={{…}})"
        )
    return ChatRequest(**fields)


# What must be right of the parts, read from the JSON that would be sent, so that dicts and structs are judged alike.
# Kinds of parts, tools and plugins that this version has never heard of pass.


class _Part(Struct):
    type: str


class _ToolCallCheck(Struct):
    id: str
    function: _Named


class _Named(Struct):
    name: Annotated[str, Meta(min_length=1, max_length=64)]


class _Told(Struct):
    content: str | Annotated[list[_Part], Meta(min_length=1)]


class _System(_Told, tag_field="role", tag="system"):
    pass


class _Developer(_Told, tag_field="role", tag="developer"):
    pass


class _User(_Told, tag_field="role", tag="user"):
    pass


class _Tool(_Told, tag_field="role", tag="tool"):
    tool_call_id: str


class _Assistant(Struct, tag_field="role", tag="assistant"):
    content: str | list[_Part] | None = None
    tool_calls: list[_ToolCallCheck] | None = None


class _ToolSpec(Struct):
    type: str
    function: _Named | None = None


class _ResponseFormatCheck(Struct):
    type: str
    json_schema: _Named | None = None


class _PluginCheck(Struct):
    id: str


_DEEP: dict[str, Any] = {
    "messages": list[_System | _Developer | _User | _Assistant | _Tool],
    "tools": list[_ToolSpec],
    "response_format": _ResponseFormatCheck,
    "plugins": list[_PluginCheck],
    "reasoning": dict[str, Any],
    "provider": dict[str, Any],
    "stop": str | Annotated[list[str], Meta(max_length=4)],
}
# Structs of one field: what msgspec must know of a struct it keeps, of a bare type it finds it out each time (10 µs).
_CHECKS = {
    name: msgspec.defstruct("_Check", [(name, kind)])
    for name, kind in {**get_type_hints(ChatRequest, include_extras=True), **_DEEP}.items()
}
_checked_fields: Callable[[ChatRequest], tuple[Any, ...]] = attrgetter(*_CHECKS)  # 2 µs; one at a time, 8


def _check(name: str, value: Any, kind: type[Struct]) -> None:
    try:
        plain = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview))  # they are no text
    except TypeError as error:
        raise TypeError(f"{name} can't be sent as JSON: {error}") from None
    try:
        msgspec.convert({name: plain}, kind)
    except msgspec.ValidationError as error:
        # "Expected `float` <= 2.0": the range is wrong; "Expected `float`, got `str`": the type is.
        fault = TypeError if ", got `" in str(error) else ValueError
        what = str(error).removesuffix(f" - at `$.{name}`").replace(f"$.{name}", name)
        raise fault(f"{name}: {what}") from None
    if name == "tools":
        for tool in plain:
            if tool["type"] == "function" and not tool.get("function"):
                raise ValueError("tools: a tool of type function needs a `function` with a name")
