"""OpenAIChunks: `chat.completion.chunk` events, byte for byte as they were received."""

from __future__ import annotations

from collections.abc import Container
from typing import Any, ClassVar

import msgspec

from rxrouter._errors import RouterError
from rxrouter._wire.asked import Asked
from rxrouter._wire.chunk import ChatChunk, Choice, encoded
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.dialects.discreet import without_error
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Events

_DONE = b"[DONE]"
_KEPT_BYTES = 4096  # of one payload, for the next reader

# What the SDKs of OpenAI insist on: a chunk and a choice without one of these end in a TypeError of theirs.
_CHUNK = {"id": "", "object": "chat.completion.chunk", "created": 0, "model": ""}
_CHOICE: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": None}


class OpenAIChunks:
    """What OpenAI's and OpenRouter's clients read; a chunk that nobody sent is made one of theirs.

    A client runs the tool calls of a choice when it reads the finish reason. So this chunk, and those behind it, wait
    for the end, which proves the calls or not. Calls that are cut leave with the finish reason "length", with which no
    client runs them.

    An error is a chunk as OpenRouter sends it: with `error`, and with the finish reason "error". What was said can't be
    taken back: a `Restarted` ends the answer with the error that made it necessary.

    Source: OpenRouter "Streaming", mid-stream errors; openai-python raises on a chunk with `error`.
    """

    framing = Events()
    _last: ClassVar[tuple[ChatChunk | None, bytes]] = None, b""

    def __init__(self) -> None:
        self._head = ChatChunk()
        self._asked: dict[int, Asked] = {}
        self._held: list[ChatChunk] = []

    def begin(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        """The chunk."""
        if not chunk.choices and isinstance(chunk, Restarted):
            raise chunk.cause or RouterError("the answer began anew")
        self._head = chunk
        if self._holds(chunk):
            return ()
        known, payload = OpenAIChunks._last
        if chunk is not known:  # else as the reader before got it, of many who read the same
            payload = _payload(chunk)
            if len(payload) <= _KEPT_BYTES:
                OpenAIChunks._last = chunk, payload
        return (payload,)

    def skip(self, chunk: ChatChunk) -> None:
        """The reader has it; an error would have its head."""
        self._head = chunk
        self._holds(chunk)

    def end(self) -> tuple[bytes, ...]:
        """The chunks that waited, with the judgement of the calls; what ends a stream of chunks."""
        cut = {index for index, asked in self._asked.items() if not asked.proven}
        judged = {choice.index for chunk in self._held for choice in chunk.choices if choice.finish_reason}
        held = [_finished(chunk, cut, "length") for chunk in self._held]
        if unjudged := sorted(cut - judged):
            choices = [Choice(index=index, finish_reason="length") for index in unjudged]
            held.append(msgspec.structs.replace(self._head, choices=choices, usage=None))
        return (*map(_payload, held), _DONE)

    def error(self, failure: Failure) -> tuple[bytes, ...]:
        """A chunk that is the error, behind those that waited, without their finish reasons."""
        head = self._head
        chunk = {
            **_CHUNK,
            **{name: told for name in _CHUNK if (told := getattr(head, name))},
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
            "error": {"message": failure.message, "type": failure.code, "code": failure.status},
        }
        held = (_payload(_finished(chunk, self._asked, None)) for chunk in self._held)
        return (*held, msgspec.json.encode(chunk), _DONE)

    def _holds(self, chunk: ChatChunk) -> bool:
        """Return whether the chunk has to wait for the end of the answer."""
        ends = False
        for choice in chunk.choices:
            asked = self._asked.get(choice.index)
            if asked is None:
                if not choice.delta.tool_calls:
                    continue
                asked = self._asked[choice.index] = Asked(choice.index)
            if choice.delta.tool_calls or choice.finish_reason or choice.native_finish_reason:
                asked.add(chunk)
                ends = ends or bool(choice.finish_reason)
        if ends or self._held:
            self._held.append(chunk)
            return True
        return False


def _finished(chunk: ChatChunk, choices: Container[int], reason: str | None) -> ChatChunk:
    """Return the chunk with another finish reason for some of its choices."""
    if not any(choice.finish_reason and choice.index in choices for choice in chunk.choices):
        return chunk
    changed = [
        msgspec.structs.replace(choice, finish_reason=reason)
        if choice.finish_reason and choice.index in choices
        else choice
        for choice in chunk.choices
    ]
    return msgspec.structs.replace(chunk, choices=changed)


def _payload(chunk: ChatChunk) -> bytes:
    chunk = without_error(chunk)
    raw = chunk.raw
    ours = raw == encoded(chunk)  # which leaves defaults out; a log gives back the same
    return _whole(chunk) if ours else raw


def _whole(chunk: ChatChunk) -> bytes:
    said: dict[str, Any] = msgspec.json.decode(encoded(chunk))
    choices = [_CHOICE | choice for choice in said.get("choices", ())]
    return msgspec.json.encode(_CHUNK | said | {"choices": choices})
