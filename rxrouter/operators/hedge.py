"""hedge(): a race for the first content."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter._attempt import Attempt, watching
from rxrouter.operators._clock import clock_of
from rxrouter.operators._routes import Leading, require_sources, subscribed, tell_attempts, worth_another_source
from rxrouter.operators._types import Operator

T = TypeVar("T")


class Loss(Struct, frozen=True):
    """A source that a hedge has started in vain: what it said nobody hears, and it may cost money all the same."""

    index: int  # 0 is the source that the operator is applied to, 1 the first of the others
    generation_ids: tuple[str, ...]  # of its requests that were answered; by them OpenRouter tells what they cost
    elapsed: float  # seconds from its start to its end
    error: Exception | None = None  # what it ended with; None if it was left because another was faster


def hedge(*others: Observable[T], delay: float, on_loss: Callable[[Loss], object] | None = None) -> Operator[T, T]:
    """Start another source where content is slow to come, and keep the one whose content comes first.

    It works on chunks and on what is made of them; of anything but chunks, the first value is content.

    Marble:
        source    -r-------a-|
        other        -r-b----c-|
        hedge()   ------(rb)-c-|

    Args:
        *others: The sources to start, in this order, after the one that the operator is applied to.
        delay: Seconds without content after which the next starts; it does so at once when all that run have failed.
        on_loss: Called for each source that was started in vain, when it fails or is left.
    Emits: one source's values, what it said before its first content included; an answer without content wins by its
        end.
    Errors: the winner's; if none wins, the last one's; with what those that failed ended with as `attempts` on it.
        Those that another source would have, too, end the race; see `fallback()`.
    Cancels: the losers, in the moment in which one wins; all that run, on dispose.
    Source: `amb` picks whoever has the first role chunk (PEERS P8); who is left may be billed (OpenRouter "Streaming":
        cancelling stops the bill for most providers).

    Raises:
        TypeError: another source is not an Observable.
        ValueError: a delay less than 0.
    """
    require_sources(others)
    if not delay >= 0:
        raise ValueError(f"delay is a number of seconds >= 0, not {delay}")

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            race = _Race((source, *others), delay, on_loss or _ignore, observer, scheduler)
            race.start_next()
            return race

        return Observable(subscribe)

    return operator


class _Race(abc.DisposableBase, Generic[T]):
    """One subscription's race; runners of several clients may be on several threads, so what decides is locked."""

    def __init__(
        self,
        sources: Sequence[Observable[T]],
        delay: float,
        on_loss: Callable[[Loss], object],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.observer = observer
        self.scheduler = scheduler
        self.now = clock_of(scheduler or TimeoutScheduler.singleton())
        self._lock = sources[0].lock  # RxPY's own, as `amb` has it
        self._waiting = deque(enumerate(sources))
        self._running: list[_Runner[T]] = []
        self.failures: list[Exception] = []
        self._decided = False
        self._timer = SerialDisposable()
        self._delay = delay
        self._on_loss = on_loss

    def start_next(self, *_: Any) -> None:
        """Starts a source, if there is one left, and the clock of the one after it."""
        with self._lock:
            if self._decided or not self._waiting:
                return
            runner = _Runner(self, *self._waiting.popleft())
            self._running.append(runner)
            is_last = not self._waiting
        clock = self.scheduler or TimeoutScheduler.singleton()
        self._timer.disposable = Disposable() if is_last else clock.schedule_relative(self._delay, self.start_next)
        runner.run()

    def is_decided_for(self, runner: _Runner[T]) -> bool:
        """Ends the race, if it is not over, and says whether it is this one that won it."""
        with self._lock:
            if self._decided:
                return runner in self._running
            self._decided = True
            losers = [other for other in self._running if other is not runner]
            self._running = [runner]
        self._timer.dispose()
        for loser in losers:
            loser.dispose()
        for loser in losers:
            self._report(loser)
        return True

    def goes_on_without(self, runner: _Runner[T], error: Exception) -> bool:
        """Takes a runner out that has failed, unless the race is over, or was over with it."""
        with self._lock:
            if self._decided or not (self._waiting or len(self._running) > 1):
                return False
            self._running.remove(runner)
            self.failures.append(error)
            nobody_runs = not self._running
        self._report(runner, error)
        if nobody_runs:
            self.start_next()
        return True

    def dispose(self) -> None:
        with self._lock:
            self._decided = True
            left, self._running = self._running, []
        self._timer.dispose()
        for runner in left:
            runner.dispose()

    def _report(self, runner: _Runner[T], error: Exception | None = None) -> None:
        try:
            self._on_loss(runner.loss(error))
        except Exception as raised:  # noqa: BLE001 - the caller's, and told to the chain
            self.observer.on_error(raised)


class _Runner(abc.DisposableBase, Generic[T]):
    """One source in a race."""

    def __init__(self, race: _Race[T], index: int, source: Observable[T]) -> None:
        self._race = race
        self._index = index
        self._source = source
        self._subscription = SingleAssignmentDisposable()
        self._leading = Leading(race.observer, self._has_won)
        self._attempts: deque[Attempt] = deque()
        self._began = self._race.now()

    def run(self) -> None:
        with watching(self._attempts.append):
            self._subscription.disposable = subscribed(
                self._source, self._leading, self._on_error, self._on_completed, self._race.scheduler
            )

    def dispose(self) -> None:
        self._subscription.dispose()

    def loss(self, error: Exception | None) -> Loss:
        ids = tuple(attempt.generation_id for attempt in self._attempts if attempt.generation_id)
        return Loss(self._index, ids, self._race.now() - self._began, error)

    def _has_won(self) -> bool:
        return self._race.is_decided_for(self)

    def _on_error(self, error: Exception) -> None:
        helpful = self._leading.unstarted or worth_another_source(error)
        if helpful and self._race.goes_on_without(self, error):
            return
        if self._has_won():
            tell_attempts(error, self._race.failures)
            self._leading.pass_on()
            self._race.observer.on_error(error)

    def _on_completed(self) -> None:
        if self._has_won():
            self._leading.pass_on()
            self._race.observer.on_completed()


def _ignore(_: Loss) -> None:
    pass
