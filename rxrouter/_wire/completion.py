"""A whole answer: all chunks of one generation, folded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from rxrouter._errors import (
    BudgetExceededError,
    ClientClosedError,
    GenerationStopped,
    GuardError,
    TransportError,
    TruncatedStreamError,
)
from rxrouter._wire.chunk import Usage
from rxrouter._wire.message import AssistantMessage, ToolCall

_object = msgspec.json.Decoder(dict[str, object]).decode

State = Literal["streaming", "complete", "incomplete", "stopped", "truncated", "failed"]
"""How far an answer is.

- `streaming`: it still grows.
- `complete`: it is proven finished.
- `incomplete`: it is proven finished, and the model's side had stopped it: by a length limit, or by a filter.
- `stopped`: this side has stopped it: an operator such as `take_while`, `Hub.stop`, a budget, a guard, or closing.
- `truncated`: the connection has cut it, or it ended without proof.
- `failed`: it has ended by any other error.
"""

_STOPPED = (BudgetExceededError, ClientClosedError, GenerationStopped, GuardError)

ReasoningName = Literal["reasoning", "reasoning_content"]
"""The member of a message under which a server sends the reasoning, and expects it back."""


def state_after(error: Exception) -> State:
    """Return the state of an answer whose stream has ended with this error."""
    if isinstance(error, _STOPPED):
        return "stopped"
    return "truncated" if isinstance(error, TransportError | TruncatedStreamError) else "failed"


class CompletionChoice(Struct):
    """One of the `n` answers.

    Attributes:
        tool_calls: The calls that may be run: all calls of a complete answer that are proven whole, or no call.
        partial_tool_calls: All other calls, as far as they were received; they are not part of `message`.
    """

    index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ToolCall] = []
    partial_tool_calls: list[ToolCall] = []
    reasoning_details: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    audio: dict[str, Any] | None = None
    logprobs: dict[str, list[Any]] | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None
    reasoning_name: ReasoningName = "reasoning"

    @property
    def message(self) -> AssistantMessage:
        """The answer as a message of the next request, each thing under the name under which it came.

        Details of the reasoning stand for `reasoning`, which repeats their text. `{}` stands for arguments that never
        came.
        """
        named = self.reasoning_name == "reasoning_content"
        return AssistantMessage(
            content=self.text or (None if self.tool_calls else ""),
            tool_calls=[with_arguments(call) for call in self.tool_calls] or None,
            refusal=self.refusal or None,
            reasoning=None if named or self.reasoning_details else self.reasoning or None,
            reasoning_content=(self.reasoning or None) if named else None,
            reasoning_details=self.reasoning_details or None,
            annotations=self.annotations or None,
            images=self.images or None,
            audio={"id": self.audio["id"]} if self.audio and self.audio.get("id") else None,
        )


@dataclass(slots=True)
class ChatCompletion:
    """All chunks of one generation folded; the properties speak of the first choice, which is mostly the only one."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    created: int | float | None = None
    choices: list[CompletionChoice] = field(default_factory=list[CompletionChoice])
    usage: Usage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    openrouter_metadata: dict[str, Any] | None = None
    state: State = "complete"

    @property
    def _first(self) -> CompletionChoice:
        return self.choices[0] if self.choices else CompletionChoice()

    @property
    def text(self) -> str:
        """The answer's text."""
        return self._first.text

    @property
    def reasoning(self) -> str:
        """What the model showed of its thinking."""
        return self._first.reasoning

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls that may be run; empty unless the state is `complete` and every call is proven whole."""
        return self._first.tool_calls

    @property
    def partial_tool_calls(self) -> list[ToolCall]:
        """The tool calls that must not be run, as far as they were received."""
        return self._first.partial_tool_calls

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended, in OpenRouter's words; the last that was said."""
        return self._first.finish_reason

    @property
    def native_finish_reason(self) -> str | None:
        """The same in the provider's words; `length` here and `tool_calls` above is a cut call."""
        return self._first.native_finish_reason

    @property
    def message(self) -> AssistantMessage:
        """The answer, ready to be sent back as a message of the next request."""
        return self._first.message


def with_arguments(call: ToolCall) -> ToolCall:
    """The call with arguments that parse: a tool without parameters is called with "", "{}" or nothing (WIRE 4.5)."""
    if call.arguments:
        return call
    return replace(call, function=replace(call.function, arguments="{}"))


def is_whole(call: ToolCall) -> bool:
    """Return whether a call has a name, and arguments that are a JSON object."""
    try:
        _object(with_arguments(call).arguments)
    except (ValueError, RecursionError):
        return False
    return bool(call.name)
