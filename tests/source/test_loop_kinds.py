"""The loops and task factories that applications choose: a smoke test and the storms on each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from reactivex import operators as ops

from rxrouter import ChatChunk, ClientClosedError, Limiter, OpenRouter, RetryPolicy
from rxrouter.operators import completion, retry_transient, text
from rxrouter.testing import STORY, Act, Exchange, Reply, Simulator, answer, chunk
from tests.source.test_dispose import open_sockets
from tests.support import Observed

SILENT = Reply((chunk({"content": "word "}), Act.HANG))
PATIENT = RetryPolicy(first_delay=3600.0, max_delay=3600.0)
TURNS = 25  # from a subscription beyond the first chunk


def eager() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(asyncio.eager_task_factory)  # type: ignore[attr-defined,unused-ignore]
    return loop


KINDS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.version_info >= (3, 12):
    KINDS["eager"] = eager
if sys.platform != "win32":
    import uvloop

    KINDS["uvloop"] = uvloop.new_event_loop


@pytest.fixture(params=KINDS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    """Runs a coroutine on a loop of this kind; nothing may be left on it, or reported to it."""

    def run(test: Coroutine[Any, Any, None]) -> None:
        faults: list[dict[str, Any]] = []

        async def limited() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
            async with asyncio.timeout(60):
                await test
            for _ in range(3):
                await asyncio.sleep(0)
            assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []

        with asyncio.Runner(loop_factory=KINDS[request.param]) as runner:
            runner.run(limited())
        assert faults == []

    return run


def reply(exchange: Exchange) -> Reply:
    prompt = exchange.json["messages"][0]["content"]
    if prompt == "busy":
        return Reply.error(503, "Overloaded.")
    return SILENT if prompt == "silent" else Reply.of(answer(), rate=2_000)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - of what has no event
        await asyncio.sleep(0.001)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


Run = Callable[[Coroutine[Any, Any, None]], None]


def test_stream_arrives_whole_on_each_kind_of_loop(run: Run) -> None:
    async def use() -> None:
        async with Simulator(reply) as simulator, OpenRouter("sk-test", base_url=simulator.base_url) as client:
            assert (await client.chat("hi").pipe(completion())).text == STORY
            assert "".join([word async for word in client.chat("hi").pipe(text(), ops.delay(0.001))]) == STORY
            kept: list[ChatChunk] = []

            async def keep(value: ChatChunk) -> None:
                await asyncio.sleep(0)
                kept.append(value)

            await client.chat("hi").for_each(keep)
            assert kept

    run(use())


def test_dispose_at_each_turn_closes_the_request_on_each_kind_of_loop(run: Run) -> None:
    async def use() -> None:
        async with Simulator(reply) as simulator, OpenRouter("sk-test", base_url=simulator.base_url) as client:
            for turn in range(TURNS):
                seen = Observed[ChatChunk]()
                subscription = client.chat("silent").subscribe(seen.on_next, seen.on_error, seen.on_completed)
                await turns(turn)
                await subscription.aclose()
                assert seen.endings == []
                assert not open_sockets(simulator)

    run(use())


def test_close_at_each_turn_ends_each_chain_on_each_kind_of_loop(run: Run) -> None:
    async def use() -> None:
        async with Simulator(reply) as simulator:
            for turn in range(TURNS):
                limiter = Limiter(2)
                client = OpenRouter("sk-test", base_url=simulator.base_url, limiter=limiter)
                streams = [Observed[ChatChunk]() for _ in range(3)]
                for seen, prompt in zip(streams, ("silent", "busy", "waiting"), strict=True):
                    chunks = client.chat(prompt).pipe(retry_transient(PATIENT))
                    chunks.subscribe(seen.on_next, seen.on_error, seen.on_completed)
                await turns(turn)
                await client.aclose()
                endings = [[type(ending) for ending in seen.endings] for seen in streams]
                # The third may have had its turn, and have ended well.
                assert endings[:2] == [[ClientClosedError]] * 2
                assert endings[2] in ([ClientClosedError], [type(None)])
                assert not open_sockets(simulator)
                assert (limiter.running, limiter.waiting) == (0, 0)

    run(use())


def test_aclose_cancelled_at_each_turn_is_finished_by_the_next_on_each_kind_of_loop(run: Run) -> None:
    async def use() -> None:
        async with Simulator(reply) as simulator:
            for turn in range(10):
                client = OpenRouter("sk-test", base_url=simulator.base_url)
                seen = Observed[ChatChunk]()
                client.chat("silent").subscribe(seen.on_next, seen.on_error, seen.on_completed)
                await until(lambda seen=seen: bool(seen.values))  # type: ignore[misc]
                closing = asyncio.create_task(client.aclose())
                await turns(turn)
                closing.cancel()
                await asyncio.wait([closing])
                await client.aclose()
                assert [type(ending) for ending in seen.endings] == [ClientClosedError]
                assert not open_sockets(simulator)

    run(use())


def test_request_cancelled_at_each_turn_is_closed_on_each_kind_of_loop(run: Run) -> None:
    async def use() -> None:
        async with Simulator(reply) as simulator, OpenRouter("sk-test", base_url=simulator.base_url) as client:
            for turn in range(TURNS):

                async def ask() -> ChatChunk:
                    return await client.chat("silent")

                asking = asyncio.create_task(ask())
                await turns(turn)
                asking.cancel()
                await asyncio.wait([asking])
                await turns(4)
                assert asking.cancelled()
                assert not open_sockets(simulator)

    run(use())


def test_client_moves_between_loops_of_each_kind(run: Run) -> None:
    with Simulator(reply) as simulator:
        client = OpenRouter("sk-test", base_url=simulator.base_url)

        async def ask() -> None:
            assert (await client.chat("hi").pipe(completion())).text == STORY

        async def close() -> None:
            await client.aclose()

        run(ask())
        run(ask())
        run(close())
