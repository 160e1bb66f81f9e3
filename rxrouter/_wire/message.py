"""The messages of a conversation: what a request sends, and what a completion gives back to be sent again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct, field
from msgspec.structs import replace


class Discreet(Struct, omit_defaults=True, frozen=True):
    """Base of what goes up: fields that are None are not sent, and no prompt text shows in a repr."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class TextPart(Discreet, tag_field="type", tag="text", frozen=True):
    """Text; the one part that can carry a cache mark."""

    text: str
    cache_control: Mapping[str, Any] | None = None
    prompt_cache_breakpoint: Mapping[str, Any] | None = None


class ImageURL(Discreet, frozen=True):
    """Where an image is: http, https or a data URL."""

    url: str
    detail: str | None = None  # auto, low, high, original


class ImagePart(Discreet, tag_field="type", tag="image_url", frozen=True):
    """An image."""

    image_url: ImageURL | Mapping[str, Any]


class InputAudio(Discreet, frozen=True):
    """Sound, as base64 (no URLs)."""

    data: str
    format: str


class AudioPart(Discreet, tag_field="type", tag="input_audio", frozen=True):
    """Sound."""

    input_audio: InputAudio | Mapping[str, Any]


class VideoURL(Discreet, frozen=True):
    """Where a video is."""

    url: str


class VideoPart(Discreet, tag_field="type", tag="video_url", frozen=True):
    """A video."""

    video_url: VideoURL | Mapping[str, Any]


class File(Discreet, frozen=True):
    """A document: its data (a URL or data URL) or the id of one uploaded before."""

    filename: str | None = None
    file_data: str | None = None
    file_id: str | None = None


class FilePart(Discreet, tag_field="type", tag="file", frozen=True):
    """A document."""

    file: File | Mapping[str, Any]


Part = TextPart | ImagePart | AudioPart | VideoPart | FilePart
Content = str | Sequence[Part | Mapping[str, Any]]


class SystemMessage(Discreet, tag_field="role", tag="system", frozen=True):
    """What the model is told before the conversation."""

    content: Content
    name: str | None = None


class DeveloperMessage(Discreet, tag_field="role", tag="developer", frozen=True):
    """The same under the name that newer OpenAI models use."""

    content: Content
    name: str | None = None


class UserMessage(Discreet, tag_field="role", tag="user", frozen=True):
    """What the person says."""

    content: Content
    name: str | None = None


def _function() -> str:
    return "function"


class FunctionCall(Discreet, frozen=True):
    """Which function, and its arguments as JSON text."""

    # A value with a factory is always sent, also where it is the default.
    name: str = field(default_factory=str)
    arguments: str = field(default_factory=str)
    extra: Mapping[str, Any] | None = field(default=None, name="_extra")


class ToolCall(Discreet, frozen=True):
    """One call that the model asks for; `arguments` is what arrived, complete or not.

    Attributes:
        extra: Members that OpenAI's format does not have, such as Gemini's `extra_content`. A request sends them
            beside the others; some models refuse the next turn without them.
    """

    id: str = field(default_factory=str)
    type: str = field(default_factory=_function)
    function: FunctionCall = field(default_factory=FunctionCall)
    extra: Mapping[str, Any] | None = field(default=None, name="_extra")

    @property
    def name(self) -> str:
        """The function's name."""
        return self.function.name

    @property
    def arguments(self) -> str:
        """The arguments' JSON text; "" from a model that sent none."""
        return self.function.arguments


class AssistantMessage(Discreet, tag_field="role", tag="assistant", frozen=True):
    """What the model said; the last of a request's messages is a prefill that it goes on from."""

    content: Content | None = None
    name: str | None = None
    tool_calls: Sequence[ToolCall | Mapping[str, Any]] | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # the same under the name of DeepSeek, xAI, llama.cpp, which require it
    reasoning_details: Sequence[Mapping[str, Any]] | None = None  # merged, unchanged and in order, or Anthropic refuses
    images: Sequence[Mapping[str, Any]] | None = None
    audio: Mapping[str, Any] | None = None
    annotations: Sequence[Mapping[str, Any]] | None = None  # file annotations sent back spare a second PDF parse
    model: str | None = None


class ToolMessage(Discreet, tag_field="role", tag="tool", frozen=True):
    """What a tool answered to one call."""

    content: Content
    tool_call_id: str


Message = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


def with_members(message: Message | Mapping[str, Any]) -> Message | Mapping[str, Any]:
    """Return the message with the extra members of its tool calls beside the others, as they were received.

    Args:
        message: A message of a request; without such calls it is returned itself.
    """
    if isinstance(message, AssistantMessage):
        flat = _flattened(message.tool_calls)
        return message if flat is None else replace(message, tool_calls=flat)
    flat = None if isinstance(message, Struct) else _flattened(message.get("tool_calls"))
    return message if flat is None or isinstance(message, Struct) else {**message, "tool_calls": flat}


def _flattened(calls: object) -> list[Any] | None:
    """Return the calls with their extra members beside the others; None where no call has any."""
    members = list(cast("Sequence[Any]", calls)) if isinstance(calls, list | tuple) else []
    if not any(isinstance(call, ToolCall) and (call.extra or call.function.extra) for call in members):
        return None
    return list(map(_flat, members))


def _flat(call: Any) -> Any:
    if not isinstance(call, ToolCall):
        return call
    function = {**(call.function.extra or {}), "name": call.name, "arguments": call.arguments}
    return {**(call.extra or {}), "id": call.id, "type": call.type, "function": function}
