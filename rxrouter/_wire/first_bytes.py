"""Recognise an event stream by its first bytes, and an answer in one piece by its JSON, whatever type they have."""

from __future__ import annotations

import msgspec

from rxrouter._wire.json import as_list, as_object

_BOM = b"\xef\xbb\xbf"
_BEGINNINGS = (b"data:", b":", b"event:", b"id:", b"retry:")


def is_event_stream(start: bytes) -> bool | None:
    """Return whether a body that begins so is an event stream; None while more bytes are needed to decide."""
    if len(start) < len(_BOM) and _BOM.startswith(start):
        return None
    start = start.removeprefix(_BOM).lstrip()
    if start.startswith(_BEGINNINGS):
        return True
    # Nothing at all is the beginning of each.
    return None if any(beginning.startswith(start) for beginning in _BEGINNINGS) else False


def is_completion(body: bytes) -> bool:
    """Return whether a body is JSON with the choices of an answer."""
    try:
        value = msgspec.json.decode(body.removeprefix(_BOM).decode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        return False
    choices = as_list(as_object(value).get("choices"))
    return bool(choices) and all(isinstance(choice, dict) for choice in choices)


def as_event(body: bytes) -> bytes:
    """Return JSON as an event of a stream; line ends are outside of its texts, and become spaces."""
    line = body.removeprefix(_BOM).strip().replace(b"\r", b" ").replace(b"\n", b" ")
    return b"data: " + line + b"\n\n"
