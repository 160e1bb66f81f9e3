"""Chunks and endings as bytes: how a log keeps them, and how they come back."""

from __future__ import annotations

from copy import copy
from typing import Any

import msgspec
from msgspec import Struct

from rxrouter._errors import ChunkDecodeError, RouterError
from rxrouter._wire.chunk import ChatChunk, Usage, decode_odd
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted

_RESTARTED = b"R"  # what no chunk's JSON begins with
_CHAIN = 8  # causes and attempts are told so deep
_FACT_BYTES = 1 << 16  # of one fact; the data of an event that was no chunk may have megabytes

# Facts whose type is not to be told from their JSON.
_TYPES: dict[str, Any] = {
    "usage": Usage | None,
    "calls": tuple[ToolCall, ...],
    "finish_reasons": tuple[str, ...],
    "data": bytes,
}


def encode(chunk: ChatChunk) -> bytes:
    """The bytes as received; of what was made by hand, its JSON."""
    if not chunk.choices and isinstance(chunk, Restarted):
        cause = None if chunk.cause is None else _told(chunk.cause)
        return _RESTARTED + msgspec.json.encode(_Restart(chunk.attempt, cause))
    return chunk.raw


def decode(entry: bytes) -> ChatChunk:
    """The chunk that was encoded.

    Raises:
        ChunkDecodeError: it is none.
    """
    return _restarted(entry) if entry.startswith(_RESTARTED) else decode_odd(entry)


def encode_ending(error: Exception | None) -> bytes:
    """How a generation ended: by this error, or well."""
    return msgspec.json.encode(None if error is None else _told(error))


def decode_ending(entry: bytes) -> RouterError | None:
    """The same error, made anew of its facts; one that is no `RouterError` comes back as that, with its text."""
    told = msgspec.json.decode(entry, type=_Told | None)
    return None if told is None else _rebuilt(told)


def another(error: RouterError) -> RouterError:
    """Return the same error as an object of its own: readers raise it, and add to it what only they know."""
    return copy(error)


class _Told(Struct, omit_defaults=True):
    """An error as facts."""

    text: str
    types: list[str] = []  # its class and those above, as far as they are ours: the first that is known there will do
    facts: dict[str, msgspec.Raw] = {}
    attempts: list[_Told] = []
    cause: _Told | None = None


class _Restart(Struct):
    attempt: int
    cause: _Told | None


def _restarted(entry: bytes) -> Restarted:
    try:
        restart = msgspec.json.decode(entry[len(_RESTARTED) :], type=_Restart)
    except msgspec.DecodeError as error:
        raise ChunkDecodeError(str(error), entry) from error
    return Restarted(attempt=restart.attempt, cause=None if restart.cause is None else _rebuilt(restart.cause))


def _told(error: BaseException, depth: int = _CHAIN) -> _Told:
    types = [kind.__name__ for kind in type(error).__mro__ if issubclass(kind, RouterError)]
    facts = dict(vars(error))
    attempts: tuple[Exception, ...] = facts.pop("attempts", ())
    facts.pop("partial", None)  # a reader folds it of the entries that it has
    return _Told(
        text=_text(error) if types else f"{type(error).__name__}: {_text(error)}",
        types=types,
        facts={name: msgspec.Raw(_fact(value)) for name, value in facts.items()} if types else {},
        attempts=[_told(attempt, min(depth - 1, 1)) for attempt in attempts] if depth else [],
        cause=_told(error.__cause__, depth - 1) if depth and error.__cause__ is not None else None,
    )


def _text(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - somebody else's class
        return "it can't say more"
    return text[: _FACT_BYTES // 4].encode(errors="replace").decode()


def _fact(value: Any) -> bytes:
    """Its JSON; null for what has none, or too much."""
    if isinstance(value, bytes):
        value = value[: _FACT_BYTES // 2]
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return b"null"
    return encoded if len(encoded) <= _FACT_BYTES else b"null"


def _rebuilt(told: _Told) -> RouterError:
    known = _known(RouterError)
    kind = next((known[name] for name in told.types if name in known), RouterError)
    error = kind.__new__(kind, told.text)  # not by its own arguments: the text is there, and the facts are
    error.__dict__.update({name: _value(name, raw) for name, raw in told.facts.items()})
    if told.attempts:
        error.attempts = tuple(_rebuilt(attempt) for attempt in told.attempts)
    error.__cause__ = None if told.cause is None else _rebuilt(told.cause)
    return error


def _known(kind: type[RouterError]) -> dict[str, type[RouterError]]:
    """The error classes of this process by their names, ours before those of others."""
    below = {name: known for child in kind.__subclasses__() for name, known in _known(child).items()}
    return below | {kind.__name__: kind}


def _value(name: str, raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=_TYPES.get(name, Any))
    except msgspec.ValidationError:  # another class's fact of the same name
        return msgspec.json.decode(raw)
