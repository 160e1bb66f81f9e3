"""Relay: a stream as an ASGI response, for Starlette, FastAPI, or on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from reactivex import Observable

from rxrouter._wire.chunk import ChatChunk
from rxrouter.relay.answer import Answer
from rxrouter.relay.dialects.dialect import Dialect
from rxrouter.relay.dialects.openai import OpenAIChunks
from rxrouter.relay.failure import Explain, unexplained
from rxrouter.relay.progress import PeerSocket
from rxrouter.relay.serving import Head, Serving, stopped
from rxrouter.sharing.hub import Hub

if TYPE_CHECKING:
    _Response = object
else:
    try:  # FastAPI sends what is one, and makes JSON of all else
        from starlette.responses import Response as _Response
    except ImportError:
        _Response = object

__all__ = ["Relay", "shutdown", "stop"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# How long the last words may take when the server has cancelled the response.
_FAREWELL_SECONDS = 1.0
# How often the reader's progress is looked at, as a part of `send_timeout`.
_LOOK = 0.25
# The longest body of a message, in bytes: that one is taken shows that the reader takes something.
_MOST = 1 << 16


class Relay(_Response):
    """Answers a request with a stream, for as long as somebody reads it: returned by an endpoint, or called as an app.

    Of the options, and of what comes when, see `rxrouter.relay.aiohttp.respond`; but `send_timeout` is the longest that
    the server may take for one message, of 64 KB at most: it begins when the buffers of the server, and of all
    middleware, are full. On Linux it begins again with all that the reader takes, if `scope` has the addresses of its
    connection.

    ASGI has no way to break a connection off: there the response ends without its last message, which the server
    reports as an error of the application, and closes. Starlette's BaseHTTPMiddleware would send that message itself,
    so before there is one that it passes on instead, and at which the server fails. Other middleware that completes
    what it passes on makes a broken answer look whole; and Hypercorn leaves a stream of HTTP/2 open.

    Args:
        chunks: See `respond`.
        dialect: See `respond`.
        hub: See `respond`.
        key: See `respond`.
        prime: See `respond`.
        keep_alive: See `respond`.
        send_timeout: In seconds.
        coalesce: See `respond`.
        explain: See `respond`.
    """

    background: Any = None  # FastAPI puts there what is to be done behind the response
    status_code = 200

    def __init__(  # noqa: PLR0913 - the settings of a response
        self,
        chunks: Observable[ChatChunk] | None,
        *,
        dialect: Dialect = OpenAIChunks,
        hub: Hub | None = None,
        key: str | None = None,
        prime: float = 10.0,
        keep_alive: float = 15.0,
        send_timeout: float = 30.0,
        coalesce: float | None = None,
        explain: Explain = unexplained,
    ) -> None:
        self._serving = Serving(
            chunks,
            dialect=dialect,
            hub=hub,
            key=key,
            prime=prime,
            keep_alive=keep_alive,
            send_timeout=send_timeout,
            coalesce=coalesce,
            explain=explain,
        )
        self.raw_headers: list[tuple[bytes, bytes]] = []  # where Starlette puts cookies and what is set in `headers`

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.

        Args:
            scope: ASGI's, of type "http".
            receive: ASGI's.
            send: ASGI's.
        """
        await self._respond(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        reading = self._serving.open(scope["method"], _header(scope, b"last-event-id"))
        if isinstance(reading, Head):
            await _say(send, self._start(reading), reading.body)
            return
        answer = reading.answer
        peer = PeerSocket(scope.get("server"), scope.get("client"))
        outlet = _Outlet(send, answer, self._serving.send_timeout, peer)
        leaving = asyncio.create_task(_listen(receive, answer.leave))
        _running.add(running := (asyncio.get_running_loop(), answer))
        try:
            head = await reading.begin(outlet.wake)
            if head.body is None:
                await outlet.send_all(self._start(head))
            else:
                await _say(send, self._start(head), head.body)
        finally:
            _running.discard(running)
            outlet.close()
            answer.leave()
            leaving.cancel()
            await asyncio.wait([leaving])

    def _start(self, head: Head) -> Message:
        start = _start(head)
        start["headers"] += self.raw_headers
        return start


class _Outlet:
    """Sends an answer, message by message, in its response's task; one timer looks whether the server takes them.

    Args:
        send: ASGI's.
        answer: Begun before it is sent.
        send_timeout: See `Relay`.
        peer: The reader's connection.
    """

    def __init__(self, send: Send, answer: Answer, send_timeout: float, peer: PeerSocket) -> None:
        self._send = send
        self._answer = answer
        self._send_timeout = send_timeout
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._woken: asyncio.Future[None] | None = None
        self._began: float | None = None  # to send what is not taken yet
        self._timed_out = False
        self._peer = peer
        self._looked_at: float | None = None  # the beginning of the message that was being sent at the last look
        self._taken: int | None = None  # what the reader had taken at that look
        self._moved = 0.0  # when the reader last took something of that message
        self._timer = self._loop.call_later(_LOOK * send_timeout, self._look)

    def wake(self) -> None:
        """There is something to send, or to look at."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def send_all(self, head: Message) -> None:
        """Sends the head, then all that comes, until the end."""
        try:
            await self._take(head)
            await self._send_body()
        except asyncio.CancelledError:
            if self._timed_out and self._task is not None and not self._task.uncancel():
                self._answer.leave()
                await _break_off(self._send)
                return
            await self._say_farewell()
            raise

    async def _send_body(self) -> None:
        answer = self._answer
        while not answer.over:
            if not answer.frames:
                self._woken = self._loop.create_future()
                await self._woken
            data = b"".join(answer.take())
            for start in range(0, len(data), _MOST):
                await self._take(_body(data[start : start + _MOST], more=True))
        if answer.broken:
            await _break_off(self._send)
        else:
            await self._take(_body(b"", more=False))

    async def _take(self, message: Message) -> None:
        """Has the server take a message."""
        self._began = self._loop.time()
        try:
            await self._send(message)
        except OSError:  # so some servers say that the reader has left
            self._answer.leave()
        self._began = None

    async def _say_farewell(self) -> None:
        """The server has cancelled the response, because it closes; what was not taken whole has no last words."""
        self._answer.shut_down()
        if self._began is None:
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._send(_body(b"".join(self._answer.take()), more=self._answer.broken))

    def _look(self) -> None:
        now = self._loop.time()
        due = now + _LOOK * self._send_timeout
        if self._began is not None:
            if self._began != self._looked_at:
                self._looked_at, self._taken, self._moved = self._began, None, self._began
            taken = self._peer.progress()
            if taken is not None and self._taken is not None and taken > self._taken:
                self._moved = now
            self._taken = taken
            due = min(due, self._moved + self._send_timeout)
        if due > now:
            self._timer = self._loop.call_at(due, self._look)
        elif self._task is not None:
            self._timed_out = True
            self._task.cancel()

    def close(self) -> None:
        """Looks no more."""
        self._timer.cancel()


async def stop(hub: Hub, key: str) -> _Answered:
    """The response to a request to stop a generation, which is not the same as to stop reading: 204, or a JSON error.

    Args:
        hub: Where it lives.
        key: Its name there.
    """
    return _Answered(await stopped(hub, key))


def shutdown() -> None:
    """End all responses of this process, now; from any thread, or from a signal's handler.

    ASGI tells applications of the end of their server when all responses are over. So call this before, or let uvicorn
    wait for a while only (`timeout_graceful_shutdown`): then it cancels the responses, and they end the same way.
    """
    for loop, answer in list(_running):
        with suppress(RuntimeError):  # closed
            loop.call_soon_threadsafe(answer.shut_down)


_running: set[tuple[asyncio.AbstractEventLoop, Answer]] = set()


class _Answered(_Response):
    """A small response that is known already."""

    background: Any = None

    def __init__(self, head: Head) -> None:
        self.status_code = head.status
        self._head = head

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - nothing of it matters
        """Sends it."""
        await _say(send, _start(self._head), self._head.body)


async def _listen(receive: Receive, leave: Callable[[], None]) -> None:
    """Waits for the reader to leave, which some middleware says by an exception."""
    with suppress(Exception):
        while (await receive())["type"] != "http.disconnect":
            pass
    leave()


async def _break_off(send: Send) -> None:
    """Has middleware that would end the body not do so; it hears of that when the reader has taken what was before."""
    # BaseHTTPMiddleware hands this on, as the last message, and no server takes it: a body has begun, "" is no file. An
    # exception, and if there are two of it a message of an unknown type, it meets with a good end.
    with suppress(Exception):
        await send({"type": "http.response.pathsend", "path": ""})


async def _say(send: Send, head: Message, body: bytes | None) -> None:
    with suppress(OSError):  # the reader has left
        await send(head)
        await send(_body(body or b"", more=False))


def _start(head: Head) -> Message:
    headers = [(name.lower().encode(), value.encode()) for name, value in head.headers.items()]
    return {"type": "http.response.start", "status": head.status, "headers": headers}


def _body(data: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for known, value in scope["headers"] if known.lower() == name), None)
