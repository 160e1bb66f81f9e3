"""What a chunk costs on one stream, flat out, beside a bare aiohttp loop that keeps none of the promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec
import pytest
from reactivex import Observable, operators as ops

from rxrouter import ChatChunk, OpenRouter
from rxrouter.operators import completion, text
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

BLOCKS = {"64 KiB blocks": 1 << 16, "an event a write": 0}
CHUNKS = 20_000


def bare(session: aiohttp.ClientSession, url: str, prompt: str) -> Run:
    """Split on blank lines, decode what begins with a brace: code that nobody could ship."""
    decode = msgspec.json.Decoder(ChatChunk).decode

    async def run() -> int:
        seen, rest = 0, b""
        body = {"messages": [{"role": "user", "content": prompt}]}
        async with session.post(f"{url}/chat/completions", json=body) as response:
            async for block in response.content.iter_any():
                *events, rest = (rest + block).split(b"\n\n")
                for event in events:
                    if event.startswith(b"data: {"):
                        decode(event[6:])
                        seen += 1
        return seen

    return run


def through(make: Callable[[], Observable[Any]]) -> Run:
    async def run() -> int:
        over = asyncio.get_running_loop().create_future()
        make().subscribe(lambda _: None, over.set_exception, lambda: over.set_result(None))
        await over
        return CHUNKS + 2

    return run


@pytest.mark.parametrize("blocks", BLOCKS)
async def test_cost_of_a_chunk(blocks: str, url: str) -> None:
    prompt = f"{CHUNKS} {BLOCKS[blocks]}"
    async with aiohttp.ClientSession() as session, OpenRouter(base_url=url) as client:
        chunks = client.chat(prompt)

        async def pull() -> int:
            return sum([1 async for _ in chunks])

        results = await compare(
            {
                "aiohttp, split, decode": bare(session, url, prompt),
                "chat().subscribe": through(lambda: chunks),
                "chat() | text()": through(lambda: chunks.pipe(text())),
                "chat() | do_action | text() | filter": through(
                    lambda: chunks.pipe(ops.do_action(lambda _: None), text(), ops.filter(bool))
                ),
                "chat() | completion()": through(lambda: chunks.pipe(completion())),
                "async for": pull,
            }
        )

    table(f"one stream, {blocks}", results)
