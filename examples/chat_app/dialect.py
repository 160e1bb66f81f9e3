"""ForThePage: an answer as static/answer.js reads it; smaller on the wire than chunks, and with what the page draws."""

from collections.abc import Iterable

import msgspec

from rxrouter import ChatChunk, Restarted
from rxrouter.relay import Events, Failure

encode = msgspec.json.encode


class ForThePage:
    """Each event is an object of what is new: `text`, `reasoning`, `cost` …, and when that came; the last has `end`."""

    framing = Events()

    def begin(self) -> Iterable[bytes]:
        """Nothing."""
        return ()

    def chunk(self, chunk: ChatChunk) -> Iterable[bytes]:
        """What it says of the first choice."""
        if isinstance(chunk, Restarted):
            return (encode({"restarted": chunk.attempt}),)
        news = dict(chunk.debug or {})
        for choice in chunk.choices[:1]:
            delta = choice.delta
            news |= {"text": delta.content or delta.refusal, "finish": choice.finish_reason}
            news["reasoning"] = delta.reasoning or delta.reasoning_content
        if chunk.usage is not None:
            news["tokens"] = chunk.usage.completion_tokens
        return (encode({name: value for name, value in news.items() if value is not None}),)

    def end(self) -> Iterable[bytes]:
        """Proven."""
        return (encode({"end": "complete"}),)

    def error(self, failure: Failure) -> Iterable[bytes]:
        """In words; what to do is for the page to say."""
        return (encode({"end": failure.code, "message": failure.message, "retry_after": failure.retry_after}),)
