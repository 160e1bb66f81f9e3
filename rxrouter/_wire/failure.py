"""Read errors in every shape that servers send, in HTTP bodies, chunks, events and fields alike, as typed errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from rxrouter._errors import StatusError, StreamError, is_transient_status
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.pauses import pause_of_error, pause_of_headers, pause_until_reset, told_retryable

# The names under which servers put the parts of an error; the first that says something counts.
_CODES = ("code", "http_status", "status_code", "statusCode", "status", "error_code", "errorCode", "err_code")
_MESSAGES = (
    *("message", "detail", "msg", "details", "error_msg", "error_message", "errorMessage", "err_msg", "status_msg"),
    *("error_description", "description", "reason"),
)
_TYPES = ("error_type", "type", "status")
# Finish reasons by which a server says that it has failed; by all others the model, or a limit, has ended the answer.
_FAILED = re.compile(
    r"error|fail|abort|cancel|insufficient|unavailable|overload|time_?d?-?_?out|crash|interrupt|evict|preempt|disconnect"
    r"|malformed",
    re.IGNORECASE,
)
# Words of a code that can only be an error's; other codes with a message are a gateway's own affairs.
_WRONG = re.compile(
    r"error|invalid|exce|fail|denied|limit|unauth|forbid|not_?found|unavail|overload|time_?out|thrott|exhaust"
    r"|insufficient|quota|expired|bad|missing|abort|reject|unsupported|refus|arrear",
    re.IGNORECASE,
)
_NO_TYPES = {"error", "object", "none"}
# Codes of vendors that send them with HTTP 200, for a limit or for a fault of theirs:
# https://platform.minimax.io/docs/api-reference/errorcode and https://docs.z.ai/api-reference/api-code
_PASSING_CODES = {1000, 1001, 1002, 1013, 1024, 1033, 2045, 1302, 1303, 1305}
_STATUSES = range(100, 600)
# Members of an empty error are looked at so deep.
_EMPTY_DEPTH = 3
_STATUS_IN_TITLE = re.compile(r"\b[45]\d\d\b")
_MESSAGE_CHARS = 300  # of a body that is no JSON; error pages of proxies go on for kilobytes
_PAGE = re.compile(rb"\s*<(?:!doctype|html|head|title|body|center|h1|\?xml)\b", re.IGNORECASE)
_TITLE = re.compile("<title", re.IGNORECASE)
_MARKUP_CHARS = 4096  # looked at for them: the expression below is quadratic on what is not quite markup
_MARKUP = re.compile(r"<(style|script).*?</\1>|<[^>]*>", re.IGNORECASE | re.DOTALL)


def status_error(status: int, headers: Mapping[str, str], body: bytes, now: float) -> StatusError:
    """Return the error that an HTTP answer without success is.

    Args:
        status: The HTTP status.
        headers: The answer's headers, case-insensitive.
        body: JSON, HTML or text; as much of it as was read.
        now: Unix time in seconds, to turn dates into pauses.
    """
    value = _json(body)
    error = error_in(value)
    facts = _facts((as_list(value) or [value])[0] if error is None else error)
    if not facts["message"]:
        facts["message"] = _plain_text(body)
    told = told_retryable(headers)
    if told is not None:
        facts["retryable"] = told
    pauses = (
        pause_of_headers(headers, now),
        facts.pop("retry_after"),
        pause_until_reset(_reset(facts["metadata"], headers), now),
    )
    return StatusError(status, retry_after=next((pause for pause in pauses if pause is not None), None), **facts)


def stream_error(chunk: ChatChunk) -> StreamError | None:
    """Return the error in a chunk: at the top, on a choice, in place of choices, or in a finish reason; else None."""
    error = chunk.error if says_something(chunk.error) else None
    reason = None
    for choice in chunk.choices:
        if error is None and says_something(choice.error):
            error = choice.error
        if choice.finish_reason is not None and _FAILED.search(choice.finish_reason):
            reason = reason or choice.native_finish_reason or f"finish_reason is {choice.finish_reason}"
    if error is not None or not chunk.choices:
        # What stands beside the error, or in place of one, is not in the struct.
        error = error_in(_json(chunk.raw)) or error
    if error is not None:
        return _stream_error(error, chunk)
    # A generation that has failed under way may succeed when it is asked for again.
    return None if reason is None else _stream_error({"message": reason, "availability": {"retryable": True}}, chunk)


def body_error(body: bytes) -> StreamError | None:
    """Return the error that a 200 with a JSON body may be (padded with blank lines as keep-alive); else None."""
    error = error_in(_json(body))
    return None if error is None else _stream_error(error)


def unframed_error(body: bytes) -> StreamError | None:
    """Return the error that the body of an event stream without events is, as JSON or as a page; else None."""
    value = _json(body)
    if (error := error_in(value)) is None and _message(as_object(value)):
        error = as_object(value)
    if error is not None:
        return _stream_error(error)
    if _PAGE.match(body) is None:
        return None
    message = _plain_text(body)
    status = _STATUS_IN_TITLE.search(message)
    return _stream_error({"message": message, "code": None if status is None else status[0]})


def event_error(data: bytes) -> StreamError:
    """Return the error that the data of an event named error is, whatever it looks like."""
    value = _json(data)
    if (error := error_in(value)) is None:
        error = as_object((as_list(value) or [value])[0]) or value
    return _stream_error(_plain_text(data) if error is None else error)


def error_in(value: Any) -> dict[str, Any] | None:
    """Return the error that a JSON value is or has, with the facts beside it; None for a value without an error.

    It stands under `error` (OpenRouter, OpenAI, Anthropic, as text with xAI), in a list (Google), under `errors`
    (Cloudflare), `base_resp` (MiniMax), on a choice, or it is the object itself (vLLM, Zhipu, DashScope).
    """
    if isinstance(value, list):
        return next((error for item in map(as_object, as_list(value)) if (error := error_in(item)) is not None), None)
    holder = as_object(value)
    choices = [as_object(choice) for choice in as_list(holder.get("choices"))]
    base = as_object(holder.get("base_resp"))
    for error in (
        holder.get("error"),
        *(as_list(holder.get("errors"))[:1] if not choices else ()),
        *(choice.get("error") for choice in choices),
        base if _is_wrong(base.get("status_code")) else None,
    ):
        if says_something(error):
            return _with_facts_beside(error, holder)
    named = "error" in (holder.get("object"), holder.get("type")) or holder.get("success") is False
    if not choices and (named or (_message(holder) and any(_is_wrong(holder.get(name)) for name in _CODES))):
        return holder
    return None


def says_something(error: Any, depth: int = _EMPTY_DEPTH) -> bool:
    """Whether an error has any content: gateways put "", {}, [], false, or empty members on good chunks."""
    if isinstance(error, str):
        return bool(error.strip())
    if depth and isinstance(error, dict):
        return any(says_something(member, depth - 1) for member in as_object(error).values())
    if depth and isinstance(error, list):
        return any(says_something(item, depth - 1) for item in as_list(error))
    return bool(error)


def _is_wrong(code: Any) -> bool:
    """Whether a code that stands beside a message is that of an error."""
    if isinstance(code, str) and not _is_number(code):
        return _WRONG.search(code) is not None
    number = _as_code(code)
    return isinstance(number, int) and number != 0 and not 200 <= number < 300  # noqa: PLR2004 - HTTP's success


def _with_facts_beside(error: Any, holder: dict[str, Any]) -> dict[str, Any]:
    """The error as an object; what it lacks is taken from the object in which it stands."""
    if isinstance(error, dict):
        found = as_object(error)
    elif isinstance(error, bool):
        found = dict[str, Any]()
    else:
        found = {"message": error}
    if not any(name in found for name in _CODES):
        found = {name: holder[name] for name in _CODES if name in holder} | found
    if not _message(found) and (message := _message(holder)):
        found = found | {"message": message}
    return found


def _stream_error(error: Any, chunk: ChatChunk | None = None) -> StreamError:
    facts = _facts(error)
    if facts["retryable"] is None:
        facts["retryable"] = _passes(as_object(error), facts["code"])
    if chunk is None:
        return StreamError(**facts)
    facts["provider"] = facts["provider"] or chunk.provider
    return StreamError(usage=chunk.usage, **facts)


def _passes(error: dict[str, Any], code: int | str | None) -> bool | None:
    """Whether it is transient by the status that stands beside a code in words, or by a vendor's number."""
    if code in _PASSING_CODES:
        return True
    statuses = (_as_code(error.get(name)) for name in _CODES)
    status = next((status for status in statuses if isinstance(status, int) and status in _STATUSES), None)
    return is_transient_status(status) if status is not None and isinstance(code, str) else None


