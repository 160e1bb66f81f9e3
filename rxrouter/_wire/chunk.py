"""What comes down: one `chat.completion.chunk`, with the wire's names, and nothing required of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from rxrouter._errors import ChunkDecodeError
from rxrouter._wire.halves import Halves
from rxrouter._wire.json import Beside, Received, converted, without_nulls
from rxrouter._wire.lenient import LARGEST, is_no_reason, may_say_more, normalised

# The strict decoder refuses numbers outside, and the lenient reading drops them.
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Amount = Annotated[float, Meta(ge=0, le=LARGEST)]

# Where a wrong type is fatal: what is said, and to whom, could not be told from it.
_VITAL = {
    *("choices", "index", "delta", "content", "refusal", "reasoning", "reasoning_content"),
    *("tool_calls", "function", "name", "arguments", "finish_reason"),
}

# Which kind a delta is of, by whether it has content, reasoning, a refusal, pieces of tool calls; else it is of none.
_KINDS = {
    (True, False, False, False): "content",
    (False, True, False, False): "reasoning",
    (False, False, True, False): "refusal",
    (False, False, False, True): "tool_calls",
}

# Fields are declared in the order of the wire: msgspec looks for a key first where the last one was found.
# Lists and deltas are never None, so that nobody has to ask; `decode_odd` takes the nulls that senders put there. An
# absent list is the empty tuple, which costs nothing to make.


class FunctionDelta(Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A piece of a function call; the arguments of all pieces together are one JSON document."""

    name: str | None = None
    arguments: str | None = None
    extra: dict[str, Any] | None = msgspec.field(default=None, name="_extra")


