from __future__ import annotations

import asyncio
import time

import aiohttp
import pytest

from rxrouter import OpenRouter, TransportError
from rxrouter.operators import completion
from rxrouter.testing import STORY, Act, Reply, Simulator, VirtualLoop, answer

pytestmark = pytest.mark.virtual


async def test_an_hour_takes_no_time() -> None:
    loop, real = asyncio.get_running_loop(), time.monotonic()

    await asyncio.sleep(3600)

    assert loop.time() == 3600
    assert time.monotonic() - real < 60


async def test_timers_come_in_their_order_and_at_their_time() -> None:
    loop = asyncio.get_running_loop()
    came: list[tuple[str, float]] = []

    def come(name: str) -> None:
        came.append((name, loop.time()))

    for name, seconds in (("b", 0.3), ("a", 0.1), ("c", 0.3)):
        loop.call_later(seconds, come, name)

    await asyncio.sleep(1)

    assert came == [("a", 0.1), ("b", 0.3), ("c", 0.3)]


async def test_a_blocked_loop_is_late() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    fired = loop.create_future()
    loop.call_later(1, lambda: fired.set_result(loop.time()))

    loop.block(5)

    assert await fired == 5


async def test_the_simulator_answers_in_its_own_time() -> None:
    loop = asyncio.get_running_loop()
    async with (
        Simulator(Reply.of(answer(comments=0), rate=2)) as simulator,
        OpenRouter(base_url=simulator.base_url) as client,
    ):
        whole = await client.chat("hi").pipe(completion())
        again = await client.chat("hi").pipe(completion())

    assert whole.text == again.text == STORY
    assert loop.time() == pytest.approx(2 * len(answer(comments=0)) / 2)
    assert simulator.connections == 1


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
async def test_the_simulators_cuts_are_cuts(act: Act) -> None:
    async with (
        Simulator(Reply([*answer()[:9], act])) as simulator,
        OpenRouter(base_url=simulator.base_url) as client,
    ):
        with pytest.raises(TransportError):
            await client.chat("hi").pipe(completion())


async def test_who_leaves_is_seen_to_leave() -> None:
    async with (
        Simulator(Reply.of(answer(), rate=1)) as simulator,
        OpenRouter(base_url=simulator.base_url) as client,
    ):
        async for _ in client.chat("hi"):
            break
        await simulator.exchanges[0].over.wait()

    assert simulator.exchanges[0].left_at == pytest.approx(3)


async def test_a_reader_that_pauses_pauses_the_writer() -> None:
    written = 0
    loop = asyncio.get_running_loop()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        for _ in range(100):
            writer.write(b"x" * 10_000)
            await writer.drain()
            written += 10_000
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 8000)
    reader, writer = await asyncio.open_connection("127.0.0.1", 8000, limit=10_000)
    await asyncio.sleep(60)
    assert written < 200_000
    assert loop.time() == 60

    assert len(await reader.read(-1)) == 1_000_000
    writer.close()
    server.close()


async def test_nobody_listens_where_nothing_was_started() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get("http://127.0.0.1:9/")
    async with Simulator() as simulator:
        pass
    async with OpenRouter(base_url=simulator.base_url) as client:
        with pytest.raises(TransportError):
            await client.chat("hi")


async def test_one_address_has_one_server() -> None:
    async with Simulator(port=8000):
        with pytest.raises(OSError, match="listens"):
            await Simulator(port=8000).start()
    async with Simulator(port=8000):
        pass


def test_waiting_for_what_can_never_come_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rxrouter.testing.virtual._PATIENCE_SECONDS", 0)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(RuntimeError, match="nothing is left"):
        runner.run(asyncio.Event().wait())
