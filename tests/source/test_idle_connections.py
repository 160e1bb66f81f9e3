"""No request reads a byte that came before it: the connection on which one came is closed, and a clean one is kept."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest
from reactivex import Observable

from rxrouter import OpenRouter, Timeouts, TransportError
from rxrouter._source.resources import Connector
from tests.support import observe, served
from tests.tls import contexts

# Well below the time after which aiohttp closes an idle connection by itself.
AT_ONCE = 5.0


def sized(kind: str, body: bytes, *fields: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(kind: str, body: bytes, *fields: str) -> bytes:
    head = ["HTTP/1.1 200 OK", f"Content-Type: {kind}", "Transfer-Encoding: chunked", *fields]
    return "\r\n".join([*head, "", ""]).encode() + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


EVENTS = "text/event-stream"


def events(word: str) -> bytes:
    return b'data: {"id":"g","choices":[{"delta":{"content":"%b"}}]}\n\ndata: [DONE]\n\n' % word.encode()


def whole(word: str) -> bytes:
    choice = b'{"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}' % word.encode()
    return b'{"id":"g","object":"chat.completion","choices":[%b]}' % choice


def answered(kind: str, word: str) -> bytes:
    """An answer with this word, as such a server sends it."""
    match kind:
        case "a stream in chunks":
            return chunked(EVENTS, events(word))
        case "a stream with its length":
            return sized(EVENTS, events(word))
        case "a stream in gzip":
            return chunked(EVENTS, gzip.compress(events(word)), "Content-Encoding: gzip")
        case "JSON in place of a stream":
            return sized("application/json", whole(word))
        case "models in gzip":
            return sized("application/json", gzip.compress(models(word)), "Content-Encoding: gzip")
        case _:
            return sized("application/json", models(word))


def models(word: str) -> bytes:
    return b'{"data":[{"id":"%b"}]}' % word.encode()


KINDS = [
    "a stream in chunks",
    "a stream with its length",
    "a stream in gzip",
    "JSON in place of a stream",
    "models",
    "models in gzip",
]
Behind = Callable[[str], bytes]
BEHIND: dict[str, Behind] = {
    "an answer": lambda kind: answered(kind, "foreign"),
    "an answer that is not whole": lambda kind: answered(kind, "foreign")[:-4],
    "a status line": lambda _: b"HTTP/1.1 200 OK\r\n",
    "a field that has no end": lambda _: b"HTTP/1.1 200 OK\r\nX-Foreign: ",
    "a letter": lambda _: b"H",
}
# In one write with an answer, aiohttp refuses the answer, too, for the first of these, and passes over the second.
LATER: dict[str, Behind] = {**BEHIND, "no HTTP": lambda _: b"x", "a line end": lambda _: b"\r\n"}


class Server:
    """Answers each request with a word of its own; then come bytes that belong to no request."""

    def __init__(self, kind: str, behind: bytes = b"", seconds: float | None = None) -> None:
        self.kind = kind
        self.connections: list[asyncio.StreamWriter] = []
        """Those on which a request came."""
        self.closed: list[asyncio.Event] = []
        self._behind = behind
        # None for the same write.
        self._seconds = seconds
        self._requests = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        self.closed.append(asyncio.Event())
        closed = self.closed[-1]
        # RuntimeError is what uvloop raises for a write on a connection that is gone.
        with suppress(asyncio.IncompleteReadError, ConnectionError, RuntimeError):
            while head := (await reader.readuntil(b"\r\n\r\n")).lower():
                length = head.partition(b"content-length: ")[2].split(b"\r\n")[0]
                await reader.readexactly(int(length or b"0"))
                self._requests += 1
                good = answered(self.kind, f"own {self._requests}")
                if self._seconds is None:
                    writer.write(good + self._behind)
                else:
                    writer.write(good)
                    await asyncio.sleep(self._seconds)
                    writer.write(self._behind)
        closed.set()
        writer.close()


def asked(client: OpenRouter, kind: str) -> Observable[Any]:
    return client.models() if kind.startswith("models") else client.chat("hi")


def words(values: list[Any]) -> list[str]:
    return [value.choices[0].delta.content if hasattr(value, "choices") else value.id for value in values]


@asynccontextmanager
async def serving(server: Server, scheme: str = "http") -> AsyncGenerator[OpenRouter]:
    """A client of the server, over TLS or not."""
    context = contexts()[0] if scheme == "https" else None
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(await asyncio.start_server(server.handle, "127.0.0.1", 0, ssl=context))
        url = f"{scheme}://127.0.0.1:{door.sockets[0].getsockname()[1]}"
        options: dict[str, Any] = {"base_url": url, "timeouts": Timeouts(silence=AT_ONCE)}
        if context is not None:
            connector = Connector(limit=0, ssl=contexts()[1])
            options["session"] = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield await stack.enter_async_context(OpenRouter("sk-test", **options))


async def own(client: OpenRouter, kind: str, number: int) -> None:
    """Ask, and require that the answer is the one to this request."""
    seen = await observe(asked(client, kind))
    assert seen.endings == [None]
    assert words(seen.values) == [f"own {number}"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("behind", "seconds"),
    [
        *((behind, None) for behind in BEHIND),
        *((behind, seconds) for behind in LATER for seconds in (0.001, 0.05)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_connection_is_closed_when_a_byte_came_behind_an_answer(
    kind: str, behind: str, seconds: float | None, scheme: str
) -> None:
    server = Server(kind, LATER[behind](kind), seconds)
    async with serving(server, scheme) as client:
        for number in range(2):
            await own(client, kind, number + 1)
            async with asyncio.timeout(AT_ONCE):
                await server.closed[number].wait()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("behind", LATER)
@pytest.mark.parametrize("kind", KINDS)
async def test_next_request_reads_no_byte_when_one_waits_unread(kind: str, behind: str, scheme: str) -> None:
    """The request takes its connection in the turn in which the loop first sees the bytes."""
    server = Server(kind)
    async with serving(server, scheme) as client:
        await own(client, kind, 1)
        server.connections[0].write(LATER[behind](kind))

        await own(client, kind, 2)
        assert len(server.connections) == 2


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("kind", KINDS)
async def test_next_request_reads_no_byte_when_it_starts_at_once(kind: str, behind: str) -> None:
    """The bytes came with the answer, and the next request starts in the callback of its end."""
    server = Server(kind, BEHIND[behind](kind))
    async with serving(server) as client:
        seen: list[list[str]] = []
        over = asyncio.Event()

        def again() -> None:
            asked(client, kind).subscribe(lambda value: seen.append(words([value])), on_completed=over.set)

        asked(client, kind).subscribe(lambda value: seen.append(words([value])), on_completed=again)
        await over.wait()

    assert seen == [["own 1"], ["own 2"]]


@pytest.mark.parametrize("kind", KINDS)
async def test_connection_is_closed_when_no_http_came_in_one_write_with_an_answer(kind: str) -> None:
    server = Server(kind, b"x")
    async with serving(server) as client:
        seen = await observe(asked(client, kind))

        [ending] = seen.endings
        assert ending is None or (isinstance(ending, TransportError) and not seen.values)
        async with asyncio.timeout(AT_ONCE):
            await server.closed[0].wait()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", KINDS)
async def test_connection_is_used_again_when_nothing_came_behind_an_answer(kind: str, scheme: str) -> None:
    server = Server(kind)
    async with serving(server, scheme) as client:
        for number in range(3):
            await own(client, kind, number + 1)

        assert len(server.connections) == 1


async def test_connection_is_used_again_when_a_reader_waits_between_requests() -> None:
    server = Server("models")
    async with serving(server) as client:
        for number in range(3):
            await own(client, "models", number + 1)
            for _ in range(10):
                await asyncio.sleep(0)

        assert len(server.connections) == 1


async def test_connection_is_not_used_again_when_the_server_has_ended_it_unseen() -> None:
    """The end of the connection has come, and the loop has not read it yet."""
    server = Server("models")
    async with serving(server) as client:
        await own(client, "models", 1)
        server.connections[0].write_eof()

        await own(client, "models", 2)
        assert len(server.connections) == 2


@pytest.mark.virtual
async def test_connection_in_memory_is_used_again_when_nothing_came_behind_an_answer() -> None:
    async with served() as (client, simulator):
        for _ in range(3):
            await observe(client.chat("hi"))

        assert simulator.connections == 1
