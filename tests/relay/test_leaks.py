"""A thousand readers of one generation, of whom some leave: all is let go of."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
import reactivex
from reactivex import Observable, operators as ops

from rxrouter import ChatChunk, ServerSentEvent, SSEParser
from rxrouter.operators import share_generation
from rxrouter.relay.answer import Answer
from rxrouter.relay.desk import connections
from tests.operators.support import chunk
from tests.relay.support import SERVERS, Live, asked, relayed
from tests.support import until

READERS, LEAVING = 1_000, 100
ASK = b"GET /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def open_files() -> int:
    files = Path("/proc/self/fd")
    return sum(1 for _ in files.iterdir()) if files.exists() else 0


def answers() -> int:
    """Those that somebody still holds, as a test before this one may."""
    gc.collect()
    return sum(isinstance(known, Answer) for known in gc.get_objects())


class Reader:
    """A connection, and what it has read."""

    def __init__(self, stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._stream = stream
        self.writer = writer

    @classmethod
    async def ask(cls, port: int) -> Reader:
        stream, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        return cls(stream, writer)

    async def text(self) -> str:
        """All of it, to the end of the connection."""
        body = await self._stream.read()
        assert body.endswith(b"0\r\n\r\n")
        self.writer.close()
        events = [item for item in SSEParser().feed(unchunked(body)) if isinstance(item, ServerSentEvent)]
        assert events[-1].data == "[DONE]"
        return "".join(json.loads(event.data)["choices"][0]["delta"]["content"] for event in events[:-1])


def unchunked(answer: bytes) -> bytes:
    """The body of an HTTP answer."""
    _, _, rest = answer.partition(b"\r\n\r\n")
    parts: list[bytes] = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        parts.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return b"".join(parts)


@pytest.mark.parametrize("server", SERVERS)
async def test_of_a_thousand_readers_a_hundred_leave_and_nothing_is_left_of_any(server: str) -> None:
    chance = random.Random(server)
    tasks, files, before = len(asyncio.all_tasks()), open_files(), answers()
    live, reading = Live(), [0]
    shared = live.pipe(share_generation())

    def left() -> None:
        reading[0] -= 1

    def chunks() -> Observable[ChatChunk]:
        reading[0] += 1
        return shared.pipe(ops.finally_action(left))

    async with relayed(server, chunks) as front:
        readers = [await Reader.ask(front.port) for _ in range(READERS)]
        await until(lambda: reading[0] == READERS)
        live.on_next(chunk({"content": "0 "}))
        chance.shuffle(readers)
        leaving, staying = readers[:LEAVING], readers[LEAVING:]
        for number in range(1, LEAVING + 1):
            leaving.pop().writer.transport.abort()
            live.on_next(chunk({"content": f"{number} "}))
            if chance.random() < 0.2:
                await asyncio.sleep(0)
        await until(lambda: reading[0] == READERS - LEAVING)
        assert len(live.observers) == 1
        live.on_completed()
        whole = "".join(f"{number} " for number in range(LEAVING + 1))
        for reader in staying:
            assert await reader.text() == whole
        assert reading[0] == 0
        await until(lambda: len(asyncio.all_tasks()) <= tasks + 3)  # the server's own
        assert connections() == []
    del readers, leaving, staying
    await until(lambda: open_files() <= files)
    assert answers() <= before


def test_a_loop_that_is_over_is_forgotten() -> None:
    async def serve() -> weakref.ref[asyncio.AbstractEventLoop]:
        async with asked("aiohttp", reactivex.of(chunk({"content": "word"}))) as response:
            await response.read()
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(serve())
    gc.collect()
    assert loop() is None
