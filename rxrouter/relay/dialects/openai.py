"""OpenAIChunks: `chat.completion.chunk` events, byte for byte as they were received."""

from __future__ import annotations

import msgspec

from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Events

_DONE = b"[DONE]"


class OpenAIChunks:
    """What OpenAI's and OpenRouter's clients read; a chunk that was made by hand is its JSON.

    An error is a chunk as OpenRouter sends it: with `error`, and with the finish reason "error". What was said can't be
    taken back: a `Restarted` ends the answer with the error that made it necessary.

    Source: OpenRouter "Streaming", mid-stream errors; openai-python raises on a chunk with `error`.
    """

    framing = Events()

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
        return (chunk.raw,)

    def end(self) -> tuple[bytes, ...]:
        """What ends a stream of chunks."""
        return (_DONE,)

    def error(self, failure: Failure) -> tuple[bytes, ...]:
        """A chunk that is the error."""
        head = self._head
        chunk = {
            "id": head.id or "",
            "object": "chat.completion.chunk",
            "created": head.created or 0,
            "model": head.model or "",
            "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": "error"}],
            "error": {"message": failure.message, "type": failure.code, "code": failure.status},
        }
        return (msgspec.json.encode(chunk), _DONE)
