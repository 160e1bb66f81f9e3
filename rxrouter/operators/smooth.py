"""smooth(): a steady pace, however the deltas come."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.graphemes import next_boundary
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._clock import clock_of
from rxrouter.operators._held import Held, T, held

_MOST = 1 << 14  # characters that wait: more than anyone reads in a second, and by them a slow reader pauses the source


def smooth(*, lag: float = 0.25, frame: float = 1 / 30) -> Callable[[Observable[T]], Observable[T]]:
    """Show text at a steady pace, though it comes in bursts; the pace follows what waits.

    Marble:
        source     -a-----b---|
        smooth()   -HL----ORD-|

    For chunks, and for texts from `text()` or `reasoning()`. A delta begins to show when it comes, and all but its
    last cluster is shown within `lag`; what waits when another kind, structure or the ending comes is shown at once.
    So are tool calls: their arguments are not read. Chunks are split and joined, and fold to what they would have
    folded to; `Restarted` drops what waits, for it is void.

    A grapheme cluster is never cut, unless it has more than 64 characters: the last one may go on in the next delta
    (an accent, half a flag), so the last letter of each delta stays until something follows, for as long as the stream
    is silent; a newline does not.

    Args:
        lag: Seconds that text may be behind, the last cluster excepted; what comes in bursts further apart than that
            is shown in bursts.
        frame: Seconds between two emissions of text.
    Emits: values of the kind that came, never empty, which joined are what came; at most one a frame, but for what is
        shown at once.
    Errors: the source's, behind the text before it.
    Cancels: the source and the timer, on dispose; there is a timer only while whole clusters wait.
    Source: a fixed delay a word falls behind fast models and stands still in scripts without spaces (PEERS P16);
        250 ms is what PEERS C.9 asks for, UAX #29 says what a cluster is.

    Raises:
        ValueError: not 0 < `frame` < `lag`.
    """
    if not 0 < frame < lag:
        raise ValueError("frame and lag are numbers of seconds, 0 < frame < lag")
    return held(lambda observer, scheduler: _Smoothed(observer, scheduler, lag, frame))


class _Smoothed(Held):
    """All but the last cluster is shown within `lag`: at a pace of `size / lag`, which only grows while some waits.

    Were it to fall with a small delta, what came before that would be late. A delta may come right after a frame and
    have to wait for the next one, so a frame of the lag is kept for that.
    """

    def __init__(self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase, lag: float, frame: float) -> None:
        super().__init__(observer, scheduler)
        self._now = clock_of(scheduler)
        self._lag = lag - frame
        self._frame = frame
        self._last = -math.inf  # when the last frame was
        # Characters a second.
        self._pace: float
        # Characters that should have been shown by then; negative where a cluster was long.
        self._owed: float

    def on_next(self, value: str | ChatChunk) -> None:
        if isinstance(value, Restarted):
            self.drop()
        super().on_next(value)

    def added(self) -> None:
        if not self.is_text or self.size > _MOST:
            self.stop()
            self.show(self.whole)
        elif self.timed:
            self._speed_up()
        elif self.whole:
            self._begin()

    def due(self) -> None:
        now, whole = self._now(), self.whole
        self._owed += self._pace * (now - self._last)
        self._last = now
        size = min(math.ceil(self._owed), whole)
        size = next_boundary(self.text, size) if size > 0 else 0
        self._owed -= size
        if size < whole:
            self.wait(self._frame)
        self.show(size)

    def _begin(self) -> None:
        """Nothing was waiting: the first frame is now, if the one before is a frame ago."""
        self._pace = self._owed = 0.0
        self._speed_up()
        now = self._now()
        early = self._last + self._frame - now
        if early > 0:
            self.wait(early)
        else:
            self._last = now - self._frame
            self.due()

    def _speed_up(self) -> None:
        self._pace = max(self._pace, (self.size - self._owed) / self._lag)
