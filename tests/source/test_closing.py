# pyright: reportPrivateUsage=false
"""Closing a client: what ends, in which order, whichever call asks for it, and what a client does on its next loop."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import reactivex
from reactivex import Observable, operators as ops

from rxrouter import ChatChunk, ClientClosedError, Limiter, OpenRouter, RetryPolicy
from rxrouter.operators import completion, hedge, limit, retry_transient, smooth, text, timeouts
from rxrouter.testing import STORY, Act, Reply, Simulator, answer, chunk
from tests.source.test_dispose import open_sockets
from tests.support import Observed, served

SILENT = Reply((chunk({"content": "word "}), Act.HANG))
SHORT = Reply.of(answer("Hi"))
BUSY = Reply.error(503, "Overloaded.")
PATIENT = RetryPolicy(first_delay=3600.0, max_delay=3600.0, jitter=0.0)

Chain = Callable[[OpenRouter, Limiter], Observable[Any]]

# Each waits where no request is open any more, or yet; the limiter's only place is taken.
WAITING: dict[str, tuple[Reply, Chain]] = {
    "retry": (BUSY, lambda client, _: client.chat("hi").pipe(retry_transient(PATIENT))),
    "retry below": (BUSY, lambda client, _: client.chat("hi").pipe(retry_transient(PATIENT), text(), smooth())),
    "retry merged": (
        BUSY,
        lambda client, _: client.models().pipe(ops.merge(client.chat("hi").pipe(retry_transient(PATIENT)))),
    ),
    "retry apart": (
        BUSY,
        lambda client, _: reactivex.merge(client.chat("hi").pipe(retry_transient(PATIENT)), reactivex.never()),
    ),
    "limit": (SHORT, lambda client, limiter: client.chat("hi").pipe(limit(limiter))),
    "limit in timeouts": (SHORT, lambda client, lim: client.chat("hi").pipe(limit(lim), timeouts(total=3600.0))),
    "limit in hedge": (
        SHORT,
        lambda client, limiter: client.chat("hi").pipe(
            limit(limiter), hedge(client.chat("hi").pipe(limit(limiter)), delay=3600.0)
        ),
    ),
    "delay": (SHORT, lambda client, _: client.chat("hi").pipe(ops.delay(3600.0))),
    "delay of the subscription": (SHORT, lambda client, _: client.chat("hi").pipe(ops.delay_subscription(3600.0))),
    "buffer": (SHORT, lambda client, _: client.chat("hi").pipe(ops.buffer_with_time(3600.0), ops.delay(3600.0))),
    "concatenation": (
        SHORT,
        lambda client, _: client.chat("hi").pipe(ops.concat(reactivex.never())),
    ),
}


def client_of(simulator: Simulator, **options: Any) -> OpenRouter:
    return OpenRouter("sk-test", base_url=simulator.base_url, **options)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of a server, whose socket has no event for it
            await asyncio.sleep(0.001)


def taken() -> tuple[Limiter, Any]:
    """A limiter whose one place is taken for good."""
    limiter = Limiter(1)
    return limiter, reactivex.never().pipe(limit(limiter)).subscribe()


def rested(simulator: Simulator) -> bool:
    return all(exchange.over.is_set() for exchange in simulator.exchanges)


# Chains that wait


@pytest.mark.parametrize(("reply", "chain"), WAITING.values(), ids=WAITING)
async def test_chain_that_waits_in_a_timer_or_a_queue_ends_before_aclose_returns(reply: Reply, chain: Chain) -> None:
    limiter, holder = taken()
    async with served(reply) as (client, simulator):
        await client.models()  # so that the client has its loop
        seen = Observed[Any]()
        chain(client, limiter).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: rested(simulator) and not client._home.tasks and not client._home.streams)

        await client.aclose()

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
        assert not open_sockets(simulator)
        holder.dispose()
        await turns(5)
        assert len(seen.endings) == 1
        assert (limiter.running, limiter.waiting) == (0, 0)


@pytest.mark.parametrize(("reply", "chain"), WAITING.values(), ids=WAITING)
def test_chain_that_waits_in_a_timer_or_a_queue_ends_before_close_returns(reply: Reply, chain: Chain) -> None:
    limiter, holder = taken()
    with Simulator(reply) as simulator:
        client = client_of(simulator)
        client.models().run()
        endings: list[Exception | None] = []
        chain(client, limiter).subscribe(lambda _: None, endings.append, lambda: endings.append(None))
        client.models().run()  # what was scheduled before has begun

        client.close()

        assert [type(ending) for ending in endings] == [ClientClosedError]
        holder.dispose()


@pytest.mark.parametrize(("reply", "chain"), WAITING.values(), ids=WAITING)
def test_chain_that_waits_in_a_timer_or_a_queue_ends_when_its_loop_is_shut_down(reply: Reply, chain: Chain) -> None:
    limiter, holder = taken()
    seen = Observed[Any]()
    with Simulator(reply) as simulator:

        async def leave_waiting() -> None:
            client = client_of(simulator)
            chain(client, limiter).subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await client.models()
            await until(lambda: rested(simulator) and not client._home.tasks and not client._home.streams)

        asyncio.run(leave_waiting())

    assert [type(ending) for ending in seen.endings] == [ClientClosedError]
    holder.dispose()


async def test_request_that_waits_in_the_clients_limiter_ends_before_aclose_returns_and_is_not_charged() -> None:
    limiter = Limiter(1, requests_per_minute=2)
    async with served(SILENT, limiter=limiter) as (client, simulator):
        streams = [Observed[ChatChunk]() for _ in range(3)]
        for seen in streams:
            client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: bool(streams[0].values))

        await client.aclose()

        assert [[type(ending) for ending in seen.endings] for seen in streams] == [[ClientClosedError]] * 3
        assert (len(simulator.exchanges), limiter.running, limiter.waiting) == (1, 0, 0)
        async with OpenRouter("sk-test", base_url=simulator.base_url, limiter=limiter) as another:
            seen = Observed[ChatChunk]()
            another.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: bool(seen.values))  # the minute's second request; a charge would make it wait


async def test_chain_of_another_client_goes_on_when_a_client_is_closed() -> None:
    async with served(SHORT) as (client, simulator), client_of(simulator) as another:
        seen = Observed[str]()
        another.chat("hi").pipe(text(), ops.delay(0.05)).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await client.chat("hi")

        await client.aclose()
        await seen.over.wait()

        assert (seen.values, seen.endings) == (["Hi"], [None])


async def test_every_chain_ends_when_a_callback_raises_at_the_closing() -> None:
    async with served(BUSY) as (client, simulator):
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        endings: list[Exception] = []

        def on_error(error: Exception) -> None:
            endings.append(error)
            raise ValueError("mine")

        for _ in range(3):
            client.chat("hi").pipe(retry_transient(PATIENT)).subscribe(on_error=on_error)
        await until(lambda: len(simulator.exchanges) == 3 and rested(simulator) and not client._home.tasks)

        await client.aclose()

        assert [type(error) for error in endings] == [ClientClosedError] * 3
        assert [type(context["exception"]) for context in reported] == [ValueError] * 3


class RaisedBase(BaseException):
    """An exception of a library whose classes derive from BaseException."""


@pytest.mark.parametrize("kind", [ValueError, RaisedBase])
async def test_every_waiting_chain_ends_when_an_operator_raises_at_the_closing(kind: type[BaseException]) -> None:
    async with served(SHORT) as (client, _):
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        limiter, holder = taken()
        endings: list[Exception] = []

        def fail(error: Exception) -> None:
            raise kind

        for _ in range(3):
            waiting = client.chat("hi").pipe(limit(limiter))
            waiting.pipe(ops.do_action(on_error=fail)).subscribe(on_error=endings.append)

        await client.aclose()

        assert len(endings) == 3
        assert limiter.waiting == 0
        holder.dispose()


@pytest.mark.parametrize("waits", ["pause", "queue"])
def test_every_waiting_chain_ends_when_a_callback_exits_at_the_closing(waits: str) -> None:
    limiter, holder = taken()
    endings: list[Exception] = []

    def leave(error: Exception) -> None:
        endings.append(error)
        raise SystemExit

    async def close(simulator: Simulator) -> None:
        client = client_of(simulator)
        for _ in range(3):
            chat = client.chat("hi")
            waiting = chat.pipe(retry_transient(PATIENT)) if waits == "pause" else chat.pipe(limit(limiter))
            waiting.subscribe(on_error=leave)
        await until(lambda: limiter.waiting == 3 or (len(simulator.exchanges) == 3 and rested(simulator)))
        await until(lambda: not client._home.tasks and not client._home.streams)
        await client.aclose()

    with Simulator(BUSY) as simulator, pytest.raises(SystemExit):
        asyncio.run(close(simulator))

    assert [type(error) for error in endings] == [ClientClosedError] * 3
    holder.dispose()


async def test_error_has_the_partial_answer_when_a_client_is_closed_in_the_pause_of_a_retry() -> None:
    policy = RetryPolicy(first_delay=3600, max_delay=3600, jitter=0, after_content="restart")
    async with served(Reply(answer("One two three")[:3])) as (client, simulator):
        endings: list[Any] = []
        client.chat("hi").pipe(retry_transient(policy), completion()).subscribe(on_error=endings.append)
        await until(lambda: len(simulator.exchanges) == 1 and rested(simulator))
        await until(lambda: not client._home.tasks and not client._home.streams)

        await client.aclose()

        [error] = endings
        assert isinstance(error, ClientClosedError)
        assert error.partial.text == "One two three"[: len(error.partial.text)] != ""
        assert len(error.attempts) == 1


async def test_subscription_that_begins_in_the_last_on_error_ends_before_aclose_returns() -> None:
    async with served(BUSY) as (client, simulator):
        late = Observed[ChatChunk]()

        def on_error(_: Exception) -> None:
            client.chat("again").subscribe(late.on_next, late.on_error, late.on_completed)

        client.chat("hi").pipe(retry_transient(PATIENT)).subscribe(on_error=on_error)
        await until(lambda: bool(simulator.exchanges) and rested(simulator) and not client._home.tasks)

        await client.aclose()

        assert [type(ending) for ending in late.endings] == [ClientClosedError]
        assert len(simulator.exchanges) == 1


# A closing that is cancelled

TURNS = range(12)


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("waits", [False, True], ids=["streaming", "waiting"])
async def test_cancelled_aclose_is_finished_by_the_next_call(turn: int, waits: bool) -> None:  # noqa: FBT001
    async with Simulator(lambda exchange: BUSY if exchange.json["seed"] else SILENT) as simulator:
        client = client_of(simulator)
        receipts = Observed[Any]()
        client.receipts.subscribe(receipts.on_next, receipts.on_error, receipts.on_completed)
        streams = [Observed[ChatChunk]() for _ in range(2)]
        for seen in streams:
            client.chat("hi", seed=int(waits)).pipe(retry_transient(PATIENT)).subscribe(
                seen.on_next, seen.on_error, seen.on_completed
            )
        await until(lambda: len(simulator.exchanges) == 2 and (rested(simulator) or all(s.values for s in streams)))
        assert open_sockets(simulator)

        closing = asyncio.create_task(client.aclose())
        await turns(turn)
        closing.cancel()
        await asyncio.wait([closing])
        await client.aclose()

        assert [[type(ending) for ending in seen.endings] for seen in streams] == [[ClientClosedError]] * 2
        assert receipts.endings == [None]
        assert not open_sockets(simulator)
        if not waits:
            await until(lambda: all(exchange.left_at is not None for exchange in simulator.exchanges))


@pytest.mark.parametrize("turn", TURNS)
async def test_cancelled_aclose_of_a_client_with_its_own_thread_is_finished_by_the_next_call(turn: int) -> None:
    async with Simulator(SILENT) as simulator:
        client = client_of(simulator)
        endings: list[Exception | None] = []
        begun = threading.Event()

        def subscribe() -> None:
            client.chat("hi").subscribe(lambda _: begun.set(), endings.append, lambda: endings.append(None))

        await asyncio.to_thread(subscribe)
        await asyncio.to_thread(begun.wait, 10)

        closing = asyncio.create_task(client.aclose())
        await turns(turn)
        closing.cancel()
        await asyncio.wait([closing])
        await client.aclose()

        assert [type(ending) for ending in endings] == [ClientClosedError]
        assert not open_sockets(simulator)
        assert client._home._thread is not None
        assert not client._home._thread.is_alive()


@pytest.mark.parametrize("turn", TURNS)
def test_loop_that_ends_under_a_closing_finishes_it(turn: int) -> None:
    with Simulator(SILENT) as simulator:
        seen = Observed[ChatChunk]()

        async def leave_closing() -> None:
            client = client_of(simulator)
            client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: bool(seen.values))
            closing = asyncio.create_task(client.aclose())
            await turns(turn)
            del closing

        asyncio.run(leave_closing())

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
        assert not open_sockets(simulator)


# An exit inside a callback


@pytest.mark.parametrize("exits", [SystemExit, KeyboardInterrupt])
def test_other_chains_end_and_the_exit_is_reported_when_a_callback_exits(
    exits: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    with Simulator(SILENT) as simulator:
        client = client_of(simulator)
        endings: list[BaseException] = []
        begun = threading.Event()

        def wait() -> None:
            try:
                client.chat("hi").pipe(ops.do_action(lambda _: begun.set())).run()
            except Exception as error:  # noqa: BLE001 - the test looks at it
                endings.append(error)

        waiting = threading.Thread(target=wait, name="waiting")
        waiting.start()
        assert begun.wait(10)
        loop = client._home.bound
        assert loop is not None

        def leave() -> None:
            raise exits

        loop.call_soon_threadsafe(leave)
        waiting.join(10)

        assert [type(error) for error in endings] == [ClientClosedError]
        assert exits.__name__ in caplog.text
        client.close()
        assert not open_sockets(simulator)


@pytest.mark.parametrize("exits", [SystemExit, KeyboardInterrupt])
def test_each_chain_has_one_ending_when_its_on_next_exits(exits: type[BaseException]) -> None:
    with Simulator(SILENT) as simulator:
        client = client_of(simulator)
        endings: list[list[Exception | None]] = [[], []]
        begun = threading.Event()
        client.chat("hi").subscribe(lambda _: begun.set(), endings[0].append, lambda: endings[0].append(None))
        assert begun.wait(10)

        def leave(_: object) -> None:
            raise exits

        client.chat("hi").subscribe(leave, endings[1].append, lambda: endings[1].append(None))
        while not endings[1]:
            gc.collect()  # another thread's ending has no event
        client.close()

        assert [len(ending) for ending in endings] == [1, 1]
        assert type(endings[0][0]) is ClientClosedError


def test_client_starts_anew_when_a_callback_has_ended_its_thread() -> None:
    with Simulator(SHORT) as simulator, client_of(simulator) as client:
        client.chat("hi").run()
        loop, thread = client._home.bound, client._home._thread
        assert loop is not None
        assert thread is not None

        def leave() -> None:
            raise SystemExit

        loop.call_soon_threadsafe(leave)
        thread.join(10)

        assert client.chat("hi").pipe(text()).run() == "Hi"
        assert len(simulator.exchanges) == 2


# The next loop


def test_client_with_nothing_open_is_used_in_a_second_loop() -> None:
    with Simulator() as simulator:
        client = client_of(simulator)

        async def ask() -> str:
            return "".join([word async for word in client.chat("hi").pipe(text())])

        for _ in range(3):
            assert asyncio.run(ask()) == STORY
            gc.collect()
        assert client.chat("hi").pipe(text(), ops.to_list()).run()  # on a thread of its own
        client.close()

        assert len(simulator.exchanges) == 4
        assert not open_sockets(simulator)


def test_client_whose_loop_was_shut_down_under_a_stream_is_used_in_a_second_loop() -> None:
    with Simulator(SILENT) as simulator:
        client = client_of(simulator)
        streams = [Observed[ChatChunk]() for _ in range(2)]

        async def leave_running(seen: Observed[ChatChunk]) -> None:
            client.chat("hi").subscribe(seen.on_next, seen.on_error, seen.on_completed)
            await until(lambda: bool(seen.values))

        for seen in streams:
            asyncio.run(leave_running(seen))

        assert [[type(ending) for ending in seen.endings] for seen in streams] == [[ClientClosedError]] * 2


def test_receipts_and_limiter_go_on_in_a_second_loop() -> None:
    with Simulator(SHORT) as simulator:
        client = client_of(simulator, limiter=Limiter(1))

        async def ask() -> int:
            receipts = Observed[Any]()
            client.receipts.subscribe(receipts.on_next, receipts.on_error, receipts.on_completed)
            await asyncio.gather(client.chat("hi"), client.chat("hi"))
            await until(lambda: len(receipts.values) == 2)
            return len(receipts.values)

        assert [asyncio.run(ask()) for _ in range(2)] == [2, 2]


def test_closed_client_is_not_used_in_a_second_loop() -> None:
    with Simulator() as simulator:
        client = client_of(simulator)

        async def ask() -> None:
            await client.chat("hi")

        async def close() -> None:
            await client.chat("hi")
            await client.aclose()

        asyncio.run(close())

        with pytest.raises(ClientClosedError):
            asyncio.run(ask())


def test_given_session_does_not_move_to_a_second_loop() -> None:
    with Simulator() as simulator:
        clients: list[OpenRouter] = []

        async def first() -> None:
            async with aiohttp.ClientSession() as session:
                clients.append(OpenRouter("sk-test", base_url=simulator.base_url, session=session))
                await clients[0].chat("hi")

        async def second() -> None:
            await clients[0].chat("hi")

        asyncio.run(first())

        with pytest.raises(RuntimeError, match="session"):
            asyncio.run(second())
        assert len(simulator.exchanges) == 1


def test_chain_that_waits_on_a_loop_closed_by_hand_ends_when_the_client_is_closed() -> None:
    with Simulator() as simulator, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the session that the loop left open
        client = client_of(simulator)
        endings: list[Exception] = []

        async def leave_waiting() -> None:
            client.chat("hi").pipe(ops.delay_subscription(3600.0)).subscribe(on_error=endings.append)

        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_waiting())
        loop.close()
        client.close()

        assert [type(ending) for ending in endings] == [ClientClosedError]


BESIDE: dict[str, Callable[[Observable[Any]], Any]] = {"merge": ops.merge, "zip": ops.zip, "amb": ops.amb}


@pytest.mark.parametrize("beside", BESIDE.values(), ids=BESIDE)
async def test_part_of_another_clients_chain_ends_when_its_own_client_is_closed(beside: Any) -> None:
    async with served(BUSY) as (client, simulator):
        another = client_of(simulator)
        seen = Observed[Any]()
        part = another.chat("hi").pipe(retry_transient(PATIENT))
        client.chat("hi").pipe(retry_transient(PATIENT), beside(part)).subscribe(
            seen.on_next, seen.on_error, seen.on_completed
        )
        await until(lambda: len(simulator.exchanges) == 2 and rested(simulator) and not another._home.tasks)

        await another.aclose()

        assert [type(ending) for ending in seen.endings] == [ClientClosedError]
