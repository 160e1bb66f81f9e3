"""Error bodies and error chunks, in every shape that was seen (WIRE 7), as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from rxrouter._errors import StatusError, StreamError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.json import as_list, as_object

_MESSAGE_CHARS = 300  # of a body that is no JSON; error pages of proxies go on for kilobytes
_TITLE = re.compile("<title", re.IGNORECASE)
_MARKUP_CHARS = 4096  # looked at for them: the expression below is quadratic on what is not quite markup
_MARKUP = re.compile(r"<(style|script).*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def status_error(status: int, headers: Mapping[str, str], body: bytes, now: float) -> StatusError:
    """The error that an HTTP answer other than 200 is.

    Args:
        status: The HTTP status.
        headers: The answer's headers, case-insensitive.
        body: JSON, HTML or text; as much of it as was read.
        now: Unix time in seconds, to turn dates into pauses.
    """
    facts = _facts(_error_of(_json(body)))
    if not facts["message"]:
        facts["message"] = _plain_text(body)
    pause = facts.pop("retry_after")
    reset = _reset(facts["metadata"], headers)
    return StatusError(status, retry_after=_first(_retry_after(headers, now), pause, reset, now), **facts)


def stream_error(chunk: ChatChunk) -> StreamError | None:
    """The error in a chunk: at the top, on a choice, or told by the finish reason alone; None if there is none."""
    error = chunk.error
    native = None
    for choice in chunk.choices:
        if error is None:
            error = choice.error
        if choice.finish_reason == "error":
            native = native or choice.native_finish_reason or "finish_reason is error"
    if error is None and native is None:
        return None
    facts = _facts(native if error is None else error)
    facts["provider"] = facts["provider"] or chunk.provider
    return StreamError(usage=chunk.usage, **facts)


def body_error(body: bytes) -> StreamError | None:
    """The error that a 200 with a JSON body may be (padded with blank lines as keep-alive); None if it is none."""
    value = as_object(_json(body))
    error = value.get("error")
    for choice in as_list(value.get("choices")):
        if error is None:
            error = as_object(choice).get("error")
    return None if error is None else StreamError(**_facts(error))


def event_error(data: bytes) -> StreamError:
    """The error that an `event: error` is, whatever its data looks like."""
    error = _error_of(_json(data))
    return StreamError(**_facts(error if error is not None else _plain_text(data)))


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body.decode(errors="replace"))  # a message with a broken character is still one
    except (msgspec.DecodeError, RecursionError):
        return None


def _error_of(value: Any) -> Any:
    """The error object: under `error` (OpenRouter, OpenAI, Anthropic), in a list (Google), or the body itself."""
    value = (as_list(value) or [value])[0]
    error = as_object(value).get("error")
    if isinstance(error, str):  # xAI: {"code": …, "error": "what happened"}
        return {**as_object(value), "message": error}
    return value if error is None else error


def _facts(error: Any) -> dict[str, Any]:
    """The arguments common to StatusError and StreamError; `code` and `metadata`, or `error_type` and `http_status`."""
    if not isinstance(error, dict):
        error = {"message": error}
    error = as_object(error)
    metadata = as_object(error.get("metadata"))
    availability = as_object(error.get("availability"))
    retryable = availability.get("retryable")
    message = error.get("message") or error.get("detail") or ""
    return {
        "code": _code(error),
        "message": message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        "metadata": metadata or None,
        "error_type": _text(metadata.get("error_type") or error.get("error_type") or error.get("type")),
        "provider": _text(metadata.get("provider_name")),
        "retryable": retryable if isinstance(retryable, bool) else None,
        "retry_after": _seconds(availability.get("retry_after")),
    }


def _code(error: dict[str, Any]) -> int | str | None:
    for name in ("code", "http_status", "status_code"):
        code = error.get(name)
        if isinstance(code, bool):
            continue
        if isinstance(code, str) and code.isascii() and code.isdigit() and len(code) < 6:  # noqa: PLR2004 - a status
            return int(code)
        if isinstance(code, int | str) and code != "":
            return code
        if isinstance(code, float):
            return int(code)
    return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < float("inf") else None


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """`Retry-After`: seconds, or a date (RFC 9110 10.2.3)."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    if (seconds := _seconds(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):  # dates beyond time, zones beyond earth
        return None


def _reset(metadata: dict[str, Any] | None, headers: Mapping[str, str]) -> float | None:
    """`X-RateLimit-Reset` as Unix time in seconds: OpenRouter's is in milliseconds, and repeated in the metadata."""
    repeated = as_object(as_object(metadata).get("headers"))
    value = headers.get("X-RateLimit-Reset") or repeated.get("X-RateLimit-Reset")
    reset = _seconds(value)
    if reset is None:
        return None
    return reset / 1000 if reset > 1e11 else reset  # noqa: PLR2004 - seconds reach 1e11 in the year 5138


def _first(retry_after: float | None, pause: float | None, reset: float | None, now: float) -> float | None:
    if retry_after is not None:
        return retry_after
    if pause is not None:
        return pause
    return None if reset is None else max(0.0, reset - now)


def _plain_text(body: bytes) -> str:
    """The message of a page or text: the title, or what is left without markup, on one line."""
    text = body.decode(errors="replace")
    if title := _TITLE.search(text):
        text = text[title.end() : title.end() + _MARKUP_CHARS].partition(">")[2].partition("<")[0]
    elif "<" in text:
        text = _MARKUP.sub(" ", text[:_MARKUP_CHARS])
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"
