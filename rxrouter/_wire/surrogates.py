"""Refuse text with half a surrogate pair, which no UTF-8 has, by its place and without quoting it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec

from rxrouter._wire.json import as_list, as_object


def encoded(value: Any, root: str = "") -> bytes:
    """Return the JSON of a value.

    Args:
        value: Structs, dicts, lists and what else JSON has.
        root: The value's name, in front of the place in an error.

    Raises:
        ValueError: a text has half a surrogate pair; the message has its place.
    """
    with suppress(UnicodeEncodeError):
        return msgspec.json.encode(value)
    # Outside of a handler, or the refusal, which quotes the text, would be this error's context.
    raise ValueError(_place(msgspec.to_builtins(value), root) or "a text has half a surrogate pair")


def _place(value: Any, path: str) -> str | None:
    if isinstance(value, str):
        at = next((at for at, char in enumerate(value) if "\ud800" <= char <= "\udfff"), None)
        return None if at is None else f"{path} must be text, got half a surrogate pair at character {at}"
    if isinstance(value, dict):
        items = as_object(value)
        bad = next((name for name in items if _place(str(name), "") is not None), None)
        if bad is not None:
            return f"{path or 'the body'} must have names that are text, got half a surrogate pair in one"
        places = (_place(item, f"{path}.{name}" if path else str(name)) for name, item in items.items())
    elif isinstance(value, list):
        places = (_place(item, f"{path}[{index}]") for index, item in enumerate(as_list(value)))
    else:
        return None
    return next((place for place in places if place is not None), None)
