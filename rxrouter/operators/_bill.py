"""What the generations of one subscription have said that they used: each on its own, however often it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from rxrouter._errors import RouterError, StreamError
from rxrouter._wire.chunk import Usage

T = TypeVar("T")

_REMEMBERED = 1000  # generations: a `repeat` goes on for ever, no retry does


class Bill(Generic[T]):
    """An entry for each generation, by its id; who has none is known by its error.

    Args:
        entry: Makes one.
    """

    def __init__(self, entry: Callable[[], T]) -> None:
        self._entry = entry
        self._entries: dict[object, T] = {}
        self._last: object = None

    def of(self, generation: object) -> T:
        """The entry of a generation, which begins with it."""
        self._last = generation
        found = self._entries.get(generation)
        if found is None:
            if len(self._entries) == _REMEMBERED:
                del self._entries[next(iter(self._entries))]
            found = self._entries[generation] = self._entry()
        return found

    def said(self, usage: Usage, generation_id: str | None) -> Iterator[tuple[T, Usage]]:
        """The entries that a usage is for, each with its own part of it."""
        for generation, part in parts_of(usage, generation_id):
            yield self.of(generation), part

    def ended(self, error: Exception | None) -> Iterator[tuple[T, Usage]]:
        """The same for an error, and those of the attempts before it: they were billed, too, and may have said so."""
        last, attempts = self._last, error.attempts if isinstance(error, RouterError) else ()
        for attempt in attempts:
            yield from self._billed(attempt)
        if last in self._entries and last not in map(generation_of, attempts):
            entry = self._entries.pop(last)  # what comes without an id, or with the same, is another generation
            self._entries.setdefault(object() if error is None else generation_of(error), entry)
        yield from self._billed(error)

    def _billed(self, error: Exception | None) -> Iterator[tuple[T, Usage]]:
        if isinstance(error, StreamError) and error.usage is not None:
            yield self.of(generation_of(error)), error.usage


def parts_of(usage: Usage, generation: object) -> tuple[tuple[object, Usage], ...]:
    """What a usage is the sum of: the usage of each generation, beside what that is known by."""
    return getattr(usage, "parts", ((generation, usage),))


def generation_of(error: Exception) -> object:
    """What the generation that ended with an error is known by."""
    return (error.generation_id if isinstance(error, RouterError) else None) or error
