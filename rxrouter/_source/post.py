"""A POST that answers with an event stream: read, pause, and an ending that is proven."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from reactivex import abc

from rxrouter._attempt import Attempt
from rxrouter._errors import ClientClosedError, ContentTypeError, RouterError, SilenceTimeoutError, TransportError
from rxrouter._gate import Gate
from rxrouter._source.decode import Reader
from rxrouter._source.loop import Home
from rxrouter._source.request import OK, PAGE_SECONDS, Outgoing, Request, Timeouts, transport_error
from rxrouter._source.tap import Tap
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.failure import body_error

# How long the end of a body is waited for when all is there: after [DONE], so that the connection goes back to the
# pool (openai-python waits 0.1 s, PEERS 1.5), after an error, so that its usage is not lost, and after finish reason
# and usage where [DONE] does not come.
_DRAIN_SECONDS = 0.5
# What is silent is listened to once more after this long, before it is given up.
_SECOND_LOOK_SECONDS = 0.05
# What may wait for a reader that pauses; with more, the socket is read no further. aiohttp takes half of that for its
# bound, and writes so much at once.
_READ_BYTES = 1 << 16
_WAITING_BYTES = 2 * _READ_BYTES
_STREAM = "text/event-stream"

# Told of each generation at its end: how that was, its id, and the chunk with its usage, where they are known.
Settle = Callable[[str, str | None, ChatChunk | None], None]

NextBlock = Callable[[], Awaitable[bytes | None]]
"""Waits for more of the body: b"" at its end, None when the task is wanted for something else."""


class _Body(aiohttp.Payload):
    """The request's body; being asked for it is how one learns that the connection stands, and which it is."""

    def __init__(
        self, body: bytes, connected: Callable[[AbstractStreamWriter], None], alive: Callable[[], None]
    ) -> None:
        super().__init__(body, content_type="application/json")
        self._size = len(body)
        self._body = body
        self._connected = connected
        self._alive = alive

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._body.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._connected(writer)
        for at in range(0, len(self._body), _READ_BYTES):  # images make bodies of megabytes
            await writer.write(self._body[at : at + _READ_BYTES])
            self._alive()


