"""Dispose is the cancel: what the server sees of it, in every position, and what is left behind."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from reactivex import operators as ops
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, ClientClosedError, OpenRouter
from rxrouter._consume import Subscription
from rxrouter.operators import text
from rxrouter.testing import Act, Exchange, Reply, Simulator, answer, chunk
from tests.support import Observed, observe, served

REPETITIONS = 200
BOUND = 0.05  # seconds, from dispose to the moment at which the server knows
STALL = 2.0  # what one repetition may take on a machine that does something else meanwhile

UNANSWERED = Reply(before=(Act.HANG,))
SILENT = Reply((*[chunk({"content": word}) for word in ("Once ", "upon ", "a ")], Act.HANG))
TALKING = Reply((chunk({"content": "word "}), 0.001) * 5_000)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of what has no event
            await asyncio.sleep(0.001)


async def seen_by(simulator: Simulator, count: int) -> Exchange:
    await until(lambda: len(simulator.exchanges) >= count)
    return simulator.exchanges[count - 1]


def requests() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]


def other_tasks() -> list[asyncio.Task[object]]:
    """Tasks that are neither the test nor the server, which has one a connection."""
    mine = asyncio.current_task()
    return [task for task in asyncio.all_tasks() if task is not mine and "web_protocol" not in repr(task)]


def open_sockets(simulator: Simulator | None = None) -> set[str]:
    """The process's sockets, or those that go to the server; nothing where there is no /proc to ask."""
    found: set[str] = set()
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():  # noqa: PTH112, PTH208
        try:
            link = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
            if link.startswith("socket:") and (simulator is None or _peer(int(fd)) == _port(simulator)):
                found.add(link)
        except OSError:  # closed meanwhile, or not connected
            continue
    return found


def _peer(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as twin:
        return int(twin.getpeername()[1]) if twin.family == socket.AF_INET else 0


def _port(simulator: Simulator) -> int:
    return int(simulator.base_url.rsplit(":", 1)[1].split("/")[0])


def unexpected(error: Exception) -> None:
    raise AssertionError from error  # reaches the loop's exception handler, which fails the test


Leave = Callable[[OpenRouter, Simulator, int], Awaitable[float]]


async def leave_repeatedly(name: str, reply: Reply, leave: Leave) -> None:
    """Has `leave` subscribe and go, and say when it went; asserts what the server saw, and that nothing is left."""
    threads = threading.active_count()
    async with served(reply) as (client, simulator):
        sockets = open_sockets()
        latencies: list[float] = []
        for count in range(1, REPETITIONS + 1):
            left = await leave(client, simulator, count)
            exchange = await seen_by(simulator, count)
            await exchange.over.wait()
            assert exchange.left_at is not None
            latencies.append(exchange.left_at - left)

        await until(lambda: not requests())
        await until(lambda: open_sockets() == sockets)
        assert len(simulator.exchanges) == REPETITIONS
        assert threading.active_count() <= threads
        assert not other_tasks()
    median, most = statistics.median(latencies), max(latencies)
    print(f"{name}: server saw it {median * 1e3:.2f} ms after dispose, {most * 1e3:.2f} ms at most")  # noqa: T201
    assert median < BOUND
    assert most < STALL


async def test_server_sees_dispose_before_headers() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        subscription = client.chat("hi").subscribe(on_error=unexpected)
        await seen_by(simulator, count)
        now = asyncio.get_running_loop().time()
        subscription.dispose()
        return now

    await leave_repeatedly("before headers", UNANSWERED, leave)


async def test_server_sees_dispose_of_a_silent_stream() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 3)
        now = asyncio.get_running_loop().time()
        subscription.dispose()
        return now

    await leave_repeatedly("while silent", SILENT, leave)


async def test_server_sees_dispose_inside_on_next() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        loop = asyncio.get_running_loop()
        left: asyncio.Future[float] = loop.create_future()

        def on_next(_: ChatChunk) -> None:
            left.set_result(loop.time())
            subscription.dispose()

        subscription = client.chat("hi").subscribe(on_next, unexpected)
        return await left

    await leave_repeatedly("inside on_next", TALKING, leave)


async def test_server_sees_dispose_from_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(int).result()  # the thread is there before threads are counted

        async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
            loop = asyncio.get_running_loop()
            seen = Observed[ChatChunk]()
            subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: len(seen.values) == 3)

            def dispose() -> float:
                now = loop.time()
                subscription.dispose()
                return now

            future = pool.submit(dispose)
            await simulator.exchanges[-1].over.wait()  # nothing but the dispose wakes this loop
            return future.result()

        await leave_repeatedly("from another thread", SILENT, leave)


