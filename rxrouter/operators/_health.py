"""Health: which sources have failed lately, for all chains that share it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from weakref import ref

from reactivex import Observable

from rxrouter._source.observable import LoopObservable

_MOST_SOURCES = 1000


class Health:
    """Remember which sources have failed lately: `fallback(..., health=)` leaves those out.

    All chains that are given the same object share it, on any thread. A source is one model of one client, whatever the
    prompt and the operators behind `client.chat()`; any other Observable is a source of its own. The last 1,000 failed
    sources are kept. Give nested fallbacks an object each.

    Args:
        cooldown: Seconds for which a source that has failed is left out.

    Raises:
        ValueError: a cooldown less than 0.
    """

    def __init__(self, *, cooldown: float = 30.0) -> None:
        if not cooldown >= 0:
            raise ValueError(f"cooldown must be a number of seconds >= 0, got {cooldown}")
        self.cooldown = cooldown
        # In the order of the failures.
        self._until: dict[Hashable, float] = {}

    def __repr__(self) -> str:
        return f"Health(cooldown={self.cooldown:g})"

    def failed(self, source: Observable[object], now: float) -> None:
        """Begin the cooldown of a source, at this Unix time."""
        key = _key(source)
        self._until.pop(key, None)
        self._until[key] = now + self.cooldown
        for oldest in list(self._until)[:-_MOST_SOURCES]:
            self._until.pop(oldest, None)

    def order(self, sources: Sequence[Observable[object]], now: float) -> list[int]:
        """Return the indices of the sources to try, in order: all, the longest failed first, where all have failed."""
        until = [self._until.get(_key(source), now) for source in sources]
        ready = [index for index, time in enumerate(until) if time <= now]
        return ready or sorted(range(len(sources)), key=until.__getitem__)


def _key(source: Observable[object]) -> Hashable:
    origin = source.origin if isinstance(source, LoopObservable) else None
    # A weak reference keeps no prompt alive, and equals no other one after its object is gone.
    return ref(source) if origin is None else origin
