"""What a chunk costs between the socket and its observer, in memory: HTTP's coding, its JSON, the reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser

from rxrouter import ChatChunk
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader
from rxrouter._wire.chunked import PlainChunks
from rxrouter._wire.likeness import like
from rxrouter.testing import chunk
from tests.perf.blaster import reply
from tests.perf.support import compare, table

pytestmark = pytest.mark.perf

COUNT = 20_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def events() -> list[bytes]:
    return [step for step in reply(f"{COUNT} 0").steps if isinstance(step, bytes)]


def blocks(stream: Sequence[bytes], size: int = 1 << 16) -> list[bytes]:
    body = b"".join(stream)
    return [body[at : at + size] for at in range(0, len(body), size)]


def ignore(_: object) -> None:
    pass


async def test_cost_of_a_chunk_s_json() -> None:
    decode = msgspec.json.Decoder(ChatChunk).decode
    spoken = events()
    plain = [event[6:-2] for event in spoken[:COUNT]]
    read = like(plain[0], decode(plain[0]))
    assert all(read(data) == decode(data) for data in plain[:100])
    alike, unlike = blocks(spoken), blocks([chunk({"content": " of"}, id=f"gen-{n}") for n in range(COUNT)])

    async def each(parse: Callable[[Any], object]) -> int:
        for data in plain:
            parse(data)
        return COUNT

    async def feed(stream: Sequence[bytes]) -> int:
        reader = ChunkReader(1 << 26, 1, Gate(asyncio.get_running_loop()), ignore)
        for block in stream:
            reader.feed(block)
        assert reader.seen >= COUNT
        return COUNT

    table(
        "a chunk in memory",
        await compare(
            {
                "decoded by msgspec": lambda: each(decode),
                "compared with the last": lambda: each(read),
                "parsed, judged, delivered": lambda: feed(alike),
                "the same, none like another": lambda: feed(unlike),
            }
        ),
    )


async def test_cost_of_http_s_chunks() -> None:
    coded = [b"%x\r\n%b\r\n" % (len(event), event) for event in events()]
    many = blocks(coded, 1 << 18)
    loop = asyncio.get_running_loop()

    async def aiohttps(reads: Sequence[bytes]) -> int:
        parser = HttpResponseParser(BaseProtocol(loop), loop, 1 << 30)
        [(_, content)], _, _ = parser.feed_data(HEAD)
        for data in reads:
            parser.feed_data(data)
            content.read_nowait()
        return COUNT

    async def plain(reads: Sequence[bytes]) -> int:
        chunks = PlainChunks()
        for data in reads:
            b"".join(chunks.feed(data))
        assert chunks.rest is None
        return COUNT

    table(
        "HTTP's chunks taken off",
        await compare(
            {
                "aiohttp, many a read": lambda: aiohttps(many),
                "PlainChunks, many a read": lambda: plain(many),
                "aiohttp, one a read": lambda: aiohttps(coded),
                "PlainChunks, one a read": lambda: plain(coded),
            }
        ),
    )
