"""Reply: what a simulated server answers, step by step; and the faults by name."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct, field

from rxrouter.testing.answer import COMMENT, DONE, GENERATION_ID, answer, chunk, event
from rxrouter.testing.recording import Recording

_STREAM = {"Content-Type": "text/event-stream", "X-Generation-Id": GENERATION_ID}


class Act(enum.Enum):
    """A step that is neither a block of bytes nor a pause."""

    CUT = "close the connection in the middle of the body"
    RESET = "reset the connection (RST)"
    HANG = "say nothing more, until the client leaves"


Step = bytes | float | Act


class Reply(Struct, frozen=True):
    """Blocks to write, pauses in seconds, acts; after the last step the body ends as it should.

    `before` are the steps before the status line is sent.
    """

    steps: Sequence[Step] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: dict(_STREAM))
    before: Sequence[Step] = ()

    @classmethod
    def of(cls, events: Recording | Sequence[bytes], *, rate: float = 0.0) -> Reply:
        """A stream of these blocks, at `rate` blocks a second, or in their recorded timing, or as fast as they go."""
        if isinstance(events, Recording):
            if events.pauses and not rate:
                return cls(tuple(step for pair in zip(events.pauses, events.blocks, strict=True) for step in pair))
            events = events.blocks
        pause = 1 / rate if rate else 0.0
        return cls(tuple(step for block in events for step in (pause, block)))

    @classmethod
    def json(cls, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
        """A JSON body."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        return cls((body,), status, {"Content-Type": "application/json", **(headers or {})})

    @classmethod
    def error(
        cls,
        status: int,
        message: str,
        *,
        metadata: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        """OpenRouter's error body."""
        error = {"code": status, "message": message} | ({"metadata": metadata} if metadata else {})
        return cls.json({"error": error}, status, headers)


_LIMITED = {"X-RateLimit-Limit": "20", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1759845420000"}
_CUT_CALL = [("delete_files", '{"path": "/tmp/old", "recursive": true}')]


def _half(text: str) -> list[bytes]:
    """The first half of the answer, without finish, usage and [DONE]."""
    events = answer(text)[:-3]
    return events[: max(3, len(events) // 2)]


def _split_characters(text: str) -> list[bytes]:
    """Blocks that end inside every character that has an inside, and inside events elsewhere."""
    body = b"".join(answer(text + " — naïve 流式 🚀"))
    return [body[at : at + 3] for at in range(0, len(body), 3)]


#: What can go wrong, and some of what is just odd, by name: from the answer's text to the reply.
FAULTS: dict[str, Callable[[str], Reply]] = {
    "cut": lambda text: Reply((*_half(text), Act.CUT)),
    "reset": lambda text: Reply((*_half(text), Act.RESET)),
    "truncate": lambda text: Reply(_half(text)),
    "stall": lambda text: Reply((*_half(text), Act.HANG)),
    "silence": lambda text: Reply(before=(Act.HANG,)),
    "comments": lambda text: Reply((COMMENT, 0.05) * 20_000),
    "split": lambda text: Reply(_split_characters(text)),
    "no-done": lambda text: Reply(answer(text)[:-1]),
    "cut-after-finish": lambda text: Reply((*answer(text)[:-2], Act.CUT)),
    "bad-json": lambda text: Reply((*_half(text), b'data: {"id": "gen-1", "choices": [\n\n', *answer("")[-3:])),
    "error-first": lambda text: Reply(
        (
            COMMENT,
            event(
                {"error": {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "Venice"}}}
            ),
        )
    ),
    "error-late": lambda text: Reply(
        (
            *_half(text),
            chunk(
                finish="error",
                error={
                    "code": 503,
                    "message": "Provider overloaded",
                    "metadata": {"error_type": "provider_overloaded"},
                },
            ),
            chunk(usage={"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.0001}),
            DONE,
        )
    ),
    "cut-tool-call": lambda text: Reply(
        [
            *answer("", tool_calls=_CUT_CALL)[:-4],
            *answer("", finish="tool_calls")[2:-2],
            chunk(finish="tool_calls", native="length"),
            DONE,
        ]
    ),
    "json": lambda text: Reply.json({"error": {"code": 502, "message": "Upstream error"}}),
    "html": lambda text: Reply(
        (b"<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>",),
        502,
        {"Content-Type": "text/html"},
    ),
    "401": lambda text: Reply.error(401, "Missing Authentication header"),
    "402": lambda text: Reply.error(402, "This request requires more credits, or fewer max_tokens."),
    "404": lambda text: Reply.error(404, "No endpoints found for simulated/storyteller."),
    "429": lambda text: Reply.error(
        429,
        "Rate limit exceeded: free-models-per-min.",
        metadata={"headers": _LIMITED},
        headers={"Retry-After": "7", **_LIMITED},
    ),
    "502": lambda text: Reply.error(502, "Provider returned error", metadata={"provider_name": "Venice"}),
}
