"""One subscription is one POST: open, read, pause, close, and one ending that comes after the release."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from msgspec import Struct
from reactivex import abc

from rxrouter._errors import (
    ClientClosedError,
    ConnectTimeoutError,
    ContentTypeError,
    RouterError,
    SilenceTimeoutError,
    TransportError,
)
from rxrouter._gate import Gate
from rxrouter._source.decode import Reader
from rxrouter._source.loop import Home
from rxrouter._wire.failure import body_error, status_error

# How long the end of a body is waited for when all is there: after [DONE], so that the connection goes back to the
# pool (openai-python waits 0.1 s, PEERS 1.5), after an error, so that its usage is not lost, and after finish reason
# and usage where [DONE] does not come.
_DRAIN_SECONDS = 0.5
# An error page is read for its message: this much of it, in this time.
_PAGE_BYTES = 1 << 20
_PAGE_SECONDS = 5.0
# What a read can bring. Bounds what is in flight when a reader pauses: aiohttp stops reading at twice this.
_READ_BYTES = 1 << 16


class Timeouts(Struct, frozen=True):
    """The two clocks of a connection, in seconds; None switches one off. Clocks for content are operators."""

    connect: float | None = 10.0  # until the connection stands: name, TCP, TLS
    silence: float | None = 45.0  # without one byte, comments included; not while a slow reader pauses the socket

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is a number of seconds > 0, or None")


class Outgoing(Struct, frozen=True):
    """What to send where; headers hold the key, the URL may hold a password, so this has no repr of its fields."""

    url: str
    headers: dict[str, str]
    body: bytes

    def __repr__(self) -> str:
        return "Outgoing(…)"


class _Body(aiohttp.Payload):
    """The request's body; being asked for it is how one learns that the connection stands."""

    def __init__(self, body: bytes, connected: Callable[[], None]) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._body = body
        self._connected = connected

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._connected()
        for at in range(0, len(self._body), _READ_BYTES):  # images make bodies of megabytes
            await writer.write(self._body[at : at + _READ_BYTES])