async def test_server_sees_take_leave_after_the_last_value_it_wanted() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        loop = asyncio.get_running_loop()
        left: asyncio.Future[float] = loop.create_future()
        client.chat("hi").pipe(text(), ops.take(3)).subscribe(
            on_error=unexpected, on_completed=lambda: left.set_result(loop.time())
        )
        return await left

    await leave_repeatedly("take(3)", TALKING, leave)


async def test_server_sees_async_for_being_left() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        loop = asyncio.get_running_loop()
        left = 0.0
        async for _ in client.chat("hi").pipe(text()):
            left = loop.time()
            break
        return left

    await leave_repeatedly("leaving async for", TALKING, leave)


async def test_server_sees_the_timeout_operator_give_up() -> None:
    async def leave(client: OpenRouter, simulator: Simulator, count: int) -> float:
        loop = asyncio.get_running_loop()
        seen = Observed[ChatChunk]()
        clock = TestScheduler()  # so that no timeout comes before the server has even seen the request
        client.chat("hi").pipe(ops.timeout(30.0, scheduler=clock)).subscribe(
            seen.on_next, seen.on_error, seen.on_completed
        )
        await until(lambda: len(seen.values) == 3)
        now = loop.time()
        clock.advance_by(31.0)
        assert len(seen.endings) == 1
        return now

    await leave_repeatedly("ops.timeout", SILENT, leave)


async def test_timeout_operator_with_the_loops_timer_closes_the_request() -> None:
    async with served(SILENT) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(ops.timeout(0.2)))

        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        assert isinstance(seen.endings[0], Exception)


async def test_dispose_before_the_start_sends_nothing() -> None:
    async with served() as (client, simulator):
        seen = Observed[ChatChunk]()
        client.chat("never sent").subscribe(seen.on_next, seen.on_error, seen.on_completed).dispose()
        await client.chat("sent")  # a full request, there and back

        assert [exchange.json["messages"][0]["content"] for exchange in simulator.exchanges] == ["sent"]
        assert not seen.values
        assert not seen.endings


async def test_dispose_before_the_start_sends_nothing_when_both_come_from_another_thread() -> None:
    async with served() as (client, simulator):
        await client.chat("first")
        seen = Observed[ChatChunk]()

        def subscribe_and_dispose() -> None:
            client.chat("never sent").subscribe(seen.on_next, seen.on_error, seen.on_completed).dispose()

        thread = threading.Thread(target=subscribe_and_dispose)
        thread.start()
        thread.join()  # the loop has had no chance to start anything
        await client.chat("second")

        assert [exchange.json["messages"][0]["content"] for exchange in simulator.exchanges] == ["first", "second"]
        assert not seen.values
        assert not seen.endings


async def test_disposing_twice_is_disposing_once() -> None:
    async with served(SILENT) as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 3)

        subscription.dispose()
        subscription.dispose()
        await simulator.exchanges[0].over.wait()
        subscription.dispose()

        assert not seen.endings


async def test_dispose_after_completion_does_nothing() -> None:
    async with served() as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()

        subscription.dispose()
        await client.chat("again")

        assert seen.endings == [None]
        assert [exchange.left_at for exchange in simulator.exchanges] == [None, None]
        assert simulator.connections == 1  # not even the connection was hurt


async def test_dispose_inside_on_completed_does_nothing() -> None:
    async with served() as (client, simulator):
        over = asyncio.Event()

        def on_completed() -> None:
            subscription.dispose()
            over.set()

        subscription = client.chat("hi").subscribe(on_completed=on_completed)
        await over.wait()
        await client.chat("again")

        assert simulator.connections == 1


async def test_dispose_from_many_threads_at_once_closes_once() -> None:
    async with served(SILENT) as (client, simulator):
        with ThreadPoolExecutor(8) as pool:
            for count in range(1, 26):
                seen = Observed[ChatChunk]()
                subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
                await until(lambda seen=seen: len(seen.values) == 3)  # type: ignore[misc]
                line = threading.Barrier(8)

                def dispose(line: threading.Barrier = line, subscription: Subscription = subscription) -> None:
                    line.wait(10)
                    subscription.dispose()

                disposals = [pool.submit(dispose) for _ in range(8)]
                exchange = await seen_by(simulator, count)
                await exchange.over.wait()

                for disposal in disposals:
                    disposal.result(10)  # none raised
                assert exchange.left_at is not None
                assert not seen.endings
        await until(lambda: not requests())


async def test_nothing_is_delivered_after_dispose_inside_on_next() -> None:
    async with served(Reply((b"".join(answer()), Act.HANG))) as (client, simulator):  # all of it in one block
        values: list[str] = []

        def on_next(word: str) -> None:
            values.append(word)
            if len(values) == 2:
                subscription.dispose()

        subscription = client.chat("hi").pipe(text()).subscribe(on_next, unexpected)
        await until(lambda: bool(simulator.exchanges))
        await simulator.exchanges[0].over.wait()
        await until(lambda: not requests())

        assert values == ["Once", " upon"]


