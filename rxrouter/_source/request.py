"""One subscription is one request: on the client's loop, with one ending, which comes after the release."""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Literal

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, ContentEncodingError, LineTooLong
from msgspec import Struct
from reactivex import abc

from rxrouter._chain import chain_end, lost_an_ending
from rxrouter._errors import ClientClosedError, ConnectTimeoutError, RouterError, SilenceTimeoutError, TransportError
from rxrouter._gate import Gate, as_exception, call_on
from rxrouter._source.loop import Home
from rxrouter._wire.failure import status_error
from rxrouter._wire.secrets import strike_out

# Of one header of an answer, and of its status line. Gateways send policies, cookies and traces of many kilobytes.
_HEADER_BYTES = 1 << 16
_HEADERS = 1 << 13
# Codings of which aiohttp takes a body out, if it finds a library for them, and names that gateways give to none.
_CODINGS = {"gzip", "deflate", "br", "zstd"}
_CODING_CHARS = 40
_IN_BRACKETS = re.compile(r"\((\w+)\)")
_NO_CODINGS = {"", "identity", "none", "binary", "text", "utf-8", "utf8"}
# Half of what aiohttp keeps of a body that is not read. So much of a request is written at once.
READ_BYTES = 1 << 16
# An error page is read for its message: this much of it, in this time.
_PAGE_BYTES = 1 << 20
PAGE_SECONDS = 5.0
_SUCCESS = range(200, 300)
# What aiohttp raises where there was no connection yet.
_UNCONNECTED = (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL)


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
    body: bytes = b""

    def __repr__(self) -> str:
        return "Outgoing(…)"