def _json(body: bytes) -> Any:
    text = body.decode(errors="replace")  # a message with a broken character is still one
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _message(error: dict[str, Any]) -> Any:
    return next((error[name] for name in _MESSAGES if says_something(error.get(name))), "")


def _facts(error: Any) -> dict[str, Any]:
    """The arguments common to StatusError and StreamError; `code` and `metadata`, or `error_type` and `http_status`."""
    if not isinstance(error, dict):
        error = {"message": error}
    error = as_object(error)
    metadata = as_object(error.get("metadata"))
    availability = as_object(error.get("availability"))
    retryable = availability.get("retryable")
    message = _message(error)
    types = (metadata.get("error_type"), *(error.get(name) for name in _TYPES))
    return {
        "code": _code(error),
        "message": message if isinstance(message, str) else msgspec.json.encode(message).decode(),
        "metadata": metadata or None,
        "error_type": next((name for value in types if (name := _text(value)) and name not in _NO_TYPES), None),
        "provider": _text(metadata.get("provider_name")),
        "retryable": retryable if isinstance(retryable, bool) else None,
        "retry_after": pause_of_error(error),
    }


def _code(error: dict[str, Any]) -> int | str | None:
    """The first number under one of the names; a word only under a name that is a code's."""
    for name in _CODES:
        code = _as_code(error.get(name))
        if isinstance(code, int) or (code is not None and name != "status"):
            return code
    return None


def _as_code(code: Any) -> int | str | None:
    if isinstance(code, bool) or not isinstance(code, int | float | str):
        return None
    if isinstance(code, str):
        return int(code) if _is_number(code) else code or None
    return int(code) if isinstance(code, float) else code


def _is_number(code: str) -> bool:
    return code.isascii() and code.isdigit() and len(code) < 6  # noqa: PLR2004 - no status or vendor's code is longer


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _reset(metadata: dict[str, Any] | None, headers: Mapping[str, str]) -> Any:
    """`X-RateLimit-Reset`, which OpenRouter repeats in the metadata."""
    repeated = as_object(as_object(metadata).get("headers"))
    return headers.get("X-RateLimit-Reset") or repeated.get("X-RateLimit-Reset")


def _plain_text(body: bytes) -> str:
    """The message of a page or text: the title, or what is left without markup, on one line."""
    text = body.decode(errors="replace")
    if title := _TITLE.search(text):
        text = text[title.end() : title.end() + _MARKUP_CHARS].partition(">")[2].partition("<")[0]
    elif "<" in text:
        text = _MARKUP.sub(" ", text[:_MARKUP_CHARS])
    text = " ".join(text.split())
    return text if len(text) <= _MESSAGE_CHARS else text[: _MESSAGE_CHARS - 1] + "…"
