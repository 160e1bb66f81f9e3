from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress

import pytest

from rxrouter import OpenRouter, RouterError
from rxrouter.operators import completion, reasoning, text
from rxrouter.testing import FAULTS, STORY, Act, Exchange, Recording, Reply, Simulator, answer
from tests.support import until

ENDLESS = {"stall", "silence", "comments"}
BENIGN = {"split": "stop", "no-done": "stop", "cut-after-finish": "stop", "cut-tool-call": "tool_calls"}


async def ask(simulator: Simulator) -> str | None:
    async with OpenRouter(base_url=simulator.base_url) as client:
        return (await client.chat("Hi").pipe(completion())).finish_reason


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - ENDLESS - set(BENIGN)))
async def test_fault_ends_the_stream_with_a_typed_error(fault: str) -> None:
    async with Simulator(fault=fault) as simulator:
        with pytest.raises(RouterError):
            await ask(simulator)


@pytest.mark.parametrize("fault", BENIGN)
async def test_oddity_does_not_end_the_stream(fault: str) -> None:
    async with Simulator(fault=fault) as simulator:
        assert await ask(simulator) == BENIGN[fault]


@pytest.mark.parametrize("fault", sorted(ENDLESS))
async def test_endless_fault_lasts_until_the_client_leaves(fault: str) -> None:
    async with Simulator(fault=fault) as simulator, OpenRouter(base_url=simulator.base_url) as client:
        subscription = client.chat("Hi").subscribe()
        await until(lambda: bool(simulator.exchanges))

        await subscription.aclose()
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no fault is called 'flood'; there are: cut, "):
        Simulator(fault="flood")


def test_it_runs_on_a_thread_of_its_own() -> None:
    with Simulator(text="Hi there") as simulator, OpenRouter(base_url=simulator.base_url) as client:
        assert client.chat("Hi").pipe(completion()).run().text == "Hi there"
        assert simulator.exchanges[0].json["messages"] == [{"role": "user", "content": "Hi"}]
        assert simulator.exchanges[0].path == "/api/v1/chat/completions"


async def test_answers_can_be_chosen_by_the_request() -> None:
    def echo(exchange: Exchange) -> Reply:
        return Reply.of(answer(exchange.json["messages"][0]["content"].upper()))

    async with Simulator(echo) as simulator, OpenRouter(base_url=simulator.base_url) as client:
        assert (await client.chat("hello").pipe(completion())).text == "HELLO"


async def test_a_recording_is_played_in_its_timing() -> None:
    loop = asyncio.get_running_loop()
    recording = Recording(tuple(answer("Hi")), (0.05,) * len(answer("Hi")))
    began = loop.time()

    async with Simulator(recording=recording) as simulator:
        await ask(simulator)

    assert loop.time() - began >= 0.05 * len(recording.blocks)


async def test_an_answer_has_reasoning_text_and_whole_tool_calls() -> None:
    events = answer("It rains.", reasoning="Look outside.", tool_calls=[("weather", '{"city": "Ulm"}')])
    async with Simulator(Reply.of(events)) as simulator, OpenRouter(base_url=simulator.base_url) as client:
        whole = await client.chat("Hi").pipe(completion())

    assert (whole.text, whole.reasoning, whole.finish_reason) == ("It rains.", "Look outside.", "tool_calls")
    assert [(call.id, call.name, call.arguments) for call in whole.tool_calls] == [
        ("call_0", "weather", '{"city": "Ulm"}')
    ]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 4


async def test_text_and_reasoning_are_the_pieces_of_the_whole() -> None:
    thoughtful = Simulator(Reply.of(answer(reasoning="Hm. Well.")))
    async with thoughtful as simulator, OpenRouter(base_url=simulator.base_url) as client:
        chunks = client.chat("Hi")

        assert "".join([word async for word in chunks.pipe(text())]) == STORY
        assert "".join([word async for word in chunks.pipe(reasoning())]) == "Hm. Well."


async def test_connections_are_counted() -> None:
    async with Simulator() as simulator:
        await ask(simulator)
        await ask(simulator)

        assert (len(simulator.exchanges), simulator.connections) == (2, 2)


async def test_a_reset_is_seen_as_one() -> None:
    async with Simulator(Reply((Act.RESET,))) as simulator:
        with pytest.raises(RouterError, match=r"reset|cut"):
            await ask(simulator)


async def test_with_runs_it_on_a_thread_of_its_own_also_where_a_loop_runs() -> None:
    with Simulator(text="Hi there") as simulator:  # the loop stands still meanwhile
        pass

    assert simulator.exchanges == []


def server_sockets(port: int) -> list[str]:
    """The sockets of this process that belong to the server on this port, by the kernel's word."""
    found: list[str] = []
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with suppress(OSError):  # closed meanwhile
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):  # noqa: PTH115
                continue
            with socket.socket(fileno=os.dup(int(fd))) as twin:
                if twin.family == socket.AF_INET and twin.getsockname()[1] == port:
                    found.append(fd)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc to ask")  # noqa: PTH112
@pytest.mark.parametrize("turn", range(8))
async def test_stop_closes_a_connection_that_was_accepted_some_turns_before(turn: int) -> None:
    simulator = Simulator()
    await simulator.start()
    port = int(simulator.base_url.split(":")[2].split("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(turn):
            await asyncio.sleep(0)
        await simulator.stop()
        await asyncio.sleep(0)

        assert server_sockets(port) == []
        connection.settimeout(5)
        with suppress(ConnectionResetError):
            assert connection.recv(1) == b""


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc to ask")  # noqa: PTH112
def test_stop_of_a_thread_closes_a_connection_that_was_just_accepted() -> None:
    for _ in range(20):
        with Simulator() as simulator:
            port = int(simulator.base_url.split(":")[2].split("/")[0])
            connection = socket.create_connection(("127.0.0.1", port))

        assert server_sockets(port) == []
        connection.close()