class Request(abc.DisposableBase):
    """The request of one subscription.

    The subscriber's side is `observer` and `dispose()`. On the loop there is a task until the answer's head is there,
    or its end; all that is done, is done in one context. Nothing is delivered after `dispose()`, and the terminal event
    only when the socket is released.
    """

    def __init__(
        self,
        home: Home,
        session: Callable[[], aiohttp.ClientSession],
        outgoing: Outgoing,
        timeouts: Timeouts,
        observer: abc.ObserverBase[Any],
    ) -> None:
        self._home = home
        self._session = session
        self._outgoing = outgoing
        self._timeouts = timeouts
        self._observer = observer
        self._loop = home.bind()
        self._gate = Gate(self._loop)
        self._context: Context | None = None
        self._task: asyncio.Task[None] | None = None  # None again when it is callbacks that go on
        self._response: aiohttp.ClientResponse | None = None
        self._disposed = False
        self._over = False  # the terminal event is out, or about to be
        self._finished = False  # so is the socket, and nothing more is done
        self._how = "cancelled"  # it ended: this, "completed", or the name of the error's class
        self._began = 0.0
        self._chain_end = chain_end()
        if self._chain_end is not None:
            self._chain_end.sources.add(self)

    def dispose(self) -> None:
        """Closes the request; from any thread, any number of times; before it has begun, nothing is ever sent."""
        if not (self._disposed or self._over):
            self._disposed = True
            self._gate.shut_down()
            # Its own loop: in a forked child, the client has another one, and the parent goes on with this request.
            call_on(self._loop, self._kill)

    @abstractmethod
    async def _exchange(self) -> None:
        """Asks, and has delivered what is answered; then `_finish` says what that ended with, at once or later."""

    def _stopped(self) -> Exception | None:
        """What an exchange ended with that somebody else has stopped: the client that closes, or its loop."""
        return ClientClosedError()

    def _release(self) -> None:
        """Lets go of the socket."""
        if self._response is not None:
            self._response.close()  # without effect on a connection that went back to the pool at the body's end

    def _tell(self, error: RouterError) -> None:
        """Puts the facts on an error, unless it is another request's, that an observer passes on."""
        if error.elapsed is None:
            error.elapsed = self._loop.time() - self._began
            strike_out(error, self._outgoing.headers)

    def _start(self) -> None:
        if self._disposed:
            return
        self._began = self._loop.time()
        self._context = copy_context()
        self._begin(self._run(self._enter))

    def _begin(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(coroutine, name="rxrouter request", context=self._context)
        if not task.done():  # under an eager task factory it may be
            self._task = task
            self._home.tasks.add(task)
            task.add_done_callback(self._ended, context=self._context)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._home.tasks.discard(task)
        if task is self._task:
            self._task = None
        if task.cancelled():  # by others, before its first step: `_run` would have told
            self._finish(self._stopped())

    def _kill(self) -> None:
        self._release()
        if self._task is not None:
            self._task.cancel()
        else:
            self._finish(None)

    async def _enter(self) -> None:
        self._gate.enter()
        if self._home.refuses:  # told in a turn of its own: a `retry` above would else never come to an end
            self._finish(ClientClosedError())
        else:
            await self._exchange()

    async def _run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Has a task do what only a task can; whatever is raised is how this request ends."""
        task = self._task = asyncio.current_task()  # under an eager task factory, `_begin` comes to it only later
        try:
            await work()
        except asyncio.CancelledError as cancelled:
            if self._disposed:
                raise
            if task is not None and task.cancelling():
                self._finish(self._stopped())
            else:
                self._fail(cancelled)
        except GeneratorExit:
            raise
        except BaseException as raised:  # noqa: BLE001 - ours, or the observer's
            self._fail(raised)
        finally:
            if self._disposed:  # by another thread, whose cancelling may come too late for this task
                self._finish(None)

    def _fail(self, raised: BaseException) -> None:
        """Ends with what was raised, by us or by the observer."""
        error = as_exception(raised)
        lost = lost_an_ending(raised)
        if self._disposed and not lost:
            self._home.report(error, "a reader raised after it had left")
        self._finish(error)
        if lost:
            self._fail_chain(error)

    def _finish(self, error: Exception | None) -> None:
        """Lets go of the socket, then tells what it ended with, None if it is complete; once."""
        if self._finished:
            return
        self._finished = True
        if self._chain_end is not None:
            self._chain_end.sources.discard(self)
        self._gate.leave()
        self._release()
        if not self._disposed:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._over = True
        if error is None or isinstance(error, RouterError):  # else a reader raised, and so has left
            self._how = "completed" if error is None else type(error).__name__
        try:
            if error is None:
                self._observer.on_completed()
            else:
                if isinstance(error, RouterError):
                    self._tell(error)
                self._observer.on_error(error)
        except BaseException as raised:  # noqa: BLE001 - a callback may raise anything
            self._fail_chain(as_exception(raised))

    def _fail_chain(self, error: Exception) -> None:
        """End the subscription from outside, after an operator has raised while it passed an ending on."""
        if self._chain_end is not None:
            self._chain_end.fail(error)
        else:
            self._home.report(error, "a terminal callback of a stream raised")

    async def _open(
        self, method: str, *, sock_read: float | None = None, **more: Any
    ) -> aiohttp.ClientResponse | RouterError:
        """Sends what is to be sent, and returns the answer's head; `more` is aiohttp's."""
        limit = self._timeouts.connect
        try:
            self._response = await self._session().request(
                method,
                self._outgoing.url,
                headers=self._outgoing.headers,
                raise_for_status=False,  # whatever a given session says: its error would carry the key
                allow_redirects=False,  # a POST that follows a 302 becomes a GET, and the key would travel
                timeout=aiohttp.ClientTimeout(total=None, connect=limit, sock_connect=None, sock_read=sock_read),
                max_line_size=_HEADER_BYTES,
                max_field_size=_HEADER_BYTES,
                max_headers=_HEADERS,
                read_bufsize=READ_BYTES,
                **more,
            )
        except aiohttp.ServerTimeoutError as error:
            silent = isinstance(error, aiohttp.SocketTimeoutError)
            timeout = SilenceTimeoutError(sock_read or 0.0) if silent else ConnectTimeoutError(limit or 0.0)
            timeout.__cause__ = without_frames(error)
            return timeout
        except (aiohttp.ClientError, OSError) as error:
            unconnected = isinstance(error, _UNCONNECTED) or not isinstance(error, aiohttp.ClientError)
            return transport_error(error, "connect" if unconnected else "read")
        coding = self._response.headers.get("Content-Encoding", "").strip().lower()
        return self._response if coding in _CODINGS | _NO_CODINGS else _undecodable(coding)

    async def _refused(self, response: aiohttp.ClientResponse) -> RouterError:
        """Return the error that an answer other than 2xx is."""
        page, _ = await self._page(response.content, PAGE_SECONDS)
        return status_error(response.status, response.headers, page, self._home.scheduler.now.timestamp())

    async def _page(
        self,
        content: aiohttp.StreamReader,
        seconds: float | None = None,
        max_bytes: int = _PAGE_BYTES,
        enough: Callable[[bytes], bool] | None = None,
    ) -> tuple[bytes, TransportError | None]:
        """Return the body of an answer that is no stream, as much as comes in that time, and the error that cut it.

        Args:
            content: The body.
            seconds: The time for all of it; None for no limit but that of silence.
            max_bytes: Reading stops at so many.
            enough: Is called with what has come; a true result stops reading, too.
        """
        page = bytearray()
        silence = self._timeouts.silence
        try:
            async with asyncio.timeout(seconds):
                while len(page) < max_bytes:
                    async with asyncio.timeout(silence):
                        block = await content.readany()
                    if not block:
                        break
                    page += block
                    if enough is not None and enough(bytes(page)):
                        return bytes(page), None
                    # A compressed body is always there, as fast as it is read: only so the loop turns.
                    await asyncio.sleep(0)
        except TimeoutError:
            return bytes(page), SilenceTimeoutError(silence or seconds or 0.0)
        except (aiohttp.ClientError, OSError) as error:
            return bytes(page), transport_error(error, "read")
        return bytes(page[:max_bytes]), None


def is_success(status: int) -> bool:
    """Return whether the body of an answer with this status is an answer to the question."""
    return status in _SUCCESS


def transport_error(error: Exception, phase: Literal["connect", "read"]) -> TransportError:
    """Ours for aiohttp's; in words of which none come from the wire, which may say anything, or from a URL."""
    cause: BaseException | None = error
    if isinstance(error, aiohttp.ClientPayloadError):
        what = "the body was cut in the middle, or damaged"
    elif isinstance(error, aiohttp.InvalidURL):  # it says the whole URL, the password with it
        what, cause = "the URL is none", None
    elif isinstance(error, aiohttp.ClientHttpProxyError):
        what, cause = f"the proxy answered HTTP {error.status}", None
    elif isinstance(error, aiohttp.ClientResponseError):  # it carries the request's headers, the key with them
        return _unreadable_head(error)
    else:
        what = str(error) or type(error).__name__
    mapped = TransportError(what, phase=phase)
    mapped.transient = not isinstance(error, aiohttp.ClientSSLError | aiohttp.InvalidURL)  # they stay wrong
    mapped.__cause__ = None if cause is None else without_frames(cause)
    return mapped


def without_frames(error: BaseException) -> BaseException:
    """Return the error without the frames of it and of all below it: their locals hold headers and bodies."""
    left: list[BaseException | None] = [error]
    seen = set[int]()
    while left:
        below = left.pop()
        if below is not None and id(below) not in seen:
            seen.add(id(below))
            below.__traceback__ = None
            left += [below.__cause__, below.__context__]
    return error


def _unreadable_head(error: aiohttp.ClientResponseError) -> TransportError:
    """Return the error that an answer is whose head aiohttp refuses."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ContentEncodingError):
            coding = _IN_BRACKETS.search(cause.message)
            return _undecodable(coding[1] if coding else "unknown")
        if isinstance(cause, LineTooLong) or (isinstance(cause, BadHttpMessage) and "Too many head" in cause.message):
            return _lasting(f"the answer's headers are larger than {_HEADER_BYTES} bytes")
        cause = cause.__cause__
    return TransportError("the answer is no valid HTTP", phase="read")


def _undecodable(coding: str) -> TransportError:
    return _lasting(f"the answer's content coding {coding[:_CODING_CHARS]!r} can't be decoded: its library is missing")


def _lasting(what: str) -> TransportError:
    """Return an error that comes again with the same request."""
    error = TransportError(what, phase="read")
    error.transient = False
    return error
