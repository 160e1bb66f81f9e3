"""Strike a client's own key out of the texts and facts of an error, where a server has sent it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rxrouter._errors import RouterError
from rxrouter._wire.json import as_list, as_object

_STRUCK = "[key]"
_NAMES = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)
# A piece of a key so long is struck out, too: servers cut what they quote.
_PIECE_CHARS = 8
# Facts that hold other errors and values, which have no part in what this server has said.
_KEPT = {"attempts", "partial", "usage", "events", "calls"}


def strike_out(error: RouterError, headers: Mapping[str, str]) -> None:
    """Replace the keys in these headers, and pieces of them, wherever the error quotes them."""
    secrets = [value.partition(" ")[2] or value for name, value in headers.items() if _NAMES.search(name)]
    for secret in secrets:
        error.args = tuple(_struck(arg, secret) for arg in error.args)
        facts = vars(error)
        for name in facts.keys() - _KEPT:
            facts[name] = _struck(facts[name], secret)


def _struck(value: Any, secret: str) -> Any:
    if isinstance(value, str):
        return _without(value, secret)
    if isinstance(value, bytes):
        # Latin-1 gives each byte its own character, and back.
        return _without(value.decode("latin-1"), secret).encode("latin-1")
    if isinstance(value, dict):
        return {_struck(name, secret): _struck(item, secret) for name, item in as_object(value).items()}
    if isinstance(value, list):
        return [_struck(item, secret) for item in as_list(value)]
    return value


def _without(text: str, secret: str) -> str:
    if len(secret) < _PIECE_CHARS:
        return text.replace(f"Bearer {secret}", f"Bearer {_STRUCK}")
    pieces = {secret[at : at + _PIECE_CHARS] for at in range(len(secret) - _PIECE_CHARS + 1)}
    if not any(piece in text for piece in pieces):
        return text
    out: list[str] = []
    at = 0
    while at < len(text):
        if text[at : at + _PIECE_CHARS] not in pieces:
            out.append(text[at])
            at += 1
            continue
        end = at + _PIECE_CHARS
        while text[end - _PIECE_CHARS + 1 : end + 1] in pieces:
            end += 1
        out.append(_STRUCK)
        at = end
    return "".join(out)
