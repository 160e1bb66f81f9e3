"""fallback(): the next source, where one fails before its first content."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter.operators._clock import clock_of
from rxrouter.operators._routes import Leading, may_be_helped, require_sources, subscribed, tell_attempts
from rxrouter.operators._types import Operator

T = TypeVar("T")


def fallback(*others: Observable[T], cooldown: float = 0.0) -> Operator[T, T]:
    """Subscribe the next source where one fails before its first content: another model, another key, another server.

    It works on chunks and on what is made of them; of anything but chunks, the first value is content.

    Marble:
        source       -r-#(x)
        other           --a-b-|
        fallback()   -----a-b-|

    Args:
        *others: The sources to try, in this order, after the one that the operator is applied to.
        cooldown: Seconds for which a source that failed is left out by later subscriptions of the same chain. When all
            are, all are tried, the one first that has failed longest ago.
    Emits: one source's values; what a source says before its first content is held until then or until its end.
    Errors: those after content, the last source's, those of the reader's side (`ClientClosedError`,
        `BudgetExceededError`, `GuardError`, `ContinuationRefusedError`), and what is no `RouterError`, but for the
        RuntimeError of a client whose loop is closed; with what the others ended with as `attempts` on it.
    Cancels: the source that runs, on dispose.
    Source: OpenRouter's own `models` list falls back within one request and one key; a 200 that fails before its first
        content, and a 401, are beyond it (PEERS row 22, P12).

    Raises:
        TypeError: another source is none.
        ValueError: a cooldown less than 0.
    """
    require_sources(others)
    if not cooldown >= 0:
        raise ValueError(f"cooldown is a number of seconds >= 0, not {cooldown}")

    def operator(source: Observable[T]) -> Observable[T]:
        rest = _Rest(len(others) + 1, cooldown)

        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            line = _Line((source, *others), rest, observer, scheduler)
            line.start_next()
            return line.running

        return Observable(subscribe)

    return operator


class _Rest:
    """Until when each source of a chain is left out."""

    def __init__(self, count: int, cooldown: float) -> None:
        self._until = [float("-inf")] * count
        self._cooldown = cooldown

    def order(self, now: float) -> list[int]:
        """The sources to try, in order."""
        everyone = range(len(self._until))
        rested = [index for index in everyone if self._until[index] <= now]
        return rested or sorted(everyone, key=self._until.__getitem__)

    def begin(self, index: int, now: float) -> None:
        """It has failed."""
        self._until[index] = now + self._cooldown


class _Line(Generic[T]):
    """The sources of one subscription, of which one runs at a time."""

    def __init__(
        self,
        sources: Sequence[Observable[T]],
        rest: _Rest,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.running = SerialDisposable()
        self._sources = sources
        self._rest = rest
        self._observer = observer
        self._scheduler = scheduler
        self._now = clock_of(scheduler or TimeoutScheduler.singleton())
        self._failures: list[Exception] = []
        self._indices = deque(rest.order(self._now()))

    def start_next(self) -> None:
        index = self._indices.popleft()
        leading = Leading(self._observer, lambda: True)

        def on_error(error: Exception) -> None:
            if may_be_helped(error, leading):
                self._rest.begin(index, self._now())
                if self._indices and not leading.over:
                    self._failures.append(error)
                    self.start_next()
                    return
                tell_attempts(error, self._failures)
            leading.pass_on()
            self._observer.on_error(error)

        def on_completed() -> None:
            leading.pass_on()
            self._observer.on_completed()

        subscription = SingleAssignmentDisposable()  # in place before a source that fails at once starts the next
        self.running.disposable = subscription
        subscription.disposable = subscribed(self._sources[index], leading, on_error, on_completed, self._scheduler)
