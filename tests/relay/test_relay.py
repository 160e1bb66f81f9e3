"""A relay, on each server: status, head, keep-alives, leaving, stalling, ending."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from typing import Any, Self

import aiohttp
import pytest
import reactivex
from reactivex import operators as ops

from rxrouter import ChatChunk, Comment, OpenRouter, Restarted, StreamError
from rxrouter.operators import share_generation
from rxrouter.relay import AGUI, NDJSON, OpenAIChunks, PlainText, UIMessages
from rxrouter.sharing import Hub
from rxrouter.testing import COMMENT, DONE, FAULTS, Act, Reply, Simulator, answer
from tests.operators.support import chunk, finished
from tests.relay.support import (
    ALL_SERVERS,
    MIDDLEWARE,
    SERVERS,
    Live,
    all_events,
    asked,
    events,
    relay_of,
    relayed,
    reported,
    said,
)
from tests.support import until

on_each_server = pytest.mark.parametrize("server", SERVERS)
on_all_servers = pytest.mark.parametrize("server", ALL_SERVERS)

WORD = finished({"content": "word "})


# Row 46: an SSE response.


@on_all_servers
async def test_the_bytes_of_a_chunk_arrive_as_the_model_s_server_sent_them(server: str) -> None:
    blocks = answer("Hello, world.", reasoning="Hm.", tool_calls=[("go", "{}")], comments=0)
    async with relay_of(server, Reply.of(blocks)) as (browser, front, _), browser.get(front.url) as response:
        assert response.status == 200
        assert await response.read() == b"".join(blocks)


@on_all_servers
async def test_nobody_on_the_way_is_to_keep_change_or_collect_the_answer(server: str) -> None:
    async with relay_of(server) as (browser, front, _), browser.get(front.url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache, no-transform"
        assert response.headers["X-Accel-Buffering"] == "no"
        assert response.headers["Content-Encoding"] == "identity"
        assert "Content-Length" not in response.headers
        await response.read()


@on_all_servers
async def test_a_head_costs_nothing(server: str) -> None:
    async with relay_of(server) as (browser, front, simulator), browser.head(front.url) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert simulator.exchanges == []


# Row 47: the right status, when the failure comes first.


@on_each_server
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "rate_limited"),
        ("401", 502, "upstream_failed"),
        ("402", 502, "upstream_failed"),
        ("404", 404, "not_found"),
        ("502", 502, "upstream_failed"),
        ("html", 502, "upstream_failed"),
        ("json", 502, "upstream_failed"),
        ("error-first", 502, "upstream_failed"),
    ],
)
async def test_a_failure_before_the_first_content_is_a_status(server: str, fault: str, status: int, code: str) -> None:
    async with relay_of(server, fault=fault) as (browser, front, _), browser.post(front.url) as response:
        assert response.status == status
        assert response.headers["Content-Type"] == "application/json"
        assert (await response.json())["error"]["type"] == code
        assert response.headers.get("Retry-After") == ("7" if fault == "429" else None)


@on_all_servers
async def test_nothing_is_sent_before_the_first_content(server: str) -> None:
    live = Live()
    async with relayed(server, lambda: live) as front, aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(front.url))
        await until(lambda: live.watched)
        live.on_next(chunk({"role": "assistant", "content": ""}))
        live.on_error(StreamError(503, "no room"))
        async with await asking as response:
            assert response.status == 503


@on_each_server
async def test_when_the_priming_is_over_a_failure_is_a_part_of_the_body(server: str) -> None:
    live = Live()
    async with asked(server, live, prime=0.01) as response:
        assert response.status == 200
        live.on_error(StreamError(503, "no room"))
        (error, done) = await all_events(response)
    assert json.loads(error.data)["error"]["code"] == 503
    assert done.data == "[DONE]"


@on_each_server
async def test_a_source_that_cannot_be_subscribed_is_a_status(server: str) -> None:
    def broken(*_: Any) -> Any:
        raise ValueError("no")

    errors = reported()
    async with asked(server, reactivex.create(broken)) as response:
        assert response.status == 500
    assert list(map(str, errors)) == ["no"]


@on_each_server
@pytest.mark.parametrize("dialect", [PlainText, NDJSON])
async def test_an_answer_of_nothing_is_a_body_of_nothing(server: str, dialect: Any) -> None:
    silent = finished({})
    async with asked(server, reactivex.of(silent), dialect=dialect) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == dialect.framing.headers["Content-Type"]
        assert await response.read() == (b"" if dialect is PlainText else silent.raw + b"\n")


@on_each_server
async def test_relay_answers_with_a_failure_when_the_source_completes_without_a_chunk(server: str) -> None:
    async with asked(server, reactivex.empty()) as response:
        assert response.status == 502


# Row 48: keep-alive comments, before the first token, too.


@on_all_servers
async def test_silence_is_filled_with_comments_also_before_the_first_content(server: str) -> None:
    live = Live()
    async with asked(server, live, prime=0.01, keep_alive=0.02) as response:
        items = events(response)
        for _ in range(3):
            assert isinstance(await anext(items), Comment)
        live.on_next(WORD)
        while isinstance(item := await anext(items), Comment):
            pass
        assert json.loads(item.data)["choices"][0]["delta"]["content"] == "word "
        assert isinstance(await anext(items), Comment)
        live.on_completed()
        assert [item.data async for item in items if not isinstance(item, Comment)] == ["[DONE]"]


@on_each_server
@pytest.mark.parametrize("shared", [False, True])
async def test_what_the_model_s_server_says_to_keep_alive_is_passed_on(server: str, *, shared: bool) -> None:
    reply = Reply([0.05, COMMENT, 0.05, COMMENT, *answer("Hi", comments=0)])
    async with (
        Hub() as hub,
        relay_of(server, reply, prime=0.0, hub=hub if shared else None) as (browser, front, _),
        browser.get(front.url) as response,
    ):
        items = [item async for item in events(response)]
    assert [isinstance(item, Comment) for item in items[:3]] == [True, True, False]


@on_each_server
async def test_lines_are_kept_alive_by_blank_ones_and_text_by_nothing(server: str) -> None:
    for dialect, comes in ((NDJSON, b"\n"), (PlainText, b"")):
        live = Live()
        async with asked(server, live, dialect=dialect, prime=0.01, keep_alive=0.01) as response:
            if comes:
                assert (await response.content.readany()).strip(comes) == b""
            live.on_next(WORD)
            live.on_completed()
            rest = await response.read()
            assert rest.strip(b"\n") == (WORD.raw if comes else b"word ")


# Row 49: leaving cancels the model's work, also in silence.


@on_all_servers
@pytest.mark.parametrize("reply", [Reply(before=(Act.HANG,)), Reply([COMMENT, Act.HANG]), FAULTS["stall"]("a b c d")])
async def test_a_browser_that_leaves_in_silence_cancels_though_nothing_is_written(server: str, reply: Reply) -> None:
    async with relay_of(server, reply, prime=0.01, keep_alive=3600.0) as (browser, front, simulator):
        response = await browser.get(front.url)
        await until(lambda: len(simulator.exchanges) == 1)
        left = asyncio.get_running_loop().time()
        response.close()
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        assert simulator.exchanges[0].left_at - left < 2  # 0.1 on a machine that does nothing else


@on_each_server
async def test_a_browser_that_leaves_before_the_head_cancels_too(server: str) -> None:
    async with relay_of(server, Reply(before=(Act.HANG,))) as (browser, front, simulator):
        asking = asyncio.create_task(browser.get(front.url))
        await until(lambda: len(simulator.exchanges) == 1)
        asking.cancel()
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None


@on_each_server
async def test_leaving_is_no_harm_to_the_others(server: str) -> None:
    live = Live()
    async with relayed(server, lambda: live) as front, aiohttp.ClientSession() as browser:
        asking = [asyncio.create_task(browser.get(front.url)) for _ in range(3)]
        await until(lambda: len(live.observers) == 3)
        live.on_next(WORD)
        first, *others = [await task for task in asking]
        first.close()
        await until(lambda: len(live.observers) == 2)
        live.on_next(WORD)
        live.on_completed()
        for other in others:
            assert said(await all_events(other)) == "word word "


# Row 50: a reader that takes nothing is dropped.


class Stalled:
    """A reader with a small window that asks, and then reads nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(0)
        self.port = port

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, ("127.0.0.1", self.port))
        await loop.sock_sendall(
            self.socket, b"GET /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self.socket.close()

    async def rest(self) -> bytes:
        """Reads, at last, until the connection ends."""
        loop = asyncio.get_running_loop()
        parts: list[bytes] = []
        try:
            while part := await loop.sock_recv(self.socket, 1 << 16):
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


LONG = 400  # words of 32 KB: more than all buffers on the way take


def endless(count: int = LONG) -> Reply:
    return Reply.of(answer(" ".join(["w" * 32_000] * count)))


@pytest.mark.parametrize("server", [*ALL_SERVERS, MIDDLEWARE])
async def test_a_stalled_reader_is_dropped_and_what_it_read_is_disposed(server: str) -> None:
    async with relay_of(server, endless(), send_timeout=0.2) as (_, front, simulator), Stalled(front.port) as reader:
        await until(lambda: len(simulator.exchanges) == 1)
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        assert not (await reader.rest()).endswith(b"0\r\n\r\n")


@on_each_server
async def test_a_slow_reader_makes_the_model_s_server_wait(server: str) -> None:
    async with relay_of(server, endless()) as (_, front, simulator), Stalled(front.port) as reader:
        await until(lambda: len(simulator.exchanges) == 1)
        exchange, before = simulator.exchanges[0], -1
        while exchange.sent_bytes != before:  # nothing moves any more, or all is sent
            before = exchange.sent_bytes
            await asyncio.sleep(0.3)
        assert not exchange.over.is_set()
        assert (await reader.rest()).endswith(b"0\r\n\r\n")
        assert exchange.over.is_set()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the kernel has no such limit")
async def test_a_reader_that_takes_nothing_of_little_is_dropped_too() -> None:
    live = Live()
    async with relayed("aiohttp", lambda: live, send_timeout=0.2) as front, Stalled(front.port):
        await until(lambda: live.watched)
        live.on_next(chunk({"content": "w" * 60_000}))  # what aiohttp and the kernel take without waiting
        await until(lambda: not live.watched)


@on_each_server
async def test_a_slow_reader_gets_all_of_it(server: str) -> None:
    async with relay_of(server, endless()) as (browser, front, _), browser.get(front.url) as response:
        text = said(await all_events(response))
    assert len(text) == LONG * 32_001 - 1


@on_each_server
async def test_a_stalled_reader_is_no_harm_to_those_who_share_the_answer(server: str) -> None:
    shared: list[Any] = []
    gone: list[None] = []

    def chain(chat: Any) -> Any:
        shared[:] = shared or [chat.pipe(share_generation())]
        return shared[0].pipe(ops.finally_action(lambda: gone.append(None)))

    async with (
        relay_of(server, endless(), chain=chain, send_timeout=0.3) as (browser, front, simulator),
        Stalled(front.port) as reader,
    ):
        await until(lambda: len(simulator.exchanges) == 1)
        async with browser.get(front.url) as response:
            assert len(said(await all_events(response))) == LONG * 32_001 - 1
        await until(lambda: len(gone) == 2)
        assert len(simulator.exchanges) == 1
        assert not (await reader.rest()).endswith(b"0\r\n\r\n")


# After the 200: an honest end.


@on_all_servers
@pytest.mark.parametrize("fault", ["cut", "reset", "truncate", "bad-json", "error-late"])
async def test_a_failure_in_the_middle_is_a_frame_that_says_so(server: str, fault: str) -> None:
    async with relay_of(server, fault=fault) as (browser, front, _), browser.get(front.url) as response:
        assert response.status == 200
        *_, error, done = await all_events(response)
    assert json.loads(error.data)["choices"][0]["finish_reason"] == "error"
    assert json.loads(error.data)["error"]["message"]
    assert done.data == "[DONE]"


@pytest.mark.parametrize("server", [*SERVERS, MIDDLEWARE])
async def test_text_that_failed_breaks_off(server: str) -> None:
    relay = relay_of(server, fault="cut", dialect=PlainText)
    async with relay as (browser, front, _), browser.get(front.url) as response:
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


@on_each_server
async def test_what_cannot_be_taken_back_ends_with_what_went_wrong(server: str) -> None:
    restarted = Restarted(attempt=2, cause=StreamError(429, "slow down"))
    async with asked(server, reactivex.of(WORD, restarted, WORD)) as response:
        word, error, _ = await all_events(response)
    assert said([word]) == "word "
    assert json.loads(error.data)["error"]["code"] == 429


@on_each_server
async def test_what_the_provider_wrote_is_told_by_choice(server: str) -> None:
    secret = 'a "quoted" secret'
    for options, told in (({}, False), ({"explain": str}, True)):
        source = reactivex.concat(reactivex.of(WORD), reactivex.throw(StreamError(502, secret)))
        async with asked(server, source, **options) as response:
            _, error, _ = await all_events(response)
        assert (secret in json.loads(error.data)["error"]["message"]) is told


@on_each_server
async def test_the_key_stays_on_the_server(server: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for fault in ("401", "429", "cut", "error-late", None):
        for dialect in (OpenAIChunks, UIMessages, NDJSON):
            relay = relay_of(server, fault=fault, dialect=dialect)
            async with relay as (browser, front, simulator), browser.get(front.url) as response:
                told = f"{response.headers}{await response.text()}"
            assert "sk-secret-key" in simulator.exchanges[0].headers["Authorization"]
            assert "sk-secret-key" not in told
    assert "sk-secret-key" not in caplog.text


# Row 53: several dialects.


@on_all_servers
async def test_one_answer_is_said_in_five_dialects(server: str) -> None:
    blocks = answer("Hello, world.", comments=0)
    for dialect, content_type, told in (
        (OpenAIChunks, "text/event-stream", b"data: [DONE]\n\n"),
        (UIMessages, "text/event-stream", b'data: {"type":"text-start","id":"1"}\n\n'),
        (lambda: AGUI("thread", "run"), "text/event-stream", b'data: {"type":"RUN_STARTED","threadId":"thread"'),
        (NDJSON, "application/x-ndjson", b'}\n{"id":'),
        (PlainText, "text/plain; charset=utf-8", b"Hello, world."),
    ):
        relay = relay_of(server, Reply.of(blocks), dialect=dialect)
        async with relay as (browser, front, _), browser.get(front.url) as response:
            assert response.headers["Content-Type"] == content_type
            assert told in await response.read()


# Row 54: the server closes, and open streams end.


@on_all_servers
async def test_a_server_that_closes_ends_its_streams_and_says_so(server: str) -> None:
    async with relay_of(server, fault="stall") as (browser, front, simulator):
        async with browser.get(front.url) as response:
            items = events(response)
            await anext(items)
            await front.close()
            rest = [item async for item in items if not isinstance(item, Comment)]
        assert json.loads(rest[-2].data)["error"]["code"] == 503
        assert rest[-1].data == "[DONE]"
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None


@on_each_server
async def test_a_server_that_closes_answers_those_who_still_wait_with_a_status(server: str) -> None:
    async with relay_of(server, fault="silence") as (browser, front, simulator):
        asking = asyncio.create_task(browser.get(front.url))
        await until(lambda: len(simulator.exchanges) == 1)
        await front.close()
        async with await asking as response:
            assert response.status == 503


# What goes into it may come on other threads.


@on_each_server
async def test_chunks_may_come_on_another_thread(server: str) -> None:
    with Simulator(text="word " * 2_000) as simulator, OpenRouter("sk-test", base_url=simulator.base_url) as client:
        await asyncio.to_thread(lambda: client.models().run())  # from now on the client belongs to a thread of its own
        async with asked(server, client.chat("hi", model="m")) as response:
            assert said(await all_events(response)) == ("word " * 2_000)


async def test_done_is_sent_once() -> None:
    async with relay_of("aiohttp") as (browser, front, _), browser.get(front.url) as response:
        assert (await response.read()).count(DONE) == 1


async def test_a_hand_made_chunk_is_json_like_the_others() -> None:
    made = ChatChunk(id="x")
    async with asked("aiohttp", reactivex.of(made, WORD)) as response:
        assert json.loads((await all_events(response))[0].data)["id"] == "x"
