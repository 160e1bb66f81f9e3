"""Errors in every shape that was seen, and in any other, as typed errors with their facts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from multidict import CIMultiDict

from rxrouter import (
    ChatChunk,
    Choice,
    ChunkDecodeError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTypeError,
    EventTooLargeError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    StreamError,
    TransportError,
    TruncatedStreamError,
    Usage,
    is_transient,
)
from rxrouter._wire.chunk import Delta, decode_odd
from rxrouter._wire.failure import (
    body_error,
    event_error,
    says_something,
    status_error,
    stream_error,
    unframed_error,
)
from tests.support import SHARED, needs_shared

NOW = 1_759_845_400.0  # 20 s before the reset that errors/openrouter_429_free_models_per_min names


def refused(
    status: int = 400, body: bytes | dict[str, Any] = b"", headers: Mapping[str, str] | None = None
) -> StatusError:
    page = body if isinstance(body, bytes) else json.dumps(body).encode()
    return status_error(status, CIMultiDict(headers or {}), page, NOW)


def failed(chunk: dict[str, Any]) -> StreamError:
    error = stream_error(decode_odd(json.dumps(chunk).encode()))
    assert error is not None
    return error


# status, code, start of the message, provider, retry_after, transient
RECORDED: dict[str, tuple[int, int | str, str, str | None, float | None, bool]] = {
    "anthropic_401": (401, 401, "invalid x-api-key", None, None, False),
    "azure_429_retry_after": (429, "RateLimitReached", "Your requests to grok-4-1", None, 1.0, True),
    "bedrock_403": (403, 403, "The security token included in the request is invalid.", None, None, False),
    "cohere_401": (401, 401, "Incorrect API key provided: ***********.", None, None, False),
    "deepseek_401": (401, "invalid_request_error", "Authentication Fails, Your api key", None, None, False),
    "google_400": (400, 400, "API key not valid. Please pass a valid API key.", None, None, False),
    "groq_400_tool_use_failed": (400, "tool_use_failed", "Tool call validation failed: ", None, None, False),
    "mistral_401": (401, 401, "Invalid API Key", None, None, False),
    "openai_401": (401, "invalid_api_key", "Incorrect API key provided: invalid-key.", None, None, False),
    "openai_404_model": (404, "model_not_found", "The model `nonexistent` does not exist", None, None, False),
    "openrouter_400_context_length_2026_03": (400, 400, "This endpoint's maximum context", None, None, False),
    "openrouter_400_context_length_previous_errors_2026": (
        *(400, 400, "This endpoint's maximum context"),
        *(None, None, False),
    ),
    "openrouter_400_developer_instruction_stream": (
        *(400, 400, "Provider returned error"),
        *("Google AI Studio", None, False),
    ),
    "openrouter_400_invalid_model": (400, 400, "openai/gpt-nonexistent-routed-model is not", None, None, False),
    "openrouter_400_min_output_tokens": (400, 400, "Provider returned error", "OpenAI", None, False),
    "openrouter_400_missing_file_id": (400, 400, "Provider returned error", "Azure", None, False),
    "openrouter_400_reasoning_none_is_byok": (400, 400, "Provider returned error", "OpenAI", None, False),
    "openrouter_401_cookie_2026": (401, 401, "No cookie auth credentials found", None, None, False),
    "openrouter_401_missing_auth_2026": (401, 401, "Missing Authentication header", None, None, False),
    "openrouter_401_no_credentials_2025": (401, 401, "No auth credentials found", None, None, False),
    "openrouter_403_provider_returned_error_country": (403, 403, "Provider returned error", "OpenAI", None, False),
    "openrouter_404_alpha_ended": (404, 404, "The alpha period for this model has ended.", None, None, False),
    "openrouter_404_data_policy": (404, 404, "No endpoints found matching your data policy", None, None, False),
    "openrouter_404_no_endpoints": (404, 404, "No endpoints found for google/gemini-2.5", None, None, False),
    "openrouter_404_no_tool_support": (404, 404, "No endpoints found that support tool use.", None, None, False),
    "openrouter_404_tool_choice": (404, 404, "No endpoints found that support the provided", None, None, False),
    "openrouter_429_free_models_per_min": (429, 429, "Rate limit exceeded: free-models", None, 20.0, True),
    "openrouter_429_upstream_free_2026": (429, 429, "Provider returned error", "Google", None, True),
    "openrouter_429_upstream_gmicloud_2025": (429, 429, "Provider returned error", "GMICloud", None, True),
    "xai_400": (400, "invalid-argument", "Incorrect API key provided. You can obtain", None, None, False),
}


def recorded(stem: str) -> tuple[dict[str, Any], bytes]:
    """The facts of the answer, and its body."""
    folder = SHARED / "recordings" / "errors"
    meta: dict[str, Any] = json.loads((folder / f"{stem}.meta.json").read_bytes())
    return meta, (folder / f"{stem}.json").read_bytes()


@needs_shared
@pytest.mark.parametrize("stem", RECORDED)
def test_a_recorded_error_has_its_facts(stem: str) -> None:
    status, code, message, provider, retry_after, transient = RECORDED[stem]
    meta, body = recorded(stem)

    error = status_error(meta["status"], CIMultiDict(meta["headers"]), body, NOW)

    assert (error.status, error.code, error.provider) == (status, code, provider)
    assert error.message.startswith(message)
    assert message in str(error)
    assert error.retry_after == retry_after
    assert is_transient(error) is transient


@needs_shared
@pytest.mark.parametrize("stem", RECORDED)
def test_the_metadata_of_a_recorded_error_is_kept_whole(stem: str) -> None:
    meta, body = recorded(stem)
    value: Any = json.loads(body)
    metadata = value["error"].get("metadata") if isinstance(value.get("error"), dict) else None

    error = status_error(meta["status"], CIMultiDict(meta["headers"]), body, NOW)

    assert error.metadata == metadata


@needs_shared
def test_every_recorded_error_is_expected_to_be_something() -> None:
    stems = {path.name.removesuffix(".meta.json") for path in Path(SHARED / "recordings/errors").glob("*.meta.json")}

    assert stems - set(RECORDED) == {"openrouter_200_nonstreaming_whitespace_keepalive"}


@needs_shared
def test_a_recorded_answer_padded_with_blank_lines_is_no_error() -> None:
    _, body = recorded("openrouter_200_nonstreaming_whitespace_keepalive")

    assert body.startswith(b"\n")
    assert body_error(body) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b'{"error":{"code":400,"message":"no"}}', "no", id="OpenRouter"),
        pytest.param(b'\n  \n {"error":{"message":"no"}}\n', "no", id="padded"),
        pytest.param(b'{"type":"error","error":{"type":"overloaded_error","message":"no"}}', "no", id="Anthropic"),
        pytest.param(b'[{"error":{"code":400,"message":"no","status":"INVALID_ARGUMENT"}}]', "no", id="Google's list"),
        pytest.param(b'{"code":"invalid-argument","error":"no"}', "no", id="xAI"),
        pytest.param(b'{"message":"no"}', "no", id="message alone"),
        pytest.param(b'{"detail":"no"}', "no", id="detail"),
        pytest.param(
            b'{"detail":[{"loc":["body","model"],"msg":"field required"}]}',
            '[{"loc":["body","model"],"msg":"field required"}]',
            id="FastAPI",
        ),
        pytest.param(b'{"error":{"message":{"text":"no"}}}', '{"text":"no"}', id="message no string"),
        pytest.param(b'"no"', "no", id="a JSON string"),
        pytest.param(b"error code: 1015", "error code: 1015", id="Cloudflare's text"),
        pytest.param(b" upstream \r\n\t connect  error ", "upstream connect error", id="text on several lines"),
        pytest.param(
            b"<!DOCTYPE html><html><head><title>openrouter.ai |\n 524: A timeout</title><style>a{}</style></html>",
            "openrouter.ai | 524: A timeout",
            id="HTML title",
        ),
        pytest.param("İ".encode() * 50 + b"<title>Bad gateway</title>", "Bad gateway", id="title behind capitals"),
        pytest.param(
            b"<html><STYLE>a{b:c}</STYLE><script>x()</script><body><h1>Bad</h1>gateway</body></html>",
            "Bad gateway",
            id="HTML without a title",
        ),
        pytest.param(b"caf\xc3\xa9 \xff", "café \ufffd", id="broken UTF-8"),
        pytest.param(b'{"error":{"message":"no', '{"error":{"message":"no', id="cut JSON"),
        pytest.param(b"", "", id="empty"),
    ],
)
def test_the_message_of_a_refusal_is_found_in_any_body(body: bytes, message: str) -> None:
    error = refused(502, body)

    assert error.message == message
    assert (error.status, str(error)) == (502, f"HTTP 502: {message}" if message else "HTTP 502")


def test_an_empty_message_falls_back_to_the_body() -> None:
    assert refused(400, b'{"error":{}}').message == '{"error":{}}'
    assert refused(400, b"{}").message == "{}"


def test_a_long_text_is_cut() -> None:
    error = refused(502, b"<p>" + b"word " * 10_000)

    assert len(error.message) == 300
    assert error.message.endswith("…")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"code": 429}, 429),
        ({"code": "429"}, 429),
        ({"code": "server_error"}, "server_error"),
        ({"code": 429.0}, 429),
        ({"http_status": 503}, 503),
        ({"code": None, "http_status": "503"}, 503),
        ({"code": "", "status_code": 503}, 503),
        ({"code": {"value": 1}}, 418),
        ({"code": True}, 418),
        ({}, 418),
    ],
)
def test_the_code_is_a_number_or_a_word_and_else_the_status(error: dict[str, Any], code: int | str) -> None:
    found = refused(418, {"error": error | {"message": "no"}}).code

    assert found == code
    assert type(found) is type(code)


@pytest.mark.parametrize(
    ("error", "error_type"),
    [
        ({"metadata": {"error_type": "rate_limit_exceeded"}, "type": "x"}, "rate_limit_exceeded"),
        ({"error_type": "provider_overloaded", "http_status": 503}, "provider_overloaded"),
        ({"type": "overloaded_error"}, "overloaded_error"),
        ({"type": None, "metadata": None}, None),
        ({"error_type": 5}, None),
    ],
)
def test_the_error_type_is_found_under_each_of_its_names(error: dict[str, Any], error_type: str | None) -> None:
    assert refused(400, {"error": error}).error_type == error_type


def test_metadata_and_provider_are_kept() -> None:
    metadata = {"raw": '{"error":{}}', "provider_name": "OpenAI", "previous_errors": [{"code": 400}], "new": None}

    error = refused(400, {"error": {"code": 400, "message": "no", "metadata": metadata}, "user_id": "user_1"})

    assert error.metadata == metadata
    assert error.provider == "OpenAI"


HTTP_DATE = format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=90), usegmt=True)
PAST_DATE = format_datetime(datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=90), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({"Retry-After": "2"}, 2.0, id="seconds"),
        pytest.param({"retry-after": "0"}, 0.0, id="at once"),
        pytest.param({"Retry-After": "1.5"}, 1.5, id="half seconds"),
        pytest.param({"Retry-After": HTTP_DATE}, 90.0, id="date"),
        pytest.param({"Retry-After": PAST_DATE}, 0.0, id="date in the past"),
        pytest.param({"Retry-After": "soon"}, None, id="neither"),
        pytest.param({"Retry-After": "-5"}, None, id="negative"),
        pytest.param({"Retry-After": "nan"}, None, id="nan"),
        pytest.param({"Retry-After": "inf"}, None, id="for ever"),
        pytest.param({"Retry-After": "Fri, 01 Jan 99999999999999999999 00:00:00 GMT"}, None, id="date beyond time"),
        pytest.param({"Retry-After": "Fri, 01 Jan 2027 00:00:00 +99999999999999"}, None, id="zone beyond earth"),
        pytest.param({"X-RateLimit-Reset": "1759845420000"}, 20.0, id="reset in milliseconds"),
        pytest.param({"X-RateLimit-Reset": "1759845420"}, 20.0, id="reset in seconds"),
        pytest.param({"X-RateLimit-Reset": "1759845300000"}, 0.0, id="reset in the past"),
        pytest.param({"X-RateLimit-Reset": "never"}, None, id="no reset"),
        pytest.param({"Retry-After": "3", "X-RateLimit-Reset": "1759845420000"}, 3.0, id="both"),
        pytest.param({"Retry-After": "soon", "X-RateLimit-Reset": "1759845420000"}, 20.0, id="one of no use"),
        pytest.param({}, None, id="no header"),
    ],
)
def test_a_pause_named_in_the_headers_is_in_seconds(headers: dict[str, str], seconds: float | None) -> None:
    assert refused(429, b"", headers).retry_after == seconds


def test_a_reset_in_the_metadata_alone_is_found() -> None:
    body = {"error": {"code": 429, "message": "no", "metadata": {"headers": {"X-RateLimit-Reset": "1759845420000"}}}}

    assert refused(429, body).retry_after == 20.0


def test_a_pause_in_the_availability_comes_after_the_header_and_before_the_reset() -> None:
    body = {"error": {"code": 429, "availability": {"retry_after": 7}}}
    reset = {"X-RateLimit-Reset": "1759845420000"}

    assert refused(429, body, reset).retry_after == 7.0
    assert refused(429, body, reset | {"Retry-After": "3"}).retry_after == 3.0


@given(st.text())
@example("1" * 5000)
@example("Mon, 01 Jan 9999 00:00:00 -0000")
@example("Mon, 32 Jan 2027 25:00:00 GMT")
@example(", ,")
def test_any_text_of_a_header_is_a_pause_or_none(value: str) -> None:
    for name in ("Retry-After", "X-RateLimit-Reset"):
        pause = refused(429, b"", {name: value}).retry_after

        assert pause is None or 0 <= pause < float("inf")


NONE: list[Any] = []
BROKEN: dict[str, Any] = {
    "code": 502,
    "message": "no",
    "metadata": {"error_type": "provider_unavailable", "provider_name": "Nvidia"},
}
CHUNK: dict[str, Any] = {
    "id": "gen-1",
    "object": "chat.completion.chunk",
    "created": 5,
    "model": "",
    "provider": "Nvidia",
}


@pytest.mark.parametrize(
    "chunk",
    [
        pytest.param(
            CHUNK | {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": "error"}], "error": BROKEN},
            id="as documented",
        ),
        pytest.param(CHUNK | {"choices": NONE, "error": BROKEN}, id="choices empty"),
        pytest.param({"error": BROKEN, "user_id": "user_1"}, id="bare"),
        pytest.param(
            CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": BROKEN}]},
            id="on the choice",
        ),
        pytest.param(CHUNK | {"choices": [{"index": 0}, {"index": 1, "error": BROKEN}]}, id="on the second choice"),
        pytest.param(CHUNK | {"choices": NONE, "error": BROKEN | {"code": "502"}}, id="code in digits"),
    ],
)
def test_an_error_in_the_stream_has_its_facts(chunk: dict[str, Any]) -> None:
    error = failed(chunk)

    assert (error.code, error.message, error.error_type, error.provider) == (
        502,
        "no",
        "provider_unavailable",
        "Nvidia",
    )
    assert error.metadata == BROKEN["metadata"]
    assert is_transient(error)
    assert str(error) == "the stream failed (Nvidia 502): no"


def test_an_error_with_a_word_for_a_code_keeps_it() -> None:
    error = failed({"choices": [], "error": {"code": "server_error", "message": "no"}})

    assert error.code == "server_error"
    assert is_transient(error)


def test_an_error_of_another_finish_has_the_usage_that_came_with_it() -> None:
    error = failed(
        {
            "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
            "error": {"code": 400, "message": "Token limit reached"},
            "usage": {"prompt_tokens": 1, "cost": 0.5},
        }
    )

    assert error.usage == Usage(prompt_tokens=1, cost=0.5)
    assert not is_transient(error)


def test_the_provider_of_the_metadata_comes_before_that_of_the_chunk() -> None:
    chunk: dict[str, Any] = {
        "provider": "OpenRouter",
        "choices": [],
        "error": {"metadata": {"provider_name": "Venice"}},
    }

    assert failed(chunk).provider == "Venice"
    assert failed({"provider": "Venice", "choices": [], "error": {"message": "no"}}).provider == "Venice"


@pytest.mark.parametrize(
    ("native", "message"),
    [("MALFORMED_FUNCTION_CALL", "MALFORMED_FUNCTION_CALL"), (None, "finish_reason is error")],
)
def test_a_finish_of_error_without_an_object_is_an_error(native: str | None, message: str) -> None:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": native}

    error = failed({"provider": "Google", "choices": [choice]})

    assert (error.code, error.message, error.provider) == (None, message, "Google")


@pytest.mark.parametrize("value", ["no", ["no"], 5, True, {"message": "no"}, [{"message": "no"}]])
def test_any_error_that_says_something_is_an_error(value: Any) -> None:
    assert failed({"choices": [], "error": value}).code is None


EMPTY: list[Any] = [
    *("", " ", {}, [], False, None, 0, [{}], {"message": "", "type": "", "param": None, "code": None}, {"code": 0}),
]


@pytest.mark.parametrize("value", EMPTY)
def test_an_error_is_no_error_when_it_is_empty(value: Any) -> None:
    good = {"id": "c", "choices": [{"delta": {"content": "Hi"}, "error": value}], "error": value}

    assert stream_error(decode_odd(json.dumps(good).encode())) is None
    assert body_error(json.dumps({"error": value}).encode()) is None


@pytest.mark.parametrize(
    "chunk",
    [
        ChatChunk(),
        ChatChunk(choices=[Choice(0, Delta(content="Hi"), "stop", "error")]),
        ChatChunk(choices=[Choice(0, Delta(), "content_filter")]),
    ],
)
def test_a_chunk_without_an_error_is_none(chunk: ChatChunk) -> None:
    assert stream_error(chunk) is None


def test_availability_says_whether_and_when_to_try_again() -> None:
    gone = failed(
        {"error": {"http_status": 503, "message": "no", "availability": {"retryable": False, "retry_after": 1}}}
    )
    back = failed({"error": {"code": 404, "message": "no", "availability": {"retryable": True, "retry_after": "30"}}})

    assert (gone.code, gone.retry_after, is_transient(gone)) == (503, 1.0, False)
    assert (back.code, back.retry_after, is_transient(back)) == (404, 30.0, True)


@pytest.mark.parametrize(("retryable", "status"), [(True, 404), (False, 503)])
def test_availability_overrides_the_status(retryable: bool, status: int) -> None:  # noqa: FBT001 - a table
    error = refused(status, {"error": {"message": "no", "availability": {"retryable": retryable}}})

    assert is_transient(error) is retryable


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        pytest.param(b'{"error":{"code":502,"message":"no"},"user_id":"u"}', 502, "no", id="at the top"),
        pytest.param(b'\n    \n\n  {"error":{"code":"502","message":"no"}}', 502, "no", id="padded"),
        pytest.param(
            b'{"choices":[{"finish_reason":"error","error":{"code":502,"message":"no"}}]}', 502, "no", id="on a choice"
        ),
        pytest.param(b'{"error":"no"}', None, "no", id="a string"),
    ],
)
def test_a_200_with_an_error_for_a_body_is_one(body: bytes, code: int | None, message: str) -> None:
    error = body_error(body)

    assert error is not None
    assert (error.code, error.message) == (code, message)


@pytest.mark.parametrize(
    "body", [b"", b"  \n", b"<html>", b'{"choices":[{"message":{}}]}', b'{"error":null}', b"[]", b"null", b'"error"']
)
def test_a_200_with_another_body_is_no_error(body: bytes) -> None:
    assert body_error(body) is None


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (b'{"error":{"code":"tool_use_failed","message":"no"}}', "tool_use_failed", "no"),
        (b'{"code":502,"message":"no"}', 502, "no"),
        (b'"no"', None, "no"),
        (b"no", None, "no"),
        (b"", None, ""),
    ],
)
def test_an_error_event_is_an_error_whatever_its_data(data: bytes, code: int | str | None, message: str) -> None:
    error = event_error(data)

    assert (error.code, error.message) == (code, message)


# The JSON of an error, its code, its message, its type, and whether it is transient, wherever it stands.
SHAPES: list[Any] = [
    (
        {"object": "error", "message": "long", "type": "BadRequestError", "code": 400},
        400,
        "long",
        "BadRequestError",
        False,
    ),
    (
        {"object": "error", "message": "no", "type": "InternalServerError", "code": 500},
        500,
        "no",
        "InternalServerError",
        True,
    ),
    ({"type": "error", "message": "no"}, None, "no", None, False),
    ({"id": "1", "code": 1302, "msg": "slow"}, 1302, "slow", None, True),
    ({"id": "1", "code": "1301", "msg": "unsafe"}, 1301, "unsafe", None, False),
    ({"choices": None, "base_resp": {"status_code": 1008, "status_msg": "balance"}}, 1008, "balance", None, False),
    ({"choices": None, "base_resp": {"status_code": 1002, "status_msg": "rate"}}, 1002, "rate", None, True),
    ([{"error": {"code": 429, "message": "q", "status": "RESOURCE_EXHAUSTED"}}], 429, "q", "RESOURCE_EXHAUSTED", True),
    ({"error": {"message": "q", "status": "UNAVAILABLE"}}, None, "q", "UNAVAILABLE", True),
    ({"error": {"message": "q", "status": 429}}, 429, "q", None, True),
    ({"code": "Some resource has been exhausted", "error": "no"}, "Some resource has been exhausted", "no", None, True),
    ({"code": "invalid-argument", "error": "no"}, "invalid-argument", "no", None, False),
    ({"code": 400, "details": "logprobs"}, 400, "logprobs", None, False),
    ({"statusCode": 429, "message": "slow"}, 429, "slow", None, True),
    ({"status_code": 503, "message": "no"}, 503, "no", None, True),
    ({"status": 401, "message": "no"}, 401, "no", None, False),
    ({"error_code": 110, "error_msg": "token"}, 110, "token", None, False),
    ({"code": "InvalidParameter", "message": "no", "request_id": "r"}, "InvalidParameter", "no", None, False),
    ({"code": "Throttling.RateQuota", "message": "no"}, "Throttling.RateQuota", "no", None, True),
    ({"success": False, "errors": [{"code": 10000, "message": "auth"}], "result": None}, 10000, "auth", None, False),
    ({"error": True, "message": "no", "code": 502}, 502, "no", None, True),
    ({"error": {"message": "no"}, "code": 503}, 503, "no", None, True),
    ({"error": {"message": "no", "code": "InternalServerError"}}, "InternalServerError", "no", None, True),
    ({"error": {"message": "no", "code": "busy", "status": 503}}, "busy", "no", None, True),
    ({"error": {"message": "no", "type": "rate_limit_error"}}, None, "no", "rate_limit_error", True),
    ({"error": {"message": "no", "type": "api_error"}}, None, "no", "api_error", True),
    ({"error": {"message": "no", "type": "engine_overloaded_error"}}, None, "no", "engine_overloaded_error", True),
    ({"error": {"message": "no", "type": "invalid_request_error"}}, None, "no", "invalid_request_error", False),
    ({"error": {"message": "no", "type": "api_error", "code": 400}}, 400, "no", "api_error", False),
]


@pytest.mark.parametrize(("value", "code", "message", "error_type", "transient"), SHAPES)
def test_an_error_has_the_same_facts_wherever_it_stands(
    value: Any,
    code: int | str | None,
    message: str,
    error_type: str | None,
    transient: bool,  # noqa: FBT001 - a table
) -> None:
    data = json.dumps(value).encode()

    for error in (body_error(data), event_error(data), unframed_error(data)):
        assert error is not None
        assert (error.code, error.message, error.error_type) == (code, message, error_type)
        assert is_transient(error) is transient
    over_http = refused(code if isinstance(code, int) and 400 <= code < 600 else 418, data)
    assert (over_http.message, over_http.error_type) == (message, error_type)
    assert over_http.code == (418 if code is None else code)
    if isinstance(code, int) and 400 <= code < 600:
        assert is_transient(over_http) is transient
    if isinstance(value, dict):
        found = stream_error(decode_odd(data))
        assert found is not None
        assert (found.code, found.message, is_transient(found)) == (code, message, transient)


@pytest.mark.parametrize(
    "value",
    [
        {"warning": "provider_did_not_report_usage_on_stream"},
        {"type": "ping"},
        {"id": "1", "choices": [], "base_resp": {"status_code": 0, "status_msg": ""}},
        {"code": 0, "msg": "ok"},
        {"code": 200, "message": "success"},
        {"code": "queued", "message": "You are third"},
        {"message": "alone"},
        {"status": "in_progress", "message": "thinking"},
        {"success": True},
        {"errors": []},
        {"choices": [{"delta": {"content": "Hi"}}], "code": 500, "message": "beside an answer"},
    ],
)
def test_an_object_is_no_error_without_a_code_or_a_name_of_one(value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()

    assert body_error(data) is None
    assert stream_error(decode_odd(data)) is None


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"detail": "Not found"}', None, "Not found"),
        (b'\n  {"message":\n "no"}', None, "no"),
        (b"<html><head><title>502 Bad Gateway</title></head></html>", 502, "502 Bad Gateway"),
        (b"  <!DOCTYPE html><title>Log in</title>", None, "Log in"),
    ],
)
def test_the_body_of_a_stream_without_events_is_an_error(body: bytes, code: int | None, message: str) -> None:
    error = unframed_error(body)

    assert error is not None
    assert (error.code, error.message) == (code, message)
    assert is_transient(error) is (code == 502)


@pytest.mark.parametrize("body", [b"", b"\n", b"unheard: of\n", b"{}", b"null", b'{"a": 1}', b'{"error": {"mess'])
def test_a_body_that_names_no_error_is_no_error(body: bytes) -> None:
    assert unframed_error(body) is None


FAILURES = [
    *("error", "network_error", "insufficient_system_resource", "abort", "ABORTED", "failed", "server_error"),
    *("cancelled", "timeout", "timed_out", "engine_overloaded", "interrupted", "MALFORMED_FUNCTION_CALL"),
]


@pytest.mark.parametrize("reason", FAILURES)
def test_a_finish_reason_that_speaks_of_failure_is_a_transient_error(reason: str) -> None:
    error = failed({"choices": [{"delta": {}, "finish_reason": reason}], "usage": {"prompt_tokens": 3}})

    assert is_transient(error)
    assert reason in error.message
    assert error.usage == Usage(prompt_tokens=3)


ENDS = [
    *("stop", "length", "max_tokens", "content_filter", "safety", "SAFETY", "RECITATION", "tool_calls", "end_turn"),
    *("refusal", "pause_turn", "model_length", "eos", "sensitive", "a word of next year"),
]


@pytest.mark.parametrize("reason", ENDS)
def test_a_finish_reason_of_an_end_is_no_error(reason: str) -> None:
    assert stream_error(ChatChunk(choices=[Choice(0, Delta(), reason)])) is None


TRANSIENT = [408, 429, 500, 502, 503, 504, 520, 524, 529]
FINAL = [400, 401, 402, 403, 404, 409, 410, 412, 413, 422, 499]


@pytest.mark.parametrize("status", TRANSIENT)
def test_a_status_that_passes_is_transient(status: int) -> None:
    assert is_transient(refused(status, b"no"))
    assert is_transient(failed({"error": {"code": status}}))


@pytest.mark.parametrize("status", FINAL)
def test_a_status_that_stays_is_not_transient(status: int) -> None:
    assert not is_transient(refused(status, b"no"))
    assert not is_transient(failed({"error": {"code": status}}))


@pytest.mark.parametrize(
    ("error_type", "transient"),
    [
        ("rate_limit_exceeded", True),
        ("server", True),
        ("unmapped", True),
        ("provider_unavailable", True),
        ("provider_overloaded", True),
        ("timeout", True),
        ("overloaded_error", True),
        ("invalid_request", False),
        ("payment_required", False),
        ("content_policy_violation", False),
        ("a type of next year", False),
    ],
)
def test_an_error_type_alone_tells_whether_it_passes(error_type: str, transient: bool) -> None:  # noqa: FBT001 - a table
    assert is_transient(failed({"error": {"message": "no", "metadata": {"error_type": error_type}}})) is transient


@pytest.mark.parametrize(
    "error",
    [
        TransportError(phase="read"),
        ConnectTimeoutError(10),
        SilenceTimeoutError(60),
        TruncatedStreamError(),
    ],
)
def test_what_the_network_did_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        ChunkDecodeError("$", b""),
        ContentTypeError("text/html"),
        EventTooLargeError(1),
        ClientClosedError(),
        SlowReaderError(1),
        StreamError(),
        ValueError("no"),
        ConnectionResetError(),
        TimeoutError(),
        KeyboardInterrupt(),
    ],
)
def test_what_would_happen_again_is_not_transient_and_neither_is_what_is_not_ours(error: BaseException) -> None:
    assert not is_transient(error)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**400), 429, "429"])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *(
                        "error",
                        "choices",
                        "message",
                        "detail",
                        "code",
                        "http_status",
                        "status_code",
                        "type",
                        "error_type",
                    ),
                    *("metadata", "availability", "retryable", "retry_after", "headers", "X-RateLimit-Reset"),
                    *("provider_name", "finish_reason", "native_finish_reason"),
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def assert_typed(error: StatusError | StreamError) -> None:
    assert type(error.message) is str
    assert error.code is None or type(error.code) in {int, str}
    assert error.metadata is None or type(error.metadata) is dict
    assert error.error_type is None or type(error.error_type) is str
    assert error.provider is None or type(error.provider) is str
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    assert type(is_transient(error)) is bool
    assert error.message in str(error)


@given(json_values, st.sampled_from([*TRANSIENT, *FINAL]))
@example({"code": False}, 400)
def test_any_json_makes_a_typed_error(value: Any, status: int) -> None:
    for body in (json.dumps(value).encode(), json.dumps({"error": value}).encode()):
        assert_typed(refused(status, body))
        assert_typed(event_error(body))
        if (error := body_error(body)) is not None:
            assert_typed(error)


@given(json_values)
@example({"availability": {"retry_after": 10**400}})
@example({"code": True})
def test_any_error_in_a_chunk_makes_a_typed_error(value: Any) -> None:
    for chunk in (ChatChunk(error=value), ChatChunk(choices=[Choice(error=value)])):
        error = stream_error(chunk)
        assert (error is None) is not says_something(value)
        if error is not None:
            assert_typed(error)


@given(st.binary() | st.text().map(str.encode))
@example(b"<title>")
@example(b"</title><title>")
@example(b"<<>>")
@example(b'{"error":{"message":"\\ud800"}}')
@example(b'{"error":{"code":1e999}}')
@example(b'{"error":{"code":' + b"9" * 5000 + b"}}")
def test_any_bytes_make_a_typed_error(body: bytes) -> None:
    assert_typed(refused(500, body))
    assert_typed(event_error(body))
    body_error(body)


@pytest.mark.parametrize("depth", [100, *range(900, 1010, 5), 100_000])
def test_deep_nesting_makes_a_typed_error(depth: int) -> None:
    nest = b"[" * depth + b"]" * depth
    for body in (nest, b'{"error":%b}' % nest, b'{"error":{"message":%b}}' % nest, b'{"error":{"metadata":%b}}' % nest):
        assert_typed(refused(500, body))
        assert_typed(event_error(body))
        body_error(body)


def _seconds(page: Callable[[int], bytes], size: int) -> float:
    body = page(size)

    began = time.process_time()
    refused(502, body)
    return time.process_time() - began


@pytest.mark.parametrize("piece", [b"<", b"<title>", b"<style>", b"<p>a</p>"])
def test_the_time_for_a_page_is_linear_in_its_size(piece: bytes) -> None:
    def page(size: int) -> bytes:
        return piece * (size // len(piece))

    ratio = float("inf")
    for _ in range(3):  # a busy machine may spoil one measurement; quadratic time spoils all, with a ratio of 64
        ratio = min(ratio, (_seconds(page, 32_768) + 0.001) / (_seconds(page, 4096) + 0.001))
        if ratio < 24:
            break

    assert ratio < 24
