"""Leaving a response on aiohttp: noticed whatever waits to be sent; and a connection that is kept is none the worse."""

from __future__ import annotations

import asyncio
import socket
from struct import pack
from typing import Any

import aiohttp
import pytest
import reactivex
from aiohttp import web
from reactivex import Observable, operators as ops
from yarl import URL

from rxrouter import ChatChunk
from rxrouter.relay.aiohttp import respond
from rxrouter.relay.desk import connections
from tests.operators.support import chunk, finished
from tests.relay.support import Live
from tests.relay.test_servers import listening
from tests.support import until
from tests.tls import contexts

FOREVER: dict[str, Any] = {"prime": 0.0, "keep_alive": 3600.0, "send_timeout": 3600.0}


def relaying(chunks: Observable[ChatChunk], asked: list[Any]) -> web.Application:
    """What relays them, and notes the transport of each request."""

    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request.transport)
        return await respond(request, chunks, **FOREVER)

    app = web.Application()
    app.router.add_get("/", handler)
    return app


async def test_a_connection_is_kept_for_the_next_response() -> None:
    asked: list[Any] = []
    async with (
        listening(relaying(reactivex.of(finished({"content": "word"})), asked)) as url,
        aiohttp.ClientSession() as browser,
    ):
        bodies = {await (await browser.get(url)).read() for _ in range(3)}
        assert len(bodies) == 1
    assert [transport is asked[0] for transport in asked] == [True] * 3


async def test_what_a_browser_asks_meanwhile_is_answered_next() -> None:
    live, asked = Live(), list[Any]()
    chunks = live.pipe(ops.start_with(finished({"content": "word"})))
    async with listening(relaying(chunks, asked)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", URL(url).port)
        ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        writer.write(ask)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ask)
        await until(lambda: live.watched)
        live.on_completed()
        assert (await reader.readuntil(b"0\r\n\r\n")).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert len(asked) == 2
        writer.close()


@pytest.mark.parametrize("much", [False, True])
@pytest.mark.parametrize(
    ("how", "tls"),
    [("closes", False), ("resets", False), ("sends nothing more", False), ("closes", True), ("resets", True)],
)
async def test_a_reader_that_leaves_is_noticed_in_silence(*, how: str, much: bool, tls: bool) -> None:
    """With much unread the transport of one that only says so can't close before all is sent: to nobody."""
    live = Live()
    async with listening(relaying(live, []), contexts()[0] if tls else None) as url:
        browser = await asyncio.to_thread(reader_of, url, tls=tls)
        await until(lambda: live.watched)
        if much:
            live.on_next(chunk({"content": "much " * 700_000}))
            await until(lambda: not connections()[0].answer.frames)
        assert live.watched
        if how == "sends nothing more":
            browser.shutdown(socket.SHUT_WR)
        else:
            if how == "resets":
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            browser.close()
        await until(lambda: not live.watched)
        browser.close()
        await until(lambda: not connections())


async def test_a_wait_for_room_is_cancelled_when_its_response_is() -> None:
    live, responding = Live(), list[asyncio.Task[object]]()

    async def handler(request: web.Request) -> web.StreamResponse:
        responding.append(asyncio.ensure_future(respond(request, live, **FOREVER)))
        await asyncio.wait(responding)
        return web.Response()

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url:
        browser = await asyncio.to_thread(reader_of, url, tls=False)
        await until(lambda: live.watched)
        live.on_next(chunk({"content": "much " * 2_000_000}))
        await until(lambda: connections()[0]._waiting is not None)  # pyright: ignore[reportPrivateUsage] - no other way
        waiting = connections()[0]._waiting  # pyright: ignore[reportPrivateUsage] - see above
        assert waiting is not None

        responding[0].cancel()
        await asyncio.wait(responding)

        assert waiting.cancelling() == 1
        assert not live.watched
        await asyncio.wait([waiting])
        browser.close()


def reader_of(url: str, *, tls: bool) -> socket.socket:
    """One that has asked, and reads nothing."""
    browser = socket.socket()
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    browser.connect(("127.0.0.1", URL(url).port))
    if tls:
        browser = contexts()[1].wrap_socket(browser, server_hostname="127.0.0.1")
    browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return browser


@pytest.mark.parametrize("tls", [False, True])
async def test_for_a_reader_that_left_before_it_is_answered_nothing_begins(*, tls: bool) -> None:
    begun, answered = list[object](), asyncio.Event()

    def begin(scheduler: object) -> Live:
        begun.append(scheduler)
        return Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        await until(transport.is_closing)
        assert request.transport is transport  # the server has not heard of it yet
        try:
            return await respond(request, reactivex.defer(begin), **FOREVER)
        finally:
            answered.set()

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app, contexts()[0] if tls else None) as url:
        (await asyncio.to_thread(reader_of, url, tls=tls)).close()
        await answered.wait()
        assert begun == []
