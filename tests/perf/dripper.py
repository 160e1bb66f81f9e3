"""A server in a process of its own that talks to any number of streams at once: `python dripper.py`, prints its URL.

Each stream gets a chunk at once, then one each so many seconds, spread evenly; a line on stdin says how many. `created`
of a chunk is the time at which it was sent, by the clock that all processes of a machine share. It is a bare protocol
that writes the same bytes to all who have their turn: so it is not the server that is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time

_TICK = 0.005  # seconds
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = (
    'data: {"id":"gen-1","provider":"P","model":"a/b","object":"chat.completion.chunk","created":%.6f,"choices":[{'
    '"index":0,"delta":{"role":"assistant","content":" word"},"finish_reason":null,"native_finish_reason":null}]}\n\n'
)

streams: dict[asyncio.Transport, None] = {}


class Stream(asyncio.Protocol):
    """One connection, and the request on it."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody comes."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Asks; the body of a question is JSON, and ends with its brace."""
        self._received += data
        if b"\r\n\r\n" in self._received and self._received.endswith(b"}"):
            self._transport.write(_HEAD + _frame())
            streams[self._transport] = None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - why does not matter
        """Has left."""
        streams.pop(self._transport, None)


def _frame() -> bytes:
    body = (_CHUNK % time.monotonic()).encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


async def drip() -> None:
    """Serves until stdin ends."""
    loop = asyncio.get_running_loop()
    interval = 0.0  # seconds; nothing is said until it is known

    def read() -> None:
        nonlocal interval
        if line := sys.stdin.readline():
            interval = float(line)
        else:
            over.set()

    over = asyncio.Event()
    loop.add_reader(sys.stdin, read)
    server = await loop.create_server(Stream, "127.0.0.1", 0, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1", flush=True)
    began, owed = loop.time(), 0.0
    while not over.is_set():
        await asyncio.sleep(_TICK)
        began, passed = loop.time(), loop.time() - began
        owed = min(owed + len(streams) * passed / interval, len(streams)) if interval else 0.0
        frame = _frame()
        for transport in list(streams)[: int(owed)]:
            transport.write(frame)
            if transport in streams:  # to the end of the queue
                streams[transport] = streams.pop(transport)
        owed -= int(owed)


if __name__ == "__main__":
    asyncio.run(drip())
