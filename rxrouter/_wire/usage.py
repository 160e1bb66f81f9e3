"""Merge what a stream says of its usage: in halves, with zeros at the end, or as it counts."""

from __future__ import annotations

from typing import Any

import msgspec

from rxrouter._wire.chunk import ChatChunk, Usage
from rxrouter._wire.json import as_object

_NUMBERS = ("prompt_tokens", "completion_tokens", "total_tokens", "cost", "is_byok")
_OBJECTS = tuple(name for name in Usage.__struct_fields__ if name not in _NUMBERS)


def merged_usage(first: Usage | None, then: Usage | None) -> Usage | None:
    """Return what both say together: the later value of each field, unless it is absent, empty or zero."""
    if first is None or then is None:
        return first if then is None else then
    if hasattr(then, "parts"):  # a sum of generations replaces what it is the sum of
        return then
    if _says_all_of(then, first):
        return then
    merged = _merged(msgspec.to_builtins(first), msgspec.to_builtins(then))
    prompt, completion = merged.get("prompt_tokens"), merged.get("completion_tokens")
    counts = (prompt, completion)
    in_halves = counts not in (
        (first.prompt_tokens, first.completion_tokens),
        (then.prompt_tokens, then.completion_tokens),
    )
    if in_halves and prompt and completion and merged.get("total_tokens"):
        merged["total_tokens"] = prompt + completion
    return msgspec.convert(merged, Usage)


def _says_all_of(then: Usage, first: Usage) -> bool:
    """Whether nothing of the first can be missing in the later one, as where a server counts as it goes."""
    for name in _NUMBERS:
        before, after = getattr(first, name), getattr(then, name)
        if not after and before is not None and before != after:
            return False
    for name in _OBJECTS:
        before = getattr(first, name)
        if before is not None and before != getattr(then, name):
            return False
    return True


def with_usage(chunk: ChatChunk, usage: Usage) -> ChatChunk:
    """Return the chunk with another usage, in its JSON as well, with all unknown members."""
    changed = msgspec.structs.replace(chunk, usage=usage)
    try:
        value = as_object(msgspec.json.decode(chunk.raw))
        changed.received = msgspec.json.encode(value | {"usage": msgspec.to_builtins(usage)})
    except (ValueError, RecursionError):  # it was read leniently; then its JSON is made of its fields
        pass
    return changed


def _merged(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    merged = dict(first)
    for name, value in then.items():
        if isinstance(value, dict) and isinstance(first.get(name), dict):
            merged[name] = _merged(as_object(first[name]), as_object(value))
        elif value or name not in first:
            merged[name] = value
    return merged
