"""A whole answer, and the field rules by which chunks fold into one: in linear time, on any order and any repeats."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from rxrouter._wire.chunk import ChatChunk, Choice, Delta, ToolCallDelta, Usage, reasoning_of
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.message import AssistantMessage, FunctionCall, ToolCall

# Fields that grow, of a reasoning detail and of audio; all others are set by the piece that has them first (WIRE 4.4).
_GROWING_DETAIL = {"text", "summary", "data"}
_GROWING_AUDIO = {"data", "transcript"}


class _Pieces(list[str]):
    """The pieces of a growing field."""


class CompletionChoice(Struct):
    """One of the `n` answers."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    tool_calls: list[ToolCall] = []
    reasoning_details: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    audio: dict[str, Any] | None = None
    logprobs: dict[str, list[Any]] | None = None
    finish_reason: str | None = None
    native_finish_reason: str | None = None

    @property
    def message(self) -> AssistantMessage:
        """The answer as a message of the next request: reasoning once, and `{}` for arguments that never came."""
        return AssistantMessage(
            content=self.text or (None if self.tool_calls else ""),
            tool_calls=[_with_arguments(call) for call in self.tool_calls] or None,
            refusal=self.refusal or None,
            reasoning=None if self.reasoning_details else self.reasoning or None,
            reasoning_details=self.reasoning_details or None,
            annotations=self.annotations or None,
            images=self.images or None,
            audio={"id": self.audio["id"]} if self.audio and self.audio.get("id") else None,
        )


