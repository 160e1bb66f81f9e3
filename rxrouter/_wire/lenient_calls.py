"""Turn the tool calls of a delta in JSON, a legacy `function_call` too, into the shape that `ToolCallDelta` has.

The strict decoder refuses a delta with any of these, so it costs nothing where they do not occur.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from rxrouter._wire.json import as_list, as_object

_CALL = {"index", "id", "type", "function", "name", "arguments", "_extra", "_ambiguous"}
_FUNCTION = {"name", "arguments", "_extra"}


def reshape_calls(delta: dict[str, Any]) -> None:
    """Change the delta in place; a legacy `function_call` becomes a piece of the one tool call that it is."""
    legacy = delta.pop("function_call", None)
    pieces = as_list(delta.get("tool_calls"))
    if isinstance(legacy, dict) and not pieces:
        # The format has no id. With the same one on each piece, a name in two pieces is known to be one name.
        piece: dict[str, Any] = {"index": 0, "id": "function_call", "type": "function", "function": as_object(legacy)}
        delta["tool_calls"] = pieces = [piece]
    for piece in map(as_object, pieces):
        function = as_object(piece.get("function"))
        _as_text(piece, "id")
        _as_text(function, "name")
        _set_apart(piece, _CALL)
        _set_apart(function, _FUNCTION)


def _as_text(holder: dict[str, Any], name: str) -> None:
    value = holder.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[name] = str(value)


def _set_apart(holder: dict[str, Any], known: AbstractSet[str]) -> None:
    """Move the members that the format does not have."""
    unknown = {name: holder.pop(name) for name in holder.keys() - known}
    if unknown:
        holder["_extra"] = {**as_object(holder.get("_extra")), **unknown}
