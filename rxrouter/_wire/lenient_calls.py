"""Members of tool calls that `ToolCallDelta` does not have: a legacy `function_call`, and those of other formats.

The strict decoder refuses a delta with any of these, so that it costs nothing where they do not occur.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

from rxrouter._wire.json import as_object

_CALL = {"index", "id", "type", "function", "_extra", "_ambiguous"}
_FUNCTION = {"name", "arguments", "_extra"}


def adopt_function_call(delta: dict[str, Any]) -> None:
    """Make a legacy `function_call` of the delta a piece of the one tool call that it is."""
    legacy = delta.pop("function_call", None)
    if isinstance(legacy, dict) and not delta.get("tool_calls"):
        # The format has no id. With the same one on each piece, a name in two pieces is known to be one name.
        piece = {"index": 0, "id": "function_call", "type": "function", "function": as_object(legacy)}
        delta["tool_calls"] = [piece]


def set_members_apart(call: dict[str, Any]) -> None:
    """Move the members of the call and of its function that OpenAI's format does not have."""
    for name in ("name", "arguments"):
        call.pop(name, None)
    _set_apart(call, _CALL)
    _set_apart(as_object(call.get("function")), _FUNCTION)


def _set_apart(holder: dict[str, Any], known: AbstractSet[str]) -> None:
    unknown = {name: holder.pop(name) for name in holder.keys() - known}
    if unknown:
        holder["_extra"] = {**as_object(holder.get("_extra")), **unknown}
