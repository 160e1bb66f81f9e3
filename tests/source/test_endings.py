"""The ending table: whatever a server does to a stream, one true terminal event, told with its facts."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
import traceback
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from reactivex import operators as ops

from rxrouter import (
    APIError,
    ChatChunk,
    ChatCompletion,
    ChunkDecodeError,
    ClientClosedError,
    Comment,
    ConnectTimeoutError,
    ContentTypeError,
    EventTooLargeError,
    OpenRouter,
    RouterError,
    ServerSentEvent,
    SilenceTimeoutError,
    StatusError,
    StreamError,
    Timeouts,
    TransportError,
    TruncatedStreamError,
    is_transient,
)
from rxrouter._attempt import Attempt, watching
from rxrouter.operators import completion, text
from rxrouter.testing import COMMENT, DONE, FAULTS, Act, Exchange, Reply, Simulator, Step, answer, chunk, event
from tests.support import Observed, observe, served

E = TypeVar("E", bound=BaseException)

WORDS = "one two three"
SPOKEN = answer(WORDS, comments=0)[:-3]  # the words, without finish, usage and [DONE]
FINISH, USAGE = answer(WORDS)[-3:-1]
FINISH_ONLY = chunk(finish="stop")
SSE = {"Content-Type": "text/event-stream"}
COST = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.25}
OVERLOADED = {"code": 503, "message": "Provider overloaded", "metadata": {"error_type": "provider_overloaded"}}


async def ask(reply: Reply, **options: Any) -> Observed[ChatChunk]:
    """One question to a server that replies so, seen to its end."""
    async with served(reply, **options) as (client, _):
        return await observe(client.chat("hi"))


def said(seen: Observed[ChatChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in seen.values for choice in chunk.choices)


def error_of(seen: Observed[Any], kind: type[E]) -> E:
    """The ending, which is exactly of this class."""
    error = seen.endings[0]
    assert type(error) is kind, f"ended with {error!r}"
    return error


def pieces(*choices: tuple[int, str, str | None], **more: Any) -> bytes:
    """A chunk of several choices: index, content, finish reason."""
    parts = [{"index": i, "delta": {"content": content}, "finish_reason": finish} for i, content, finish in choices]
    return event({"id": "gen-1", "object": "chat.completion.chunk", "choices": parts, **more})


@asynccontextmanager
async def raw_server(response: bytes, *, reads: bool = True) -> AsyncGenerator[str]:
    """A server that answers one request with these very bytes and closes; or answers without reading the body."""
    left, handled = asyncio.Event(), asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if reads:
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.write(response)
        if not reads:
            await left.wait()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        handled.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
        left.set()
        await handled.wait()


# Proven finished


async def test_finish_usage_and_done_complete() -> None:
    seen = await ask(Reply([*SPOKEN, FINISH, USAGE, DONE]))

    assert seen.endings == [None]
    assert said(seen) == WORDS
    assert seen.values[-1].usage is not None


async def test_finish_and_done_complete_without_usage() -> None:
    seen = await ask(Reply([*SPOKEN, FINISH_ONLY, DONE]))

    assert seen.endings == [None]
    assert said(seen) == WORDS


@pytest.mark.parametrize("tail", [[FINISH_ONLY], [FINISH, USAGE]], ids=["finish", "finish-usage"])
async def test_the_end_of_the_body_completes_after_a_finish_reason(tail: list[bytes]) -> None:
    seen = await ask(Reply([*SPOKEN, *tail]))

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_done_completes_without_a_finish_reason() -> None:
    async with served(Reply([*SPOKEN, DONE])) as (client, _):
        whole = await client.chat("hi").pipe(completion())

    assert whole.text == WORDS
    assert whole.finish_reason is None


@pytest.mark.parametrize(
    "body", [[DONE], [COMMENT, DONE], [event({"choices": []}), DONE], [b"event: ping\ndata: {}\n\n", DONE]]
)
async def test_done_is_no_finished_generation_without_any_chunk(body: list[bytes]) -> None:
    seen = await ask(Reply(body))

    error_of(seen, TruncatedStreamError)
    assert seen.values == []


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
@pytest.mark.parametrize("tail", [[FINISH_ONLY], [FINISH, USAGE], [DONE]], ids=["finish", "usage", "done"])
async def test_a_socket_cut_after_the_proof_completes(tail: list[bytes], act: Act) -> None:
    seen = await ask(Reply([*SPOKEN, *tail, 0.02, act]))

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_finish_and_usage_complete_though_nothing_more_comes() -> None:
    async with served(Reply([*SPOKEN, FINISH, USAGE, Act.HANG]), timeouts=Timeouts(silence=None)) as (
        client,
        simulator,
    ):
        seen = await observe(client.chat("hi"))
        await simulator.exchanges[0].over.wait()

    assert seen.endings == [None]
    assert said(seen) == WORDS
    assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["same-block", "later"])
async def test_finish_and_usage_complete_though_a_comment_and_nothing_more_comes(pause: float) -> None:
    body = b"".join([*SPOKEN, FINISH, USAGE])
    steps: list[Step] = [body, pause, COMMENT, Act.HANG] if pause else [body + COMMENT, Act.HANG]

    async with asyncio.timeout(20):
        seen = await ask(Reply(steps), timeouts=Timeouts(silence=None))

    assert seen.endings == [None]


async def test_finish_and_usage_complete_though_comments_go_on_for_ever() -> None:
    for_ever: list[Step] = [0.02, COMMENT] * 5_000

    async with asyncio.timeout(20):
        seen = await ask(Reply([*SPOKEN, FINISH, USAGE, *for_ever]))

    assert seen.endings == [None]


async def test_a_finish_reason_completes_when_silence_follows() -> None:
    seen = await ask(Reply([*SPOKEN, FINISH_ONLY, Act.HANG]), timeouts=Timeouts(silence=0.1))

    assert seen.endings == [None]


async def test_done_completes_though_the_body_never_ends() -> None:
    async with served(Reply([*SPOKEN, FINISH, USAGE, DONE, Act.HANG]), timeouts=Timeouts(silence=None)) as (
        client,
        simulator,
    ):
        seen = await observe(client.chat("hi"))
        await simulator.exchanges[0].over.wait()

    assert seen.endings == [None]
    assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize(
    "after",
    [chunk({"content": " more"}), chunk(finish="error", error=OVERLOADED), b"data: {\n\n", b"data: [1]\n\n", DONE],
    ids=["content", "error", "bad-json", "array", "done"],
)
@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["same-block", "later"])
async def test_anything_after_done_is_ignored(after: bytes, pause: float) -> None:
    body = b"".join([*SPOKEN, FINISH, USAGE, DONE])
    steps: list[Step] = [body, pause, after] if pause else [body + after]

    seen = await ask(Reply(steps))

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_a_repeated_finish_and_an_empty_chunk_after_it_arrive_and_complete() -> None:
    seen = await ask(Reply([*SPOKEN, chunk(finish="tool_calls"), chunk(finish="stop"), chunk(), USAGE, DONE]))

    assert seen.endings == [None]
    assert [c.choices[0].finish_reason for c in seen.values[-4:]] == ["tool_calls", "stop", None, "stop"]


async def test_several_choices_complete_when_each_has_finished() -> None:
    body = [pieces((0, "a", None), (1, "b", None)), pieces((0, "", "stop")), pieces((1, "", "length"))]

    seen = await ask(Reply(body))

    assert seen.endings == [None]


@pytest.mark.parametrize(
    "noise",
    [
        b"data: : OPENROUTER PROCESSING\n\n",
        b"data:\n\n",
        b"data: \n\n",
        b":\n\n",
        b": \n\n",
        b"\n\n\n",
        b"event: ping\n\n",
        b"retry: 10\n\n",
        b"unheard: of\n\n",
        b"event: message\nid: 7\n\n",
    ],
)
async def test_keep_alives_of_any_form_are_ignored(noise: bytes) -> None:
    steps = [noise, SPOKEN[0], noise, *SPOKEN[1:], noise, FINISH, USAGE, noise, DONE]

    apart = await ask(Reply(steps))
    together = await ask(Reply([b"".join(steps)]))

    assert apart.endings == together.endings == [None]
    assert said(apart) == said(together) == WORDS
    assert len(apart.values) == len(together.values) == len(SPOKEN) + 2


@pytest.mark.parametrize(
    ("head", "tail"),
    [
        (b"data:", b"\n\n"),
        (b"data: ", b"\r\n\r\n"),
        (b"data: ", b"\r\r"),
        (b"event: message\ndata: ", b"\n\n"),
        (b"id: 7\ndata: ", b"\n\n"),
        (b"data: ", b"\ndata:\n\n"),
        (b"data:\ndata: ", b"\n\n"),
    ],
    ids=["no-space", "crlf", "cr", "type", "id", "line-after", "line-before"],
)
async def test_an_answer_in_any_legal_framing_is_the_same_answer(head: bytes, tail: bytes) -> None:
    body = [head + e.removeprefix(b"data: ").rstrip(b"\n") + tail for e in [*SPOKEN, FINISH, USAGE, DONE]]

    seen = await ask(Reply([b"\xef\xbb\xbf", *body]))

    assert seen.endings == [None]
    assert said(seen) == WORDS


# Not proven


@pytest.mark.parametrize(
    "body",
    [
        [],
        [COMMENT],
        [*SPOKEN],
        [*SPOKEN, b"data: [DON"],
        [*SPOKEN, FINISH.rstrip(b"\n")[:-1]],
        [*SPOKEN, chunk(usage=COST)],
    ],
    ids=["empty", "comment", "content", "half-of-done", "half-of-finish", "usage-alone"],
)
async def test_a_body_that_ends_without_proof_is_truncated(body: list[bytes]) -> None:
    seen = await ask(Reply(body))

    error = error_of(seen, TruncatedStreamError)
    assert is_transient(error)
    assert error.chunks_seen == len(seen.values)


@pytest.mark.parametrize(
    "body",
    [
        [pieces((0, "a", None), (1, "b", None)), pieces((0, "", "stop"))],
        [pieces((0, "a", None), (1, "b", None)), pieces((1, "", "stop"))],
        [pieces((0, "a", None)), pieces((1, "b", None)), pieces((0, "", "stop"))],
        [pieces((0, "a", None)), pieces((1, "b", None)), pieces((1, "", "stop"))],
        [pieces((0, "a", None)), pieces((1, "b", "stop"))],
        [pieces((0, "a", "stop"), (1, "b", None))],
    ],
)
async def test_a_choice_that_has_not_finished_is_truncated(body: list[bytes]) -> None:
    apart = await ask(Reply(body))
    with_usage = await ask(Reply([*body, event({"id": "gen-1", "choices": [], "usage": COST})]))
    cut = await ask(Reply([*body, 0.02, Act.CUT]))

    error_of(apart, TruncatedStreamError)
    error_of(with_usage, TruncatedStreamError)
    error_of(cut, TransportError)


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
async def test_a_socket_cut_in_the_answer_is_a_transport_error(act: Act) -> None:
    seen = await ask(Reply([*SPOKEN, 0.02, act]))

    error = error_of(seen, TransportError)
    assert error.phase == "read"
    assert is_transient(error)
    assert isinstance(error.__cause__, (aiohttp.ClientError, OSError))
    assert said(seen) == WORDS
    assert error.chunks_seen == len(SPOKEN)


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
async def test_a_socket_cut_before_the_headers_is_a_transport_error(act: Act) -> None:
    seen = await ask(Reply(before=[act]))

    error = error_of(seen, TransportError)
    assert error.phase == "read"
    assert error.__cause__ is not None
    assert error.chunks_seen == 0


async def test_a_cut_in_the_middle_of_an_event_is_a_transport_error() -> None:
    seen = await ask(Reply([*SPOKEN, FINISH[:40], Act.CUT]))

    assert error_of(seen, TransportError).phase == "read"


# Statuses

STATUSES = [400, 401, 402, 403, 404, 408, 409, 410, 412, 413, 422, 429, 499, 500, 502, 503, 504, 520, 524, 529]
TRANSIENT = {408, 429, 500, 502, 503, 504, 520, 524, 529}


@pytest.mark.parametrize("status", STATUSES)
async def test_a_status_with_a_json_body_tells_its_error(status: int) -> None:
    seen = await ask(Reply.error(status, "Told so.", metadata={"provider_name": "Venice", "raw": "{}"}))

    error = error_of(seen, StatusError)
    assert (error.status, error.code, error.message) == (status, status, "Told so.")
    assert error.metadata == {"provider_name": "Venice", "raw": "{}"}
    assert error.provider == "Venice"
    assert error.retry_after is None
    assert is_transient(error) == (status in TRANSIENT)
    assert seen.values == []


@pytest.mark.parametrize("status", [401, 502, 524])
@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html><head><title>Bad\n gateway</title></head><body>cloudflare</body></html>", "text/html", "Bad gateway"),
        (b"error code: 1015\n", "text/plain", "error code: 1015"),
        (b"", "text/html", ""),
        (b"{", "application/json", "{"),
        (b'{"detail":"Unauthorized"}', "application/json", "Unauthorized"),
        (b'{"error":"No such thing","code":"not_there"}', "application/json", "No such thing"),
    ],
    ids=["html", "text", "empty", "broken-json", "detail", "string"],
)
async def test_a_status_with_any_body_tells_its_message(status: int, body: bytes, kind: str, message: str) -> None:
    seen = await ask(Reply([body] if body else [], status, {"Content-Type": kind}))

    error = error_of(seen, StatusError)
    assert error.status == status
    assert error.message == message
    assert str(status) in str(error)


async def test_a_status_without_a_content_type_is_a_status_error() -> None:
    seen = await ask(Reply([b"nope"], 503, {}))

    assert error_of(seen, StatusError).message == "nope"


async def test_retry_after_in_seconds_is_told() -> None:
    seen = await ask(Reply.error(429, "Slow down", headers={"Retry-After": "7"}))

    assert error_of(seen, StatusError).retry_after == 7.0


async def test_retry_after_as_a_date_is_told_in_seconds() -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=900), usegmt=True)

    seen = await ask(Reply.error(503, "Slow down", headers={"Retry-After": later}))

    assert error_of(seen, StatusError).retry_after == pytest.approx(900, abs=100)


async def test_the_rate_limits_reset_in_milliseconds_is_told_in_seconds() -> None:
    reset = str(int((datetime.now(UTC).timestamp() + 900) * 1000))

    seen = await ask(Reply.error(429, "Slow down", metadata={"headers": {"X-RateLimit-Reset": reset}}))

    assert error_of(seen, StatusError).retry_after == pytest.approx(900, abs=100)


async def test_the_servers_own_word_on_retrying_wins_over_the_status() -> None:
    availability = {"code": "capacity_exhausted", "retryable": True, "retry_after": 3}

    seen = await ask(Reply.json({"error": {"code": 404, "message": "No.", "availability": availability}}, 404))

    error = error_of(seen, StatusError)
    assert is_transient(error)
    assert error.retry_after == 3.0


async def test_an_error_page_that_never_ends_does_not_hang() -> None:
    seen = await ask(Reply([b"<title>Busy</title>", Act.HANG], 502, {}), timeouts=Timeouts(silence=0.2))

    assert isinstance(seen.endings[0], (StatusError, SilenceTimeoutError))


async def test_an_error_page_that_is_cut_is_still_a_status_error() -> None:
    seen = await ask(Reply([b"<title>Busy</title>", 0.02, Act.CUT], 502, {"Content-Type": "text/html"}))

    assert error_of(seen, StatusError).message == "Busy"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with Simulator() as elsewhere:
        seen = await ask(Reply([], status, {"Location": elsewhere.base_url + "/chat/completions"}))

    assert error_of(seen, StatusError).status == status
    assert elsewhere.exchanges == []


@pytest.mark.parametrize("status", [201, 202, 204])
async def test_a_success_without_a_body_is_a_content_type_error(status: int) -> None:
    seen = await ask(Reply([], status, {}))

    assert error_of(seen, ContentTypeError).data == b""


# 200, but no stream


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", "text/html"])
async def test_a_200_with_a_json_error_is_a_stream_error(kind: str) -> None:
    body = b'{"error":{"code":502,"message":"Upstream error","metadata":{"provider_name":"Venice"}},"user_id":"user_1"}'

    seen = await ask(Reply([body], headers={"Content-Type": kind}))

    error = error_of(seen, StreamError)
    assert (error.code, error.message, error.provider) == (502, "Upstream error", "Venice")
    assert is_transient(error)
    assert seen.values == []


async def test_a_json_error_padded_with_keep_alive_lines_is_a_stream_error() -> None:
    padding: list[Step] = [b"         \n\n", 0.01] * 20
    body = b'\n{"error":{"code":429,"message":"Slow down"}}\n'

    seen = await ask(Reply([*padding, body], headers={"Content-Type": "application/json"}))

    assert error_of(seen, StreamError).code == 429


async def test_keep_alive_padding_resets_the_silence_clock() -> None:
    padding: list[Step] = [b"         \n\n", 0.02] * 40
    reply = Reply(
        [*padding, b'{"error":{"code":429,"message":"Slow down"}}'], headers={"Content-Type": "application/json"}
    )

    seen = await ask(reply, timeouts=Timeouts(silence=0.5))

    assert error_of(seen, StreamError).code == 429


async def test_an_error_on_the_choice_of_a_json_answer_is_a_stream_error() -> None:
    choice = {"index": 0, "message": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "No"}}

    seen = await ask(Reply.json({"id": "gen-1", "choices": [choice]}))

    assert error_of(seen, StreamError).code == 502


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"{", "application/json"),
        (b"<html><title>Log in</title></html>", "text/html"),
    ],
    ids=["array", "empty", "broken", "html"],
)
async def test_a_200_that_is_no_event_stream_is_a_content_type_error(body: bytes, kind: str) -> None:
    seen = await ask(Reply([body] if body else [], headers={"Content-Type": kind}))

    error = error_of(seen, ContentTypeError)
    assert error.content_type == kind
    assert error.data == body
    assert kind in str(error)
    assert not is_transient(error)


async def test_a_200_without_a_content_type_is_a_content_type_error() -> None:
    response = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nWelcome"

    async with raw_server(response) as base_url, OpenRouter("sk-test", base_url=base_url) as client:
        seen = await observe(client.chat("hi"))

    error = error_of(seen, ContentTypeError)
    assert error.content_type == ""
    assert "no content type" in str(error)


@pytest.mark.parametrize(
    "kind", ["text/event-stream; charset=utf-8", "Text/Event-Stream", "text/event-stream;charset=UTF-8"]
)
async def test_an_event_stream_by_any_spelling_is_one(kind: str) -> None:
    seen = await ask(Reply(answer(WORDS), headers={"Content-Type": kind}))

    assert seen.endings == [None]
    assert said(seen) == WORDS


# Errors in the stream


def _with_error(choices: Sequence[dict[str, Any]] | None, **more: Any) -> bytes:
    head: dict[str, Any] = {"id": "gen-2", "object": "chat.completion.chunk", "model": "m", "provider": "Nvidia"}
    if choices is not None:
        head["choices"] = choices
    return event({**head, "error": OVERLOADED, **more})


_ENDING_CHOICE = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "native_finish_reason": None}


@pytest.mark.parametrize("before", [[], [COMMENT], SPOKEN], ids=["first", "behind-comment", "late"])
@pytest.mark.parametrize("after", [[], [DONE], [FINISH, USAGE, DONE]], ids=["last", "then-done", "then-finish"])
@pytest.mark.parametrize(
    "choices",
    [[_ENDING_CHOICE], [{"index": 0, "delta": {"content": ""}, "finish_reason": None}], [], None],
    ids=["choice", "unfinished-choice", "no-choices", "no-choices-key"],
)
async def test_an_error_in_a_chunk_is_a_stream_error(
    before: list[bytes], choices: list[dict[str, Any]] | None, after: list[bytes]
) -> None:
    body = [*before, _with_error(choices), *after]

    apart = await ask(Reply(body))
    together = await ask(Reply([b"".join(body)]))

    for seen in (apart, together):
        error = error_of(seen, StreamError)
        assert (error.code, error.message) == (503, "Provider overloaded")
        assert (error.error_type, error.provider) == ("provider_overloaded", "Nvidia")
        assert error.metadata == {"error_type": "provider_overloaded"}
        assert is_transient(error)
        assert said(seen) == (WORDS if before is SPOKEN else "")
        assert error.chunks_seen == len(seen.values) == (len(SPOKEN) if before is SPOKEN else 0)


async def test_a_bare_error_without_id_and_choices_is_a_stream_error() -> None:
    error = {"message": "Provider returned error", "code": 502, "metadata": {"provider_name": "Venice"}}

    seen = await ask(Reply([COMMENT, event({"error": error, "user_id": "user_1"})]))

    told = error_of(seen, StreamError)
    assert (told.code, told.message, told.provider) == (502, "Provider returned error", "Venice")


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ({"code": "server_error", "message": "Down"}, "server_error", "Down"),
        ({"code": "502", "message": "Down"}, 502, "Down"),
        ({"http_status": 503, "error_type": "provider_overloaded", "message": "Down"}, 503, "Down"),
        ({"message": "Down"}, None, "Down"),
        ("Down", None, "Down"),
        ({"code": 400}, 400, ""),
    ],
)
async def test_an_error_of_any_shape_is_a_stream_error(error: Any, code: int | str | None, message: str) -> None:
    seen = await ask(Reply([*SPOKEN, event({"id": "gen-1", "choices": [], "error": error}), DONE]))

    told = error_of(seen, StreamError)
    assert (told.code, told.message) == (code, message)


async def test_a_null_error_is_none() -> None:
    seen = await ask(Reply([*SPOKEN, chunk(finish="stop", error=None), DONE]))

    assert seen.endings == [None]


async def test_a_finish_reason_error_without_an_error_object_is_a_stream_error() -> None:
    seen = await ask(Reply([*SPOKEN, chunk(finish="error", native="MALFORMED_FUNCTION_CALL"), DONE]))

    error = error_of(seen, StreamError)
    assert error.message == "MALFORMED_FUNCTION_CALL"
    assert error.provider == "Simulator"
    assert said(seen) == WORDS


async def test_an_error_on_a_choice_is_a_stream_error() -> None:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "error", "error": {"code": 502, "message": "No"}}

    seen = await ask(Reply([*SPOKEN, event({"id": "gen-1", "choices": [choice]}), DONE]))

    error = error_of(seen, StreamError)
    assert (error.code, error.message) == (502, "No")


@pytest.mark.parametrize(
    "data",
    [
        '{"error":{"message":"Failed to call a function","type":"invalid_request_error","code":"tool_use_failed"}}',
        '{"message":"Failed to call a function","code":"tool_use_failed"}',
        "Failed to call a function",
    ],
    ids=["error-object", "bare", "text"],
)
async def test_an_event_of_type_error_is_a_stream_error(data: str) -> None:
    seen = await ask(Reply([*SPOKEN, f"event: error\ndata: {data}\n\n".encode()]))

    error = error_of(seen, StreamError)
    assert error.message == "Failed to call a function"
    assert said(seen) == WORDS


async def test_an_error_after_a_finish_reason_is_still_a_stream_error() -> None:
    late = chunk(error={"code": 400, "message": "Token limit reached"}, usage=COST)

    seen = await ask(Reply([*SPOKEN, chunk(finish="length"), chunk(finish="length"), late, DONE]))

    error = error_of(seen, StreamError)
    assert error.code == 400
    assert error.usage.cost == 0.25


@pytest.mark.parametrize("pause", [0.0, 0.02], ids=["same-block", "later"])
@pytest.mark.parametrize("choices", [[], [_ENDING_CHOICE]], ids=["no-choices", "choice"])
async def test_usage_behind_the_error_is_kept_on_it(choices: list[dict[str, Any]], pause: float) -> None:
    first, second = b"".join([*SPOKEN, _with_error(choices)]), chunk(usage=COST) + DONE

    seen = await ask(Reply([first, pause, second] if pause else [first + second]))

    assert error_of(seen, StreamError).usage.cost == 0.25


async def test_usage_in_the_error_chunk_is_kept_on_it() -> None:
    seen = await ask(Reply([_with_error([], usage=COST), DONE]))

    assert error_of(seen, StreamError).usage.completion_tokens == 7


async def test_an_error_without_usage_does_not_wait_for_it_for_ever() -> None:
    seen = await ask(Reply([*SPOKEN, _with_error([]), Act.HANG]), timeouts=Timeouts(silence=None))

    assert error_of(seen, StreamError).usage is None


async def test_content_of_the_error_chunk_is_delivered_before_the_error() -> None:
    last = chunk({"content": " four"}, finish="error", error=OVERLOADED)

    seen = await ask(Reply([*SPOKEN, last, DONE]))

    error = error_of(seen, StreamError)
    assert said(seen) == "one two three four"
    assert error.chunks_seen == len(SPOKEN) + 1


# Broken data


@pytest.mark.parametrize(
    "data",
    [
        b'{"id": "gen-1", "choices": [',
        b"Internal Server Error",
        b"[1, 2]",
        b'"text"',
        b"7",
        b'{"id": "gen-1", "choices": {"index": 0}}',
        b'{"id": "gen-1", "choices": [7]}',
        b'{"id": "gen-1", "choices": [{"delta": "text"}]}',
    ],
)
async def test_data_that_is_no_chunk_is_a_chunk_decode_error(data: bytes) -> None:
    body = [*SPOKEN, b"data: " + data + b"\n\n", FINISH, USAGE, DONE]

    apart = await ask(Reply(body))
    together = await ask(Reply([b"".join(body)]))

    for seen in (apart, together):
        error = error_of(seen, ChunkDecodeError)
        assert error.data == data
        assert error.path
        assert not is_transient(error)
        assert said(seen) == WORDS
        assert error.chunks_seen == len(SPOKEN)


async def test_the_path_of_a_chunk_decode_error_says_where() -> None:
    bad = {"id": "gen-1", "choices": [{"index": 0, "delta": {"tool_calls": "none"}}]}

    seen = await ask(Reply([event(bad)]))

    assert "$.choices[0].delta.tool_calls" in error_of(seen, ChunkDecodeError).path


async def test_an_event_above_the_bound_is_an_event_too_large_error() -> None:
    big = chunk({"content": "x" * 5_000})

    apart = await ask(Reply([*SPOKEN, big, FINISH, USAGE, DONE]), max_event_bytes=4_000)
    together = await ask(Reply([b"".join([*SPOKEN, big, FINISH, USAGE, DONE])]), max_event_bytes=4_000)

    for seen in (apart, together):
        error = error_of(seen, EventTooLargeError)
        assert error.limit_bytes == 4_000
        assert "max_event_bytes" in str(error)
        assert said(seen) == WORDS
        assert error.chunks_seen == len(SPOKEN)


async def test_an_event_without_end_is_an_event_too_large_error() -> None:
    steps: list[Step] = [*SPOKEN, b"data: ", *[b"x" * 1_000] * 20, Act.HANG]

    seen = await ask(Reply(steps), max_event_bytes=4_000)

    error_of(seen, EventTooLargeError)
    assert said(seen) == WORDS


# No connection, no bytes


async def test_a_refused_connection_is_a_transport_error() -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        async with OpenRouter("sk-test", base_url=f"http://127.0.0.1:{bound.getsockname()[1]}/api/v1") as client:
            seen = await observe(client.chat("hi"))

    error = error_of(seen, TransportError)
    assert error.phase == "connect"
    assert is_transient(error)
    assert isinstance(error.__cause__, aiohttp.ClientConnectorError)
    assert error.chunks_seen == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full accept queue refuses")
async def test_a_host_that_does_not_accept_is_a_connect_timeout() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for filler in (first, second):
            filler.setblocking(False)  # noqa: FBT003 - its only parameter
            filler.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/api/v1"
        async with OpenRouter("sk-test", base_url=url, timeouts=Timeouts(connect=0.1, silence=None)) as client:
            seen = await observe(client.chat("hi"))

    error = error_of(seen, ConnectTimeoutError)
    assert (error.phase, error.seconds) == ("connect", 0.1)
    assert is_transient(error)
    assert error.__cause__ is not None


class _Names(AbstractResolver):
    """A name service that never answers, or that does not know."""

    def __init__(self, error: OSError | None = None) -> None:
        self._error = error

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        if self._error is None:
            await asyncio.Event().wait()
            return []
        raise self._error

    async def close(self) -> None:
        pass


async def test_a_name_that_does_not_resolve_in_time_is_a_connect_timeout() -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Names())) as session,
        OpenRouter(
            "sk-test", base_url="http://model.example/v1", session=session, timeouts=Timeouts(connect=0.1)
        ) as client,
    ):
        seen = await observe(client.chat("hi"))

    assert error_of(seen, ConnectTimeoutError).seconds == 0.1


async def test_a_name_that_does_not_exist_is_a_transport_error() -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Names(OSError(None, "unknown")))) as session,
        OpenRouter("sk-test", base_url="http://model.example/v1", session=session) as client,
    ):
        seen = await observe(client.chat("hi"))

    error = error_of(seen, TransportError)
    assert error.phase == "connect"
    assert error.__cause__ is not None


async def test_a_server_without_tls_is_a_transport_error() -> None:
    async with Simulator() as simulator:
        url = simulator.base_url.replace("http:", "https:")
        async with OpenRouter("sk-test", base_url=url) as client:
            seen = await observe(client.chat("hi"))

    assert error_of(seen, TransportError).phase == "connect"


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 900\r\n\r\n" + SPOKEN[0],
    ],
    ids=["nothing", "no-http", "bad-header", "long-header", "bad-chunked", "short-body"],
)
async def test_an_answer_that_is_broken_http_is_a_transport_error(response: bytes) -> None:
    async with raw_server(response) as base_url, OpenRouter("sk-verysecret", base_url=base_url) as client:
        seen = await observe(client.chat("my private question"))

    error = error_of(seen, TransportError)
    assert error.phase == "read"
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error)) + repr(error.__cause__)
    assert "verysecret" not in told
    assert "private" not in told


async def test_interim_answers_before_the_stream_are_passed_over() -> None:
    body = b"".join(answer(WORDS))
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    async with (
        raw_server(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head + body) as base_url,
        OpenRouter("sk-test", base_url=base_url) as client,
    ):
        seen = await observe(client.chat("hi"))

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_a_stream_that_ends_with_the_connection_is_a_stream() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"

    async with (
        raw_server(head + b"".join(answer(WORDS))) as whole,
        raw_server(head + b"".join(SPOKEN)) as half,
        OpenRouter("sk-test", base_url=whole) as client,
        OpenRouter("sk-test", base_url=half) as unlucky,
    ):
        complete, truncated = await observe(client.chat("hi")), await observe(unlucky.chat("hi"))

    assert complete.endings == [None]
    error_of(truncated, TruncatedStreamError)


async def test_a_refusal_while_the_prompt_is_still_being_sent_is_a_status_error() -> None:
    page = b'{"error":{"code":413,"message":"Too large"}}'
    head = f"HTTP/1.1 413 No\r\nContent-Type: application/json\r\nContent-Length: {len(page)}\r\n\r\n".encode()

    async with (
        raw_server(head + page, reads=False) as base_url,
        OpenRouter("sk-test", base_url=base_url, timeouts=Timeouts(silence=10)) as client,
    ):
        seen = await observe(client.chat("x" * 30_000_000))

    assert error_of(seen, StatusError).status == 413


async def test_silence_before_the_headers_is_a_silence_timeout() -> None:
    async with served(fault="silence", timeouts=Timeouts(silence=0.1)) as (client, simulator):
        seen = await observe(client.chat("hi"))
        await simulator.exchanges[0].over.wait()

    error = error_of(seen, SilenceTimeoutError)
    assert (error.phase, error.seconds) == ("read", 0.1)
    assert is_transient(error)
    assert error.elapsed is not None
    assert error.elapsed >= 0.1
    assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize("before", [[], [COMMENT], SPOKEN], ids=["after-headers", "after-comment", "in-the-answer"])
async def test_silence_in_the_stream_is_a_silence_timeout(before: list[bytes]) -> None:
    async with served(Reply([*before, Act.HANG]), timeouts=Timeouts(silence=0.1)) as (client, simulator):
        seen = await observe(client.chat("hi"))
        await simulator.exchanges[0].over.wait()

    error = error_of(seen, SilenceTimeoutError)
    assert said(seen) == (WORDS if before is SPOKEN else "")
    assert error.chunks_seen == len(seen.values)
    assert simulator.exchanges[0].left_at is not None


async def test_comments_reset_the_silence_clock() -> None:
    queued: list[Step] = [COMMENT, 0.02] * 40

    seen = await ask(Reply([*queued, *SPOKEN, FINISH, USAGE, DONE]), timeouts=Timeouts(silence=0.5))

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_chunks_reset_the_silence_clock() -> None:
    slow: list[Step] = [step for word in [*SPOKEN] * 10 for step in (word, 0.03)]

    seen = await ask(Reply([*slow, FINISH, USAGE, DONE]), timeouts=Timeouts(silence=0.5))

    assert seen.endings == [None]


# The client, and the observer


async def test_closing_the_client_ends_a_running_stream() -> None:
    heard = asyncio.Event()
    seen = Observed[ChatChunk]()

    def on_next(chunk: ChatChunk) -> None:
        seen.on_next(chunk)
        heard.set()

    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await heard.wait()

        await client.aclose()

        error = error_of(seen, ClientClosedError)
        await simulator.exchanges[0].over.wait()
    assert len(seen.endings) == 1
    assert error.chunks_seen == len(seen.values) > 0
    assert not is_transient(error)
    assert simulator.exchanges[0].left_at is not None


async def test_closing_the_client_ends_a_stream_without_headers() -> None:
    arrived = asyncio.Event()

    def hang(exchange: Exchange) -> Reply:
        arrived.set()
        return FAULTS["silence"]("")

    seen = Observed[ChatChunk]()
    async with served(hang) as (client, simulator):
        client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await arrived.wait()
        await client.aclose()
        await simulator.exchanges[0].over.wait()

    error_of(seen, ClientClosedError)
    assert len(seen.endings) == 1


async def test_a_subscription_after_the_close_ends_with_client_closed_error() -> None:
    async with served() as (client, simulator):
        chunks = client.chat("hi")
        await client.aclose()
        seen = await observe(chunks)

    error_of(seen, ClientClosedError)
    assert simulator.exchanges == []


async def test_an_exception_in_the_only_observer_is_that_chains_own_error() -> None:
    boom = ValueError("boom")
    seen = Observed[ChatChunk]()

    def explode(chunk: ChatChunk) -> None:
        seen.on_next(chunk)
        raise boom

    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        client.chat("hi").subscribe(explode, seen.on_error, seen.on_completed)
        await seen.over.wait()
        await simulator.exchanges[0].over.wait()

    assert seen.endings == [boom]
    assert len(seen.values) == 1
    assert simulator.exchanges[0].left_at is not None


async def test_an_exception_below_an_operator_is_that_chains_own_error() -> None:
    boom = ValueError("boom")
    seen = Observed[str]()

    def explode(word: str) -> None:
        raise boom

    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        client.chat("hi").pipe(text()).subscribe(explode, seen.on_error, seen.on_completed)
        await seen.over.wait()
        await simulator.exchanges[0].over.wait()

    assert seen.endings == [boom]
    assert simulator.exchanges[0].left_at is not None


async def test_an_exception_in_one_observer_leaves_its_sibling_alone() -> None:
    def explode(chunk: ChatChunk) -> None:
        raise ValueError("boom")

    async with served(Reply.of(answer(WORDS))) as (client, _):
        failed, well = Observed[ChatChunk](), Observed[ChatChunk]()
        client.chat("a").subscribe(explode, failed.on_error, failed.on_completed)
        client.chat("b").subscribe(well.on_next, well.on_error, well.on_completed)
        await failed.over.wait()
        await well.over.wait()

    assert isinstance(failed.endings[0], ValueError)
    assert well.endings == [None]
    assert said(well) == WORDS


# The facts on an error


async def test_an_error_tells_the_generation_of_the_header() -> None:
    headers = {**SSE, "X-Generation-Id": "gen-of-the-header"}

    seen = await ask(Reply(SPOKEN, headers=headers))

    assert error_of(seen, TruncatedStreamError).generation_id == "gen-of-the-header"


@pytest.mark.parametrize("behind", [b"", COMMENT, b"data:\n\n"], ids=["nothing", "comment", "empty-data"])
async def test_an_error_tells_the_generation_of_the_chunks_when_the_header_is_missing(behind: bytes) -> None:
    seen = await ask(Reply([pieces((0, "a", None)) + behind], headers=SSE))

    assert error_of(seen, TruncatedStreamError).generation_id == "gen-1"


async def test_an_error_in_the_first_chunk_tells_that_chunks_generation_when_the_header_is_missing() -> None:
    seen = await ask(Reply([_with_error([])], headers=SSE))

    assert error_of(seen, StreamError).generation_id == "gen-2"


@pytest.mark.parametrize("bad", [event({"error": OVERLOADED}), b"data: {\n\n"], ids=["error", "bad-json"])
async def test_an_error_tells_the_generation_of_the_chunks_in_its_own_block(bad: bytes) -> None:
    seen = await ask(Reply([pieces((0, "a", None)) + bad], headers=SSE))

    error = seen.endings[0]
    assert isinstance(error, (StreamError, ChunkDecodeError))
    assert error.generation_id == "gen-1"


async def test_a_status_error_tells_the_generation_of_the_header() -> None:
    seen = await ask(Reply.error(502, "Down", headers={"X-Generation-Id": "gen-of-the-header"}))

    assert error_of(seen, StatusError).generation_id == "gen-of-the-header"


@pytest.mark.parametrize(
    "fault",
    sorted(set(FAULTS) - {"no-done", "cut-after-finish", "split", "cut-tool-call", "comments"}),
)
async def test_every_fault_is_one_error_with_its_facts(fault: str) -> None:
    async with served(fault=fault, timeouts=Timeouts(silence=0.2)) as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert isinstance(error, RouterError)
    assert error.chunks_seen == len(seen.values)
    assert error.elapsed is not None
    assert error.elapsed > 0
    assert error.partial is None
    assert str(error)
    assert isinstance(error, APIError) == (fault in {"error-first", "error-late", "json", "html"} or fault.isdigit())


@pytest.mark.parametrize("fault", ["no-done", "cut-after-finish", "split", "cut-tool-call"])
async def test_what_is_odd_but_proven_completes(fault: str) -> None:
    async with served(fault=fault) as (client, _):
        seen = await observe(client.chat("hi"))

    assert seen.endings == [None]


@pytest.mark.parametrize(
    "reply",
    [
        Reply(SPOKEN),
        Reply([*SPOKEN, 0.02, Act.CUT]),
        Reply([*SPOKEN, _with_error([])]),
        Reply([*SPOKEN, Act.HANG]),
        Reply([*SPOKEN, b"data: {\n\n"]),
    ],
    ids=["truncated", "cut", "error", "silence", "bad-json"],
)
async def test_a_fold_in_the_chain_puts_the_partial_answer_on_the_error(reply: Reply) -> None:
    async with served(reply, timeouts=Timeouts(silence=0.2)) as (client, _):
        seen = await observe(client.chat("hi").pipe(completion()))

    error = seen.endings[0]
    assert isinstance(error, RouterError)
    assert isinstance(error.partial, ChatCompletion)
    assert error.partial.text == WORDS
    assert error.partial.finish_reason is None
    assert seen.values == []


# After the release


@pytest.mark.parametrize(
    "reply",
    [
        Reply.error(429, "Slow down"),
        Reply([b"<html></html>"], 502, {"Content-Type": "text/html"}),
        Reply([], 503, {}),
        Reply.json({"error": {"code": 502, "message": "Down"}}),
        Reply([b"<html></html>"], headers={"Content-Type": "text/html"}),
        Reply(SPOKEN),
        Reply([*SPOKEN, _with_error([])]),
        Reply([*SPOKEN, _with_error([]), chunk(usage=COST), DONE]),
        Reply([*SPOKEN, FINISH, USAGE, DONE]),
        Reply([*SPOKEN, FINISH_ONLY]),
    ],
    ids=["429", "html", "empty", "json-error", "no-stream", "truncated", "error", "error-usage", "done", "finish"],
)
async def test_the_terminal_event_finds_the_connection_free(reply: Reply) -> None:
    async with served(reply) as (client, simulator):
        over = asyncio.Event()

        def again(_: Exception | None = None) -> None:
            if len(simulator.exchanges) < 5:
                client.chat("hi").subscribe(None, again, again)
            else:
                over.set()

        again()
        await over.wait()

    assert len(simulator.exchanges) == 5
    assert simulator.connections == 1


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET, Act.HANG])
async def test_a_new_request_in_on_error_works_after_a_broken_connection(act: Act) -> None:
    replies = [Reply([*SPOKEN, act]), Reply.of(answer(WORDS))]
    seen = Observed[ChatChunk]()

    def reply(exchange: Exchange) -> Reply:
        return replies.pop(0)

    async with served(reply, timeouts=Timeouts(silence=0.3)) as (client, simulator):
        chunks = client.chat("hi")

        def again(error: Exception) -> None:
            chunks.subscribe(seen.on_next, seen.on_error, seen.on_completed)

        chunks.subscribe(None, again)
        await seen.over.wait()

    assert simulator.exchanges[0].over.is_set()
    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_an_event_too_deep_for_the_decoder_is_a_decode_error() -> None:
    # Code in C may go deeper than 5,000 levels on Python 3.13.
    deep = b'data: {"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"
    async with served(Reply((deep,))) as (client, _):
        seen = await observe(client.chat("Hi"))

    assert isinstance(seen.endings[0], ChunkDecodeError)


async def test_bytes_that_are_no_text_do_not_end_an_answer() -> None:
    broken = chunk({"content": "Hi"}).replace(b"Hi", b"H\xffi")
    async with served(Reply((broken, *answer("")[-3:]))) as (client, _):
        seen = await observe(client.chat("hi").pipe(text()))

    assert (seen.values, seen.endings) == (["H\ufffdi"], [None])


async def test_a_loop_that_was_blocked_is_not_a_silent_server() -> None:
    def block_at_first(word: str) -> None:
        if len(words) == 0:
            time.sleep(0.5)  # somebody's on_next: longer than the silence that is borne
        words.append(word)

    words: list[str] = []
    async with served(Reply.of(answer("one two three four"), rate=20), timeouts=Timeouts(silence=0.3)) as (client, _):
        seen = await observe(client.chat("hi").pipe(text(), ops.do_action(block_at_first)))

    assert (seen.endings, "".join(words)) == ([None], "one two three four")


async def test_a_json_answer_that_is_cut_is_a_transport_error() -> None:
    reply = Reply((b'{"choices": [', Act.CUT), headers={"Content-Type": "application/json"})
    async with served(reply) as (client, _):
        seen = await observe(client.chat("hi"))

    assert isinstance(seen.endings[0], TransportError)


async def test_an_error_page_that_stalls_still_says_its_status_and_pause() -> None:
    reply = Reply((b"{", Act.HANG), status=429, headers={"Content-Type": "application/json", "Retry-After": "7"})
    async with served(reply, timeouts=Timeouts(silence=0.2)) as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert isinstance(error, StatusError)
    assert (error.status, error.retry_after) == (429, 7.0)


async def test_a_cut_before_the_second_of_two_choices_has_begun_is_no_end() -> None:
    async with served(Reply((chunk({"content": "a"}), chunk(finish="stop"), Act.CUT))) as (client, _):
        seen = await observe(client.chat("hi", n=2))

    assert isinstance(seen.endings[0], TransportError)


async def test_another_streams_error_keeps_its_facts() -> None:
    other = TruncatedStreamError()
    other.chunks_seen, other.elapsed = 77, 1.5

    def pass_on(_: object) -> None:
        raise other

    async with served(Reply.of(answer("hi"))) as (client, _):
        seen = await observe(client.chat("hi").pipe(ops.do_action(pass_on)))

    assert seen.endings == [other]
    assert (other.chunks_seen, other.elapsed) == (77, 1.5)


async def test_nothing_behind_done_makes_a_failure_of_it() -> None:
    junk = b"data: " + b"x" * 5000 + b"\n\n"
    async with served(Reply((*answer("Hi"), junk)), max_event_bytes=2000) as (client, _):
        seen = await observe(client.chat("hi"))

    assert seen.endings == [None]


@pytest.mark.parametrize(
    "first",
    [
        pieces((0, "one", None)),
        pieces((0, "one", None), usage=COST),
        pieces((1, "one", None)),
        pieces((0, "one", None), (1, "uno", None)),
        event({"id": "gen-1", "object": "chat.completion.chunk", "choices": []}),
    ],
    ids=["plain", "with usage", "of another choice", "of two choices", "without choices"],
)
async def test_the_generation_id_is_that_of_the_first_chunk_that_has_one(first: bytes) -> None:
    later = event({"id": "gen-2", "object": "chat.completion.chunk", "choices": [{"delta": {"content": "two"}}]})

    seen = await ask(Reply((chunk({"content": "no id"}).replace(b'"id"', b'"di"'), first, later, Act.CUT), headers=SSE))

    assert error_of(seen, TransportError).generation_id == "gen-1"


async def test_only_comments_of_events_are_signs_of_life() -> None:
    attempts: list[Attempt] = []
    reply = Reply((event({"n": 1}), COMMENT, 0.01, event({"n": 2})), headers=SSE)
    async with served(reply) as (client, _):
        with watching(attempts.append):
            source = client.events("/responses", {})
            heard: list[tuple[type, bool]] = []
            over = asyncio.Event()
            source.subscribe(
                lambda item: heard.append((type(item), attempts[0].first_comment is not None)), on_completed=over.set
            )
        await over.wait()

    assert heard == [(ServerSentEvent, False), (Comment, True), (ServerSentEvent, True)]
    assert attempts[0].first_comment == attempts[0].last_comment


async def test_too_large_an_event_keeps_no_events_when_those_before_it_were_delivered() -> None:
    seen = await ask(Reply([b"".join([*SPOKEN, b"data: " + b"x" * 5000 + b"\n\n"])]), max_event_bytes=2000)

    assert said(seen) == WORDS
    assert error_of(seen, EventTooLargeError).events == []