async def test_nothing_is_delivered_after_dispose_by_another_thread_during_on_next() -> None:
    async with served(Reply((b"".join(answer()), Act.HANG))) as (client, simulator):
        seen = Observed[ChatChunk]()

        def on_next(value: ChatChunk) -> None:
            seen.on_next(value)
            thread = threading.Thread(target=subscription.dispose)
            thread.start()
            thread.join()

        subscription = client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await until(lambda: bool(simulator.exchanges))
        await simulator.exchanges[0].over.wait()
        await until(lambda: not requests())

        assert len(seen.values) == 1
        assert not seen.endings


async def test_nothing_is_delivered_after_dispose_while_the_server_goes_on_talking() -> None:
    async with served(TALKING) as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) >= 10)

        subscription.dispose()
        count = len(seen.values)
        await simulator.exchanges[0].over.wait()
        await until(lambda: not requests())

        assert len(seen.values) == count
        assert not seen.endings


async def test_dispose_while_a_finished_answer_is_drained_brings_no_ending() -> None:
    async with served(Reply((*answer("One two."), Act.HANG))) as (client, simulator):  # [DONE], but no end of the body
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 4)

        subscription.dispose()
        await simulator.exchanges[0].over.wait()
        await until(lambda: not requests())

        assert not seen.endings


@pytest.mark.parametrize("reply", [UNANSWERED, SILENT, TALKING], ids=["before headers", "silent", "talking"])
async def test_aclose_returns_when_task_and_socket_are_released(reply: Reply) -> None:
    async with served(reply) as (client, simulator):
        for count in range(1, 21):
            seen = Observed[ChatChunk]()
            subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            exchange = await seen_by(simulator, count)
            if reply is not UNANSWERED:
                await until(lambda seen=seen: len(seen.values) >= 3)  # type: ignore[misc]

            await subscription.aclose()

            assert not requests()
            assert not open_sockets(simulator)
            assert not seen.endings
            await exchange.over.wait()
            assert exchange.left_at is not None


async def test_aclose_from_another_loop_returns_when_task_and_socket_are_released() -> None:
    async with served(SILENT) as (client, simulator):
        home = asyncio.get_running_loop()

        async def aclose(subscription: Subscription) -> tuple[int, int]:
            await subscription.aclose()
            tasks = [task for task in asyncio.all_tasks(home) if task.get_name() == "rxrouter request"]
            return len(tasks), len(open_sockets(simulator))

        for count in range(1, 21):
            seen = Observed[ChatChunk]()
            subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda seen=seen: len(seen.values) == 3)  # type: ignore[misc]

            left = await asyncio.to_thread(asyncio.run, aclose(subscription))

            assert left == (0, 0)
            await simulator.exchanges[count - 1].over.wait()
            assert not seen.endings


async def test_aclose_before_the_start_sends_nothing() -> None:
    async with served() as (client, simulator):
        await client.chat("never sent").subscribe().aclose()
        await client.chat("sent")

        assert len(simulator.exchanges) == 1


async def test_aclose_after_completion_returns_at_once() -> None:
    async with served() as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()

        await subscription.aclose()
        await subscription.aclose()
        await client.chat("again")

        assert seen.endings == [None]
        assert simulator.connections == 1


async def test_aclose_closes_what_stands_behind_any_number_of_operators() -> None:
    async with served(SILENT) as (client, simulator):
        chain = client.chat("hi").pipe(text(), ops.retry(3), ops.share(), ops.delay(0.001), ops.timeout(60.0))
        subscription = chain.subscribe(on_error=unexpected)
        await seen_by(simulator, 1)

        await subscription.aclose()

        assert not requests()
        assert not open_sockets(simulator)


async def test_aclose_neither_touches_nor_awaits_a_sibling() -> None:
    async with served(SILENT) as (client, simulator):
        sibling, seen = Observed[ChatChunk](), Observed[ChatChunk]()
        kept = client.chat("sibling").subscribe(sibling.on_next, sibling.on_error, sibling.on_completed)
        await until(lambda: len(sibling.values) == 3)
        subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 3)

        async with asyncio.timeout(5):
            await subscription.aclose()

        assert simulator.exchanges[1].json["messages"][0]["content"] == "hi"
        await simulator.exchanges[1].over.wait()
        assert not simulator.exchanges[0].over.is_set()
        assert not sibling.endings
        kept.dispose()
        await simulator.exchanges[0].over.wait()