class Post(abc.DisposableBase):
    """The request of one subscription.

    The subscriber's side is `observer`, `start()` and `dispose()`. On the loop there is one task, which ends with the
    request; nothing is delivered after `dispose()`, and the terminal event only when the socket is released.
    """

    def __init__(  # noqa: PLR0913 - what a request is made of
        self,
        home: Home,
        session: Callable[[], aiohttp.ClientSession],
        outgoing: Outgoing,
        *,
        timeouts: Timeouts,
        reader: Callable[[Gate, Callable[[Any], None]], Reader],
        observer: abc.ObserverBase[Any],
    ) -> None:
        self._home = home
        self._session = session
        self._outgoing = outgoing
        self._timeouts = timeouts
        self._observer = observer
        self._loop = home.bind()
        self._gate = Gate(self._loop)
        self._reader = reader(self._gate, observer.on_next)
        self._task: asyncio.Task[None] | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._disposed = False
        self._over = False  # the terminal event is out, or about to be
        self._cut: RouterError | None = None  # why we cancelled our own task
        self._connected = False
        self._began = 0.0
        self._heard = 0.0  # when the last byte came, by the loop's clock
        self._clock: asyncio.TimerHandle | None = None
        home.call(self._start)

    def dispose(self) -> None:
        """Closes the request; from any thread, any number of times; before it has begun, nothing is ever sent."""
        if not (self._disposed or self._over):
            self._disposed = True
            self._gate.shut_down()
            self._home.call(self._kill)

    def _start(self) -> None:
        if self._disposed:
            return
        self._began = self._loop.time()
        self._task = self._loop.create_task(self._run(), name="rxrouter request")
        self._home.tasks.add(self._task)
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._home.tasks.discard(task)
        if task.cancelled() and not self._over:  # by others, before its first step: `_run` would have told
            self._end(ClientClosedError())

    def _kill(self) -> None:
        if self._response is not None:
            self._response.close()
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        self._gate.enter()
        error: Exception | None
        try:
            error = await self._exchange()
        except asyncio.CancelledError:
            if self._disposed:
                raise
            error = self._reader.outcome(self._cut or ClientClosedError())
        except Exception as raised:  # noqa: BLE001 - ours, or the observer's: either is how this chain ends
            error = raised
        finally:
            self._gate.leave()
            if self._clock is not None:
                self._clock.cancel()
            if self._response is not None:
                self._response.close()  # without effect on a connection that went back to the pool at the body's end
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        if self._disposed:
            return
        self._over = True
        try:
            if error is None:
                self._observer.on_completed()
            else:
                if isinstance(error, RouterError):
                    self._tell(error)
                self._observer.on_error(error)
        except Exception as raised:  # noqa: BLE001 - there is nobody left to tell but the loop
            what = "unhandled error of a stream" if raised is error else "a terminal callback of a stream raised"
            self._loop.call_exception_handler({"message": f"{what}; subscribe with on_error", "exception": raised})

    def _tell(self, error: RouterError) -> None:
        """Puts the facts on an error."""
        told = self._response.headers.get("X-Generation-Id") if self._response is not None else None
        error.generation_id = error.generation_id or told or self._reader.generation_id
        error.chunks_seen = self._reader.seen
        error.elapsed = self._loop.time() - self._began

    async def _exchange(self) -> RouterError | None:
        response = self._response = await self._open()
        if response.status != 200:  # noqa: PLR2004
            page = await self._page(response, _PAGE_SECONDS)
            raise status_error(response.status, response.headers, page, self._home.scheduler.now.timestamp())
        kind = response.content_type if "Content-Type" in response.headers else ""
        if kind != "text/event-stream":
            page = await self._page(response, None if kind == "application/json" else _PAGE_SECONDS)
            raise body_error(page) or ContentTypeError(kind, page)
        return self._reader.outcome(await self._read(response.content))

    async def _open(self) -> aiohttp.ClientResponse:
        out, timeouts = self._outgoing, self._timeouts
        try:
            return await self._session().post(
                out.url,
                data=_Body(out.body, self._begin_clock),
                headers=out.headers,
                raise_for_status=False,  # whatever a given session says: its error would carry the key
                allow_redirects=False,  # a POST that follows a 302 becomes a GET, and the key would travel
                timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect, sock_connect=None, sock_read=None),
                read_bufsize=_READ_BYTES,
            )
        except aiohttp.ConnectionTimeoutError as error:
            raise ConnectTimeoutError(timeouts.connect or 0.0) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._transport_error(error) from _discreet(error)

    async def _read(self, content: aiohttp.StreamReader) -> RouterError | None:
        """Feeds the reader until the end; returns what cut the body, None if it came to its end."""
        reader, gate, loop = self._reader, self._gate, self._loop
        feed, now, readany = reader.feed, loop.time, content.readany
        cut: TransportError | None = None
        while cut is None:
            try:
                block = await readany()
            except (aiohttp.ClientError, OSError) as error:
                cut = self._transport_error(error)
                cut.__cause__ = _discreet(error)
                block = _left_in(content)
            if not block:
                break
            if not reader.lingering:
                self._heard = now()
            feed(block)
            while gate.closed:
                await gate.opened()
                if self._disposed:
                    return None
                self._heard = now()
                reader.resume()
            if reader.ended:
                if reader.draining:
                    await self._drain(content)
                return None
            if reader.lingering:
                self._tick()
        return cut

    async def _drain(self, content: aiohttp.StreamReader) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while block := await content.readany():
                    self._reader.feed(block)
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass

    async def _page(self, response: aiohttp.ClientResponse, seconds: float | None) -> bytes:
        """The body of an answer that is no stream: what can be had of it."""
        page = bytearray()
        try:
            async with asyncio.timeout(seconds):
                while len(page) < _PAGE_BYTES and (block := await response.content.readany()):
                    page += block
                    self._heard = self._loop.time()
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass
        return bytes(page[:_PAGE_BYTES])

    def _begin_clock(self) -> None:
        self._connected = True
        self._heard = self._loop.time()
        self._tick()

    def _tick(self) -> None:
        """The one timer of a request: armed once a period, not once a read."""
        if self._clock is not None:
            self._clock.cancel()
        limit = self._timeouts.silence
        if self._reader.lingering:
            limit = min(limit or _DRAIN_SECONDS, _DRAIN_SECONDS)
        if limit is None or self._over or self._task is None:
            return
        now = self._loop.time()
        if self._gate.closed:
            self._heard = now  # it is we who don't read
        left = self._heard + limit - now
        if left > 0:
            self._clock = self._loop.call_later(left, self._tick)
        else:
            self._cut = SilenceTimeoutError(limit)
            self._task.cancel()

    def _transport_error(self, error: Exception) -> TransportError:
        cut = isinstance(error, aiohttp.ClientPayloadError)
        what = "the connection was cut in the middle of the body" if cut else str(error) or type(error).__name__
        mapped = TransportError(what, phase="read" if self._connected else "connect")
        mapped.transient = not isinstance(error, aiohttp.ClientSSLError)  # a certificate stays wrong
        return mapped


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the cut: `readany` raises before it gives what a paused reader has not seen yet."""
    content.set_exception(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return content.read_nowait()


def _discreet(error: BaseException) -> BaseException | None:
    """What to chain: aiohttp's response errors carry the request's headers, the key with them, so what lies below."""
    return error.__cause__ if isinstance(error, aiohttp.ClientResponseError) else error
