"""Backpressure: a slow reader stops the server, and what every policy does with a queue that is full."""

# The queue and the gate are looked at from inside: their bounds are the law.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import socket
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import reactivex
from hypothesis import given, strategies as st
from reactivex import Observable, operators as ops
from reactivex.scheduler import ThreadPoolScheduler
from reactivex.subject import Subject

from rxrouter import (
    ChatChunk,
    Comment,
    Iteration,
    OpenRouter,
    Overflow,
    RouterError,
    ServerSentEvent,
    SilenceTimeoutError,
    SlowReaderError,
    Timeouts,
    TransportError,
    for_each,
    iterate,
)
from rxrouter._gate import Barrier, Gate, current_gates
from rxrouter._queue import Queue
from rxrouter._source.decode import ChunkReader, EventReader, Reader
from rxrouter._wire.chunk import Choice, Delta, FunctionDelta, ToolCallDelta, Usage
from rxrouter._wire.completion import ChatCompletion
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import text
from rxrouter.testing import DONE, Act, Exchange, Reply, Simulator, answer, chunk
from tests.support import Observed, served

T = TypeVar("T")

MANY, LONG = 40_000, 9_000  # words of an answer: of 600 bytes each on the wire, or of 1,600
# Words for a chain with timers: each of its windows holds what arrives in two milliseconds, however much that is.
TIMED = 25_000
MOST_HELD = 2_000_000  # bytes outside the kernel: the server's transport, aiohttp, and one queue
MOST_HELD_BY_WINDOWS = 30_000_000  # bytes
RECEIVE_BUFFER = 1 << 18
SOCKETS = Path("/proc/net/tcp")


@cache
def words(count: int = LONG) -> tuple[str, ...]:
    width = 340 if count == MANY else 1_300
    return tuple(f"{n} ".ljust(width, "~") for n in range(count))


@cache
def flood(count: int = LONG) -> Reply:
    """An answer far larger than what may be in flight, sent as fast as it goes."""
    events = [chunk({"content": word}) for word in words(count)]
    assert sum(map(len, events)) > (20_000_000 if count == MANY else 10_000_000)
    return Reply((*events, chunk(finish="stop"), DONE))


@asynccontextmanager
async def flooded(reply: Any = None, **options: Any) -> AsyncGenerator[tuple[OpenRouter, Simulator]]:
    """As `served`, with sockets that the kernel does not enlarge while they are read quickly."""

    def new_socket(address: Any) -> socket.socket:
        made = socket.socket(*address[:3])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        return made

    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, socket_factory=new_socket)) as session,
        served(reply or flood(), session=session, **options) as pair,
    ):
        yield pair


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - of what has no event
            await asyncio.sleep(0.001)


async def paused(exchange: Exchange, most: int = MOST_HELD) -> None:
    """Waits until the server writes no more, and asserts that it is because its socket takes no more.

    Args:
        exchange: The request that is answered.
        most: Bytes of the answer that may be held outside the kernel, whose own buffers depend on the machine.
    """
    sent = await stalled(lambda: exchange.sent_bytes)
    kernel = queued_bytes(exchange)
    print(f"sent while paused: {sent / 1e6:.2f} MB, of which {kernel / 1e6:.2f} MB are in the kernel")  # noqa: T201
    assert not exchange.over.is_set()
    assert kernel > RECEIVE_BUFFER
    assert sent - kernel < most


def queued_bytes(exchange: Exchange) -> int:
    """Returns the bytes in the kernel's buffers, both ways, of the loopback connection of this request."""
    if not SOCKETS.exists():
        pytest.skip("only Linux shows the buffers of both ends of a connection")
    rows = [row.split() for row in SOCKETS.read_text().splitlines()[1:]]
    # The fields are a number, both addresses, the state (1 is established), and the bytes to be sent and to be read.
    established = {(row[1], row[2]): row[4] for row in rows if row[3] == "01"}
    # Both ports, because either may be that of a connection to another server on this machine, too.
    ports = f":{exchange.peer[1]:04X}", f":{int(exchange.headers['Host'].rpartition(':')[2]):04X}"
    (client,) = [ends for ends in established if ends[0].endswith(ports[0]) and ends[1].endswith(ports[1])]
    server = (client[1], client[0])
    return sum(int(size, 16) for ends in (client, server) for size in established[ends].split(":"))


async def stalled(progress: Callable[[], int]) -> int:
    """Waits until something grows no further, and says how far it got."""
    known, same = -1, 0
    async with asyncio.timeout(30):
        while same < 60 or not known:
            await asyncio.sleep(0.005)
            now = progress()
            known, same = now, same + 1 if now == known else 0
    return known