async def test_closing_the_client_ends_every_running_stream_once() -> None:
    def reply(exchange: Exchange) -> Reply:
        return UNANSWERED if exchange.json["seed"] % 2 else SILENT

    async with served(reply) as (client, simulator):
        streams = [Observed[ChatChunk]() for _ in range(50)]
        for seed, seen in enumerate(streams):
            client.chat("hi", seed=seed).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: sum(len(seen.values) for seen in streams) == 3 * 25 and len(simulator.exchanges) == 50)

        await client.aclose()

        assert [[type(ending) for ending in seen.endings] for seen in streams] == [[ClientClosedError]] * 50
        assert not requests()
        for exchange in simulator.exchanges:
            await exchange.over.wait()
            assert exchange.left_at is not None
        await until(lambda: not open_sockets(simulator))
        assert all(len(seen.endings) == 1 for seen in streams)


async def test_closing_the_client_ends_a_stream_that_has_not_yet_begun() -> None:
    async with served() as (client, _):
        await client.chat("first")
        seen = Observed[ChatChunk]()
        client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)

        await client.aclose()

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]


async def test_closing_the_client_twice_is_closing_once() -> None:
    async with served(SILENT) as (client, _):
        seen = Observed[ChatChunk]()
        client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 3)

        await asyncio.gather(client.aclose(), client.aclose())
        client.close()
        await until(lambda: not other_tasks())

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]


async def test_closing_the_client_inside_on_next_ends_that_stream() -> None:
    async with served(SILENT) as (client, simulator):
        seen = Observed[ChatChunk]()

        def on_next(value: ChatChunk) -> None:
            seen.on_next(value)
            client.close()

        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()
        await simulator.exchanges[0].over.wait()

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
        assert simulator.exchanges[0].left_at is not None


async def test_subscribing_after_the_client_is_closed_is_told_so() -> None:
    async with served() as (client, simulator):
        await client.chat("first")
        chunks = client.chat("second")
        await client.aclose()

        seen = await observe(chunks)

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
        assert len(simulator.exchanges) == 1


async def test_subscribing_to_a_client_that_was_closed_unused_is_told_so() -> None:
    async with served() as (client, simulator):
        await client.aclose()

        seen = await observe(client.chat("hi"))

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
        assert not simulator.exchanges


def test_dispose_after_the_loop_is_closed_does_not_raise() -> None:
    # Other loops take one more turn after they are stopped, and the requests below start in it.
    loop = asyncio.SelectorEventLoop()
    subscriptions: list[Subscription] = []
    client = OpenRouter("sk-test", base_url="http://127.0.0.1:9/")

    def subscribe() -> None:
        subscriptions.append(client.chat("hi").subscribe(on_error=unexpected))
        chain = client.chat("hi").pipe(ops.delay(1.0), ops.timeout(1.0), ops.share())
        subscriptions.append(chain.subscribe(on_error=unexpected))

    def subscribe_on_a_thread(_: object) -> None:
        thread = threading.Thread(target=subscribe)
        thread.start()
        thread.join()

    async def bind() -> None:
        subscription = client.chat("hi").subscribe()
        await subscription.aclose()
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(subscribe_on_a_thread)  # in the loop's last turn: these requests never start

    loop.run_until_complete(bind())
    loop.close()

    assert len(subscriptions) == 2
    for subscription in subscriptions:
        subscription.dispose()
        subscription.dispose()
        asyncio.run(subscription.aclose())


def test_dispose_after_its_loop_was_shut_down_does_not_raise() -> None:
    seen = Observed[ChatChunk]()

    async def leave_running() -> Subscription:
        async with served(SILENT) as (client, _):
            subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: len(seen.values) == 3)
            return subscription

    subscription = asyncio.run(leave_running())

    subscription.dispose()
    asyncio.run(subscription.aclose())
    assert [type(ending) for ending in seen.endings] == [ClientClosedError]


def test_aclose_does_not_wait_for_a_loop_that_stands_still() -> None:
    with Simulator(SILENT) as simulator, asyncio.Runner() as runner:
        client = OpenRouter("sk-test", base_url=simulator.base_url)
        seen = Observed[ChatChunk]()

        async def begin() -> Subscription:
            subscription = client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: len(seen.values) == 3)
            return subscription

        async def aclose(subscription: Subscription) -> None:
            async with asyncio.timeout(2):
                await subscription.aclose()

        subscription = runner.run(begin())
        try:
            asyncio.run(aclose(subscription))  # in another loop, while the client's is between two turns
        except TimeoutError:
            pytest.fail("waits for ever for a loop that is not running")
        except RuntimeError:
            pass  # as good an answer, if it says what to do
        finally:
            runner.run(client.aclose())
