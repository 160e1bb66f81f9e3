"""What operators with several sources have in common: leading chunks, errors that another source may not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxrouter._errors import (
    BudgetExceededError,
    ClientClosedError,
    ContinuationRefusedError,
    GuardError,
    RouterError,
)
from rxrouter.operators._content import is_content

T = TypeVar("T")

# Chunks that are held for want of content; a source that says more than that, of whatever kind, is heard.
_MOST_HELD = 1000
# Where it was the reader's side that ended it: another source would not do better, and cost as much.
_READERS = (ClientClosedError, BudgetExceededError, GuardError, ContinuationRefusedError)


class Leading(Generic[T]):
    """Holds what a source says before its first content: if it fails before that, it has said nothing.

    Args:
        observer: Who is told all of it, from the first content on.
        chosen: Asked at the first content, whether this source is the one to be heard.
    """

    def __init__(self, observer: abc.ObserverBase[T], chosen: Callable[[], bool]) -> None:
        self.over = False  # everything passes
        self.unstarted = False  # the source could not be subscribed
        self.held: list[T] = []
        self._observer = observer
        self._chosen = chosen

    def on_next(self, value: T) -> None:
        """Passes the value on, or holds it."""
        if self.over:
            self._observer.on_next(value)
            return
        self.held.append(value)
        if (is_content(value) or len(self.held) > _MOST_HELD) and self._chosen():
            self.pass_on()

    def pass_on(self) -> None:
        """Tells what was held; at an ending, too, for the last source's is the ending of all."""
        self.over = True
        held, self.held = self.held, []
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


def subscribed(
    source: Observable[T],
    leading: Leading[T],
    on_error: abc.OnError,
    on_completed: abc.OnCompleted,
    scheduler: abc.SchedulerBase | None,
) -> abc.DisposableBase:
    """Subscribes; what that raises is the source's error, for nobody else is there who would be told of it."""
    try:
        return source.subscribe(leading.on_next, on_error, on_completed, scheduler=scheduler)
    except Exception as error:
        if leading.over:  # the source is not what raised, but somebody who was told what it said
            raise
        leading.unstarted = isinstance(error, RuntimeError)  # its client's loop is closed
        on_error(error)
        return Disposable()


def may_be_helped(error: Exception, leading: Leading[T]) -> bool:
    """Whether another source (model, provider, key) may do better."""
    return leading.unstarted or (isinstance(error, RouterError) and not isinstance(error, _READERS))


def tell_attempts(error: Exception, before: Sequence[Exception]) -> None:
    """Puts on an error what was tried before, each cause once, however the sources themselves have tried."""
    if isinstance(error, RouterError):
        causes = dict.fromkeys(
            cause
            for attempt in (*before, error)
            for cause in (*(attempt.attempts if isinstance(attempt, RouterError) else ()), attempt)
        )
        error.attempts = tuple(cause for cause in causes if cause is not error)
