"""Connection: an answer on a socket of aiohttp.web."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from struct import pack
from weakref import WeakKeyDictionary

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from rxrouter.relay.answer import Answer

# How often connections are looked at: aiohttp tells a handler that its reader has left by cancelling it, if
# `handler_cancellation` is set, and otherwise not before its next write.
_LOOK_SECONDS = 0.05
# What a socket may not have taken yet before the next write waits: where asyncio itself begins to wait.
_HIGH = 1 << 16

_RESET = pack("ii", 1, 0)  # SO_LINGER: nothing waits for being read


class Connection:
    """Writes an answer to its socket, and waits only where that is full.

    Args:
        request: What is answered.
        transport: The request's.
        send_timeout: How long the reader may take nothing, in seconds.
    """

    answer: Answer

    def __init__(self, request: web.BaseRequest, transport: asyncio.Transport, send_timeout: float) -> None:
        self._request = request
        self._transport = transport
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._writer: AbstractStreamWriter | None = None
        self._chunked = False
        self._waiting: asyncio.Task[None] | None = None  # for room
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._desk = _desk(self._loop)
        self._desk.open(self)

    @property
    def lost(self) -> bool:
        """Whether the reader has left."""
        return self._transport.is_closing()

    def is_of(self, app: web.Application) -> bool:
        """Whether this is a request of that application."""
        return isinstance(self._request, web.Request) and app in self._request.match_info.apps

    def wake(self) -> None:
        """Sends what there is at the end of this turn of the loop: so what one read has brought is one write."""
        if self._writer is not None:
            self._desk.ready(self)

    async def send(self, response: web.StreamResponse) -> None:
        """Sends the head, then all that comes, until the end."""
        self._writer = await response.prepare(self._request)
        self._chunked = response.headers.get("Transfer-Encoding") == "chunked"
        self.answer.open()
        self.flush()
        await self._over
        if self.answer.broken:
            self._break_off()
        if not self.lost:
            await response.write_eof()

    def _break_off(self) -> None:
        """Closes the connection so that nobody takes it for the end of the body."""
        if self._chunked:
            self._transport.close()  # the last chunk is missing
            return
        # To HTTP/1.0, which nginx speaks to servers unless it is told otherwise, a close is the end; a reset is not.
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def close(self) -> None:
        """Lets go of everything."""
        self._desk.close(self)
        self.answer.leave()
        if self._waiting is not None:
            self._waiting.cancel()

    def flush(self) -> None:
        """Writes what waits, if there is room."""
        if self._waiting is not None or self._writer is None:
            return
        answer = self.answer
        if self.lost:
            answer.leave()
        elif answer.frames:
            # What `writer.write` does for a body of unknown length, without a coroutine, at a third of the cost.
            data = self._desk.body_of(answer.take(), chunked=self._chunked)
            self._writer.output_size += len(data)  # for the access log
            self._transport.write(data)
            if self._transport.get_write_buffer_size() > _HIGH:
                self._waiting = self._loop.create_task(self._wait(self._writer))
                return
        if answer.over and not self._over.done():
            self._over.set_result(None)

    async def _wait(self, writer: AbstractStreamWriter) -> None:
        """Until there is room again, or the reader has taken nothing for too long: then it is dropped."""
        # Not under a timeout: a `drain` that was cancelled makes the next one fail.
        draining = self._loop.create_task(writer.drain())
        left = self._transport.get_write_buffer_size()
        try:
            while not (await asyncio.wait([draining], timeout=self._send_timeout))[0]:
                before, left = left, self._transport.get_write_buffer_size()
                if left >= before:
                    self.answer.leave()
                    self._transport.abort()
            with suppress(ConnectionError):
                draining.result()
        finally:
            draining.cancel()
        self._waiting = None
        self.flush()


class _Desk:
    """Looks after a loop's connections: one callback a turn for what is to be sent, one timer for who has left."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.connections: set[Connection] = set()
        self._ready: list[Connection] = []
        self._frames: list[bytes] = []  # that were sent last,
        self._chunk = b"0\r\n\r\n"  # and what they became
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def open(self, connection: Connection) -> None:
        self.connections.add(connection)
        if self._timer is None:
            self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)

    def close(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def ready(self, connection: Connection) -> None:
        if not self._ready:
            self._loop.call_soon(self._flush)
        self._ready.append(connection)

    def body_of(self, frames: list[bytes], *, chunked: bool) -> bytes:
        """The frames as bytes of a body; made once for all who are sent the same."""
        if not chunked:
            return b"".join(frames)
        if frames != self._frames:
            body = b"".join(frames)
            self._frames, self._chunk = frames, b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        return self._chunk

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        for connection in ready:
            connection.flush()
        self._frames = []  # nothing of an answer is kept

    def _look(self) -> None:
        for connection in [connection for connection in self.connections if connection.lost]:
            connection.answer.leave()
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)


_desks: WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = WeakKeyDictionary()


def _desk(loop: asyncio.AbstractEventLoop) -> _Desk:
    desk = _desks.get(loop)
    if desk is None:
        desk = _desks[loop] = _Desk(loop)
    return desk


def connections() -> list[Connection]:
    """All that are open in the loop that runs here."""
    desk = _desks.get(asyncio.get_running_loop())
    return [] if desk is None else list(desk.connections)
