# pyright: reportPrivateUsage=false
"""Which loop, which thread: clients with and without a loop, chains that stay on it, and its scheduler."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import warnings
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
import reactivex
from reactivex import Observable, abc, operators as ops

from rxrouter import ChatChunk, ClientClosedError, OpenRouter, StatusError
from rxrouter._source import loop as loop_module
from rxrouter._source.loop import LoopScheduler
from rxrouter._source.observable import LoopObservable
from rxrouter.operators import completion, text
from rxrouter.testing import STORY, Act, Exchange, Reply, Simulator, answer, chunk
from tests.support import Observed, observe, served

if sys.platform != "win32":
    import resource

SILENT = Reply((*[chunk({"content": word}) for word in ("Once ", "upon ", "a ")], Act.HANG))
SHORT = Reply.of(answer("One two three four five."), rate=400)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of what has no event
            await asyncio.sleep(0.001)


@contextmanager
def served_apart(reply: Any = None) -> Generator[tuple[OpenRouter, Simulator]]:
    """A client without a loop, beside a server on a thread."""
    with Simulator(reply) as simulator, client_of(simulator) as client:
        yield client, simulator


@asynccontextmanager
async def served_from_a_thread(reply: Any = None) -> AsyncGenerator[tuple[OpenRouter, Simulator]]:
    """A client that has a loop on a thread of its own, for a coroutine of another loop, where the server is."""
    async with Simulator(reply) as simulator:
        client = client_of(simulator)
        thread = threading.Thread(target=lambda: client.chat("never sent").subscribe().dispose())
        thread.start()
        thread.join()
        try:
            yield client, simulator
        finally:
            await client.aclose()


def client_of(simulator: Simulator) -> OpenRouter:
    return OpenRouter("sk-test", base_url=simulator.base_url)


def threads_since(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


# A client where no loop runs


@pytest.mark.parametrize("how", ["with", "close"])
def test_client_where_no_loop_runs_has_one_daemon_thread_until_it_is_closed(how: str) -> None:
    with Simulator() as simulator:
        before = set(threading.enumerate())
        client = client_of(simulator)
        assert not threads_since(before)

        for _ in range(3):
            client.chat("hi").run()
        started = threads_since(before)
        if how == "with":
            with client:
                pass
        else:
            client.close()

        assert [(thread.name, thread.daemon) for thread in started] == [("rxrouter loop", True)]
        assert not started[0].is_alive()


def test_client_that_is_used_by_many_threads_at_once_starts_one() -> None:
    with Simulator() as simulator:
        before = set(threading.enumerate())
        line = threading.Barrier(8)
        answers: list[str] = []
        with client_of(simulator) as client:

            def ask() -> None:
                line.wait(10)
                answers.append(client.chat("hi").pipe(completion()).run().text)

            asking = [threading.Thread(target=ask, name="asking") for _ in range(8)]
            for thread in asking:
                thread.start()
            for thread in asking:
                thread.join()
            started = [thread.name for thread in threads_since(before)]

        assert answers == [STORY] * 8
        assert started == ["rxrouter loop"]


def test_closing_ends_running_streams_of_a_client_without_a_loop() -> None:
    with Simulator(SILENT) as simulator:
        client = client_of(simulator)
        endings: list[Exception | None] = []
        begun = threading.Event()
        client.chat("hi").subscribe(lambda _: begun.set(), endings.append, lambda: endings.append(None))
        assert begun.wait(10)

        client.close()

        assert [type(ending) for ending in endings] == [ClientClosedError]


def test_closing_an_unused_client_starts_nothing() -> None:
    before = set(threading.enumerate())

    with OpenRouter("sk-test"):
        pass

    assert not threads_since(before)


def test_using_a_client_that_was_closed_unused_is_told_so() -> None:
    client = OpenRouter("sk-test", base_url="http://127.0.0.1:9/")
    client.close()

    with pytest.raises(ClientClosedError):
        client.chat("hi").run()


def test_using_a_client_after_its_close_is_told_so() -> None:
    with Simulator() as simulator:
        client = client_of(simulator)
        client.chat("hi").run()
        client.close()

        with pytest.raises(ClientClosedError):
            client.chat("hi").run()

        assert len(simulator.exchanges) == 1


def test_client_that_is_garbage_ends_its_thread() -> None:
    with Simulator() as simulator:
        before = set(threading.enumerate())
        client = client_of(simulator)
        client.chat("hi").run()
        (thread,) = threads_since(before)

        del client
        gc.collect()
        thread.join(10)

        assert not thread.is_alive()


async def test_client_closes_its_session_without_a_warning_when_a_cycle_with_it_is_collected() -> None:
    async with Simulator(SHORT) as simulator:
        client = client_of(simulator)
        await client.chat("hi")
        session = weakref.ref(client._sessions.get())
        cycle: list[Any] = [client]
        cycle.append(cycle)

        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            del client, cycle
            gc.collect()
            await until(lambda: session() is None)

        assert not [str(warning.message) for warning in warned]


def test_stream_outlives_the_name_of_its_client() -> None:
    with Simulator() as simulator:
        before = set(threading.enumerate())

        words = client_of(simulator).chat("hi").pipe(text())
        gc.collect()
        last = words.run()
        again = client_of(simulator).chat("hi").pipe(completion()).run()

        del words
        gc.collect()
        for thread in threads_since(before):
            thread.join(10)
        assert last == " end."
        assert again.text == STORY
        assert not threads_since(before)


def test_subscription_outlives_the_name_of_its_client_and_stream() -> None:
    with Simulator(SHORT) as simulator:
        before = set(threading.enumerate())
        words: list[str] = []
        over = threading.Event()

        client_of(simulator).chat("hi").pipe(text()).subscribe(words.append, on_completed=over.set)
        gc.collect()

        assert over.wait(10)
        assert "".join(words) == "One two three four five."
        gc.collect()
        for thread in threads_since(before):
            thread.join(10)


# run()


def test_run_gives_the_last_value() -> None:
    with served_apart() as (client, _):
        assert client.chat("hi").pipe(text()).run() == " end."
        assert client.chat("hi").pipe(completion()).run().text == STORY


def test_run_raises_what_the_stream_ended_with() -> None:
    with served_apart(Reply.error(404, "No endpoints found.")) as (client, _), pytest.raises(StatusError) as caught:
        client.chat("hi").run()

    assert caught.value.status == 404


def test_run_through_operators_with_time_stays_in_the_script() -> None:
    with served_apart(SHORT) as (client, _):
        words = client.chat("hi").pipe(text(), ops.timeout(30.0), ops.delay(0.01), ops.to_list()).run()

    assert "".join(words) == "One two three four five."


async def test_run_on_the_loops_own_thread_raises_instead_of_waiting_for_ever() -> None:
    async with served() as (client, simulator):
        await client.chat("hi")

        with pytest.raises(RuntimeError, match="await"):
            client.chat("hi").run()

        assert len(simulator.exchanges) == 1


async def test_run_in_a_coroutine_raises_before_the_client_has_a_loop() -> None:
    async with served() as (client, simulator):
        with pytest.raises(RuntimeError, match="await"):
            client.chat("hi").run()

        assert not simulator.exchanges


def test_run_inside_on_next_of_the_clients_own_thread_is_the_observers_error() -> None:
    with served_apart() as (client, _):
        seen = Observed[Any]()
        over = threading.Event()

        def on_error(error: Exception) -> None:
            seen.endings.append(error)
            over.set()

        def on_next(_: ChatChunk) -> None:
            client.chat("again").run()

        client.chat("hi").subscribe(on_next, on_error, over.set)

        assert over.wait(10)
        assert [type(ending) for ending in seen.endings] == [RuntimeError]


async def test_run_on_another_thread_than_the_loops_works() -> None:
    async with served() as (client, _):
        await client.chat("hi")

        assert await asyncio.to_thread(client.chat("hi").pipe(text()).run) == " end."


# Loops that are gone


def test_client_raises_where_it_is_used_when_its_loop_was_closed_under_open_connections() -> None:
    with Simulator() as simulator:
        client = client_of(simulator)

        async def ask() -> ChatChunk:
            return await client.chat("hi")

        async def subscribe() -> None:
            client.chat("hi").subscribe()

        # With open connections, the close() of uvloop itself never returns.
        loop = asyncio.SelectorEventLoop()
        loop.run_until_complete(ask())
        loop.close()  # and not `asyncio.run`, which ends what is open

        for use in (ask, subscribe):
            with pytest.raises(RuntimeError, match=r"closed.*make a new client"):
                asyncio.run(use())
        with pytest.raises(RuntimeError, match=r"closed.*make a new client"):
            client.chat("hi").run()
        assert len(simulator.exchanges) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the session that the loop left open
            client = OpenRouter("sk-test")
            gc.collect()
            # The session goes after its client.
            gc.collect()


def test_client_of_a_loop_that_stands_still_says_so_where_it_is_used() -> None:
    with Simulator() as simulator, asyncio.Runner() as runner:
        client = client_of(simulator)

        async def ask() -> ChatChunk:
            return await client.chat("hi")

        runner.run(ask())

        with pytest.raises(RuntimeError, match=r"not running.*make a new client"):
            client.chat("hi").run()
        runner.run(ask())  # it runs again: so does the client
        runner.run(client.aclose())


def test_closing_does_not_wait_for_a_loop_that_stands_still() -> None:
    with Simulator() as simulator, asyncio.Runner() as runner:
        client = client_of(simulator)

        async def ask() -> ChatChunk:
            return await client.chat("hi")

        def close() -> None:
            with suppress(RuntimeError):  # as good an answer, if it says what to do
                client.close()

        runner.run(ask())
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(2)
        hangs = closing.is_alive()
        runner.run(client.aclose())
        runner.run(asyncio.sleep(0.01))  # lets a close() that hangs find its end
        closing.join(10)

        assert not hangs


def test_shutting_a_loop_down_under_a_stream_is_the_client_being_closed() -> None:
    seen = Observed[ChatChunk]()

    async def leave_running(simulator: Simulator) -> None:
        client_of(simulator).chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(seen.values) == 3)

    with Simulator(SILENT) as simulator, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(leave_running(simulator))
        gc.collect()

    assert [type(ending) for ending in seen.endings] == [ClientClosedError]
    assert not [str(warning.message) for warning in warned]


def _once_more(_: Exception, source: Observable[Any]) -> Observable[Any]:
    return source


AGAIN: list[Any] = [ops.retry(1), ops.retry(2), ops.catch(_once_more)]


@pytest.mark.parametrize("again", AGAIN, ids=["once", "retried", "caught"])
@pytest.mark.parametrize("reply", [SILENT, Reply(before=(Act.HANG,))], ids=["flowing", "unanswered"])
def test_shutting_a_loop_down_ends_a_stream_on_somebody_elses_session(reply: Reply, again: Any) -> None:
    seen = Observed[ChatChunk]()

    async def leave_running(simulator: Simulator) -> None:
        client = OpenRouter("sk-test", base_url=simulator.base_url, session=aiohttp.ClientSession())
        client.chat("hi").pipe(again).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: bool(simulator.exchanges) and (reply is not SILENT or len(seen.values) == 3))

    with Simulator(reply) as simulator, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the session that its owner leaves open
        asyncio.run(leave_running(simulator))
        gc.collect()

    assert [type(ending) for ending in seen.endings] == [ClientClosedError]


def test_shutting_a_loop_down_under_a_stream_that_has_not_begun_is_the_client_being_closed() -> None:
    seen = Observed[ChatChunk]()

    async def leave_at_once(simulator: Simulator) -> None:
        async with client_of(simulator) as client:
            await client.chat("hi")
            asyncio.current_task().add_done_callback(lambda _: subscribe(client))  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]

    def subscribe(client: OpenRouter) -> None:
        client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)

    with Simulator() as simulator:
        asyncio.run(leave_at_once(simulator))

    assert [type(ending) for ending in seen.endings] == [ClientClosedError]


# A loop and other threads


async def test_subscribing_from_another_thread_delivers_on_the_loops_thread() -> None:
    async with served() as (client, _):
        await client.chat("hi")
        seen = Observed[ChatChunk]()
        where: set[int] = set()

        def on_next(value: ChatChunk) -> None:
            where.add(threading.get_ident())
            seen.on_next(value)

        def on_completed() -> None:
            where.add(threading.get_ident())
            seen.on_completed()

        await asyncio.to_thread(client.chat("hi").subscribe, on_next, seen.on_error, on_completed)
        await seen.over.wait()

        assert seen.endings == [None]
        assert where == {threading.get_ident()}


async def test_client_of_another_thread_is_awaited() -> None:
    async with served_from_a_thread() as (client, _):
        answered = await client.chat("hi").pipe(completion())

        assert answered.text == STORY


async def test_client_of_another_thread_raises_where_it_is_awaited() -> None:
    async with served_from_a_thread(Reply.error(404, "No endpoints found.")) as (client, _):
        with pytest.raises(StatusError):
            await client.chat("hi")


async def test_cancelling_an_await_of_another_threads_client_closes_the_request() -> None:
    async with served_from_a_thread(SILENT) as (client, simulator):

        async def ask() -> ChatChunk:
            return await client.chat("hi")

        asking = asyncio.create_task(ask())
        await until(lambda: bool(simulator.exchanges))

        asking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asking
        await until(lambda: simulator.exchanges[0].left_at is not None)


async def test_client_of_another_thread_is_iterated() -> None:
    async with served_from_a_thread() as (client, _):
        assert "".join([word async for word in client.chat("hi").pipe(text())]) == STORY


async def test_iterating_over_another_threads_client_never_takes_a_cut_for_the_end() -> None:
    words = tuple(f"{n} " for n in range(2_000))
    interval = sys.getswitchinterval()
    async with served_from_a_thread(Reply.of(answer("".join(words)))) as (client, _):
        sys.setswitchinterval(1e-6)  # the threads interrupt each other wherever they can
        try:
            for high, low in ((2, 0), (3, 1), (64, 16)) * 3:
                got: list[str] = []
                async with asyncio.timeout(30):
                    async for word in client.chat("hi").pipe(text()).iterate(high=high, low=low):
                        got.append(word)  # noqa: PERF401 - says how far it got
                assert "".join(got) == "".join(words).rstrip() + " "
        finally:
            sys.setswitchinterval(interval)


async def test_iterating_over_another_threads_client_pauses_its_server() -> None:
    words = [f"{n} ".ljust(4_000, "~") for n in range(4_000)]
    events = [chunk({"content": word}) for word in words]
    async with served_from_a_thread(Reply.of([*events, chunk(finish="stop")])) as (client, simulator):
        reader = client.chat("hi").pipe(text()).iterate(high=16, low=4)

        first = await anext(reader)
        sent, same = 0, 0
        async with asyncio.timeout(30):
            while same < 60:
                await asyncio.sleep(0.005)
                now = simulator.exchanges[-1].sent_bytes
                sent, same = now, same + 1 if now == sent else 0
        assert not simulator.exchanges[-1].over.is_set()
        rest = [word async for word in reader]

        assert [first, *rest] == words


async def test_leaving_the_stream_of_another_threads_client_closes_the_request() -> None:
    async with served_from_a_thread(SILENT) as (client, simulator):
        async for _ in client.chat("hi").pipe(text()):
            break

        await until(lambda: simulator.exchanges[0].left_at is not None)


async def test_aclose_of_another_threads_subscription_returns_when_it_is_released() -> None:
    async with served_from_a_thread(SILENT) as (client, simulator):
        seen: list[ChatChunk] = []
        loops: list[asyncio.AbstractEventLoop] = []

        def on_next(value: ChatChunk) -> None:
            loops.append(asyncio.get_running_loop())
            seen.append(value)

        subscription = client.chat("hi").subscribe(on_next)
        await until(lambda: len(seen) == 3)

        await subscription.aclose()

        assert not [task for task in asyncio.all_tasks(loops[0]) if task.get_name() == "rxrouter request"]
        await until(lambda: simulator.exchanges[0].left_at is not None)


# Chains stay on the loop


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """The threads that a test starts."""
    threads: list[threading.Thread] = []
    start = threading.Thread.start

    def record(self: threading.Thread) -> None:
        threads.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", record)
    return threads


Chain = Callable[[LoopObservable[ChatChunk]], Observable[Any]]


def later(error: Exception, source: Observable[Any]) -> Observable[Any]:
    return reactivex.timer(0.005).pipe(ops.flat_map(lambda _: source.pipe(ops.take(2))))


def connectable(source: Any) -> Any:
    """What RxPY's types don't know: that a ConnectableObservable comes out of these."""
    return source


PIPED: dict[str, Chain] = {
    "debounce": lambda chunks: chunks.pipe(ops.debounce(0.001)),
    "delay": lambda chunks: chunks.pipe(ops.delay(0.005)),
    "delay_subscription": lambda chunks: chunks.pipe(ops.delay_subscription(0.005)),
    "buffer_with_time": lambda chunks: chunks.pipe(ops.buffer_with_time(0.003)),
    "buffer_with_time_or_count": lambda chunks: chunks.pipe(ops.buffer_with_time_or_count(0.003, 2)),
    "window_with_time": lambda chunks: chunks.pipe(ops.window_with_time(0.003), ops.merge_all()),
    "timeout": lambda chunks: chunks.pipe(ops.timeout(30.0)),
    "timeout that comes": lambda chunks: chunks.pipe(
        ops.concat(reactivex.never()), ops.timeout(0.05, other=reactivex.empty())
    ),
    "sample": lambda chunks: chunks.pipe(ops.sample(0.003)),
    "throttle_first, time_interval": lambda chunks: chunks.pipe(ops.throttle_first(0.002), ops.time_interval()),
    "take_with_time": lambda chunks: chunks.pipe(ops.take_with_time(0.01)),
    "skip_with_time": lambda chunks: chunks.pipe(ops.skip_with_time(0.003)),
    "retry, delay": lambda chunks: chunks.pipe(ops.retry(2), ops.delay(0.005)),
    "retry after a timer": lambda chunks: chunks.pipe(ops.concat(reactivex.throw(ValueError())), ops.catch(later)),
    "publish, ref_count": lambda chunks: chunks.pipe(ops.publish(), ops.ref_count(), ops.delay(0.005)),
    "delay, publish, ref_count": lambda chunks: chunks.pipe(ops.delay(0.005), ops.publish(), ops.ref_count()),
    "delay, publish; ref_count": lambda chunks: connectable(chunks.pipe(ops.delay(0.005), ops.publish())).pipe(
        ops.ref_count()
    ),
    "delay, publish; auto_connect": lambda chunks: connectable(
        chunks.pipe(ops.delay(0.005), ops.publish())
    ).auto_connect(),
    "replay, ref_count": lambda chunks: chunks.pipe(
        ops.delay(0.005), ops.replay(window=1.0), ops.ref_count(), ops.debounce(0.001)
    ),
    "share, sample": lambda chunks: chunks.pipe(ops.delay(0.005), ops.share(), ops.sample(0.003)),
    "merge": lambda chunks: chunks.pipe(ops.merge(chunks.pipe(ops.delay(0.01))), ops.debounce(0.001)),
    "switch": lambda chunks: chunks.pipe(ops.take(2), ops.flat_map(lambda _: chunks.pipe(ops.delay(0.001)))),
}

FLUENT: dict[str, Chain] = {
    "debounce": lambda chunks: chunks.debounce(0.001),
    "delay": lambda chunks: chunks.delay(0.005),
    "delay, delay": lambda chunks: chunks.delay(0.005).delay(0.005),
    "buffer_with_time": lambda chunks: chunks.buffer_with_time(0.003),
    "timeout": lambda chunks: chunks.timeout(30.0),
    "sample": lambda chunks: chunks.sample(0.003),
    "retry, delay": lambda chunks: chunks.retry(2).delay(0.005),
    "catch after a timer": lambda chunks: chunks.concat(reactivex.throw(ValueError())).catch(later),
    "publish, ref_count": lambda chunks: connectable(chunks.delay(0.005).publish()).pipe(ops.ref_count()).delay(0.005),
    "publish, auto_connect": lambda chunks: chunks.delay(0.005).publish().auto_connect().delay(0.005),
    "replay, ref_count": lambda chunks: (
        connectable(chunks.delay(0.005).replay(10)).pipe(ops.ref_count()).debounce(0.001)
    ),
    "replay, auto_connect": lambda chunks: chunks.delay(0.005).replay(10).auto_connect(1).debounce(0.001),
    "share": lambda chunks: chunks.delay(0.005).share().sample(0.003),
}

CHAINS = [pytest.param(chain, id=f"pipe {name}") for name, chain in PIPED.items()] + [
    pytest.param(chain, id=f"fluent {name}") for name, chain in FLUENT.items()
]


@pytest.mark.parametrize("chain", CHAINS)
async def test_chain_stays_on_the_loop(chain: Chain, started: list[threading.Thread]) -> None:
    async with served(SHORT) as (client, _):
        where: set[int] = set()
        seen = Observed[Any]()

        def on_next(value: object) -> None:
            where.add(threading.get_ident())
            seen.on_next(value)

        def on_error(error: Exception) -> None:
            where.add(threading.get_ident())
            seen.on_error(error)

        def on_completed() -> None:
            where.add(threading.get_ident())
            seen.on_completed()

        chain(client.chat("hi")).subscribe(on_next, on_error, on_completed)
        await until(seen.over.is_set)  # which a timer thread would not wake the loop for

        assert seen.endings == [None]
        assert where == {threading.get_ident()}
        assert not started


@pytest.mark.parametrize("style", ["pipe", "fluent"])
async def test_connecting_by_hand_stays_on_the_loop(style: str, started: list[threading.Thread]) -> None:
    async with served(SHORT) as (client, simulator):
        chunks = client.chat("hi")
        if style == "pipe":
            shared: Any = chunks.pipe(ops.delay(0.005), ops.publish())
        else:
            shared = chunks.delay(0.005).publish()
        seen = Observed[ChatChunk]()
        where: set[int] = set()

        def on_next(value: ChatChunk) -> None:
            where.add(threading.get_ident())
            seen.on_next(value)

        shared.subscribe(on_next, seen.on_error, seen.on_completed)
        shared.connect()
        await until(seen.over.is_set)

        assert seen.endings == [None]
        assert where == {threading.get_ident()}
        assert not started
        assert len(simulator.exchanges) == 1


async def test_auto_connect_to_nobody_stays_on_the_loop(started: list[threading.Thread]) -> None:
    async with served(SHORT) as (client, simulator):
        seen = Observed[ChatChunk]()

        shared = connectable(client.chat("hi").pipe(ops.delay(0.005), ops.publish())).auto_connect(0)
        shared.subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(seen.over.is_set)

        assert seen.endings == [None]
        assert not started
        assert len(simulator.exchanges) == 1


async def test_retry_after_a_pause_stays_on_the_loop(started: list[threading.Thread]) -> None:
    replies = iter([Reply.error(502, "Bad gateway"), Reply.error(502, "Bad gateway"), SHORT])

    async with served(lambda exchange: next(replies)) as (client, simulator):  # pyright: ignore[reportUnknownLambdaType]
        seen = await observe(client.chat("hi").pipe(ops.delay_subscription(0.01), ops.retry(3), text()))

        assert "".join(seen.values) == "One two three four five."
        assert seen.endings == [None]
        assert len(simulator.exchanges) == 3
        assert not started


async def test_chain_that_is_subscribed_from_another_thread_stays_on_the_loop() -> None:
    async with served(SHORT) as (client, _):
        await client.chat("hi")
        seen = Observed[str]()
        where: set[int] = set()

        def on_next(word: str) -> None:
            where.add(threading.get_ident())
            seen.on_next(word)

        chain = client.chat("hi").pipe(text(), ops.delay(0.005), ops.timeout(30.0))
        await asyncio.to_thread(chain.subscribe, on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()

        assert "".join(seen.values) == "One two three four five."
        assert where == {threading.get_ident()}


def test_chain_of_a_client_without_a_loop_stays_on_its_thread(started: list[threading.Thread]) -> None:
    with served_apart(SHORT) as (client, _):
        names: set[str] = set()

        client.chat("hi").pipe(
            ops.delay(0.005), ops.timeout(30.0), ops.do_action(lambda _: names.add(threading.current_thread().name))
        ).run()

        assert names == {"rxrouter loop"}
        assert [thread.name for thread in started] == ["rxrouter loop"] * 2  # the server's, and the client's


# Its scheduler


Log = list[tuple[Any, int]]


def logging(log: Log) -> Callable[[abc.SchedulerBase, Any], None]:
    def action(scheduler: abc.SchedulerBase, state: Any = None) -> None:
        log.append((state, threading.get_ident()))

    return action


async def test_scheduler_runs_actions_in_the_loops_next_turn_in_order() -> None:
    scheduler, log = LoopScheduler(asyncio.get_running_loop()), Log()

    for state in range(3):
        scheduler.schedule(logging(log), state)
    assert not log
    await asyncio.sleep(0)

    assert log == [(state, threading.get_ident()) for state in range(3)]


async def test_scheduler_gives_the_action_itself_and_its_state() -> None:
    scheduler = LoopScheduler(asyncio.get_running_loop())
    given: list[Any] = []

    def action(scheduler: abc.SchedulerBase, state: Any = None) -> None:
        given.extend((scheduler, state))

    scheduler.schedule(action, "state")
    await asyncio.sleep(0)

    assert given == [scheduler, "state"]


@pytest.mark.parametrize("unit", ["seconds", "timedelta", "absolute", "absolute seconds"])
async def test_scheduler_runs_actions_when_they_are_due(unit: str) -> None:
    loop = asyncio.get_running_loop()
    scheduler = LoopScheduler(loop)
    done: asyncio.Future[float] = loop.create_future()

    def action(scheduler: abc.SchedulerBase, state: Any = None) -> None:
        done.set_result(loop.time())

    began = loop.time()
    if unit == "seconds":
        scheduler.schedule_relative(0.05, action)
    elif unit == "timedelta":
        scheduler.schedule_relative(timedelta(milliseconds=50), action)
    elif unit == "absolute":
        scheduler.schedule_absolute(scheduler.now + timedelta(milliseconds=50), action)
    else:
        scheduler.schedule_absolute(scheduler.now.timestamp() + 0.05, action)

    assert await done - began >= 0.045


async def test_scheduler_runs_at_once_what_is_overdue() -> None:
    scheduler, log = LoopScheduler(asyncio.get_running_loop()), Log()

    scheduler.schedule_relative(-1.0, logging(log), "relative")
    scheduler.schedule_absolute(datetime(2020, 1, 1, tzinfo=UTC), logging(log), "absolute")
    await asyncio.sleep(0)

    assert [state for state, _ in log] == ["relative", "absolute"]


async def test_scheduler_repeats_without_a_drift_of_its_own() -> None:
    loop = asyncio.get_running_loop()
    scheduler = LoopScheduler(loop)
    counts: list[int] = []
    enough = asyncio.Event()

    def action(count: int | None = None) -> int | None:
        counts.append(count or 0)
        if len(counts) == 5:
            enough.set()
        return (count or 0) + 1

    began = loop.time()
    repeating = scheduler.schedule_periodic(0.01, action, state=0)
    await enough.wait()
    took = loop.time() - began
    repeating.dispose()
    counted = len(counts)
    waited = asyncio.Event()
    loop.call_later(0.05, waited.set)
    await waited.wait()

    assert counts[:5] == [0, 1, 2, 3, 4]
    assert took >= 0.045
    assert len(counts) == counted


async def test_scheduler_does_not_run_what_was_cancelled() -> None:
    loop = asyncio.get_running_loop()
    scheduler, log = LoopScheduler(loop), Log()

    scheduler.schedule(logging(log)).dispose()
    scheduler.schedule_relative(0.01, logging(log)).dispose()
    waited = asyncio.Event()
    loop.call_later(0.05, waited.set)
    await waited.wait()

    assert not log


@pytest.mark.parametrize("seconds", [0.0, 0.01])
async def test_scheduler_does_not_run_what_another_thread_has_cancelled(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    scheduler, log = LoopScheduler(loop), Log()
    scheduled = scheduler.schedule_relative(seconds, logging(log))

    thread = threading.Thread(target=scheduled.dispose)
    thread.start()
    thread.join()  # before the loop's next turn
    waited = asyncio.Event()
    loop.call_later(0.05, waited.set)
    await waited.wait()

    assert not log


async def test_scheduler_runs_on_the_loop_what_another_thread_has_scheduled() -> None:
    loop = asyncio.get_running_loop()
    scheduler, log = LoopScheduler(loop), Log()

    def schedule() -> None:
        scheduler.schedule(logging(log), "now")
        scheduler.schedule_relative(0.01, logging(log), "later")
        scheduler.schedule_relative(0.01, logging(log), "never").dispose()
        scheduler.schedule(logging(log), "never").dispose()

    thread = threading.Thread(target=schedule)
    thread.start()
    # The loop stands meanwhile, or it could run an action before the thread has disposed it.
    thread.join()
    await until(lambda: len(log) == 2)

    assert log == [("now", threading.get_ident()), ("later", threading.get_ident())]


async def test_scheduler_disposes_what_an_action_has_begun() -> None:
    loop = asyncio.get_running_loop()
    scheduler, log = LoopScheduler(loop), Log()

    def action(scheduler: abc.SchedulerBase, state: Any = None) -> abc.DisposableBase:
        return scheduler.schedule_relative(0.01, logging(log))

    scheduled = scheduler.schedule(action)
    await asyncio.sleep(0)
    scheduled.dispose()
    waited = asyncio.Event()
    loop.call_later(0.05, waited.set)
    await waited.wait()

    assert not log


def test_scheduled_action_of_a_closed_loop_can_be_disposed() -> None:
    loop = asyncio.new_event_loop()
    scheduler = LoopScheduler(loop)
    scheduled = scheduler.schedule_relative(10.0, logging([]))
    loop.close()

    scheduled.dispose()


async def test_schedulers_now_is_the_wall_clock_in_utc() -> None:
    now = LoopScheduler(asyncio.get_running_loop()).now

    assert now.tzinfo is UTC
    assert abs((now - datetime.now(UTC)).total_seconds()) < 1


async def test_schedulers_now_does_not_follow_steps_of_the_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = LoopScheduler(asyncio.get_running_loop())
    before = scheduler.now

    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert timedelta() <= scheduler.now - before < timedelta(seconds=10)


# Many


@pytest.fixture
def many_sockets() -> Generator[None]:
    if sys.platform == "win32":
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2_500:
        pytest.skip(f"a process may have {hard} files here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_sockets")
async def test_thousand_streams_at_once_all_arrive_whole() -> None:
    def say(exchange: Exchange) -> Reply:
        return Reply.of(answer(f"You said {exchange.json['messages'][0]['content']}.", comments=0), rate=20)

    async with served(say) as (client, simulator):
        streams = [Observed[str]() for _ in range(1_000)]
        for number, seen in enumerate(streams):
            client.chat(str(number)).pipe(text()).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        for seen in streams:
            await seen.over.wait()

        assert simulator.connections == 1_000  # they were all there at once
        assert ["".join(seen.values) for seen in streams] == [f"You said {number}." for number in range(1_000)]
        assert all(seen.endings == [None] for seen in streams)


def test_closing_does_not_wait_for_ever_for_an_on_next_that_does_not_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_module, "_JOIN_SECONDS", 0.1)
    stuck, go_on = threading.Event(), threading.Event()

    def on_next(_: object) -> None:
        stuck.set()
        go_on.wait(30)

    with Simulator() as simulator:
        with client_of(simulator) as client:
            client.chat("hi").subscribe(on_next, lambda _: None)
            assert stuck.wait(30)
        go_on.set()  # `with` has been left before
        assert client._home._thread is not None
        client._home._thread.join(30)


def test_all_who_close_at_once_come_back() -> None:
    with Simulator() as simulator:
        for _ in range(20):
            client = client_of(simulator)
            client.chat("hi").run()
            closers = [threading.Thread(target=client.close) for _ in range(4)]
            for closer in closers:
                closer.start()
            for closer in closers:
                closer.join(30)
                assert not closer.is_alive()


async def test_retrying_on_a_closed_client_does_not_block_the_loop() -> None:
    async with served() as (client, _):
        await client.chat("hi")
        await client.aclose()
        told: list[Exception] = []

        subscription = client.chat("hi").pipe(ops.retry()).subscribe(lambda _: None, told.append)
        for _ in range(10):
            await asyncio.sleep(0)  # comes back, however often it tries
        subscription.dispose()

    assert told == []


async def test_concatenated_streams_stay_on_the_loop() -> None:
    async with served(Reply.of(answer("Hi"))) as (client, _):
        both = client.chat("one").pipe(text()) + client.chat("two").pipe(text())

        assert isinstance(both, LoopObservable)
        assert [word async for word in both] == ["Hi", "Hi"]
        assert [word async for word in both[1:]] == ["Hi"]


def test_closing_ends_a_chain_that_waits_in_a_timer_when_its_request_is_over() -> None:
    told: list[BaseException] = []
    with Simulator(Reply.of(answer("Hi"))) as simulator, client_of(simulator) as client:
        late = client.chat("hi").pipe(ops.delay(3600.0))

        def wait() -> None:
            try:
                late.run()
            except ClientClosedError as error:
                told.append(error)

        waiting = threading.Thread(target=wait)
        waiting.start()
        while not (simulator.exchanges and simulator.exchanges[0].over.is_set() and not client._home.tasks):
            time.sleep(0.001)  # another thread's socket has no event for it
        client.close()
        waiting.join(30)

    assert [type(error) for error in told] == [ClientClosedError]