async def drained(reader: Iteration[T], *before: T) -> tuple[list[T], RouterError | None]:
    """All values, with those that were taken before, and how it ended."""
    values = [*before]
    try:
        async for value in reader:
            values.append(value)  # noqa: PERF401 - an error must not take them along
    except RouterError as error:
        return values, error
    return values, None


class Watched(deque[Any]):
    """A queue that remembers how long it was."""

    longest = 0

    def append(self, value: Any, /) -> None:
        super().append(value)
        self.longest = max(self.longest, len(self))


def watch(iteration: Iteration[Any]) -> Watched:
    iteration._queue.items = watched = Watched()
    return watched


def same(word: str) -> str:
    return word


def some(word: str) -> bool:
    return bool(word)


# Through the socket


async def test_reader_that_does_not_ask_stops_the_server_from_writing() -> None:
    async with served(flood(MANY)) as (client, simulator):
        reader = client.chat("hi").pipe(text()).iterate(high=64, low=16)
        queue = watch(reader)

        first = await anext(reader)
        await paused(simulator.exchanges[0])
        rest = [word async for word in reader]

        assert (first, *rest) == words(MANY)
        assert queue.longest == 64


async def test_action_that_is_awaited_stops_the_server_from_writing() -> None:
    async with flooded() as (client, simulator):
        go_on = asyncio.Event()
        got: list[str] = []

        async def action(word: str) -> None:
            got.append(word)
            await go_on.wait()

        reading = asyncio.create_task(client.chat("hi").pipe(text()).for_each(action))
        await until(lambda: bool(got))
        await paused(simulator.exchanges[0])
        assert len(got) == 1
        go_on.set()
        await reading

        assert tuple(got) == words()


async def test_reader_of_events_stops_the_server_from_writing() -> None:
    async with flooded() as (client, simulator):
        reader = client.events("/chat/completions", {"stream": True}).iterate(high=8, low=2)
        queue = watch(reader)

        first: ServerSentEvent | Comment = await anext(reader)
        await paused(simulator.exchanges[0])
        rest = [event async for event in reader]

        assert isinstance(first, ServerSentEvent)
        assert len(rest) == LONG + 1  # the finish, and [DONE]
        assert queue.longest == 8


async def test_slow_reader_of_a_shared_source_slows_its_fast_sibling_through_operators() -> None:
    async with flooded() as (client, simulator):
        shared = client.chat("hi").pipe(text(), ops.map(same), ops.filter(some), ops.share())
        fast = Observed[str]()
        slow = shared.pipe(ops.map(same), ops.filter(some)).iterate(high=64, low=16)
        queue = watch(slow)
        shared.subscribe(fast.on_next, fast.on_error, fast.on_completed)

        first = await anext(slow)
        await paused(simulator.exchanges[0])
        ahead = len(fast.values)
        rest = [word async for word in slow]
        await fast.over.wait()

        assert ahead <= 1 + 64  # what the slow one has taken, and its queue
        assert (first, *rest) == tuple(fast.values) == words()
        assert queue.longest == 64
        assert len(simulator.exchanges) == 1


@pytest.mark.parametrize("leaves", ["by aclose", "by garbage"])
async def test_fast_sibling_speeds_up_when_the_slow_one_leaves(leaves: str) -> None:
    async with flooded() as (client, _):
        shared = client.chat("hi").pipe(text(), ops.map(same), ops.filter(some), ops.share())
        fast = Observed[str]()
        slow = shared.iterate(high=64, low=16)
        shared.subscribe(fast.on_next, fast.on_error, fast.on_completed)
        await anext(slow)
        assert await stalled(lambda: len(fast.values)) <= 1 + 64

        if leaves == "by aclose":
            await slow.aclose()
        del slow
        await fast.over.wait()

        assert fast.endings == [None]
        assert tuple(fast.values) == words()


async def test_slowest_of_two_slow_readers_wins() -> None:
    async with flooded() as (client, _):
        shared = client.chat("hi").pipe(text(), ops.share())
        slow, slower = shared.iterate(high=16, low=4), shared.iterate(high=32, low=8)
        asked = [asyncio.create_task(anext(slow)), asyncio.create_task(anext(slower))]
        assert await asyncio.gather(*asked) == [words()[0]] * 2

        got = [words()[0]]

        async def read_on() -> None:
            async for word in slow:
                got.append(word)  # noqa: PERF401 - seen while it grows

        reading = asyncio.create_task(read_on())
        assert await stalled(lambda: len(got)) <= 1 + 32  # no further than the slower one's queue goes
        rest = [word async for word in slower]
        await reading

        assert tuple(got) == (words()[0], *rest) == words()


