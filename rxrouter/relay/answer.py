"""Answer: a stream on its way to one reader, whatever the server: frames that wait to be sent, and what the end is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from weakref import WeakMethod

from reactivex import Observable

from rxrouter._attempt import Attempt, watching
from rxrouter._errors import ClientClosedError, LogLostError, RouterError, SlowReaderError, UnknownGenerationError
from rxrouter._gate import call_on
from rxrouter._wire.chunk import ChatChunk, has_content
from rxrouter.relay.dialects.dialect import Encoder
from rxrouter.relay.failure import INTERNAL, Explain, Failure, failure_of, unexplained
from rxrouter.relay.frames import Place
from rxrouter.relay.intake import Intake
from rxrouter.relay.telling import Telling

# What ends this reading, and not the generation: it has no place in the log, and who comes back may get the rest.
_LOCAL = (ClientClosedError, LogLostError, SlowReaderError, UnknownGenerationError)

_NO_SUCH_PLACE = Failure(400, "bad_event_id", "Last-Event-ID names nothing in this answer.")


class Answer:
    """Takes the chunks, and gives the frames on the loop in which it was made.

    The server calls `take` when it was woken and the connection has room, and looks at `ended` when there is nothing
    more to take. As long as it does not take, the source waits.

    Args:
        encoder: Says it in the reader's dialect.
        explain: See `respond`.
        keep_alive: See `respond`.
        after: How far the reader is already; None if the frames are to have no ids.
    """

    __slots__ = (
        "__weakref__",
        "_content",
        "_explain",
        "_intake",
        "_keep_alive",
        "_keeping_alive",
        "_loop",
        "_opened",
        "_primed",
        "_say",
        "_taken",
        "_telling",
        "_timer",
        "_wake",
        "_woken",
        "broken",
        "ended",
        "failure",
        "frames",
    )

    def __init__(self, encoder: Encoder, *, explain: Explain, keep_alive: float, after: Place | None) -> None:
        self.frames: list[bytes] = []  # that wait
        self.failure: Failure | None = None  # it came before all else: an HTTP status of its own
        self.ended = False  # there is nothing behind what waits
        self.broken = False  # and the end must not look like one
        self._loop = asyncio.get_running_loop()
        self._telling = Telling(encoder, after)
        self._say = self._telling.chunk
        self._keeping_alive = encoder.framing.comment()
        self._wake: Callable[[], object] = _nobody
        self._woken = False
        self._explain = explain
        self._keep_alive = keep_alive
        self._timer: asyncio.TimerHandle | None = None
        self._opened = False
        self._content = False  # there was some
        self._primed: asyncio.Future[None] = self._loop.create_future()
        self._taken = 0.0  # when, by the loop's clock
        self._intake = Intake(self._add, self._finish, self._report)

    def start(self, source: Callable[[], Observable[ChatChunk]], wake: Callable[[], object]) -> None:
        """Subscribes.

        Args:
            source: Gives the chunks, when all that may fail without them has not.
            wake: Called on the loop, once, when there is something new to take, or to look at.
        """
        self._wake = wake
        self._put(self._telling.begin())
        with watching(self._attempted):
            self._intake.subscribe(source)

    async def primed(self, seconds: float) -> None:
        """Returns when it is decided how to begin: by content, an end, the reader's leave, or so many seconds."""
        await asyncio.wait([self._primed], timeout=seconds)

    def open(self) -> None:
        """The head of the answer goes out; from now on an error is a part of the body, and silence is filled."""
        self._opened = True
        self._taken = self._loop.time()
        if self._keeping_alive and not self.ended:
            self._timer = self._loop.call_later(self._keep_alive, self._fill_silence)

    def take(self) -> list[bytes]:
        """All that waits."""
        frames, self.frames = self.frames, []
        self._woken = False
        intake = self._intake
        intake.size = 0
        if intake.holds:
            intake.release()
        self._taken = self._loop.time()
        return frames

    @property
    def over(self) -> bool:
        """Whether all is taken that there will ever be."""
        return self.ended and not self.frames

    @property
    def complete(self) -> bool:
        """Whether the reader, who comes back, has had all of it."""
        return self.over and not self.broken and self._telling.resumes

    def leave(self) -> None:
        """The reader has left: the source is disposed now, and nothing waits any more."""
        self.frames.clear()
        self._intake.size = 0
        self._end()

    def shut_down(self) -> None:
        """The server wants to close: a reader who can come back is cut off, to do so; another is told."""
        if self.ended:
            return
        if self._telling.numbered and self._opened:
            self.broken = True
            self._end()
        else:
            self._finish(ClientClosedError("the server is closing"))

    def _add(self, chunk: ChatChunk) -> None:
        if self.ended:
            return
        try:
            self._put(self._say(chunk))
        except RouterError as error:  # that of a `Restarted`, which many read: it must not keep what is on our stack
            self._finish(error.with_traceback(None))
            return
        except Exception as error:  # noqa: BLE001 - what the dialect can't say ends the answer
            self._finish(error)
            return
        if not self._content and any(has_content(choice.delta) for choice in chunk.choices):
            self._content = True
            self._decided()

    def _put(self, frames: list[bytes]) -> None:
        if not frames or self.ended:
            return
        self.frames += frames
        self._intake.size += sum(map(len, frames))
        if not self._woken:
            self._woken = True
            self._wake()

    def _finish(self, error: Exception | None) -> None:
        if self.ended:
            return
        if error is not None and not isinstance(error, RouterError):  # a mistake in somebody's operator, or dialect
            self._report("a relayed answer failed", error)
        failure = None if error is None else self._failure_of(error)
        local = isinstance(error, _LOCAL)
        untold = not (self._opened or self._content) and (local or not self._telling.resumes)
        if failure is not None and untold and failure.code != "stopped":
            self.failure = failure
        else:
            self._tell_end(failure, of_log=not local)
        self._end()

    def _failure_of(self, error: Exception) -> Failure:
        try:
            return failure_of(error, self._explain)
        except Exception as mistake:  # noqa: BLE001 - the reader gets the sentence of its kind
            self._report("`explain` of a relayed answer raised", mistake)
            return failure_of(error, unexplained)

    def _tell_end(self, failure: Failure | None, *, of_log: bool) -> None:
        try:
            frames = self._telling.end() if failure is None else self._telling.error(failure, of_log=of_log)
        except Exception as mistake:  # noqa: BLE001 - an end that can't be told breaks off
            self._report("the dialect of a relayed answer could not say its end", mistake)
            frames, failure = None, INTERNAL
        if frames is None:
            self._break_off(failure or INTERNAL)
        elif self._telling.behind:
            self._break_off(failure or _NO_SUCH_PLACE)
        else:
            self._put(frames)

    def _break_off(self, why: Failure) -> None:
        """There is no end to be told; a reader to whom nothing was sent gets a status."""
        if self._opened:
            self.broken = True
        else:
            self.failure = why

    def _end(self) -> None:
        if self.ended:
            return
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._intake.close()
        self._decided()
        self._wake()

    def _decided(self) -> None:
        if not self._primed.done():
            self._primed.set_result(None)

    def _report(self, what: str, error: Exception) -> None:
        """Tells whoever runs the server; the reader learns nothing of it."""
        self._loop.call_exception_handler({"message": what, "exception": error})

    def _fill_silence(self) -> None:
        left = self._taken + self._keep_alive - self._loop.time()
        if left <= 0:
            self._comment()
            left = self._keep_alive
        self._timer = self._loop.call_later(left, self._fill_silence)

    def _comment(self) -> None:
        if self._opened and self._keeping_alive and not self.frames:
            self._put([self._keeping_alive])

    def _attempted(self, attempt: Attempt) -> None:
        """The connection to the model is alive: the reader's is told the same way, if it still reads."""
        loop, comment = self._loop, WeakMethod(self._comment)

        def tell() -> None:
            if (reader := comment()) is not None:
                call_on(loop, reader)

        attempt.on_comment = (*attempt.on_comment, tell)


def _nobody() -> None:
    """Who waits before the start."""
