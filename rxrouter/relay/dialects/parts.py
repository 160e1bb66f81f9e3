"""Parts: an answer as things that begin and end, for the dialects that want to be told of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import msgspec

from rxrouter._wire.asked import Asked, is_whole
from rxrouter._wire.chunk import ChatChunk, Choice, Delta, Usage, reasoning_of
from rxrouter._wire.completion import with_arguments
from rxrouter._wire.media import Citation, Image, citation_of, image_of
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted

Kind = Literal["text", "reasoning"]

encode = msgspec.json.encode


class ToldCall:
    """A tool call as the reader knows it: under an id that no other has."""

    __slots__ = ("chars", "id", "name")

    def __init__(self, call_id: str, name: str) -> None:
        self.id = call_id
        self.name = name
        self.chars = 0  # of the arguments


class Parts(ABC):
    """Takes the first choice of an answer apart; a dialect says how each thing is said.

    A refusal is text. Of tool calls the pieces are told as they come, to be shown; whether a call is whole is told at
    the end, by the rules of `tool_calls()`.
    """

    def __init__(self) -> None:
        self.model: str | None = None
        self.generation_id: str | None = None
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.asked = Asked(0)
        self._kind: Kind | None = None  # of the part that is open
        self._calls: dict[int, ToldCall] = {}

    def chunk(self, chunk: ChatChunk) -> list[bytes]:
        """What this chunk says."""
        said: list[dict[str, Any]] = []
        for choice in chunk.choices:
            if choice.index == 0:
                self._choice(chunk, choice, said)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if self.model is None:
            self.model, self.generation_id = chunk.model, chunk.id
        if not chunk.choices and isinstance(chunk, Restarted):
            said += self.restart(chunk)
            self._kind = None
            self.asked = Asked(0)
            self._calls.clear()
            self.usage = self.finish_reason = self.model = None
        return [encode(event) for event in said]

    def _choice(self, chunk: ChatChunk, choice: Choice, said: list[dict[str, Any]]) -> None:
        delta = choice.delta
        if thought := reasoning_of(delta):
            self._open("reasoning", said)
            said.append(self.say("reasoning", thought))
        for words in (delta.content, delta.refusal):
            if words:
                self._open("text", said)
                said.append(self.say("text", words))
        if delta.tool_calls:
            self.close(said)
            self.asked.add(chunk)
            self._tell_calls(said)
        elif choice.finish_reason or choice.native_finish_reason:
            self.asked.add(chunk)
        self.finish_reason = choice.finish_reason or self.finish_reason
        if delta.annotations or delta.images:
            said += self._shown(delta)

    def _shown(self, delta: Delta) -> list[dict[str, Any]]:
        sources = [self.source(citation) for told in delta.annotations if (citation := citation_of(told))]
        return sources + [self.picture(image) for told in delta.images if (image := image_of(told))]

    def _open(self, kind: Kind, said: list[dict[str, Any]]) -> None:
        if self._kind != kind:
            self.close(said)
            self._kind = kind
            said += self.start(kind)

    def close(self, said: list[dict[str, Any]]) -> None:
        """Ends the part that is open, if there is one."""
        if self._kind is not None:
            said += self.stop(self._kind)
            self._kind = None

    def _tell_calls(self, said: list[dict[str, Any]]) -> None:
        for index, call in enumerate(self.asked.calls()):
            if index not in self._calls:
                if not call.name:
                    continue  # it comes with a later piece
                said.append(self.start_call(self._told(index, call)))
            told = self._calls[index]
            if more := call.arguments[told.chars :]:
                told.chars += len(more)
                said.append(self.say_call(told, more))

    def _told(self, index: int, call: ToolCall) -> ToldCall:
        """Some servers name calls twice by one id, or by none (WIRE 4.5)."""
        if index not in self._calls:
            known = {told.id for told in self._calls.values()}
            call_id = call.id if call.id and call.id not in known else f"{call.id or 'call'}-{index}"
            self._calls[index] = ToldCall(call_id, call.name)
        return self._calls[index]

    def verdicts(self) -> list[tuple[ToldCall, ToolCall, str | None]]:
        """Each call, and why it must not be run; None for the proven."""
        doubt = self.asked.doubt()
        return [
            (self._told(index, call), with_arguments(call), doubt or (None if is_whole(call) else "it is not whole"))
            for index, call in enumerate(self.asked.calls())
        ]

    @abstractmethod
    def start(self, kind: Kind) -> list[dict[str, Any]]:
        """Text, or reasoning, begins."""

    @abstractmethod
    def say(self, kind: Kind, text: str) -> dict[str, Any]:
        """More of it."""

    @abstractmethod
    def stop(self, kind: Kind) -> list[dict[str, Any]]:
        """It ends."""

    @abstractmethod
    def start_call(self, call: ToldCall) -> dict[str, Any]:
        """A tool call begins."""

    @abstractmethod
    def say_call(self, call: ToldCall, arguments: str) -> dict[str, Any]:
        """More of its arguments."""

    @abstractmethod
    def source(self, citation: Citation) -> dict[str, Any]:
        """A source that the answer refers to."""

    @abstractmethod
    def picture(self, image: Image) -> dict[str, Any]:
        """A picture that the model made."""

    @abstractmethod
    def restart(self, restarted: Restarted) -> list[dict[str, Any]]:
        """All that was said is void, and what was open ends with this.

        Raises:
            Exception: the reader can't be told.
        """
