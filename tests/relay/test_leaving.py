"""Leaving a response on aiohttp: noticed whatever waits to be sent; and a connection that is kept is none the worse."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import aiohttp
import pytest
import reactivex
from aiohttp import web
from reactivex import Observable

from rxrouter import ChatChunk
from rxrouter.relay.aiohttp import respond
from tests.operators.support import chunk
from tests.relay.support import Live
from tests.relay.test_servers import listening
from tests.support import until

FOREVER: dict[str, Any] = {"prime": 0.0, "keep_alive": 3600.0, "send_timeout": 3600.0}


def relaying(chunks: Observable[ChatChunk], asked: list[web.Request]) -> web.Application:
    async def handler(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await respond(request, chunks, **FOREVER)

    app = web.Application()
    app.router.add_get("/", handler)
    return app


async def test_a_connection_is_kept_for_the_next_response() -> None:
    asked: list[web.Request] = []
    async with (
        listening(relaying(reactivex.of(chunk({"content": "word"})), asked)) as url,
        aiohttp.ClientSession() as browser,
    ):
        bodies = {await (await browser.get(url)).read() for _ in range(3)}
        assert len(bodies) == 1
        assert len({id(request.transport) for request in asked}) == 1


async def test_what_a_browser_asks_meanwhile_is_answered_next() -> None:
    live, asked = Live(), list[web.Request]()
    async with listening(relaying(live, asked)) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
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


@pytest.mark.parametrize("resets", [False, True])
async def test_a_reader_that_leaves_with_much_unread_is_noticed(*, resets: bool) -> None:
    """The transport of one that only says that it has left can't close before all is sent: to nobody."""
    live, asked = Live(), list[web.Request]()
    async with listening(relaying(live, asked)) as url:
        host, port = url.removeprefix("http://").rstrip("/").split(":")
        with socket.socket() as browser:
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            browser.connect((host, int(port)))
            browser.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: live.watched)
            live.on_next(chunk({"content": "much " * 700_000}))
            transport: Any = asked[0].transport
            await until(transport.get_write_buffer_size)
            assert live.watched
            if resets:
                browser.close()  # with something unread: a reset
            else:
                browser.shutdown(socket.SHUT_WR)
            await until(lambda: not live.watched)
        await until(lambda: asked[0].transport is None)