THROUGH: dict[str, Callable[[Observable[str]], Observable[Any]]] = {
    "delay": ops.delay(0.01),
    "buffer_with_time_or_count": lambda source: source.pipe(ops.buffer_with_time_or_count(0.01, 50), ops.filter(bool)),
    "buffer_with_time": lambda source: source.pipe(ops.buffer_with_time(0.002), ops.filter(bool)),
    "window_with_time": lambda source: source.pipe(ops.window_with_time(0.01), ops.merge_all()),
    "timeout": ops.timeout(60.0),
    "concat": lambda source: reactivex.concat(source, reactivex.empty()),
    "retry": ops.retry(2),
    "flat_map": ops.flat_map(reactivex.of),
}


@pytest.mark.parametrize("operator", THROUGH.values(), ids=THROUGH.keys())
async def test_slow_reader_pauses_the_server_through(operator: Callable[[Observable[str]], Observable[Any]]) -> None:
    def flattened(values: Iterable[Any]) -> tuple[str, ...]:
        return tuple(x for value in values for x in ([value] if isinstance(value, str) else value))

    async with flooded(flood(TIMED)) as (client, simulator):
        reader = client.chat("hi").pipe(text(), operator).iterate(high=8, low=2)

        first = await anext(reader)
        await paused(simulator.exchanges[0], MOST_HELD_BY_WINDOWS)
        rest = [value async for value in reader]

        assert flattened([first, *rest]) == words(TIMED)


async def test_silence_is_not_counted_while_the_reader_pauses() -> None:
    async with flooded(timeouts=Timeouts(silence=0.2)) as (client, _):
        reader = client.chat("hi").pipe(text()).iterate(high=8, low=2)
        first = await anext(reader)
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.7, waited.set)
        await waited.wait()

        rest = [word async for word in reader]

        assert (first, *rest) == words()


async def test_silence_is_counted_again_when_the_reader_has_caught_up() -> None:
    events = [chunk({"content": word}) for word in words()[:100]]
    async with served(Reply((*events, Act.HANG)), timeouts=Timeouts(silence=0.2)) as (client, _):
        reader = client.chat("hi").pipe(text()).iterate(high=8, low=2)
        first = await anext(reader)
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.7, waited.set)
        await waited.wait()

        values, error = await drained(reader, first)

        assert isinstance(error, SilenceTimeoutError)
        assert tuple(values) == words()[:100]


async def read_late(client: OpenRouter, simulator: Simulator, overflow: Overflow) -> tuple[Iteration[Any], list[Any]]:
    """Takes one chunk, lets the whole answer arrive, takes the rest."""
    reader = client.chat("hi").iterate(high=8, low=2, overflow=overflow)
    got = [await anext(reader)]
    await simulator.exchanges[0].over.wait()
    await until(lambda: reader._queue.ended)
    return reader, got + [value async for value in reader]


def content(chunks: Iterable[ChatChunk]) -> list[str]:
    return [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]


def fold(chunks: Iterable[ChatChunk]) -> ChatCompletion:
    completion = CompletionFold()
    for each in chunks:
        completion.add(each)
    return completion.completion()


MIXED = answer(
    "What the answer says, word by word.",
    reasoning="What it thinks of it, word by word.",
    tool_calls=[("look_up", '{"what": "the answer", "where": "in the sea"}'), ("wait", '{"seconds": 1}')],
    cost=0.25,
)


async def test_coalesce_through_the_socket_folds_to_the_same_completion() -> None:
    async with served(Reply.of(MIXED)) as (client, simulator):
        reader, got = await read_late(client, simulator, Overflow.COALESCE)
        whole: list[ChatChunk] = []
        await client.chat("hi").for_each(lambda chunk: _append(whole, chunk))

        assert len(got) < len(whole)
        assert "".join(content(got)) == "What the answer says, word by word."
        assert fold(got) == fold(whole)
        assert reader.dropped == 0


async def _append(values: list[T], value: T) -> None:
    values.append(value)


async def test_dropping_policies_count_what_is_missing_of_an_answer() -> None:
    count = len(MIXED) - 3  # two comments and [DONE] are no chunks
    for overflow in (Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST):
        async with served(Reply.of(MIXED)) as (client, simulator):
            reader, got = await read_late(client, simulator, overflow)

            assert 0 < len(got) <= 1 + 8
            assert reader.dropped == count - len(got)


