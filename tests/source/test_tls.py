"""A stream over TLS, by the tap and without it: all is told as without TLS, and leaving closes the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import aiohttp
import pytest

from rxrouter import ChatChunk, OpenRouter, Overflow, Timeouts, TransportError
from rxrouter._source.tap import Tap
from rxrouter.operators import text
from rxrouter.testing import FAULTS, Act, Reply, Simulator, answer
from tests.support import Observed, observe
from tests.tls import behind_tls, contexts


@pytest.fixture(params=["pushed", "pulled"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    def refuse(*_: object) -> None:
        return None

    if request.param == "pulled":
        monkeypatch.setattr(Tap, "on", refuse)
    return str(request.param)


@asynccontextmanager
async def both(said: Any = None, fault: str | None = None) -> AsyncGenerator[tuple[Simulator, OpenRouter, OpenRouter]]:
    """A server, a client of it, and one whose connections are encrypted."""
    options: dict[str, Any] = {"timeouts": Timeouts(silence=0.5)}
    async with (
        Simulator(said, fault=fault) as simulator,
        behind_tls(simulator.base_url) as url,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=contexts()[1])) as session,
        OpenRouter("sk-test", base_url=simulator.base_url, **options) as plain,
        OpenRouter("sk-test", base_url=url, session=session, **options) as encrypted,
    ):
        yield simulator, plain, encrypted


def told(seen: Observed[ChatChunk]) -> Any:
    [ending] = seen.endings
    return [chunk.raw for chunk in seen.values], type(ending), getattr(ending, "chunks_seen", None)


@pytest.mark.parametrize("fault", [None, *(fault for fault in FAULTS if fault != "comments")])  # they have no end
async def test_every_fault_is_told_alike(fault: str | None) -> None:
    async with both(fault=fault) as (_, plain, encrypted):
        assert told(await observe(encrypted.chat("hi"))) == told(await observe(plain.chat("hi")))


async def test_the_tap_has_the_body_where_it_may(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, begin = list[bool](), Tap.begin

    def begun(tap: Tap, *args: Any) -> bool:
        taken.append(begin(tap, *args))
        return taken[-1]

    monkeypatch.setattr(Tap, "begin", begun)
    async with both() as (_, _, client):
        await observe(client.chat("hi"))
    assert taken == ([True] if way == "pushed" else [])


async def test_the_connection_is_used_again() -> None:
    async with both(Reply(answer("one two"))) as (simulator, _, client):
        for _ in range(3):
            assert (await observe(client.chat("hi"))).endings == [None]
        assert len({exchange.peer for exchange in simulator.exchanges}) == 1


@pytest.mark.parametrize("rate", [1000, 20])
async def test_who_leaves_is_seen_to_leave(rate: float) -> None:
    async with both(Reply.of(answer("one two three " * 100), rate=rate)) as (simulator, _, client):
        came = asyncio.Event()
        subscription = client.chat("hi").subscribe(lambda _: came.set())
        await came.wait()
        subscription.dispose()
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize("end", [(), (Act.CUT,), (Act.RESET,)])
async def test_a_slow_reader_misses_nothing_of_what_arrived(way: str, end: tuple[Act, ...]) -> None:
    said = "".join(f"{number}{'~' * 3000} " for number in range(1_000))
    blocks = answer(said) if not end else answer(said)[:-3]
    async with both(Reply((*blocks, 0.05, *end))) as (_, _, client):
        words, reader = list[str](), client.chat("hi").pipe(text()).iterate(high=4, low=1, overflow=Overflow.PAUSE)
        with pytest.raises(TransportError) if end else nullcontext():
            async for word in reader:
                words.append(word)
                if len(words) % 50 == 0:
                    await asyncio.sleep(0.001)
        whole = "".join(words)
        assert said.startswith(whole)
        # A reset takes what is on its way with it; and aiohttp, which reads no further than it is read, drops the rest
        # of what a TLS connection gave it with its end (3.14).
        assert whole == said or end == (Act.RESET,) or (end == (Act.CUT,) and way == "pulled")