class Post(Request):
    """One generation: a reader delivers what comes, and judges the end; who holds its gate sets the pace."""

    def __init__(  # noqa: PLR0913 - what a request is made of
        self,
        home: Home,
        session: Callable[[], aiohttp.ClientSession],
        outgoing: Outgoing,
        *,
        timeouts: Timeouts,
        reader: Callable[[Gate, Callable[[Any], None]], Reader],
        settle: Settle,
        attempt: Attempt,
        observer: abc.ObserverBase[Any],
    ) -> None:
        super().__init__(home, session, outgoing, timeouts, observer)
        self._reader = reader(self._gate, observer.on_next)
        self._attempt = attempt
        self._now = now = home.scheduler.seconds  # the time as operators tell it
        self._reader.on_comment = lambda: attempt.comment(now())  # holds no Post: a client that is dropped ends at once
        self._settle = settle
        self._cut: RouterError | None = None  # why we cancelled our own task
        self._connected = False
        self._heard = 0.0  # when the last byte came, by the loop's clock
        self._clock: asyncio.TimerHandle | None = None
        self._raised: BaseException | None = None  # by the observer, behind a socket read
        self._idle: asyncio.Future[None] | None = None  # while `_push` does what the task else would
        self._tap: Tap | None = None
        self._lingering: bool = False  # as the clock knows it
        home.call(self._start)

    def _start(self) -> None:
        if not self._disposed:
            self._attempt.began = self._now()
            self._attempt.tell()
        super()._start()

    def _tell(self, error: RouterError) -> None:
        if error.elapsed is None:
            error.generation_id = error.generation_id or self._generation_id
            error.chunks_seen = self._reader.seen
        super()._tell(error)

    @property
    def _generation_id(self) -> str | None:
        return self._attempt.generation_id or self._reader.generation_id

    def _stopped(self) -> Exception | None:
        return self._reader.outcome(self._cut or ClientClosedError())

    def _release(self) -> None:
        self._attempt.paused = False
        self._stop_clock()
        self._tap = None
        super()._release()

    def _ended(self, task: asyncio.Task[None]) -> None:
        super()._ended(task)
        response = self._response
        refused = response is not None and response.content_type != _STREAM
        if self._connected and (self._generation_id or not refused):  # else nothing was generated
            self._settle(self._how, self._generation_id, self._reader.billed)

    async def _exchange(self) -> RouterError | None:
        opened = await self._open(  # the body in no name, which would keep it for as long as the stream
            "POST", data=_Body(self._outgoing.body, self._connect, self._alive), read_bufsize=_READ_BYTES
        )
        if isinstance(opened, RouterError):
            return opened
        self._attempt.headers = self._now()
        self._attempt.generation_id = opened.headers.get("X-Generation-Id")
        kind = opened.content_type if "Content-Type" in opened.headers else ""
        if opened.status == OK and kind == _STREAM:
            return self._reader.outcome(await self._read(opened))
        self._stop_clock()  # a page has clocks of its own, that end it, and not what it says
        if opened.status != OK:
            return await self._refused(opened)
        as_json = kind == "application/json"
        page, cut = await self._page(opened.content, None if as_json else PAGE_SECONDS)
        return body_error(page) or (cut if as_json else None) or ContentTypeError(kind, page)

    async def _read(self, response: aiohttp.ClientResponse) -> RouterError | None:
        """Has the reader fed until the end; returns what cut the body, None if it came to its end."""
        reader, gate, content = self._reader, self._gate, response.content
        next_block = self._begin(content)
        cut: TransportError | None = None
        while cut is None:
            try:
                block = await next_block()
            except (aiohttp.ClientError, OSError) as error:
                cut = transport_error(error, "read")
                block = _left_in(content)
            if self._raised is not None:
                raise self._raised
            if block:
                self._take(block)
                del block  # or it would be kept until the next one comes
            elif block is not None:
                break
            elif not gate.closed:
                reader.resume()
            if gate.closed and not await self._opened():
                return None
            if reader.ended:
                if reader.draining and cut is None:
                    await self._drain(next_block)
                return None
            self._linger()
        return cut

    def _linger(self) -> None:
        if self._reader.lingering is not self._lingering:
            self._lingering = self._reader.lingering
            self._tick()

    def _begin(self, content: aiohttp.StreamReader) -> NextBlock:
        if self._tap is None or not self._tap.begin(content, self._push):
            return content.readany
        self._context = copy_context()
        return partial(self._unpushed, self._tap, content)

    async def _opened(self) -> bool:
        """Waits at the gate, and has the reader deliver what it still has; False if there is no reader any more."""
        gate, attempt = self._gate, self._attempt
        while gate.closed:
            attempt.paused = True
            await gate.opened()
            if self._disposed:
                return False
            self._heard = self._loop.time()
            attempt.paused, attempt.resumed = False, self._now()
            self._reader.resume()
        return True

    def _take(self, block: bytes) -> None:
        reader = self._reader
        seen = reader.seen
        reader.feed(block)
        if reader.seen != seen or not reader.proven:  # comments say nothing of an answer that is all there
            self._heard = self._loop.time()

    def _push(self) -> None:
        """Feeds what a socket read has brought; wakes the task when there is something for it to see to.

        So a chunk costs one turn of the loop, and not two.
        """
        idle, tap, reader = self._idle, self._tap, self._reader
        if idle is None or idle.done() or tap is None:
            return  # the task is at work, and finds it
        try:
            self._context.run(self._take, tap.take())
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - CancelledError, too: the task tells it
            self._raised = error  # not by the future: it is no error of the socket's, whatever its class
        if not idle.done() and (
            self._raised is not None
            or tap.over
            or self._gate.closed
            or reader.ended
            or reader.lingering is not self._lingering
        ):
            idle.set_result(None)

    async def _unpushed(self, tap: Tap, content: aiohttp.StreamReader) -> bytes | None:
        """The next block that `_push` has not fed; None when that wants the task to look."""
        if block := tap.take():
            return block
        if tap.over:
            return await content.readany()
        self._idle = self._loop.create_future()
        try:
            await self._idle
        finally:
            self._idle = None
        return None

    async def _drain(self, next_block: NextBlock) -> None:
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while (block := await next_block()) != b"":
                    self._reader.feed(block or b"")
        except (TimeoutError, aiohttp.ClientError, OSError):
            pass

    def _connect(self, writer: AbstractStreamWriter) -> None:
        """The connection stands."""
        self._tap = Tap.on(writer, _WAITING_BYTES)
        self._connected = True
        self._alive()
        self._tick()

    def _alive(self) -> None:
        """The connection takes what we send."""
        self._heard = self._loop.time()

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


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the cut: `readany` raises before it gives what a paused reader has not seen yet."""
    # None is not in the signature; it is how a reader is told that there is no exception.
    content.set_exception(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return content.read_nowait()