async def test_error_policy_ends_the_reader_and_closes_the_request() -> None:
    async with flooded() as (client, simulator):
        reader = client.chat("hi").pipe(text()).iterate(high=64, low=16, overflow=Overflow.ERROR)
        first = await anext(reader)
        await simulator.exchanges[0].over.wait()

        values, error = await drained(reader, first)

        assert isinstance(error, SlowReaderError)
        assert error.capacity == 64
        assert tuple(values) == words()[: len(values)]
        assert 64 <= len(values) <= 65
        assert simulator.exchanges[0].left_at is not None


async def test_pausing_fails_loudly_behind_a_thread_hop_and_closes_the_request() -> None:
    with ThreadPoolExecutor(1) as pool:
        hop = ThreadPoolScheduler(1)
        hop.executor = pool
        async with flooded() as (client, simulator):
            reader = client.chat("hi").pipe(text(), ops.observe_on(hop)).iterate(high=64, low=16)
            first = await anext(reader)
            await simulator.exchanges[0].over.wait()

            values, error = await drained(reader, first)

            assert isinstance(error, SlowReaderError)
            assert error.capacity == 64
            assert tuple(values) == words()[: len(values)]
            assert 64 <= len(values) <= 65
            assert simulator.exchanges[0].left_at is not None


async def test_reader_that_fails_by_overflow_does_not_hold_up_its_sibling() -> None:
    async with flooded() as (client, _):
        shared = client.chat("hi").pipe(text(), ops.share())
        fast = Observed[str]()
        shared.subscribe(fast.on_next, fast.on_error, fast.on_completed)
        slow = shared.iterate(high=64, low=16, overflow=Overflow.ERROR)

        await anext(slow)
        await fast.over.wait()

        assert fast.endings == [None]
        assert tuple(fast.values) == words()


async def test_paused_reader_that_fails_all_the_same_lets_go_of_its_sibling() -> None:
    async with flooded() as (client, _):
        shared = client.chat("hi").pipe(text(), ops.share())
        fast = Observed[str]()
        shared.subscribe(fast.on_next, fast.on_error, fast.on_completed)
        multiplied = shared.pipe(ops.flat_map(lambda word: reactivex.from_iterable([word] * 5_000)))
        slow = multiplied.iterate(high=8, low=2)  # more comes of one value than any gate can hold back

        await anext(slow)
        await until(fast.over.is_set)

        assert fast.endings == [None]
        assert tuple(fast.values) == words()


# Policies, on a source that nobody can pause


async def test_pause_fails_loudly_at_the_first_overflow_of_a_source_without_a_gate() -> None:
    values, error = await drained(iterate(reactivex.from_iterable(range(10)), high=4, low=1))

    assert values == [0, 1, 2, 3]
    assert isinstance(error, SlowReaderError)
    assert error.capacity == 4


async def test_pause_fails_loudly_when_a_subject_is_fed_faster_than_it_is_read() -> None:
    subject = Subject[int]()
    reader = iterate(subject, high=4, low=1)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    subject.on_next(0)
    assert await first == 0

    for value in range(1, 10):
        subject.on_next(value)
    values, error = await drained(reader)

    assert values == [1, 2, 3, 4]
    assert isinstance(error, SlowReaderError)
    assert not subject.observers  # it has left


async def test_pause_lets_a_source_without_a_gate_fill_the_queue_to_its_bound() -> None:
    values, error = await drained(iterate(reactivex.from_iterable(range(4)), high=4, low=1))

    assert values == [0, 1, 2, 3]
    assert error is None


async def test_error_policy_gives_the_values_before_the_error() -> None:
    values, error = await drained(
        iterate(reactivex.from_iterable(range(10)), high=4, low=1, overflow=Overflow.ERROR),
    )

    assert values == [0, 1, 2, 3]
    assert isinstance(error, SlowReaderError)
    assert error.capacity == 4


@pytest.mark.parametrize(
    ("overflow", "kept"),
    [(Overflow.DROP_OLDEST, [6, 7, 8, 9]), (Overflow.DROP_NEWEST, [0, 1, 2, 3]), (Overflow.LATEST, [9])],
)
async def test_dropping_policies_keep_what_they_are_named_after(overflow: Overflow, kept: list[int]) -> None:
    reader = iterate(reactivex.from_iterable(range(10)), high=4, low=1, overflow=overflow)

    values, error = await drained(reader)

    assert values == kept
    assert error is None
    assert reader.dropped == 10 - len(kept)


