"""What operators with several sources have in common: leading chunks, errors that another source may not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reactivex import abc

from rxrouter._errors import BudgetExceededError, ClientClosedError, RouterError
from rxrouter.operators._content import is_content

T = TypeVar("T")

# Chunks that are held for want of content; a source that says more than that, of whatever kind, is heard.
_MOST_HELD = 1000


class Leading(Generic[T]):
    """Holds what a source says before its first content: if it fails before that, it has said nothing.

    Args:
        observer: Who is told all of it, from the first content on.
        chosen: Asked at the first content, whether this source is the one to be heard.
    """

    def __init__(self, observer: abc.ObserverBase[T], chosen: Callable[[], bool]) -> None:
        self.over = False  # everything passes
        self._held: list[T] = []
        self._observer = observer
        self._chosen = chosen

    def on_next(self, value: T) -> None:
        """Passes the value on, or holds it."""
        if self.over:
            self._observer.on_next(value)
            return
        self._held.append(value)
        if (is_content(value) or len(self._held) > _MOST_HELD) and self._chosen():
            self.pass_on()

    def pass_on(self) -> None:
        """Tells what was held; at an ending, too, for the last source's is the ending of all."""
        self.over = True
        held, self._held = self._held, []
        for value in held:
            self._observer.on_next(value)


def require_sources(sources: Sequence[object]) -> None:
    """Refuses what can't be subscribed, where it is written and not when it would be needed.

    Raises:
        TypeError: one is no Observable.
    """
    for source in sources:
        if not isinstance(source, abc.ObservableBase):
            raise TypeError(f"the other sources are Observables, not {type(source).__name__}")


def may_be_helped(error: Exception) -> bool:
    """Whether another source (model, provider, key) may do better; not where it was the reader's side that ended it."""
    return isinstance(error, RouterError) and not isinstance(error, ClientClosedError | BudgetExceededError)


def tell_attempts(error: Exception, before: Sequence[Exception]) -> None:
    """Puts on an error what was tried before, each cause once, however the sources themselves have tried."""
    if isinstance(error, RouterError):
        causes = dict.fromkeys(
            cause
            for attempt in (*before, error)
            for cause in (*(attempt.attempts if isinstance(attempt, RouterError) else ()), attempt)
        )
        error.attempts = tuple(cause for cause in causes if cause is not error)
