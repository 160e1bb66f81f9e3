"""What is pushed from the socket is what a task would have pulled, however HTTP has it, and whatever it cuts."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import aiohttp
import pytest

from rxrouter import (
    ChatChunk,
    OpenRouter,
    Overflow,
    Receipt,
    SilenceTimeoutError,
    StatusError,
    Timeouts,
    TransportError,
)
from rxrouter._source.tap import Tap
from rxrouter.operators import text
from rxrouter.testing import FAULTS, Act, Reply, answer
from tests.support import Observed, observe, served, until


@pytest.fixture(params=["pushed", "pulled"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "pulled":
        _pull(monkeypatch)


def _pull(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        return None

    monkeypatch.setattr(Tap, "on", refuse)


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


@pytest.mark.usefixtures("way")
async def test_what_is_no_exception_ends_the_stream_once_and_closes_it() -> None:
    class Stop(BaseException):
        pass

    async with served(Reply.of(answer("one two three four"), rate=1000)) as (client, simulator):
        told: list[Exception] = []

        def raises(_: ChatChunk) -> None:
            raise Stop

        client.chat("hi").subscribe(raises, told.append)

        await until(lambda: bool(told))
        await simulator.exchanges[0].over.wait()
        assert [type(error.__cause__) for error in told] == [Stop]
        assert simulator.exchanges[0].left_at is not None


async def test_a_stream_that_flows_has_no_task() -> None:
    async with served(Reply([*answer("one two three")[:4], Act.HANG])) as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next)
        await until(lambda: bool(seen.values))

        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]
        await subscription.aclose()
        await simulator.exchanges[0].over.wait()


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
WORDS = [b'data: {"id":"g","choices":[{"delta":{"content":"%b"}}]}\n\n' % word for word in (b"one", b"two", b"three")]
DONE = b"data: [DONE]\n\n"


def coded(*blocks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)


TEXT = b"".join(WORDS) + DONE
BODY = coded(*WORDS, DONE)
LAST = b"0\r\n\r\n"


@asynccontextmanager
async def written(writes: Sequence[bytes], **options: Any) -> AsyncGenerator[tuple[OpenRouter, list[asyncio.Event]]]:
    """A server that answers each request with these writes, each read before the next is made, and keeps connections.

    Gives the client, and for each connection that was made whether it is gone.
    """
    connections: list[asyncio.Event] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.Event())
        # RuntimeError is what uvloop raises for a write on a connection that is gone.
        with suppress(asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
                for data in writes:
                    writer.write(data)
                    for _ in range(4):  # turns of the loop, in which the client reads it
                        await asyncio.sleep(0)
                if b"connection: close" in b"".join(writes).lower():
                    writer.close()
        connections[-1].set()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with OpenRouter(base_url=url, timeouts=Timeouts(silence=5), **options) as client:
            yield client, connections


def bytewise(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


@pytest.mark.parametrize(
    "writes",
    [
        [HEAD + b"\r\n" + BODY + LAST],
        [HEAD + b"\r\n", BODY, LAST],
        bytewise(HEAD + b"\r\n" + BODY + LAST),
        [HEAD + b"\r\n", *bytewise(BODY + LAST)],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + HEAD + b"\r\n" + BODY, LAST],
        [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 102 Processing\r\n\r\n", HEAD, b"\r\n" + BODY + LAST],
        [HEAD.lower().replace(b"http", b"HTTP") + b"\r\n" + BODY, b"0\r\nX-Cost: 1\r\n", b"\r\n"],
        [HEAD.replace(b"stream", b"stream; charset=utf-8") + b"\r\n" + BODY + LAST],
        [HEAD + b"Connection: close\r\n\r\n" + BODY + LAST],
        [HEAD.replace(b"chunked", b"Chunked ") + b"\r\n" + BODY, LAST],
        [HEAD + b"\r\n", coded(*WORDS[:2]), b"%x;name=value\r\n%b\r\n" % (len(WORDS[2]), WORDS[2]), coded(DONE), LAST],
        [
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(TEXT),
            TEXT,
        ],
        [HEAD + b"Content-Encoding: gzip\r\n\r\n", coded(gzip.compress(TEXT)) + LAST],
        [b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n", *WORDS, DONE],
    ],
)
async def test_however_http_has_it_it_is_one_answer(writes: list[bytes]) -> None:
    async with written(writes) as (client, connections):
        for _ in range(2):
            seen = await observe(client.chat("hi"))
            assert [chunk.choices[0].delta.content for chunk in seen.values] == ["one", "two", "three"]
            assert seen.endings == [None]

        assert len(connections) == (2 if b"connection: close" in b"".join(writes).lower() else 1)


@pytest.mark.parametrize(
    "damage",
    [
        b"zz\r\nhello\r\n",
        b"-5\r\n",
        b"\r\n",
        b"5\r\nhelloXX",
        b"5\r\nhello\n",
        b"123456789abcdef01\r\n",
        b"5;x\r\nhi\r\nno\r\n",
    ],
)
@pytest.mark.parametrize("way", ["with what is good", "after it"])
async def test_a_damaged_body_is_told_at_once(damage: bytes, way: str) -> None:
    start = HEAD + b"\r\n" + coded(*WORDS[:2])
    writes = [start, damage] if way == "after it" else [start + damage]
    async with written(writes) as (client, connections):
        seen = await observe(client.chat("hi"))

        [ending] = seen.endings
        assert isinstance(ending, TransportError)
        assert not isinstance(ending, SilenceTimeoutError)
        assert ending.chunks_seen == len(seen.values) >= 2
        await connections[0].wait()


async def test_a_body_that_nobody_reads_yet_waits_in_the_server() -> None:
    """Between the head and its reader is a turn of the loop, in which a fast server sends much."""
    transport = _Transport()
    aiohttps = _Protocol()
    transport.set_protocol(aiohttps)
    tap = Tap(cast(asyncio.Transport, transport), 1000)

    reading: list[bool] = []
    for data in (HEAD + b"\r\n" + coded(b"x" * 600), coded(b"y" * 600), LAST):
        tap.data_received(data)
        reading.append(transport.reading)
    assert reading == [True, False, False]
    assert aiohttps.got == HEAD + b"\r\n"

    content = aiohttp.StreamReader(cast(Any, aiohttps), 1000, loop=asyncio.get_running_loop())
    assert tap.begin(content, lambda _: None)
    assert tap.flow() == b"x" * 600 + b"y" * 600
    assert transport.is_reading()
    assert aiohttps.got == HEAD + b"\r\n" + LAST
    assert tap.over


@pytest.mark.parametrize(
    "kind", [BrokenPipeError, ConnectionResetError, aiohttp.ClientError, TimeoutError, StopIteration]
)
@pytest.mark.parametrize("at", [1, 3, 5])
async def test_what_an_observer_raises_is_no_error_of_the_socket(kind: type[Exception], at: int) -> None:
    finish = b'data: {"id":"g","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'data: {"id":"g","choices":[],"usage":{"cost":1}}\n\n'
    async with written([HEAD + b"\r\n", *(coded(event) for event in (*WORDS, finish, usage, DONE)), LAST]) as (
        client,
        gone,
    ):
        seen = 0
        told = asyncio.get_running_loop().create_future()

        def raises(_: ChatChunk) -> None:
            nonlocal seen
            seen += 1
            if seen == at:
                raise kind("mine")

        client.chat("hi").subscribe(raises, told.set_result, lambda: told.set_result(None))
        error = await told

        assert type(error) is (RuntimeError if kind is StopIteration else kind)
        await gone[0].wait()


async def test_a_head_with_bare_line_feeds_leaves_nothing_behind() -> None:
    """aiohttp reads it, and keeps the connection: the next stream on it is a stream."""
    busy = b"HTTP/1.1 429 Too Many Requests\nContent-Type: application/json\nContent-Length: 2\n\n{}"
    writes = [busy]
    async with written(writes) as (client, connections):
        seen = await observe(client.chat("hi"))
        assert isinstance(seen.endings[0], StatusError)
        writes[:] = [HEAD + b"\r\n" + BODY + LAST]
        for _ in range(2):
            seen = await observe(client.chat("hi"))
            assert seen.endings == [None]
            assert len(seen.values) == 3

        assert len(connections) == 1


async def test_a_connection_that_goes_under_a_slow_reader_takes_nothing_that_has_come() -> None:
    """Behind a chunk that only aiohttp reads, while what it has read waits for the reader."""
    words = [b'data: {"id":"g","choices":[{"delta":{"content":"w%d"}}]}\n\n' % number for number in range(10)]
    end = b'data: {"id":"g","choices":[{"delta":{},"finish_reason":"stop"}]}\n\n' + DONE
    extended = [b"%x;x=1\r\n%b\r\n" % (len(text), text) for text in (b"".join(words), end)]
    writes = [HEAD + b"Connection: close\r\n\r\n", coded(WORDS[0]), *extended]
    async with (
        written(writes) as (client, connections),
        client.chat("hi").pipe(text()).iterate(high=4, low=1, overflow=Overflow.PAUSE) as reader,
    ):
        said = [await anext(reader)]
        await connections[0].wait()
        for _ in range(10):
            await asyncio.sleep(0)
        said += [word async for word in reader]

    assert said == ["one", *(f"w{number}" for number in range(10))]


@pytest.mark.usefixtures("way")
async def test_a_reader_that_another_thread_disposes_has_its_receipt() -> None:
    async with served(Reply.of(answer("one two three four"), rate=1000)) as (client, simulator):
        receipts: list[Receipt] = []
        client.receipts.subscribe(receipts.append)

        def leave(_: ChatChunk) -> None:
            thread = threading.Thread(target=subscription.dispose)
            thread.start()
            thread.join()

        subscription = client.chat("hi").subscribe(leave)
        await until(lambda: bool(simulator.exchanges))
        await until(lambda: bool(receipts))

        assert [receipt.ended for receipt in receipts] == ["cancelled"]


@pytest.mark.usefixtures("way")
async def test_a_terminal_callback_that_raises_leaves_the_connection_alone() -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    async with served(Reply(answer("one two"))) as (client, simulator):
        for _ in range(2):
            over = asyncio.Event()

            def on_completed(over: asyncio.Event = over) -> None:
                over.set()
                raise asyncio.CancelledError

            client.chat("hi").subscribe(on_completed=on_completed)
            await over.wait()
            await asyncio.sleep(0)

        assert simulator.connections == 1
    assert len(reported) == 2


async def test_what_is_proven_is_told_whoever_cancels_the_task_that_waits_for_the_rest() -> None:
    async with written([HEAD + b"\r\n" + BODY + b"0\r\n", b"\r\n"]) as (client, _):
        loop, seen = asyncio.get_running_loop(), Observed[ChatChunk]()
        cancelled: list[bool] = []

        def cancel() -> None:  # behind the task's making, and before its first step
            cancelled.extend(task.cancel() for task in asyncio.all_tasks() if task.get_name() == "rxrouter request")

        def on_next(value: ChatChunk) -> None:
            seen.on_next(value)
            if len(seen.values) == len(WORDS):
                loop.call_soon(loop.call_soon, cancel)

        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()

    assert cancelled == [True]
    assert seen.endings == [None]


async def test_a_tap_lets_read_only_what_it_has_stopped() -> None:
    """What held back the end of an answer has its connection no longer: who stops it now is the next."""
    transport, aiohttps = _Transport(), _Protocol()
    transport.set_protocol(aiohttps)
    tap = Tap(cast(asyncio.Transport, transport), 1000)
    tap.data_received(HEAD + b"\r\n")
    content = aiohttp.StreamReader(cast(Any, aiohttps), 1000, loop=asyncio.get_running_loop())
    assert tap.begin(content, lambda _: None)

    tap.data_received(coded(b"x" * 2000) + LAST)
    assert transport.is_reading()
    transport.pause_reading()
    assert tap.flow() == b"x" * 2000

    assert not transport.is_reading()


class _Transport(asyncio.Transport):
    """Has no socket."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.protocol: asyncio.BaseProtocol = asyncio.Protocol()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class _Protocol(asyncio.Protocol):
    """Keeps what it gets."""

    got = b""

    def data_received(self, data: bytes) -> None:
        self.got += data


async def test_error_on_the_body_stays_when_the_connection_goes_under_it() -> None:
    transport = _Transport()
    aiohttps = _Protocol()
    transport.set_protocol(aiohttps)
    tap = Tap(cast(asyncio.Transport, transport), 1000)
    tap.data_received(HEAD + b"\r\n")
    content = aiohttp.StreamReader(cast(Any, aiohttps), 1000, loop=asyncio.get_running_loop())
    assert tap.begin(content, lambda _: None)
    first = aiohttp.ClientPayloadError("the first that was seen")
    content.set_exception(first)

    tap.connection_lost(None)

    assert content.exception() is first


async def test_next_request_of_a_given_session_reads_no_answer_when_one_came_with_the_end_of_an_answer() -> None:
    good = HEAD + b"\r\n" + BODY + LAST
    async with (
        aiohttp.ClientSession() as session,
        written([good + good.replace(b"one", b"bad")], session=session) as (client, connections),
    ):
        for number in range(2):
            seen = await observe(client.chat("hi"))
            assert seen.endings == [None]
            assert [chunk.choices[0].delta.content for chunk in seen.values] == ["one", "two", "three"]
            await connections[number].wait()