class ChatCompletion(Struct):
    """All chunks of one generation folded; the properties speak of the first choice, which is mostly the only one."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    created: int | float | None = None
    choices: list[CompletionChoice] = []
    usage: Usage | None = None
    service_tier: str | None = None
    system_fingerprint: str | None = None
    openrouter_metadata: dict[str, Any] | None = None

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
        """The tool calls as received; whether they are whole is what `finish_reason` and their JSON say together."""
        return self._first.tool_calls

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


class _ToolCallFold(Struct):
    id: str = ""
    type: str = ""
    name: str = ""
    arguments: list[str] = []


class _ChoiceFold(Struct):
    """One choice in the making: pieces in lists, joined when somebody asks."""

    index: int
    text: list[str] = []
    reasoning: list[str] = []
    refusal: list[str] = []
    tool_calls: list[_ToolCallFold] = []
    tool_calls_at: dict[int, _ToolCallFold] = {}
    details: list[dict[str, Any]] = []  # growing fields hold _Pieces
    details_at: dict[str, dict[str, Any]] = {}
    annotations: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    audio: dict[str, Any] = {}
    logprobs: dict[str, list[Any]] = {}
    finish_reason: str | None = None
    native_finish_reason: str | None = None

    def add(self, choice: Choice) -> None:
        if choice.finish_reason:
            self.finish_reason = choice.finish_reason
        if choice.native_finish_reason:
            self.native_finish_reason = choice.native_finish_reason
        delta = choice.delta
        if delta.content:
            self.text.append(delta.content)
        if reasoning := reasoning_of(delta):
            self.reasoning.append(reasoning)
        if delta.tool_calls:
            for call in delta.tool_calls:
                self.add_tool_call(call)
        if delta.reasoning_details:
            for detail in delta.reasoning_details:
                self.add_detail(detail)
        if choice.logprobs is not None:
            self.add_logprobs(choice.logprobs)
        self.add_rare(delta)

    def add_rare(self, delta: Delta) -> None:
        if delta.refusal:
            self.refusal.append(delta.refusal)
        if delta.annotations:
            self.annotations += delta.annotations
        if delta.images:
            self.images += delta.images
        if delta.audio is not None:
            _merge(self.audio, delta.audio, _GROWING_AUDIO)

    def add_tool_call(self, piece: ToolCallDelta) -> None:
        """By index; null and empty never overwrite; another id under the same index is another call (WIRE 4.5)."""
        if piece.index is not None:
            call = self.tool_calls_at.get(piece.index)
        else:
            call = self.tool_calls[-1] if self.tool_calls else None
        if call is None or (piece.id and call.id and piece.id != call.id):
            call = _ToolCallFold()
            self.tool_calls.append(call)
            if piece.index is not None:
                self.tool_calls_at[piece.index] = call
        call.id = call.id or piece.id or ""
        call.type = call.type or piece.type or ""
        call.name = call.name or piece.function.name or ""
        if piece.function.arguments:
            call.arguments.append(piece.function.arguments)

    def add_detail(self, piece: dict[str, Any]) -> None:
        """By type and index, where there is an index; the last signature that says something wins."""
        index = piece.get("index")
        key = f"{piece.get('type')} {index}"
        detail = self.details_at.get(key) if index is not None else None
        if detail is None:
            detail = dict[str, Any]()
            self.details.append(detail)
            self.details_at[key] = detail
        signature = piece.get("signature") or detail.get("signature")
        _merge(detail, piece, _GROWING_DETAIL)
        if signature:
            detail["signature"] = signature

    def add_logprobs(self, logprobs: Any) -> None:
        """`{"content": [...]}` adds up; the object of nulls of text completions (WIRE 9) has nothing to add."""
        for name, items in as_object(logprobs).items():
            if isinstance(items, list):
                self.logprobs.setdefault(name, []).extend(as_list(items))

    def choice(self) -> CompletionChoice:
        return CompletionChoice(
            index=self.index,
            text="".join(self.text),
            reasoning="".join(self.reasoning),
            refusal="".join(self.refusal),
            tool_calls=[
                ToolCall(
                    id=call.id,
                    type=call.type or "function",
                    function=FunctionCall(name=call.name, arguments="".join(call.arguments)),
                )
                for call in self.tool_calls
            ],
            reasoning_details=[{k: _joined(v) for k, v in detail.items()} for detail in self.details],
            annotations=list(self.annotations),
            images=list(self.images),
            audio={k: _joined(v) for k, v in self.audio.items()} or None,
            logprobs={k: list(v) for k, v in self.logprobs.items()} or None,
            finish_reason=self.finish_reason,
            native_finish_reason=self.native_finish_reason,
        )


class CompletionFold(Struct):
    """Chunks in, a `ChatCompletion` out, at any time."""

    head: ChatCompletion = field(default_factory=ChatCompletion)
    choices: dict[int, _ChoiceFold] = {}

    def add(self, chunk: ChatChunk) -> None:
        """Folds one more chunk in: about 0.5 µs for a text delta (tests/perf/test_stream.py)."""
        head = self.head
        if not head.model or chunk.usage is not None or chunk.openrouter_metadata is not None:
            self._set_head(chunk)  # the first chunk, and the last, which brings usage, service tier and metadata
        for choice in chunk.choices:
            fold = self.choices.get(choice.index)
            if fold is None:
                fold = self.choices[choice.index] = _ChoiceFold(choice.index)
            fold.add(choice)

    def _set_head(self, chunk: ChatChunk) -> None:
        head = self.head
        head.id = head.id or chunk.id
        head.model = head.model or chunk.model
        head.provider = head.provider or chunk.provider
        head.created = head.created or chunk.created
        head.system_fingerprint = head.system_fingerprint or chunk.system_fingerprint
        head.usage = chunk.usage or head.usage
        head.service_tier = chunk.service_tier or head.service_tier
        head.openrouter_metadata = chunk.openrouter_metadata or head.openrouter_metadata

    def completion(self) -> ChatCompletion:
        """The answer so far; later chunks don't change what was given out."""
        head = self.head
        return ChatCompletion(
            id=head.id,
            model=head.model,
            provider=head.provider,
            created=head.created,
            choices=[self.choices[index].choice() for index in sorted(self.choices)],
            usage=head.usage,
            service_tier=head.service_tier,
            system_fingerprint=head.system_fingerprint,
            openrouter_metadata=head.openrouter_metadata,
        )


def _merge(whole: dict[str, Any], piece: dict[str, Any], growing: set[str]) -> None:
    """Adds the pieces of growing fields, sets the others once; null says nothing, but keeps a field's place."""
    for name, value in piece.items():
        known: object = whole.get(name)
        if isinstance(known, _Pieces) and isinstance(value, str):
            known.append(value)
        elif known is None:
            whole[name] = _Pieces([value]) if name in growing and isinstance(value, str) else value


def _joined(value: Any) -> Any:
    return "".join(value) if isinstance(value, _Pieces) else value


def _with_arguments(call: ToolCall) -> ToolCall:
    if call.arguments:
        return call
    return ToolCall(id=call.id, type=call.type, function=FunctionCall(name=call.name, arguments="{}"))
