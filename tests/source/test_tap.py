"""What is pushed from the socket is what a task would have pulled, where a transport takes no tap."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxrouter import ChatChunk, Overflow, Timeouts
from rxrouter._source import post
from rxrouter.operators import text
from rxrouter.testing import FAULTS, Reply, answer
from tests.support import Observed, observe, served


@pytest.fixture(params=["pushed", "pulled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pulled":
        _pull(monkeypatch)


def _pull(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(post, "tap", refuse)


def _told(seen: Observed[ChatChunk]) -> Any:
    [ending] = seen.endings
    return [chunk.raw for chunk in seen.values], type(ending), str(ending), getattr(ending, "chunks_seen", None)


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "comments"])  # they have no end
async def test_every_fault_is_told_alike(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(fault=fault, timeouts=Timeouts(silence=0.2)) as (client, _):
        pushed = _told(await observe(client.chat("hi")))
        _pull(monkeypatch)
        pulled = _told(await observe(client.chat("hi")))

    assert pushed == pulled


@pytest.mark.usefixtures("way")
async def test_a_slow_reader_holds_the_server_and_misses_nothing() -> None:
    said = "".join(f"{number}{'~' * 3000} " for number in range(3_000))
    async with (
        served(Reply(answer(said))) as (client, simulator),
        client.chat("hi").pipe(text()).iterate(high=4, low=1, overflow=Overflow.PAUSE) as reader,
    ):
        words = [await anext(reader)]
        held, same = -1, 0
        while same < 50:  # turns of the loop in which the server got nothing off its hands
            await asyncio.sleep(0.001)
            held, same = (sent := simulator.exchanges[0].sent_bytes), same + 1 if sent == held else 0
        assert held < len(said)
        words += [word async for word in reader]

    assert "".join(words) == said


@pytest.mark.usefixtures("way")
async def test_the_connection_is_used_again() -> None:
    async with served(Reply(answer("one two"))) as (client, simulator):
        for _ in range(3):
            await observe(client.chat("hi"))

        assert len({exchange.peer for exchange in simulator.exchanges}) == 1


@pytest.mark.usefixtures("way")
async def test_a_reader_that_raises_closes_the_request_in_the_midst_of_a_read() -> None:
    async with served(Reply.of(answer("one two three four"), rate=1000)) as (client, simulator):
        told = asyncio.get_running_loop().create_future()

        def raises(_: ChatChunk) -> None:
            raise LookupError

        client.chat("hi").subscribe(raises, told.set_result)

        assert isinstance(await told, LookupError)
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
