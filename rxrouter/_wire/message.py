"""The messages of a conversation: what a request sends, and what a completion gives back to be sent again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct, field


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


class FunctionCall(Discreet, omit_defaults=False, frozen=True):
    """Which function, and its arguments as JSON text."""

    name: str = ""
    arguments: str = ""


class ToolCall(Discreet, omit_defaults=False, frozen=True):
    """One call that the model asks for; `arguments` is what arrived, complete or not."""

    id: str = ""
    type: str = "function"
    function: FunctionCall = field(default_factory=FunctionCall)

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