class ToolCallDelta(Struct, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A piece of a tool call; in general the pieces of one call share the index.

    Attributes:
        extra: Members that OpenAI's format does not have, such as Gemini's `extra_content`.
        ambiguous: In a chunk that stands for many: their pieces can be read as other calls.
    """

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionDelta = msgspec.field(default_factory=FunctionDelta)
    extra: dict[str, Any] | None = msgspec.field(default=None, name="_extra")
    ambiguous: bool = msgspec.field(default=False, name="_ambiguous")


class Delta(Struct, gc=False, omit_defaults=True):
    """What a chunk adds to one choice."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the same under the name of DeepSeek, xAI, llama.cpp
    reasoning_details: Sequence[dict[str, Any]] = ()
    tool_calls: Sequence[ToolCallDelta] = ()
    refusal: str | None = None
    annotations: Sequence[dict[str, Any]] = ()
    images: Sequence[dict[str, Any]] = ()
    audio: dict[str, Any] | None = None
    # A legacy call makes the strict decoder refuse; the lenient one makes it a piece of a tool call.
    function_call: None = None


class Choice(Struct, gc=False, omit_defaults=True):
    """One of the `n` answers that a chunk adds to."""

    index: int = 0
    delta: Delta = msgspec.field(default_factory=Delta)
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    logprobs: Any = None
    error: Any = None


class PromptTokensDetails(Struct, gc=False, omit_defaults=True):
    """Which prompt tokens were what."""

    cached_tokens: Count | None = None
    cache_write_tokens: Count | None = None
    audio_tokens: Count | None = None
    video_tokens: Count | None = None


class CompletionTokensDetails(Struct, gc=False, omit_defaults=True):
    """Which completion tokens were what."""

    reasoning_tokens: Count | None = None
    image_tokens: Count | None = None
    audio_tokens: Count | None = None
    accepted_prediction_tokens: Count | None = None
    rejected_prediction_tokens: Count | None = None


class Summed(Beside):
    """Holds what a sum is of; a slot beside the struct's fields, so no JSON key can set it."""

    __slots__ = ("parts",)
    _beside = __slots__
    parts: tuple[tuple[object, Usage], ...]  # what a generation is known by, and its usage


class Usage(Summed, Struct, gc=False, omit_defaults=True):
    """What the generation used and cost."""

    prompt_tokens: Count | None = None
    completion_tokens: Count | None = None
    total_tokens: Count | None = None
    cost: Amount | None = None  # credits (US dollars); absent is not 0
    is_byok: bool | None = None
    prompt_tokens_details: PromptTokensDetails | None = None
    cost_details: dict[str, Any] | None = None
    completion_tokens_details: CompletionTokensDetails | None = None
    server_tool_use_details: dict[str, Any] | None = None
    server_tool_use: dict[str, Any] | None = None  # its name in OpenRouter's prose


class ChatChunk(Received, Struct, gc=False, omit_defaults=True):
    """One decoded chunk; unknown keys are in `raw`."""

    id: str | None = None
    provider: str | None = None
    model: str | None = None
    object: str | None = None
    created: Count | Amount | None = None  # Unix time in seconds
    choices: Sequence[Choice] = ()
    system_fingerprint: str | None = None
    service_tier: str | None = None
    usage: Usage | None = None
    error: Any = None
    openrouter_metadata: dict[str, Any] | None = None
    debug: dict[str, Any] | None = None
    user_id: str | None = None
    alignment: Any = None
    safeguard_results: Any = None

    @property
    def raw(self) -> bytes:
        """The JSON as received, byte for byte, unknown fields included; of a chunk made by hand, its JSON."""
        try:
            return self.received
        except AttributeError:
            return encoded(self)


def encoded(chunk: ChatChunk) -> bytes:
    """Return the JSON of the struct, with the extra members of its tool calls where they stood."""
    data = msgspec.json.encode(chunk)
    # In a string the quotes would be escaped.
    if b'"_extra":' not in data:
        return data
    value = msgspec.json.decode(data)
    for choice in value.get("choices", ()):
        for call in choice.get("delta", {}).get("tool_calls", ()):
            for holder in (call, call.get("function", {})):
                holder.update(holder.pop("_extra", {}))
    return msgspec.json.encode(value)


def decode_odd(data: bytes, halves: Halves | None = None) -> ChatChunk:
    """Return the chunk that JSON is in any shape: nulls for lists, a message for a delta, content in parts.

    Args:
        data: The JSON.
        halves: Takes the halves of surrogate pairs at the ends of texts; without it they become U+FFFD.

    Raises:
        ChunkDecodeError: it is no JSON object, or no chunk in any reading.
    """
    if not halves and (chunk := _usual(data)) is not None:
        return chunk
    try:
        value, changed = normalised(data, halves)
        if not isinstance(value, dict):
            raise ChunkDecodeError(f"expected an object, got {type(value).__name__}", data)
        chunk = converted(value, ChatChunk, _VITAL)
    except (ValueError, RecursionError) as error:
        raise ChunkDecodeError(str(error), data) from error
    if not changed:
        chunk.received = data
    return chunk


def _usual(data: bytes) -> ChatChunk | None:
    """The chunk, if nothing is unusual but nulls and numbers as strings."""
    try:
        chunk = _decode(data)
    except (ValueError, RecursionError):
        try:
            chunk = msgspec.convert(without_nulls(msgspec.json.decode(data)), ChatChunk, strict=False)
        except (ValueError, RecursionError):
            return None
    chunk.received = data
    return None if is_unusual(chunk) else chunk


def is_unusual(chunk: ChatChunk) -> bool:
    """Whether the JSON of a chunk may say more than the strict decoder has found in it."""
    usage = chunk.usage
    found = usage is not None and bool(usage.prompt_tokens or usage.completion_tokens or usage.cost)
    for choice in chunk.choices:
        found = found and has_content(choice.delta)
        if choice.finish_reason is not None and is_no_reason(choice.finish_reason):
            return True
    return not found and may_say_more(chunk.raw)


_decode = msgspec.json.Decoder(ChatChunk).decode


def is_chunk(chunk: ChatChunk) -> bool:
    """Whether a JSON object has anything of a chunk; an event of another dialect, or a gateway's own, has not."""
    facts = (chunk.id, chunk.object, chunk.usage, chunk.debug, chunk.openrouter_metadata)
    return bool(chunk.choices) or any(fact is not None for fact in facts)


def reasoning_of(delta: Delta) -> str | None:
    """The reasoning text of a delta: said once, though it may be there under two names and in the details as well."""
    if text := delta.reasoning or delta.reasoning_content:
        return text
    if not delta.reasoning_details:
        return None
    texts: list[object] = [detail.get("text") or detail.get("summary") for detail in delta.reasoning_details]
    return "".join(text for text in texts if isinstance(text, str)) or None


def has_content(delta: Delta) -> bool:
    """Whether a delta carries anything of the answer; one with a role only, or empty, does not."""
    return bool(
        delta.content
        or delta.tool_calls
        or delta.reasoning
        or delta.reasoning_content
        or delta.reasoning_details
        or delta.refusal
        or delta.images
        or delta.audio
    )


def merge_key(chunk: ChatChunk) -> tuple[object, ...] | None:
    """What two adjacent chunks must share to be one: head, choice, and the one kind of content; None for structure.

    `created` is no part of the head: there are servers that stamp each chunk with its second.
    """
    kind = kind_of(chunk)
    if kind is None or not _is_content_only(chunk):
        return None
    return (chunk.id, chunk.model, chunk.provider, chunk.system_fingerprint, chunk.service_tier, *kind)


def kind_of(chunk: ChatChunk) -> tuple[int, str] | None:
    """The choice and the one kind of content, whatever else there is; None for several, and for none."""
    if len(chunk.choices) != 1:
        return None
    delta = chunk.choices[0].delta
    reasoning = delta.reasoning or delta.reasoning_content or delta.reasoning_details
    kind = _KINDS.get((bool(delta.content), bool(reasoning), bool(delta.refusal), bool(delta.tool_calls)))
    return None if kind is None else (chunk.choices[0].index, kind)


def _is_content_only(chunk: ChatChunk) -> bool:
    choice = chunk.choices[0]
    delta = choice.delta
    return (
        choice.finish_reason is None
        and choice.native_finish_reason is None
        and choice.logprobs is None
        and choice.error is None
        and not delta.annotations
        and not delta.images
        and delta.audio is None
        and chunk.usage is None
        and chunk.error is None
        and chunk.openrouter_metadata is None
        and chunk.debug is None
        and chunk.alignment is None
        and chunk.safeguard_results is None
    )


def merge(chunks: list[ChatChunk]) -> ChatChunk:
    """One chunk that says what `chunks`, all of one `merge_key`, say one after the other."""
    first = chunks[0]
    deltas = [chunk.choices[0].delta for chunk in chunks]

    def joined(name: str) -> str | None:
        return "".join(getattr(d, name) or "" for d in deltas) or None

    created = next((chunk.created for chunk in chunks if chunk.created), first.created)
    delta = Delta(
        role=deltas[0].role,
        content=joined("content"),
        reasoning_details=[detail for d in deltas for detail in d.reasoning_details] or (),
        refusal=joined("refusal"),
        tool_calls=[call for d in deltas for call in d.tool_calls] or (),
    )
    delta = _renamed(delta, deltas, "".join(reasoning_of(d) or "" for d in deltas) or None)
    return msgspec.structs.replace(first, created=created, choices=[Choice(first.choices[0].index, delta)])


def _renamed(delta: Delta, deltas: Sequence[Delta], reasoning: str | None) -> Delta:
    """Return the delta with this reasoning, under the name under which that of these deltas began."""
    first = next((one for one in deltas if reasoning_of(one)), delta)
    if first.reasoning_content and not first.reasoning:
        return msgspec.structs.replace(delta, reasoning=None, reasoning_content=reasoning)
    return msgspec.structs.replace(delta, reasoning=reasoning, reasoning_content=None)


def text_of(chunk: ChatChunk, key: tuple[object, ...]) -> str:
    """What a chunk with this `merge_key`, or of this kind, says."""
    kind, delta = key[-1], chunk.choices[0].delta
    if kind == "content":
        return delta.content or ""
    if kind == "reasoning":
        return reasoning_of(delta) or ""
    if kind == "refusal":
        return delta.refusal or ""
    return "".join(call.function.arguments or "" for call in delta.tool_calls)


def split(chunk: ChatChunk, key: tuple[object, ...], at: int) -> tuple[ChatChunk, ChatChunk]:
    """Two chunks that say what one says: the first its text up to character `at`, and all else; the second the rest."""
    kind, choice, text = str(key[-1]), chunk.choices[0], text_of(chunk, key)
    first, rest = choice.delta, Delta()
    if kind == "reasoning":
        first, rest = _renamed(first, [first], text[:at]), _renamed(rest, [first], text[at:])
    else:
        first = msgspec.structs.replace(first, **{kind: text[:at]})
        rest = msgspec.structs.replace(rest, **{kind: text[at:]})
    return (
        msgspec.structs.replace(chunk, choices=[Choice(choice.index, first)]),
        msgspec.structs.replace(chunk, choices=[Choice(choice.index, rest)]),
    )


def text_and_structure(chunk: ChatChunk, head: ChatChunk) -> tuple[ChatChunk, ChatChunk]:
    """Two chunks that say what one of one kind says: the first its content, under another's head; the second the rest.

    The second has the chunk's own head, so together they fold to what it folds to behind the other.
    """
    choice = chunk.choices[0]
    said = msgspec.structs.replace(choice.delta, annotations=(), images=(), audio=None)
    rest = Delta(annotations=choice.delta.annotations, images=choice.delta.images, audio=choice.delta.audio)
    return (
        msgspec.structs.replace(head, choices=[Choice(choice.index, said)]),
        msgspec.structs.replace(chunk, choices=[msgspec.structs.replace(choice, delta=rest)]),
    )
