"""Connection: an answer on a socket of aiohttp.web."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from struct import pack

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from rxrouter.relay.answer import Answer
from rxrouter.relay.desk import Desk
from rxrouter.relay.progress import progress_of

# What a socket may not have taken yet before the next write waits: where asyncio itself begins to wait.
_HIGH = 1 << 16

_RESET = pack("ii", 1, 0)  # SO_LINGER: nothing waits for being read
_TCP_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux has it
_LONGEST_MS = (1 << 31) - 1


class Connection:
    """Writes an answer to its socket, and waits only where that is full.

    Args:
        request: What is answered.
        transport: The request's.
        answer: Not started yet.
        send_timeout: How long the reader may take nothing, in seconds.
    """

    __slots__ = (
        "_chunked",
        "_desk",
        "_loop",
        "_over",
        "_request",
        "_send_timeout",
        "_transport",
        "_waiting",
        "_writer",
        "answer",
    )

    def __init__(
        self, request: web.BaseRequest, transport: asyncio.Transport, answer: Answer, send_timeout: float
    ) -> None:
        self.answer = answer
        self._request = request
        self._transport = transport
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._writer: AbstractStreamWriter | None = None
        self._chunked = False
        self._waiting: asyncio.Task[None] | None = None  # for room
        self._over: asyncio.Future[None] = self._loop.create_future()
        _limit_silence(transport.get_extra_info("socket"), send_timeout)
        self._desk = Desk.open(self)

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

    def fail(self, error: Exception) -> None:
        """Has `send` raise it."""
        if not self._over.done():
            self._over.set_exception(error)

    async def send(self, response: web.StreamResponse) -> None:
        """Sends the head, then all that comes, until the end."""
        if self._request.version < (1, 1):
            response.force_close()  # without chunks the end of the connection is that of the body
        try:
            self._writer = await response.prepare(self._request)
        except ConnectionError:  # the reader has left, or what a signal's receiver asked has
            if not self.lost:
                raise
            return
        self._chunked = response.headers.get("Transfer-Encoding") == "chunked"
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
        answer, transport = self.answer, self._transport
        if transport.is_closing():
            answer.leave()
        elif answer.frames:
            # What `writer.write` does for a body of unknown length, without a coroutine, at a third of the cost.
            data = self._desk.body_of(answer.take(), chunked=self._chunked)
            self._writer.output_size += len(data)  # for the access log
            transport.write(data)
            if transport.get_write_buffer_size() > _HIGH:
                self._waiting = self._loop.create_task(self._wait(self._writer))
                return
        if answer.ended and not answer.frames and not self._over.done():
            self._over.set_result(None)

    async def _wait(self, writer: AbstractStreamWriter) -> None:
        """Wait until there is room again; drop a reader that has taken nothing for too long.

        Room comes late, when a good part of the kernel's buffer is free: so the reader's progress counts.
        """
        # Not under a timeout: a `drain` that was cancelled makes the next one fail.
        draining = self._loop.create_task(writer.drain())
        taken = progress_of(self._transport)
        try:
            while not (await asyncio.wait([draining], timeout=self._send_timeout))[0]:
                before, taken = taken, progress_of(self._transport)
                if taken <= before:
                    self.answer.leave()
                    self._transport.abort()
            with suppress(ConnectionError):
                draining.result()
        finally:
            draining.cancel()
        self._waiting = None
        self._desk.ready(self)


def _limit_silence(sock: socket.socket | None, seconds: float) -> None:
    """Has the kernel drop a reader that takes nothing of what fits into its own buffer, which nobody here sees."""
    if _TCP_USER_TIMEOUT is not None and sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):  # the reader has left
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(max(1, min(1000 * seconds, _LONGEST_MS))))
