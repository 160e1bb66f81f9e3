"""One subscription is one POST: open, read, pause, close, and one ending that comes after the release."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from msgspec import Struct
from reactivex import abc

from rxrouter._attempt import Attempt
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
# What is silent is listened to once more after this long, before it is given up.
_SECOND_LOOK_SECONDS = 0.05
# What a read can bring. Bounds what is in flight when a reader pauses: aiohttp stops reading at twice this.
_READ_BYTES = 1 << 16


class Timeouts(Struct, frozen=True):
    """The two clocks of a connection, in seconds; None switches one off. Clocks for content are operators."""

    connect: float | None = 10.0  # until the connection stands: name, TCP, TLS, and a given session's limit
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

    def __init__(self, body: bytes, alive: Callable[[], None]) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._body = body
        self._alive = alive

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._alive()
        for at in range(0, len(self._body), _READ_BYTES):  # images make bodies of megabytes
            await writer.write(self._body[at : at + _READ_BYTES])
            self._alive()


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
        self._attempt = Attempt()
        self._reader.on_comment = self._comment
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
        self._attempt.began = self._now()
        self._attempt.tell()
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
        self._task = asyncio.current_task()  # under an eager task factory, `_start` comes to it only later
        error: Exception | None
        try:
            error = await self._exchange()
        except asyncio.CancelledError as cancelled:
            if self._disposed:
                raise
            if self._task is not None and self._task.cancelling():
                error = self._reader.outcome(self._cut or ClientClosedError())
            else:
                error = RuntimeError("a callback of a stream raised CancelledError")
                error.__cause__ = cancelled
        except Exception as raised:  # noqa: BLE001 - ours, or the observer's: either is how this chain ends
            error = raised
        finally:
            self._gate.left = True
            self._stop_clock()
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
            self._home.report(raised, f"{what}; subscribe with on_error")

    def _tell(self, error: RouterError) -> None:
        """Puts the facts on an error, unless it is another stream's, that an observer passes on."""
        if error.elapsed is not None:
            return
        error.generation_id = error.generation_id or self._attempt.generation_id or self._reader.generation_id
        error.chunks_seen = self._reader.seen
        error.elapsed = self._loop.time() - self._began

    def _now(self) -> float:
        """The time as operators tell it."""
        scheduler = self._home.scheduler
        return scheduler.to_seconds(scheduler.now)

    def _comment(self) -> None:
        self._attempt.comment(self._now())

    async def _exchange(self) -> RouterError | None:
        if self._home.closed:  # meanwhile, on another thread
            return ClientClosedError()
        opened = await self._open()
        if isinstance(opened, RouterError):
            return opened
        response = self._response = opened
        self._attempt.headers = self._now()
        self._attempt.generation_id = response.headers.get("X-Generation-Id")
        if response.status != 200:  # noqa: PLR2004 - OK
            page, _ = await self._page(response.content, _PAGE_SECONDS)
            return status_error(response.status, response.headers, page, self._home.scheduler.now.timestamp())
        kind = response.content_type if "Content-Type" in response.headers else ""
        if kind == "text/event-stream":
            return self._reader.outcome(await self._read(response.content))
        as_json = kind == "application/json"
        page, cut = await self._page(response.content, None if as_json else _PAGE_SECONDS)
        return body_error(page) or (cut if as_json else None) or ContentTypeError(kind, page)

    async def _open(self) -> aiohttp.ClientResponse | RouterError:
        out, limit = self._outgoing, self._timeouts.connect
        try:
            return await self._session().post(
                out.url,
                data=_Body(out.body, self._alive),
                headers=out.headers,
                raise_for_status=False,  # whatever a given session says: its error would carry the key
                allow_redirects=False,  # a POST that follows a 302 becomes a GET, and the key would travel
                timeout=aiohttp.ClientTimeout(total=None, connect=limit, sock_connect=None, sock_read=None),
                read_bufsize=_READ_BYTES,
            )
        except aiohttp.ServerTimeoutError as error:
            timeout = ConnectTimeoutError(limit or 0.0)
            timeout.__cause__ = error
            return timeout
        except (aiohttp.ClientError, OSError) as error:
            return self._transport_error(error)

    async def _read(self, content: aiohttp.StreamReader) -> RouterError | None:
        """Feeds the reader until the end; returns what cut the body, None if it came to its end."""
        reader, gate, loop = self._reader, self._gate, self._loop
        feed, now, readany = reader.feed, loop.time, content.readany
        cut: TransportError | None = None
        lingering = False
        while cut is None:
            try:
                block = await readany()
            except (aiohttp.ClientError, OSError) as error:
                cut = self._transport_error(error)
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
                if reader.draining and cut is None:
                    await self._drain(content)
                return None
            if reader.lingering is not lingering:
                lingering = reader.lingering
                self._tick()
        return cut

    async def _drain(self, content: aiohttp.StreamReader) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while block := await content.readany():
                    self._reader.feed(block)
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass

    async def _page(self, content: aiohttp.StreamReader, seconds: float | None) -> tuple[bytes, TransportError | None]:
        """The body of an answer that is no stream: what can be had of it, in that time, and what cut it."""
        page = bytearray()
        silence = self._timeouts.silence
        self._stop_clock()  # the clocks here end the page, and not what it says
        try:
            async with asyncio.timeout(seconds):
                while len(page) < _PAGE_BYTES:
                    async with asyncio.timeout(silence):
                        block = await content.readany()
                    if not block:
                        break
                    page += block
        except TimeoutError:
            return bytes(page), SilenceTimeoutError(silence or seconds or 0.0)
        except (aiohttp.ClientError, OSError) as error:
            return bytes(page), self._transport_error(error)
        return bytes(page[:_PAGE_BYTES]), None

    def _alive(self) -> None:
        """The connection stands, and takes what we send."""
        self._heard = self._loop.time()
        if not self._connected:
            self._connected = True
            self._tick()

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _tick(self) -> None:
        """The one timer of a request: armed once a period, not once a read."""
        self._stop_clock()
        limit = self._timeouts.silence
        if self._reader.lingering:
            limit = min(limit or _DRAIN_SECONDS, _DRAIN_SECONDS)
        if limit is None or self._over:
            return
        now = self._loop.time()
        if self._gate.closed:
            self._heard = now  # it is we who don't read
        if (left := self._heard + limit - now) > 0:
            self._clock = self._loop.call_later(left, self._tick)
        else:
            # If the loop was blocked, a timer is due before the bytes that have come meanwhile are seen.
            self._clock = self._loop.call_later(_SECOND_LOOK_SECONDS, self._look_again, self._heard, limit)

    def _look_again(self, heard: float, limit: float) -> None:
        if self._heard != heard or self._gate.closed:
            self._tick()
        elif self._task is not None:
            self._cut = SilenceTimeoutError(limit)
            self._task.cancel()

    def _transport_error(self, error: Exception) -> TransportError:
        """Ours for aiohttp's; in words of which none come from the wire, which may say anything, or from a URL."""
        phase: Literal["connect", "read"] = "read" if self._connected else "connect"
        cause: BaseException | None = error
        if isinstance(error, aiohttp.ClientPayloadError):
            what = "the body was cut in the middle, or damaged"
        elif isinstance(error, aiohttp.InvalidURL):  # it says the whole URL, the password with it
            what, cause = "the URL is none", None
        elif isinstance(error, aiohttp.ClientHttpProxyError):
            what, cause = f"the proxy answered HTTP {error.status}", None
        elif isinstance(error, aiohttp.ClientResponseError):  # it carries the request's headers, the key with them
            what, cause = "the answer is no valid HTTP", None
        else:
            what = str(error) or type(error).__name__
        mapped = TransportError(what, phase=phase)
        mapped.transient = not isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL)  # they stay wrong
        mapped.__cause__ = cause
        return mapped


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the cut: `readany` raises before it gives what a paused reader has not seen yet."""
    # None is not in the signature; it is how a reader is told that there is no exception.
    content.set_exception(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return content.read_nowait()
