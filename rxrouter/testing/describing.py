"""What a value is, for people: a chunk by what it carries, an error by its name, and only what was set."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter._wire.json import as_list


def describe(value: Any, characters: int = 200) -> str:
    """Says it in so many characters at most."""
    text = _named(value, characters) if isinstance(value, Exception) else _described(value)
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _named(error: Exception, characters: int) -> str:
    """The error's name; with its text, if there is room for all of it."""
    name, text = type(error).__name__, str(error)
    return f"{name}: {text}" if text and len(name) + 2 + len(text) <= characters else name


def _described(value: Any) -> str:
    if isinstance(value, Exception):
        return type(value).__name__
    if isinstance(value, str):
        return repr(value) if '"' in value else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(map(_described, as_list(value)))}]"
    if type(value) is ChatChunk:
        return f"chunk {_carried(value)}"
    if isinstance(value, Struct):
        told = [
            f"{field.name}={_described(getattr(value, field.name))}"
            for field in msgspec.structs.fields(value)
            if getattr(value, field.name) not in (field.default, (), None)
        ]
        return f"{type(value).__name__}({', '.join(told)})"
    return repr(value)


def _carried(chunk: ChatChunk) -> str:
    """What a chunk says."""
    parts: list[str] = []
    for choice in chunk.choices:
        delta = choice.delta
        parts += [] if not delta.content else [_described(delta.content)]
        if delta.reasoning or delta.reasoning_content or delta.reasoning_details:
            parts.append(f"reasoning {_described(reasoning_of(delta) or 'encrypted')}")
        parts += [] if not delta.refusal else [f"refusal {_described(delta.refusal)}"]
        parts += [f"tool call {call.function.name or ''}{call.function.arguments or ''}" for call in delta.tool_calls]
        parts += ["citation"] * len(delta.annotations) + ["image"] * len(delta.images)
        parts += [] if not delta.audio else ["audio"]
        parts += [] if not choice.finish_reason else [f"finish {choice.finish_reason}"]
    parts += [] if chunk.usage is None else ["usage"]
    return ", ".join(parts) or "without content"
