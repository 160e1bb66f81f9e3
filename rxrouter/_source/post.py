"""A POST that answers with an event stream: read, pause, and an ending that is proven."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from reactivex import abc

from rxrouter._attempt import Attempt
from rxrouter._chain import SourceProof
from rxrouter._errors import ClientClosedError, ContentTypeError, RouterError, SilenceTimeoutError, TransportError
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader, Reader
from rxrouter._source.loop import Home
from rxrouter._source.request import PAGE_SECONDS, READ_BYTES, Outgoing, Request, Timeouts, is_success, transport_error
from rxrouter._source.tap import Tap
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.failure import body_error
from rxrouter._wire.first_bytes import as_event, is_completion, is_event_stream
from rxrouter._wire.sse import MAX_EVENT_BYTES

# How long the end of a body is waited for when all is there: after [DONE], so that the connection goes back to the
# pool (openai-python waits 0.1 s), after an error, so that its usage is not lost, and for [DONE] after an unambiguous
# end: a finish reason without content and without tool calls, behind no other finish, and usage.
_DRAIN_SECONDS = 0.5
# What is silent is listened to once more after this long, before it is given up.
_SECOND_LOOK_SECONDS = 0.05
# What may wait for a reader that pauses; with more, the socket is read no further. aiohttp has the same bound.
_WAITING_BYTES = 2 * READ_BYTES
# Of a body that aiohttp reads, so much is fed in one turn of the loop. As empty comments it takes 20 ms.
_STEP_BYTES = 1 << 14
_STREAM = "text/event-stream"

# Told of each generation at its end: how that was, its id, and the chunk with its usage, where they are known.
Settle = Callable[[str, str | None, ChatChunk | None], None]


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

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        """Be copied as bytes: tools that record requests, such as vcrpy, keep a copy."""
        return bytes, (self._body,)

    async def write(self, writer: AbstractStreamWriter) -> None:
        self._connected(writer)
        for at in range(0, len(self._body), READ_BYTES):  # images make bodies of megabytes
            await writer.write(self._body[at : at + READ_BYTES])
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
        proof: SourceProof | None,
        observer: abc.ObserverBase[Any],
    ) -> None:
        super().__init__(home, session, outgoing, timeouts, observer)
        self._reader = reader(self._gate, observer.on_next)
        self._attempt = attempt
        self._proof = proof
        self._now = now = home.scheduler.seconds  # the time as operators tell it
        self._reader.on_comment = lambda: attempt.comment(now())  # holds no Post: a client that is dropped ends at once
        self._settle = settle
        self._cut: RouterError | None = None  # why we cancelled our own task
        self._connected = False
        self._is_refused = False
        self._heard = 0.0  # when the last byte came, by the loop's clock
        self._clock: asyncio.TimerHandle | None = None
        self._brief = False  # as the clock knows it: what is still to come is not waited for as long
        self._tap: Tap | None = None
        home.call(self._start)

    def stop(self) -> None:
        """Ends it in the loop's next turn, if there is no task that somebody may cancel."""
        self._loop.call_soon(self._cut_off, ClientClosedError(), context=self._context)

    def _start(self) -> None:
        if not (self._disposed or self._home.refuses):
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
        self._feed_end(self._cut or ClientClosedError())
        return self._reader.outcome(self._cut or ClientClosedError())

    def _cut_off(self, why: RouterError) -> None:
        if self._task is None:
            self._feed_end(why)
            self._finish(self._reader.outcome(why))
        else:  # it holds what has to be let go of
            self._cut = why
            self._task.cancel()

    def _release(self) -> None:
        self._attempt.paused = False
        self._stop_clock()
        if self._tap is not None:
            self._tap.forget()
            self._tap = None
        super()._release()

    def _finish(self, error: Exception | None) -> None:
        if self._finished:
            return
        self._home.streams.discard(self)
        if self._proof is not None:
            if self._disposed:
                self._proof.close()
            elif error is None:
                self._proof.finish()
            elif self._reader.has_content:
                self._proof.fail()
            else:
                self._proof.withdraw()
        try:
            super()._finish(error)
        finally:
            if self._connected and (self._generation_id or not self._is_refused):  # else nothing was generated
                self._settle(self._how, self._generation_id, self._reader.billed)

    async def _exchange(self) -> None:
        opened = await self._open(  # the body in no name, which would keep it for as long as the stream
            "POST", data=_Body(self._outgoing.body, self._connect, self._alive)
        )
        if isinstance(opened, RouterError):
            self._finish(opened)
            return
        self._attempt.headers = self._now()
        self._attempt.generation_id = opened.headers.get("X-Generation-Id")
        kind = opened.content_type if "Content-Type" in opened.headers else ""
        if not is_success(opened.status):
            self._stop_clock()  # a page has clocks of its own, that end it, and not what it says
            self._is_refused = True
            self._finish(await self._refused(opened))
        elif kind != _STREAM:
            await self._read_by_first_bytes(opened.content, kind)
        elif not self._flow(opened.content):
            await self._pull(opened.content)

    async def _read_by_first_bytes(self, content: aiohttp.StreamReader, kind: str) -> None:
        """Read a body as what its first bytes are, whatever its type says."""
        self._stop_clock()
        # The tap has left such a body to aiohttp.
        self._tap = None
        start, cut = await self._page(content, enough=lambda start: is_event_stream(start) is not None)
        if cut is None and is_event_stream(start):
            self._alive()
            self._tick()
            await self._pull(content, start)
            return
        as_json = kind == "application/json" or start.lstrip().startswith((b"{", b"["))
        if cut is None:
            seconds, most = (None, MAX_EVENT_BYTES) if as_json else (PAGE_SECONDS, MAX_EVENT_BYTES >> 4)
            rest, cut = await self._page(content, seconds, most)
            start += rest
        if isinstance(self._reader, ChunkReader) and is_completion(start):
            # The whole answer at once, by a server that streams nothing.
            self._feed(as_event(start))
            await self._delivered()
            self._feed_end(cut)
            await self._delivered()
            self._finish(self._reader.outcome(cut))
            return
        self._is_refused = True
        nothing = cut if as_json or not start else None
        self._finish(body_error(start) or nothing or ContentTypeError(kind, start))

    async def _pull(self, content: aiohttp.StreamReader, block: bytes = b"") -> None:
        """Feed what aiohttp reads, behind the block that has been read before."""
        cut: TransportError | None = None
        while not self._finished:
            try:
                block = block or await content.readany()
            except (aiohttp.ClientError, OSError) as error:
                cut = transport_error(error, "read")
                block = _left_in(content)
            at_end = not block
            await self._deliver(block)
            block = b""  # or it would be kept until the next one comes
            if self._disposed:
                return
            if at_end or cut is not None:
                self._feed_end(cut)
                await self._delivered()
                self._finish(self._reader.outcome(cut))

    async def _deliver(self, block: bytes) -> None:
        """Feed the block in steps, between which the loop turns: a compressed body is always there, as fast as read."""
        for at in range(0, len(block) or 1, _STEP_BYTES):
            step = block[at : at + _STEP_BYTES]
            self._feed(step)
            await self._delivered()
            if self._finished or self._disposed:
                return
            self._look()
            if len(step) == _STEP_BYTES:
                await asyncio.sleep(0)

    async def _delivered(self) -> None:
        """Wait until all that the reader has taken is delivered, or the subscriber has left."""
        while self._gate.closed and not (self._finished or self._disposed):
            self._attempt.paused = True
            await self._gate.opened()
            if not self._disposed:
                self._resume()

    def _flow(self, content: aiohttp.StreamReader) -> bool:
        """Has the tap feed what comes, without a task, a turn of the loop a read, and not two; False if it can't."""
        tap, context = self._tap, self._context
        assert context is not None  # noqa: S101 - it was started
        run: Any = context.run
        if tap is None or not tap.begin(content, partial(run, self._arrived)):
            self._tap = None
            return False
        self._task = None
        self._home.streams.add(self)
        self._arrived(tap.flow())
        return True

    def _arrived(self, block: bytes) -> None:
        self._feed(block)
        reader = self._reader
        tap = self._tap
        if tap is not None and (tap.over or self._gate.closed or reader.ended or reader.lingering is not self._brief):
            self._look()

    def _feed(self, block: bytes | None) -> None:
        """Has the reader deliver: what the block completes, or with None, what is left of the last one."""
        reader = self._reader
        seen = reader.seen
        try:
            if block is None:
                reader.resume()
            else:
                reader.feed(block)
        except BaseException as raised:  # noqa: BLE001 - CancelledError, too, is the observer's
            self._fail(raised)
        if reader.seen != seen or not (reader.proven or reader.ended):  # comments say nothing of what is all there
            self._heard = self._loop.time()

    def _feed_end(self, cut: RouterError | None) -> None:
        """Has the reader deliver what the body has ended, or was cut, in the middle of."""
        if self._finished or self._disposed or self._gate.closed or not isinstance(cut, TransportError | None):
            return
        try:
            self._reader.end(cut)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as raised:  # noqa: BLE001 - CancelledError, too, is the observer's
            self._fail(raised)

    def _look(self) -> None:
        """Sees to what has come of the last block: a gate that closed, the end, or less to wait for."""
        reader, tap = self._reader, self._tap
        if self._finished:
            return
        if self._gate.closed:
            if tap is not None and not self._attempt.paused:
                tap.hold()
                self._attempt.paused = True
                self._gate.waiter().add_done_callback(self._reopened, context=self._context)
        elif reader.ended and not reader.draining:
            self._finish(reader.outcome(None))
        elif tap is not None and tap.over:
            self._flowed(tap)
        elif (brief := reader.lingering or reader.ended) is not self._brief:
            self._brief = brief
            self._heard = self._loop.time()
            self._tick()

    def _flowed(self, tap: Tap) -> None:
        """The rest is aiohttp's: nothing, as a rule."""
        tap.hold()  # what it has to tell is told by the content
        self._tap = None
        if tap.content.at_eof() and not self._reader.unfinished:
            self._finish(self._reader.outcome(None))
        else:  # in a turn of its own: an eager task would enter our context a second time
            self._loop.call_soon(self._pull_on, tap.content)

    def _pull_on(self, content: aiohttp.StreamReader) -> None:
        if not self._finished:
            self._begin(self._run(partial(self._pull, content)))

    def _resume(self) -> None:
        """Has delivered what a closed gate has kept."""
        if not self._finished:
            self._heard = self._loop.time()
            self._attempt.paused, self._attempt.resumed = False, self._now()
            self._feed(None)

    def _reopened(self, _: asyncio.Future[None]) -> None:
        self._resume()
        if self._tap is not None and not self._gate.closed:
            self._feed(self._tap.flow())
        self._look()

    def _connect(self, writer: AbstractStreamWriter) -> None:
        """The connection stands."""
        self._tap = Tap.on(writer, _WAITING_BYTES, self._alive)
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
        if self._brief:
            limit = min(limit or _DRAIN_SECONDS, _DRAIN_SECONDS)
        if limit is None or self._finished:
            return
        now = self._loop.time()
        if self._gate.closed:
            self._heard = now  # it is we who don't read
        if (left := self._heard + limit - now) > 0:
            self._clock = self._loop.call_later(left, self._tick, context=self._context)
        else:
            # If the loop was blocked, a timer is due before the bytes that have come meanwhile are seen.
            self._clock = self._loop.call_later(
                _SECOND_LOOK_SECONDS, self._look_again, self._heard, limit, context=self._context
            )

    def _look_again(self, heard: float, limit: float) -> None:
        if self._heard != heard or self._gate.closed:
            self._tick()
        else:
            self._cut_off(SilenceTimeoutError(limit))


def _left_in(content: aiohttp.StreamReader) -> bytes:
    """What had arrived before the cut: `readany` raises before it gives what a paused reader has not seen yet."""
    # None is not in the signature; it is how a reader is told that there is no exception.
    content.set_exception(None)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return content.read_nowait()
