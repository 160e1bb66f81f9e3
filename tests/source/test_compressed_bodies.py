"""A body that a few bytes on the wire become: it is read in steps, between which the loop turns, and within bounds."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from rxrouter import ContentTimeoutError, EventTooLargeError, OpenRouter, StatusError, Timeouts
from rxrouter._wire.sse import Comment
from rxrouter.operators import timeouts
from rxrouter.testing import answer
from tests.support import Observed, observe

MEGABYTE = 1 << 20
# The bound is 16 KiB a turn for streams; pages have the blocks of aiohttp, of which none is above 256 KiB.
TURNS_A_MEGABYTE = 60
TURNS_A_MEGABYTE_OF_PAGE = 4
ANSWER = answer("one two", comments=0)
COMMENTS = b":\n" * (MEGABYTE // 2)
CHUNK = b'data: {"id":"g","choices":[{"delta":{"content":"a"},"index":0}]}\n\n'


class Turns:
    """Counts the turns of the loop."""

    def __init__(self) -> None:
        self.count = 0
        self._stopped = False
        self._turn()

    def _turn(self) -> None:
        self.count += 1
        if not self._stopped:
            asyncio.get_running_loop().call_soon(self._turn)

    def stop(self) -> None:
        self._stopped = True


@asynccontextmanager
async def compressed(
    body: bytes, kind: str = "text/event-stream", status: str = "200 OK", **options: Any
) -> AsyncGenerator[tuple[OpenRouter, asyncio.Event]]:
    """A client whose server answers with this body in gzip, and keeps the connection; whether that is closed."""
    closed = asyncio.Event()
    data = gzip.compress(body)
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Encoding: gzip\r\nContent-Length: {len(data)}\r\n\r\n"
    ).encode()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            writer.write(head + data)
            while await reader.read(1 << 16):
                pass
        closed.set()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with OpenRouter("sk-test", base_url=url, timeouts=Timeouts(silence=20), **options) as client:
            yield client, closed


def counting(turns: Turns, seen: Observed[Any]) -> tuple[list[int], Callable[[Any], None]]:
    """Return where the counts of turns go, one a value, and an `on_next` that keeps both."""
    counts: list[int] = []

    def on_next(value: Any) -> None:
        counts.append(turns.count)
        seen.on_next(value)

    return counts, on_next


@pytest.mark.parametrize("filling", [COMMENTS, CHUNK * (MEGABYTE // len(CHUNK))], ids=["comments", "chunks"])
@pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
async def test_loop_turns_between_steps_when_a_stream_is_highly_compressed(filling: bytes, kind: str) -> None:
    async with compressed(ANSWER[0] + filling + b"\n" + b"".join(ANSWER[1:]), kind) as (client, _):
        turns, seen = Turns(), Observed[Any]()
        counts, on_next = counting(turns, seen)
        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()
        turns.stop()

    assert seen.endings == [None]
    assert counts[-1] - counts[0] >= TURNS_A_MEGABYTE


async def test_loop_turns_between_steps_when_one_event_is_highly_compressed() -> None:
    large = CHUNK.replace(b'"a"', b'"%b"' % (b"a" * MEGABYTE))
    async with compressed(ANSWER[0] + large + b"".join(ANSWER[1:])) as (client, _):
        turns, seen = Turns(), Observed[Any]()
        counts, on_next = counting(turns, seen)
        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()
        turns.stop()

    assert seen.endings == [None]
    assert len(seen.values[1].choices[0].delta.content) == MEGABYTE
    assert counts[-1] - counts[0] >= TURNS_A_MEGABYTE


async def test_total_timeout_ends_the_chain_when_a_stream_is_highly_compressed() -> None:
    async with compressed(ANSWER[0] + COMMENTS * 8 + b"\n" + b"".join(ANSWER[1:])) as (client, closed):
        seen = await observe(client.chat("hi").pipe(timeouts(total=0.2)))
        await closed.wait()

    [ending] = seen.endings
    assert isinstance(ending, ContentTimeoutError)
    assert ending.clock == "total"


async def test_dispose_closes_the_connection_when_a_stream_is_highly_compressed() -> None:
    async with compressed(COMMENTS * 8) as (client, closed):
        first = asyncio.Event()
        turns = Turns()
        values = 0

        def on_next(value: Any) -> None:
            nonlocal values
            values += isinstance(value, Comment)
            first.set()

        subscription = client.events("/chat/completions", {}).subscribe(on_next)
        await first.wait()
        subscription.dispose()
        before = turns.count
        await closed.wait()
        turns.stop()

    assert 0 < values < len(COMMENTS) // 4
    assert turns.count - before < 20


async def test_error_page_is_bounded_when_it_is_highly_compressed() -> None:
    async with compressed(b"x" * (16 * MEGABYTE), "text/html", "500 Oops") as (client, closed):
        turns = Turns()
        seen = await observe(client.chat("hi"))
        await closed.wait()
        turns.stop()

    [ending] = seen.endings
    assert isinstance(ending, StatusError)
    # All of it would take these turns, at least.
    assert turns.count < 16 * TURNS_A_MEGABYTE_OF_PAGE


async def test_models_are_too_large_when_they_are_above_the_bound_only_decoded() -> None:
    async with compressed(b'{"data":[]}' + b" " * (16 * MEGABYTE), "application/json", max_event_bytes=MEGABYTE) as (
        client,
        closed,
    ):
        turns = Turns()
        seen = await observe(client.models())
        await closed.wait()
        turns.stop()

    [ending] = seen.endings
    assert isinstance(ending, EventTooLargeError)
    assert turns.count < 16 * TURNS_A_MEGABYTE_OF_PAGE


async def test_loop_turns_between_blocks_when_models_are_highly_compressed() -> None:
    async with compressed(b" " * (16 * MEGABYTE) + b'{"data":[{"id":"a"}]}', "application/json") as (client, _):
        turns = Turns()
        seen = await observe(client.models())
        turns.stop()

    assert seen.endings == [None]
    assert turns.count >= 16 * TURNS_A_MEGABYTE_OF_PAGE


async def test_loop_turns_between_blocks_when_a_completion_as_json_is_highly_compressed() -> None:
    whole = b'{"id":"g","choices":[{"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}]}'
    async with compressed(whole[:-1] + b" " * (16 * MEGABYTE) + b"}", "application/json") as (client, _):
        turns = Turns()
        seen = await observe(client.chat("hi"))
        turns.stop()

    assert seen.endings == [None]
    assert len(seen.values) == 1
    assert turns.count >= 16 * TURNS_A_MEGABYTE_OF_PAGE
