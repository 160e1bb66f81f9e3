"""coalesce(): fewer, larger deltas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxrouter.operators._held import Held, T, held


def coalesce(seconds: float = 0.05, chars: int = 1024) -> Callable[[Observable[T]], Observable[T]]:
    """Make one delta of those that come within moments: fewer frames to draw, to encode, to send.

    Marble:
        source       -ab-----c-d---n----|
        coalesce()   ----H------W-----N-|

    For chunks, and for texts from `text()` or `reasoning()`. What is joined is adjacent and of one kind: text,
    reasoning or refusal of one choice, arguments of tool calls; a chunk of anything else passes at once, behind what
    was held; text of the kind that was held goes with that. The chunks fold to what those that came fold to.

    A grapheme cluster is never cut, unless it has more than 64 characters: the last one may go on in the next delta
    (an accent, half a flag), so the last letter of each delta stays until something follows, for as long as the stream
    is silent; a newline does not. So even a chunk that comes alone leaves as two, if it ends with no newline.

    Args:
        seconds: From the first delta that is held to its emission, the last cluster excepted. Twenty frames a second
            look alive, and make one of three to ten deltas.
        chars: Characters at which it is emitted at once; more than the fastest model says in that time, so a bound on
            what is held, and on how far a source gets before a slow reader pauses it.
    Emits: values of the kind that came, never empty, which joined are what came.
    Errors: the source's, behind the text before it.
    Cancels: the source and the timer, on dispose; without deltas there is no timer.
    Source: 500 deltas became 20 to 40 frames at 50 ms (PEERS P15); UAX #29 for what a cluster is.

    Raises:
        ValueError: `seconds` is negative, or `chars` less than 1.
    """
    if not seconds >= 0:
        raise ValueError("seconds is a number >= 0")
    if not chars >= 1:
        raise ValueError("chars is a number >= 1")
    return held(lambda observer, scheduler: _Coalesced(observer, scheduler, seconds, chars))


class _Coalesced(Held):
    def __init__(
        self, observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase, seconds: float, chars: int
    ) -> None:
        super().__init__(observer, scheduler)
        self._seconds = seconds
        self._chars = chars

    def added(self) -> None:
        if self.size >= self._chars:
            self.stop()
            self.due()
        elif not self.timed:
            self.wait(self._seconds)

    def due(self) -> None:
        self.show(self.whole)
