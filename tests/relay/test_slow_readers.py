"""A reader of a relay that takes little at a time keeps its connection; one that takes nothing is dropped."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import reactivex
from aiohttp import web
from reactivex import Observable, operators as ops

from rxrouter import ChatChunk
from rxrouter.relay import PlainText
from rxrouter.relay.aiohttp import respond
from rxrouter.relay.asgi import Relay
from tests.operators.support import chunk
from tests.relay.test_leaving import reader_of
from tests.relay.test_servers import listening, serving
from tests.support import until

SEND_TIMEOUT = 0.5
SEND_BUFFER = 1 << 20
"""The kernel reports room in it when a third is free: with a slow reader, long after SEND_TIMEOUT."""
ANSWER = "word " * 600_000
BLOCK, PAUSE = 2048, 0.02
"""A slow reader takes so many bytes, then waits so many seconds."""


class Watched:
    """The answer's chunks, and whether they are subscribed."""

    def __init__(self) -> None:
        self.over = 0
        self.chunks: Observable[ChatChunk] = reactivex.concat(
            reactivex.of(chunk({"content": ANSWER})), reactivex.never()
        ).pipe(ops.finally_action(self._end))

    def _end(self) -> None:
        self.over += 1


@asynccontextmanager
async def relay(server: str, watched: Watched) -> AsyncGenerator[str]:
    """A relay whose connections have a large buffer in the kernel; closed when the client is."""
    if server == "asgi":
        async with serving(Relay(watched.chunks, dialect=PlainText, send_timeout=SEND_TIMEOUT)) as (url, uvicorn, _):
            uvicorn.servers[0].sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            yield url
        return

    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        return await respond(request, watched.chunks, dialect=PlainText, send_timeout=SEND_TIMEOUT)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url:
        yield url


async def take_slowly(browser: socket.socket, seconds: float) -> int:
    """Take blocks with pauses between; return the number of bytes."""
    loop = asyncio.get_running_loop()
    end, taken = loop.time() + seconds, 0
    browser.settimeout(0)
    while loop.time() < end:
        taken += len(await loop.sock_recv(browser, BLOCK))
        await asyncio.sleep(PAUSE)
    return taken


@pytest.mark.parametrize("server", ["aiohttp", "asgi"])
async def test_a_reader_that_takes_little_at_a_time_gets_all(server: str) -> None:
    watched = Watched()
    async with relay(server, watched) as url:
        browser = await asyncio.to_thread(reader_of, url, tls=False)
        taken = await take_slowly(browser, 6 * SEND_TIMEOUT)
        assert watched.over == 0

        loop = asyncio.get_running_loop()
        while taken < len(ANSWER):
            block = await loop.sock_recv(browser, 1 << 16)
            assert block
            taken += len(block)
        assert watched.over == 0
        browser.close()
        await until(lambda: watched.over == 1)


@pytest.mark.parametrize("server", ["aiohttp", "asgi"])
@pytest.mark.parametrize("before", [0.0, 2 * SEND_TIMEOUT], ids=["at once", "after a while"])
async def test_a_reader_that_takes_nothing_is_dropped_after_the_send_timeout(server: str, before: float) -> None:
    watched = Watched()
    async with relay(server, watched) as url:
        browser = await asyncio.to_thread(reader_of, url, tls=False)
        await take_slowly(browser, before)
        loop = asyncio.get_running_loop()
        stalled = loop.time()
        await until(lambda: watched.over == 1)

        assert loop.time() - stalled < 4 * SEND_TIMEOUT
        browser.close()
