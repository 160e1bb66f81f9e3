"""Progress: how far a stream has got, for the error with which an operator ends it."""

from __future__ import annotations

from reactivex import abc
from reactivex.scheduler import TimeoutScheduler

from rxrouter._attempt import Attempt
from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._clock import clock_of


class Progress:
    """What has passed in a subscription, and the POST that it came from."""

    __slots__ = ("__weakref__", "_attempt", "_began", "_now", "last", "seen")

    def __init__(self, scheduler: abc.SchedulerBase | None) -> None:
        self.seen = 0  # values
        self.last: object = None
        self._attempt: Attempt | None = None
        self._now = clock_of(scheduler or TimeoutScheduler.singleton())
        self._began = self._now()

    def attempt(self, attempt: Attempt) -> None:
        """Takes note of a POST; the last is the one that is told of."""
        self._attempt = attempt

    def tell(self, error: Exception) -> None:
        """Puts the facts on an error of this library, unless it has them from where it comes from."""
        if isinstance(error, RouterError) and error.elapsed is None:
            error.elapsed = self._now() - self._began
            error.chunks_seen = self.seen
            by_chunk = self.last.id if isinstance(self.last, ChatChunk) else None
            error.generation_id = (self._attempt.generation_id if self._attempt else None) or by_chunk
