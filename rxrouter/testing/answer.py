"""Answers made up for tests and demonstrations, in OpenRouter's protocol of 2026."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

COMMENT = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
GENERATION_ID = "gen-1763820000-simulatedsimulated01"
_WORD = re.compile(r"\s*\S+|\s+")

STORY = (
    "Once upon a time a small language model lived in a rack by the sea. It answered one word at a time, and every"
    " word travelled alone: out of the rack, through a socket, over the waves, into a terminal.\n\n"
    "One night a storm cut the cable in the middle of a sentence. Over there nobody noticed; it just looked short. So"
    " the model made a promise: it would say when it was finished, every time, and whoever did not hear the promise"
    " would know that there had been more.\n\n"
    "Since then its listeners sleep well. They know how the story ends, and that this is the end."
)


def event(data: Any) -> bytes:
    """An event whose data is this value's JSON, framed as OpenRouter frames it."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def chunk(
    delta: dict[str, Any] | None = None, *, finish: str | None = None, native: str | None = None, **more: Any
) -> bytes:
    """The event of one chunk with one choice; `more` are top-level fields."""
    choice = {
        "index": 0,
        "delta": {"role": "assistant", "content": "", **(delta or {})},
        "finish_reason": finish,
        "native_finish_reason": native or finish,
    }
    head = {
        "id": GENERATION_ID,
        "object": "chat.completion.chunk",
        "created": 1763820000,
        "model": "simulated/storyteller",
        "provider": "Simulator",
    }
    return event({**head, "choices": [choice], **more})


def answer(  # noqa: PLR0913 - the parts of an answer
    text: str = STORY,
    *,
    reasoning: str = "",
    tool_calls: Sequence[tuple[str, str]] = (),
    finish: str | None = None,
    cost: float = 0.0,
    comments: int = 2,
) -> list[bytes]:
    """The events of a whole answer: comments, reasoning, text, tool calls, finish, usage, [DONE].

    Args:
        text: Said word by word.
        reasoning: Thought word by word, before.
        tool_calls: Names, and arguments as JSON text, after.
        finish: The finish reason; by default `stop`, or `tool_calls` if there are any.
        cost: What the usage says, in credits.
        comments: Keep-alives before the first chunk.
    """
    finish = finish or ("tool_calls" if tool_calls else "stop")
    thoughts, words = _WORD.findall(reasoning), _WORD.findall(text)
    events = [COMMENT] * comments
    for thought in thoughts:
        detail = {"type": "reasoning.text", "text": thought, "index": 0, "format": "unknown"}
        events.append(chunk({"reasoning": thought, "reasoning_details": [detail]}))
    events += [chunk({"content": word}) for word in words]
    for index, (name, arguments) in enumerate(tool_calls):
        head = {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chunk({"content": None, "tool_calls": [head]}))
        for at in range(0, len(arguments), 8):
            piece = {"index": index, "function": {"arguments": arguments[at : at + 8]}}
            events.append(chunk({"content": None, "tool_calls": [piece]}))
    spent = len(thoughts) + len(words)
    usage = {
        "prompt_tokens": 12,
        "completion_tokens": spent,
        "total_tokens": spent + 12,
        "cost": cost,
        "is_byok": False,
        "completion_tokens_details": {"reasoning_tokens": len(thoughts)},
    }
    return [*events, chunk(finish=finish), chunk(finish=finish, usage=usage), DONE]