async def test_coalesce_joins_text_that_does_not_fit() -> None:
    reader = iterate(reactivex.from_iterable("Hello, world"), high=4, low=1, overflow=Overflow.COALESCE)

    values, error = await drained(reader)

    assert values == ["H", "e", "l", "lo, world"]
    assert error is None
    assert reader.dropped == 0


async def test_coalesce_keeps_values_that_are_no_text() -> None:
    reader = iterate(reactivex.from_iterable(range(10)), high=4, low=1, overflow=Overflow.COALESCE)

    assert await drained(reader) == (list(range(10)), None)


async def test_for_each_takes_a_policy() -> None:
    got: list[int] = []

    await for_each(
        reactivex.from_iterable(range(10)), lambda n: _append(got, n), high=4, low=1, overflow=Overflow.LATEST
    )

    assert got == [9]


# A reader on one thread, the source on another


class Paced(deque[Any]):
    """A queue whose `append` stops when the value is in, until somebody lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.appended = threading.Event()
        self.go_on = threading.Event()

    def append(self, value: Any, /) -> None:
        super().append(value)
        self.appended.set()
        assert self.go_on.wait(10)


class PacedGate(Gate):
    """A gate whose `hold` takes its time: a reader on another thread comes in between, if nothing keeps it out."""

    __slots__ = ("go_on", "held")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.held = threading.Event()
        self.go_on = threading.Event()

    def hold(self) -> None:
        super().hold()
        self.held.set()
        self.go_on.wait(0.2)


async def test_reader_that_was_quicker_than_the_call_that_wakes_it_waits_on() -> None:
    subject = Subject[int]()
    reader = iterate(subject, high=8, low=2)
    reader._queue.items = queue = Paced()
    reader._queue.items.go_on.set()
    first = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    await asyncio.to_thread(subject.on_next, 0)
    assert await first == 0
    queue.go_on.clear()
    queue.appended.clear()

    producer = threading.Thread(target=subject.on_next, args=(1,))
    producer.start()
    await asyncio.to_thread(queue.appended.wait, 10)
    second = await anext(reader)  # it is there, though its producer has not come to saying so
    third = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    queue.go_on.set()
    producer.join()
    for _ in range(5):
        await asyncio.sleep(0)
    waiting = not third.done()
    subject.on_next(2)

    assert second == 1
    assert waiting  # StopAsyncIteration here would be a cut answer that looks complete
    assert await third == 2
    await reader.aclose()


async def test_reader_that_was_quicker_than_the_gate_is_not_left_before_a_closed_one() -> None:
    subject = Subject[int]()
    reader = iterate(subject, high=2, low=0)
    gate = PacedGate(asyncio.get_running_loop())

    def produce() -> None:
        gate.enter()
        subject.on_next(1)
        subject.on_next(2)  # full: holds the gate

    first = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    subject.on_next(0)
    assert await first == 0
    producer = threading.Thread(target=produce)
    producer.start()
    await asyncio.to_thread(gate.held.wait, 10)
    assert [await anext(reader), await anext(reader)] == [1, 2]
    gate.go_on.set()
    producer.join()
    waiting = asyncio.create_task(anext(reader))
    for _ in range(5):
        await asyncio.sleep(0)

    assert not gate.closed  # the queue is empty: held now, it would be held for ever
    subject.on_completed()
    with pytest.raises(StopAsyncIteration):
        await waiting


# The gate


@pytest.mark.parametrize("kind", [partial(ChunkReader, 1000, 1), partial(EventReader, 1000)])
async def test_what_comes_while_the_gate_is_held_waits_for_its_release(kind: Callable[..., Reader]) -> None:
    gate, seen = Gate(asyncio.get_running_loop()), list[Any]()
    reader = kind(gate, seen.append)

    gate.hold()
    reader.feed(chunk({"content": "one"}) + chunk({"content": "two"}))
    assert not seen
    gate.release()
    reader.resume()

    assert len(seen) == 2


async def test_gate_is_open_until_somebody_holds_it() -> None:
    gate = Gate(asyncio.get_running_loop())

    await gate.opened()

    assert not gate.closed


async def test_gate_opens_when_the_last_of_its_holders_has_released_it() -> None:
    gate = Gate(asyncio.get_running_loop())
    gate.hold()
    gate.hold()
    gate.hold()
    waiting = asyncio.create_task(gate.opened())

    for _ in range(2):
        gate.release()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert gate.closed
        assert not waiting.done()
    gate.release()
    await waiting

    assert not gate.closed


async def test_gate_that_is_held_again_before_the_waiter_ran_stays_closed() -> None:
    gate = Gate(asyncio.get_running_loop())
    gate.hold()
    waiting = asyncio.create_task(gate.opened())
    await asyncio.sleep(0)

    gate.release()
    gate.hold()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    gate.release()
    await waiting


async def test_gate_is_released_from_another_thread() -> None:
    gate = Gate(asyncio.get_running_loop())
    gate.hold()
    waiting = asyncio.create_task(gate.opened())
    await asyncio.sleep(0)

    thread = threading.Thread(target=gate.release)
    thread.start()
    await waiting
    thread.join()

    assert not gate.closed


async def test_gate_that_is_shut_down_stays_shut_and_keeps_nobody() -> None:
    gate = Gate(asyncio.get_running_loop())
    gate.hold()

    thread = threading.Thread(target=gate.shut_down)
    thread.start()
    thread.join()
    gate.release()
    await gate.opened()

    assert gate.shut
    assert gate.closed  # the source looks here, and stops


def test_gate_of_a_loop_that_is_closed_can_be_released() -> None:
    loop = asyncio.new_event_loop()
    gate = Gate(loop)
    gate.hold()
    loop.close()

    gate.release()


async def test_gate_is_found_in_tasks_and_timers_below_but_not_in_a_thread() -> None:
    loop = asyncio.get_running_loop()
    gate = Gate(loop)
    found: list[list[Barrier]] = []

    async def source() -> None:
        gate.enter()
        fired = asyncio.Event()

        def look() -> None:
            found.append(current_gates(set()))
            fired.set()

        loop.call_later(0, look)
        await fired.wait()
        await asyncio.create_task(_look(found))
        thread = threading.Thread(target=lambda: found.append(current_gates(set())))
        thread.start()
        thread.join()

    await asyncio.create_task(source())

    assert found == [[gate], [gate], []]
    assert current_gates(set()) == []


async def _look(found: list[list[Barrier]]) -> None:
    found.append(current_gates(set()))


# Chance against the queue: None takes a value, anything else arrives


Steps = list[str | int | None]
STEPS: st.SearchStrategy[Steps] = st.lists(
    st.one_of(st.none(), st.sampled_from(["a", "bc", "def"]), st.integers(0, 9)), max_size=60
)
BOUNDS = st.integers(1, 6).flatmap(lambda high: st.tuples(st.just(high), st.integers(0, high - 1)))


def play(queue: Queue[Any], steps: Iterable[Any], high: int) -> tuple[list[Any], list[Any], int]:
    """What arrived, what was taken, and how long the queue was."""
    arrived: list[Any] = []
    taken: list[Any] = []
    longest = 0
    for step in steps:
        if step is not None:
            if not queue.ended:
                arrived.append(step)
            queue.on_next(step)
        elif queue.items:
            taken.append(queue.take())
        longest = max(longest, len(queue.items))
    while queue.items:
        taken.append(queue.take())
    return arrived, taken, longest


def joined(values: Iterable[Any]) -> list[Any]:
    """The values with adjacent text joined."""
    runs = [(kind, list(run)) for kind, run in groupby(values, type)]
    return [x for kind, run in runs for x in (["".join(run)] if kind is str else run)]


def is_subsequence(part: list[Any], whole: list[Any]) -> bool:
    rest = iter(whole)
    return all(value in rest for value in part)


@given(steps=STEPS, bounds=BOUNDS)
def test_coalescing_queue_loses_nothing(steps: Steps, bounds: tuple[int, int]) -> None:
    queue = Queue[Any](*bounds, Overflow.COALESCE)

    arrived, taken, _ = play(queue, steps, bounds[0])

    assert joined(taken) == joined(arrived)
    assert queue.dropped == 0
    assert not queue.ended


@given(steps=st.lists(st.one_of(st.none(), st.text(min_size=1, max_size=3)), max_size=60), bounds=BOUNDS)
def test_coalescing_queue_of_text_is_bounded(steps: list[str | None], bounds: tuple[int, int]) -> None:
    queue = Queue[str](*bounds, Overflow.COALESCE)

    arrived, taken, longest = play(queue, steps, bounds[0])

    assert "".join(taken) == "".join(arrived)
    assert longest <= bounds[0]


@pytest.mark.parametrize("overflow", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST])
@given(values=st.lists(st.booleans(), max_size=60), bounds=BOUNDS)
def test_dropping_queue_keeps_order_and_count(overflow: Overflow, values: list[bool], bounds: tuple[int, int]) -> None:
    queue = Queue[int](*bounds, overflow)

    arrived, taken, longest = play(queue, (n if put else None for n, put in enumerate(values)), bounds[0])

    assert is_subsequence(taken, arrived)
    assert queue.dropped == len(arrived) - len(taken)
    assert longest <= (1 if overflow is Overflow.LATEST else bounds[0])
    assert not queue.ended
    if arrived:
        assert overflow is Overflow.DROP_NEWEST or taken[-1] == arrived[-1]
        assert overflow is not Overflow.DROP_NEWEST or taken[0] == arrived[0]


@given(values=st.lists(st.booleans(), max_size=60), bounds=BOUNDS)
def test_failing_queue_gives_all_before_its_first_overflow(values: list[bool], bounds: tuple[int, int]) -> None:
    queue = Queue[int](*bounds, Overflow.ERROR)

    arrived, taken, longest = play(queue, (n if put else None for n, put in enumerate(values)), bounds[0])

    assert longest <= bounds[0]
    assert queue.ended == isinstance(queue.error, SlowReaderError)
    assert taken == (arrived[:-1] if queue.ended else arrived)  # the one that did not fit is the error


@given(values=st.lists(st.booleans(), max_size=60), bounds=BOUNDS, holders=st.integers(1, 3))
def test_pausing_queue_loses_nothing_of_a_source_that_heeds_the_gate(
    values: list[bool], bounds: tuple[int, int], holders: int
) -> None:
    high, low = bounds

    async def attempt() -> None:
        gate = Gate(asyncio.get_running_loop())
        gate.enter()
        queues = [Queue[int](high + n, low, Overflow.PAUSE) for n in range(holders)]
        taken: list[list[int]] = [[] for _ in queues]
        arrived: list[int] = []
        for n, put in enumerate(values):
            if put and not gate.closed:
                arrived.append(n)
                for queue in queues:
                    queue.on_next(n)
            elif not put:
                at = n % holders
                if queues[at].items:
                    taken[at].append(queues[at].take())
            assert all(len(queue.items) <= high + n for n, queue in enumerate(queues))
            assert gate.closed or all(len(queue.items) < high + n for n, queue in enumerate(queues))
        for queue, got in zip(queues, taken, strict=True):
            while queue.items:
                got.append(queue.take())

        assert taken == [arrived] * holders
        assert not gate.closed
        assert not any(queue.ended or queue.dropped for queue in queues)

    asyncio.run(attempt())


PIECE = st.text("abc", min_size=1, max_size=3)
DETAILS = st.lists(
    st.fixed_dictionaries(
        {"type": st.just("reasoning.text"), "text": PIECE},
        optional={"index": st.integers(0, 1), "signature": st.sampled_from(["s1", "s2"])},
    ),
    min_size=1,
    max_size=2,
)
CALLS = st.lists(
    st.builds(
        ToolCallDelta,
        index=st.integers(0, 1),
        id=st.one_of(st.none(), st.sampled_from(["call_a", "call_b"])),
        function=st.builds(FunctionDelta, name=st.one_of(st.none(), PIECE), arguments=st.one_of(st.none(), PIECE)),
    ),
    min_size=1,
    max_size=2,
)
DELTAS = st.one_of(
    st.builds(Delta, content=PIECE),
    st.builds(Delta, role=st.just("assistant"), content=st.one_of(st.just(""), PIECE)),
    st.builds(Delta, reasoning=PIECE),
    st.builds(Delta, reasoning_content=PIECE),
    st.builds(Delta, reasoning=st.one_of(st.none(), PIECE), reasoning_details=DETAILS),
    st.builds(Delta, refusal=PIECE),
    st.builds(Delta, tool_calls=CALLS),
    st.builds(Delta, content=PIECE, reasoning=PIECE),
    st.builds(Delta, content=PIECE, tool_calls=CALLS),
    st.builds(Delta, content=PIECE, annotations=st.just([{"type": "url_citation"}])),
    st.builds(Delta, images=st.just([{"type": "image_url"}])),
    st.builds(Delta, audio=st.fixed_dictionaries({"id": st.just("audio_1"), "data": PIECE})),
)
CHOICES = st.builds(Choice, index=st.integers(0, 1), delta=DELTAS, finish_reason=st.one_of(st.none(), st.just("stop")))
CHUNKS = st.builds(
    ChatChunk,
    id=st.just("gen-1"),
    model=st.just("m"),
    choices=st.one_of(st.lists(CHOICES, max_size=2), st.lists(CHOICES, min_size=1, max_size=1)),
    usage=st.one_of(st.none(), st.none(), st.builds(Usage, completion_tokens=st.integers(0, 9))),
)


@given(steps=st.lists(st.one_of(st.none(), CHUNKS, CHUNKS), max_size=30), bounds=BOUNDS)
def test_coalesced_chunks_fold_to_the_same_completion(steps: list[ChatChunk | None], bounds: tuple[int, int]) -> None:
    queue = Queue[ChatChunk](*bounds, Overflow.COALESCE)

    arrived, taken, _ = play(queue, steps, bounds[0])

    assert fold(taken) == fold(arrived)
    assert queue.dropped == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "vendor/model"},
        {"openrouter_metadata": {"strategy": "direct"}},
        {"service_tier": "flex"},
        {"system_fingerprint": "fp_1"},
        {"provider": "Venice"},
    ],
    ids=lambda fields: str(next(iter(fields))),
)
def test_coalesced_chunks_keep_what_only_a_later_one_says_of_the_whole(fields: dict[str, Any]) -> None:
    first = ChatChunk(id="gen-1", choices=[Choice(delta=Delta(content="a"))])
    second = ChatChunk(id="gen-1", choices=[Choice(delta=Delta(content="b"))], **fields)
    queue = Queue[ChatChunk](1, 0, Overflow.COALESCE)

    arrived, taken, _ = play(queue, [first, second], 1)

    assert fold(taken) == fold(arrived)


def answers_by_turn(*replies: Reply) -> Callable[[Exchange], Reply]:
    turns = iter(replies)
    return lambda exchange: next(turns)


async def test_pause_works_again_after_a_retry() -> None:
    half = Reply([chunk({"content": word}) for word in words()[:1000]])  # a clean end without a proof
    async with flooded(answers_by_turn(half, flood())) as (client, simulator):
        reader = client.chat("hi").pipe(text(), ops.retry(2)).iterate(high=8, low=2)
        got = [await anext(reader) for _ in range(1000)]
        got += [await anext(reader)]

        await paused(simulator.exchanges[1])
        got += [word async for word in reader]

        assert tuple(got) == (*words()[:1000], *words())


async def test_reader_that_pauses_gets_what_had_arrived_before_a_cut() -> None:
    arrived = words()[:60]  # less than aiohttp and one socket hold
    async with served(Reply((*[chunk({"content": word}) for word in arrived], Act.CUT))) as (client, simulator):
        reader = client.chat("hi").pipe(text()).iterate(high=8, low=2)
        first = await anext(reader)
        await simulator.exchanges[0].over.wait()
        for _ in range(100):  # until the cut is known here, too
            await asyncio.sleep(0)

        values, error = await drained(reader, first)

        assert isinstance(error, TransportError)
        assert tuple(values) == arrived


async def test_answer_that_was_cut_after_its_finish_is_complete_for_a_reader_that_paused() -> None:
    whole = Reply((*[chunk({"content": word}) for word in words()[:60]], chunk(finish="stop"), Act.CUT))
    async with served(whole) as (client, simulator):
        reader = client.chat("hi").pipe(text()).iterate(high=8, low=2)
        first = await anext(reader)
        await simulator.exchanges[0].over.wait()
        for _ in range(100):
            await asyncio.sleep(0)

        values, error = await drained(reader, first)

        assert error is None
        assert tuple(values) == words()[:60]


BEHIND: dict[str, Callable[[OpenRouter, Observable[Any]], Observable[Any]]] = {
    "flat_map": lambda client, inner: client.chat("first").pipe(ops.last(), ops.flat_map(lambda _: inner)),
    "concat": lambda client, inner: client.chat("first").pipe(ops.ignore_elements(), ops.concat(inner)),
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND.keys())
async def test_slow_reader_pauses_a_source_behind_another_through_its_timers(
    behind: Callable[[OpenRouter, Observable[Any]], Observable[Any]],
) -> None:
    def answer_to(exchange: Exchange) -> Reply:
        return flood(TIMED) if exchange.json["messages"][0]["content"] == "hi" else Reply.of(answer("done"))

    async with flooded(answer_to) as (client, simulator):
        inner = client.chat("hi").pipe(text(), ops.buffer_with_time(0.002), ops.filter(bool))
        reader = behind(client, inner)
        pulled = iterate(reader, high=8, low=2)

        await anext(pulled)
        await paused(simulator.exchanges[1], MOST_HELD_BY_WINDOWS)
        longest = len(pulled._queue.items)
        await pulled.aclose()

        assert longest <= 8 + 1
