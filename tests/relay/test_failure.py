"""What readers are told of errors: a status, a code, a sentence, and nothing of the error's own text."""

from __future__ import annotations

import json
from contextlib import suppress

import aiohttp
import pytest

from rxrouter import (
    BudgetExceededError,
    ChunkDecodeError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTimeoutError,
    EmptyAnswerError,
    GuardError,
    RouterError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    StreamError,
    TransportError,
    TruncatedStreamError,
)
from rxrouter._errors import GenerationStopped, LogLostError, ProducerLostError, UnknownGenerationError
from rxrouter.relay import AGUI, NDJSON, Dialect, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.failure import Failure, failure_of, unexplained
from rxrouter.testing import Reply, event
from tests.relay.support import relay_of

SECRET = "sk-secret"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StatusError(400, message=SECRET), 400, "bad_request"),
        (StatusError(401, message=SECRET), 502, "upstream_failed"),
        (StatusError(402, message=SECRET), 502, "upstream_failed"),
        (StatusError(403, message=SECRET), 502, "upstream_failed"),
        (StatusError(404, message=SECRET), 404, "not_found"),
        (StatusError(408, message=SECRET), 504, "timeout"),
        (StatusError(413, message=SECRET), 413, "too_large"),
        (StatusError(422, message=SECRET), 422, "unprocessable"),
        (StatusError(429, message=SECRET), 429, "rate_limited"),
        (StatusError(500, message=SECRET), 502, "upstream_failed"),
        (StatusError(503, message=SECRET), 503, "overloaded"),
        (StatusError(504, message=SECRET), 504, "timeout"),
        (StatusError(524, message=SECRET), 502, "upstream_failed"),
        (StatusError(502, code=429, message=SECRET), 502, "upstream_failed"),
        (StreamError(429, SECRET), 429, "rate_limited"),
        (StreamError("odd", SECRET), 502, "upstream_failed"),
        (TransportError(SECRET, phase="read"), 502, "upstream_failed"),
        (ConnectTimeoutError(1), 504, "timeout"),
        (SilenceTimeoutError(1), 504, "timeout"),
        (ContentTimeoutError("gap", 1), 504, "timeout"),
        (TruncatedStreamError(SECRET), 502, "upstream_failed"),
        (EmptyAnswerError(SECRET), 502, "upstream_failed"),
        (ChunkDecodeError(SECRET, b""), 502, "upstream_failed"),
        (BudgetExceededError("cost", 1, 2), 402, "budget_exceeded"),
        (GuardError(SECRET), 422, "withheld"),
        (ClientClosedError(SECRET), 503, "unavailable"),
        (SlowReaderError(1), 503, "unavailable"),
        (ProducerLostError(SECRET), 503, "unavailable"),
        (LogLostError(SECRET), 503, "unavailable"),
        (UnknownGenerationError(SECRET), 404, "unknown_generation"),
        (GenerationStopped(), 409, "stopped"),
        (RouterError(SECRET), 502, "upstream_failed"),
        (ValueError(SECRET), 500, "internal"),
    ],
)
def test_each_kind_has_a_status_and_a_code_and_keeps_its_text(error: Exception, status: int, code: str) -> None:
    failure = failure_of(error, unexplained)
    assert (failure.status, failure.code) == (status, code)
    assert SECRET not in failure.body().decode() + str(failure.headers())


def test_a_pause_that_the_model_s_side_named_is_passed_on_in_whole_seconds() -> None:
    for pause, header in (
        (7.0, "7"),
        (0.2, "1"),
        (0.0, "0"),
        (-1.0, "0"),
        (1e30, "86400"),
        (float("inf"), None),
        (None, None),
    ):
        failure = failure_of(StatusError(429, retry_after=pause), unexplained)
        assert failure.headers().get("Retry-After") == header


def test_who_explains_chooses_the_sentence_and_not_the_status() -> None:
    failure = failure_of(StatusError(429, message="per minute"), lambda error: f"Said: {error}")
    assert failure == Failure(429, "rate_limited", "Said: HTTP 429: per minute")


def test_half_a_surrogate_pair_in_the_sentence_breaks_nothing() -> None:
    failure = failure_of(StreamError(429, "\ud800x"), str)
    assert json.loads(failure.body())["error"]["message"] == "the stream failed (429): ?x"


def test_a_body_is_json_whatever_the_sentence_has() -> None:
    message = 'a "quote", a \\ and a\nline'
    assert json.loads(Failure(500, "internal", message).body())["error"]["message"] == message


KEY = "sk-secret-key"  # of the client behind the relay
WRITTEN = f"Authorization: Bearer {KEY} is over its limit"
ERROR = {"code": 502, "message": WRITTEN, "metadata": {"raw": WRITTEN}}
IN_ERROR = {"error": WRITTEN, "finish_reason": "error", "native_finish_reason": WRITTEN}


@pytest.mark.parametrize("dialect", [OpenAIChunks, UIMessages, lambda: AGUI("thread", "run"), NDJSON, PlainText])
@pytest.mark.parametrize(
    "reply",
    [
        Reply.error(401, WRITTEN),
        Reply.error(429, WRITTEN, metadata={"raw": WRITTEN}),
        Reply([event({"error": ERROR})]),
        Reply([event({"choices": [{"index": 0, "delta": {"content": "word"}}], "error": ERROR})]),
        Reply([event({"choices": [{"index": 0, "delta": {"content": "word"}, **IN_ERROR}]})]),
    ],
)
async def test_what_the_model_s_side_writes_of_an_error_stays_on_the_server(dialect: Dialect, reply: Reply) -> None:
    async with relay_of("aiohttp", reply, dialect=dialect) as (browser, front, simulator):
        async with browser.get(front.url) as response:
            told = str(response.headers)
            with suppress(aiohttp.ClientPayloadError):  # where there is no word for an error
                async for block in response.content.iter_any():
                    told += block.decode()
        assert KEY in simulator.exchanges[0].headers["Authorization"]
    assert KEY not in told
    assert "Authorization" not in told
