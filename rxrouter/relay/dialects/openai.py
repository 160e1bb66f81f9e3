"""OpenAIChunks: `chat.completion.chunk` events, byte for byte as they were received."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk, encoded
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

    An error is a chunk as OpenRouter sends it: with `error`, and with the finish reason "error". What was said can't be
    taken back: a `Restarted` ends the answer with the error that made it necessary.

    Source: OpenRouter "Streaming", mid-stream errors; openai-python raises on a chunk with `error`.
    """

    framing = Events()
    _last: ClassVar[tuple[ChatChunk | None, bytes]] = None, b""

    def __init__(self) -> None:
        self._head = ChatChunk()

    def begin(self) -> tuple[bytes, ...]:
        """Nothing."""
        return ()

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        """The chunk."""
        if not chunk.choices and isinstance(chunk, Restarted):
            raise chunk.cause or RouterError("the answer began anew")
        self._head = chunk
        known, payload = OpenAIChunks._last
        if chunk is not known:  # else as the reader before got it, of many who read the same
            payload = _payload(chunk)
            if len(payload) <= _KEPT_BYTES:
                OpenAIChunks._last = chunk, payload
        return (payload,)

    def skip(self, chunk: ChatChunk) -> None:
        """The reader has it; an error would have its head."""
        self._head = chunk

    def end(self) -> tuple[bytes, ...]:
        """What ends a stream of chunks."""
        return (_DONE,)

    def error(self, failure: Failure) -> tuple[bytes, ...]:
        """A chunk that is the error."""
        head = self._head
        chunk = {
            **_CHUNK,
            **{name: told for name in _CHUNK if (told := getattr(head, name))},
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
            "error": {"message": failure.message, "type": failure.code, "code": failure.status},
        }
        return (msgspec.json.encode(chunk), _DONE)


def _payload(chunk: ChatChunk) -> bytes:
    chunk = without_error(chunk)
    raw = chunk.raw
    ours = raw == encoded(chunk)  # which leaves defaults out; a log gives back the same
    return _whole(chunk) if ours else raw


def _whole(chunk: ChatChunk) -> bytes:
    said: dict[str, Any] = msgspec.json.decode(encoded(chunk))
    choices = [_CHOICE | choice for choice in said.get("choices", ())]
    return msgspec.json.encode(_CHUNK | said | {"choices": choices})
