"""Answer: a stream on its way to one reader, whatever the server: frames that wait to be sent, and what the end is."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import get_ident

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._attempt import Attempt, watching
from rxrouter._errors import ClientClosedError, LogLostError, SlowReaderError
from rxrouter._gate import Barrier, call_on, current_gates, scope
from rxrouter._source.loop import LoopScheduler
from rxrouter._source.observable import LoopObservable
from rxrouter._wire.chunk import ChatChunk, has_content
from rxrouter.relay.dialects.dialect import Encoder
from rxrouter.relay.failure import INTERNAL, Explain, Failure, failure_of, unexplained
from rxrouter.relay.frames import Place
from rxrouter.relay.telling import Telling

# What may wait for the socket, in bytes, before the source is paused; a socket's own buffer in asyncio is as large.
_HIGH = 1 << 16
# What may wait where nothing can be paused, before the reader is given up.
_MOST = 1 << 22
# The same for values on their way from another thread.
_CROSSING, _MOST_CROSSING = 256, 4096
# What ends this reading, and not the generation: it has no place in the log, and who comes back may get the rest.
_LOCAL = (ClientClosedError, LogLostError, SlowReaderError)

_NO_SUCH_PLACE = Failure(400, "bad_event_id", "Last-Event-ID names nothing in this answer.")


class Answer(abc.ObserverBase[ChatChunk]):
    """Takes the chunks, on whatever thread they come, and gives the frames on the loop in which it was made.

    The server calls `take` when it was woken and the connection has room, and looks at `ended` when there is nothing
    more to take. As long as it does not take, the source waits: the gates are held from `_HIGH` bytes on.

    Args:
        encoder: Says it in the reader's dialect.
        wake: Called on the loop, once, when there is something new to take, or to look at.
        explain: See `respond`.
        keep_alive: See `respond`.
        after: How far the reader is already; None if the frames are to have no ids.
    """

    def __init__(
        self, encoder: Encoder, wake: Callable[[], object], *, explain: Explain, keep_alive: float, after: Place | None
    ) -> None:
        self.frames: list[bytes] = []  # that wait
        self.failure: Failure | None = None  # it came before all else: an HTTP status of its own
        self.ended = False  # there is nothing behind what waits
        self.broken = False  # and the end must not look like one
        self._loop = asyncio.get_running_loop()
        self._thread = get_ident()
        self._telling = Telling(encoder, after)
        self._say = self._telling.chunk
        self._keeping_alive = encoder.framing.comment()
        self._wake = wake
        self._woken = False
        self._explain = explain
        self._keep_alive = keep_alive
        self._timer: asyncio.TimerHandle | None = None
        self._opened = False
        self._content = False  # there was some
        self._primed: asyncio.Future[None] = self._loop.create_future()
        self._size = 0
        self._taken = 0.0  # when, by the loop's clock
        self._source = SingleAssignmentDisposable()
        self._gates: set[Barrier] = set()
        self._held: list[Barrier] = []
        self._crossing: deque[Callable[[], None]] = deque()  # what came on other threads

    def start(self, chunks: Observable[ChatChunk]) -> None:
        """Subscribes."""
        self._put(self._telling.begin())
        scheduler = None if isinstance(chunks, LoopObservable) else LoopScheduler(self._loop)
        with scope(self._gates), watching(self._attempted):
            try:
                self._source.disposable = chunks.subscribe(
                    self.on_next, self.on_error, self.on_completed, scheduler=scheduler
                )
            except Exception as error:  # noqa: BLE001 - a source that can't be subscribed has failed
                self.on_error(error)

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
        self._size = 0
        self._taken = self._loop.time()
        if self._held:
            self._release()
        return frames

    @property
    def over(self) -> bool:
        """Whether all is taken that there will ever be."""
        return self.ended and not self.frames

    def leave(self) -> None:
        """The reader has left: the source is disposed now, and nothing waits any more."""
        self.frames.clear()
        self._size = 0
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

    def on_next(self, value: ChatChunk) -> None:
        """A chunk."""
        if get_ident() == self._thread and not self._crossing:
            self._add(value)
        else:
            self._cross(partial(self._add, value))
        if self._size >= _HIGH or self._crossing:
            self._hold()

    def on_error(self, error: Exception) -> None:
        """The end, if it is no good one."""
        self._cross(partial(self._finish, error))

    def on_completed(self) -> None:
        """The good end."""
        self._cross(partial(self._finish, None))

    def _cross(self, action: Callable[[], None]) -> None:
        """Has it done on the loop, behind what has come before."""
        if get_ident() == self._thread and not self._crossing:
            action()
            return
        self._crossing.append(action)
        with suppress(RuntimeError):  # the loop is closed, and the reader with it
            self._loop.call_soon_threadsafe(self._arrive)

    def _arrive(self) -> None:
        self._crossing.popleft()()
        if self._held and not self._full:
            self._release()

    def _add(self, chunk: ChatChunk) -> None:
        if self.ended:
            return
        try:
            self._put(self._say(chunk))
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
        self._size += sum(map(len, frames))
        if not self._woken:
            self._woken = True
            self._wake()

    def _finish(self, error: Exception | None) -> None:
        if self.ended:
            return
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
        except Exception:  # noqa: BLE001 - an `explain` with a mistake
            return failure_of(error, unexplained)

    def _tell_end(self, failure: Failure | None, *, of_log: bool) -> None:
        try:
            frames = self._telling.end() if failure is None else self._telling.error(failure, of_log=of_log)
        except Exception:  # noqa: BLE001 - a dialect with a mistake
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
        self._source.dispose()
        self._release()
        self._decided()
        self._wake()

    def _decided(self) -> None:
        if not self._primed.done():
            self._primed.set_result(None)

    @property
    def _full(self) -> bool:
        return self._size >= _HIGH or len(self._crossing) >= _CROSSING

    def _hold(self) -> None:
        """Makes the source wait, if it is too far ahead; on the thread on which it just delivered."""
        if self._held or not self._full:
            return
        for gate in current_gates(self._gates):
            gate.hold()
            self._held.append(gate)
        if self.ended or not self._full:  # the other thread was quicker
            self._release()
        elif not self._held and (self._size > _MOST or len(self._crossing) > _MOST_CROSSING):
            self._cross(partial(self._finish, SlowReaderError(_MOST)))

    def _release(self) -> None:
        while self._held:
            with suppress(IndexError):  # the other thread was quicker
                self._held.pop().release()

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
        """The connection to the model is alive: the reader's is told the same way."""
        attempt.on_comment = (*attempt.on_comment, lambda: call_on(self._loop, self._comment))
