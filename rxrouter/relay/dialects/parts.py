"""Parts: an answer as things that begin and end, for the dialects that want to be told of both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from rxrouter._wire.asked import Asked
from rxrouter._wire.chunk import ChatChunk, Choice, Delta, ToolCallDelta, Usage, reasoning_of
from rxrouter._wire.completion import is_whole
from rxrouter._wire.media import Citation, Image, citation_of, image_of
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.dialects.calls import ToldCall, ToldCalls

Kind = Literal["text", "reasoning"]

encode = msgspec.json.encode


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
        self.calls = ToldCalls()
        self._kind: Kind | None = None  # of the part that is open

    def chunk(self, chunk: ChatChunk) -> list[bytes]:
        """What this chunk says."""
        said: list[dict[str, Any]] = []
        asks = False
        for choice in chunk.choices:
            if choice.index == 0:
                self._choice(choice, said)
                asks = asks or bool(choice.delta.tool_calls or choice.finish_reason or choice.native_finish_reason)
        if asks:
            self.asked.add(chunk)
        if chunk.usage is not None:
            self.usage = chunk.usage
        if self.model is None:
            self.model, self.generation_id = chunk.model, chunk.id
        if not chunk.choices and isinstance(chunk, Restarted):
            said += self.restart(chunk)
            self._kind = None
            self.asked = Asked(0)
            self.calls = ToldCalls()
            self.usage = self.finish_reason = self.model = None
        return [encode(event) for event in said]

    def _choice(self, choice: Choice, said: list[dict[str, Any]]) -> None:
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
            self._tell_calls(delta.tool_calls, said)
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

    def _tell_calls(self, pieces: Sequence[ToolCallDelta], said: list[dict[str, Any]]) -> None:
        # Each once, however many pieces of it there are.
        for call in dict.fromkeys(map(self.calls.add, pieces)):
            # A name may come with a later piece, and in pieces: it is known when arguments come.
            if call is not None and call.name and call.pieces:
                self._say_call(call, call.take_pieces(), said)

    def _say_call(self, call: ToldCall, arguments: str, said: list[dict[str, Any]]) -> None:
        if not call.started:
            call.started = True
            said.append(self.start_call(self.calls.told(call)))
        if arguments:
            said.append(self.say_call(call, arguments))

    def close_calls(self, said: list[dict[str, Any]]) -> list[tuple[ToldCall, ToolCall, str | None]]:
        """Send what was held back of the calls; return each as received, and why it must not be run, None if proven.

        The reason is in words of ours: among the finish reasons are providers' own, which may be any text. No call of
        an answer is proven if one is not.
        """
        for told in self.calls.all:
            if told.name:
                self._say_call(told, told.take_all(), said)
        received = self.asked.calls()
        doubt = "The answer was cut in a tool call." if self.asked.doubt() else None
        if doubt is None and not all(map(is_whole, received)):
            doubt = "The tool call is not whole." if len(received) == 1 else "One of the tool calls is not whole."
        return [(self.calls.told(told), call, doubt) for told, call in zip(self.calls.all, received, strict=True)]

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
