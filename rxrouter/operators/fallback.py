"""fallback(): the next source, where one fails before its first content."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter.operators._clock import clock_of
from rxrouter.operators._health import Health
from rxrouter.operators._routes import Leading, require_sources, subscribed, tell_attempts, worth_another_source
from rxrouter.operators._types import Operator

T = TypeVar("T")


def fallback(
    *others: Observable[T],
    on: Callable[[Exception], bool] = worth_another_source,
    health: Health | None = None,
    cooldown: float | None = None,
) -> Operator[T, T]:
    """Subscribe the next source where one fails before its first content: another model, another key, another server.

    It works on chunks and on what is made of them; of anything but chunks, the first value is content.

    Marble:
        source       -r-#(x)
        other           --a-b-|
        fallback()   -----a-b-|

    Args:
        *others: The sources to try, in this order, after the one that the operator is applied to.
        on: Returns whether the next source is tried after an error. By default after what another source may not have:
            all that is transient, statuses such as 401 to 404, damaged and cut answers, `EmptyAnswerError`; but not
            after a request that no source accepts (400, 422), unless the provider or a limit of its model refused it,
            nor where the reader's side ended the stream (`ClientClosedError`, `BudgetExceededError`, `GuardError`,
            `ContinuationRefusedError`, `GenerationStopped`, `SlowReaderError`).
        health: Which sources have failed lately, for all chains that are given the same object; they are left out.
            When all are, all are tried, the one first that has failed longest ago.
        cooldown: The same for this chain alone: short for `health=Health(cooldown=...)`.
    Emits: one source's values; what a source says before its first content is held until then or until its end.
    Errors: those after content, the last source's, those that `on` refuses, with what the others ended with as
        `attempts` on it; what `on` raised. A client whose loop is closed raises RuntimeError: the next source is tried.
    Cancels: the source that runs, on dispose.
    Source: OpenRouter's own `models` list falls back within one request and one key; a 200 that fails before its first
        content, and a 401, are beyond it (PEERS row 22, P12).

    Raises:
        TypeError: another source is not an Observable, `on` is not a function, or `health` is not a Health.
        ValueError: a cooldown less than 0, or one beside `health`.
    """
    require_sources(others)
    if not callable(on):
        raise TypeError(f"on must be a function of an error, got {type(on).__name__}")
    if health is None:
        health = Health(cooldown=cooldown or 0.0)
    elif cooldown is not None:
        raise ValueError("cooldown must be an argument of Health(...), got it beside health=")
    elif not isinstance(health, Health):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
        raise TypeError(f"health must be a Health(...), got {type(health).__name__}")

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            line = _Line((source, *others), on, health, observer, scheduler)
            line.start_next()
            return line.running

        return Observable(subscribe)

    return operator


class _Line(Generic[T]):
    """The sources of one subscription, of which one runs at a time."""

    def __init__(
        self,
        sources: Sequence[Observable[T]],
        on: Callable[[Exception], bool],
        health: Health,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.running = SerialDisposable()
        self._sources = sources
        self._on = on
        self._health = health
        self._observer = observer
        self._scheduler = scheduler
        self._now = clock_of(scheduler or TimeoutScheduler.singleton())
        self._failures: list[Exception] = []
        self._indices = deque(health.order(sources, self._now()))

    def start_next(self) -> None:
        index = self._indices.popleft()
        leading = Leading(self._observer, lambda: True)

        def on_error(error: Exception) -> None:
            try:
                helpful = leading.unstarted or self._on(error)
            except Exception as raised:  # noqa: BLE001 - the caller's `on`
                raised.__cause__ = error
                helpful, error = False, raised
            if helpful:
                self._health.failed(self._sources[index], self._now())
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
