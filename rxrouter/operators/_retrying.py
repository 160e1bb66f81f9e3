"""One subscription of a retry: one attempt after the other, of which the reader sees one answer."""

from __future__ import annotations

from contextvars import Context, copy_context
from functools import partial
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import SerialDisposable, SingleAssignmentDisposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter._chain import forgive_failures, reject_answer
from rxrouter._errors import EmptyAnswerError
from rxrouter._gate import as_exception
from rxrouter._source.loop import LoopScheduler
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._emptiness import empty_answer
from rxrouter.operators._fanout import raise_soon
from rxrouter.operators._retry_policy import RetryPolicy
from rxrouter.operators._routes import Leading, tell_attempts


class Retrying(abc.DisposableBase):
    """Subscribes the source again after what may pass.

    Always by the scheduler, so that no stack grows by it; and always in the context of the first time, which has who
    watches the chain and who may pause it, whatever the pause was spent on.
    """

    def __init__(
        self,
        source: Observable[Any],
        policy: RetryPolicy,
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._source = source
        self._policy = policy
        self._observer = observer
        self._scheduler = scheduler
        self._running = SerialDisposable()  # the attempt, or the pause before the next
        self._context = Context()  # of the last attempt
        self._attempts = 1
        self._failures: list[Exception] = []  # since they were counted anew
        self._shown = False  # the reader has seen content

    def start(self) -> None:
        """Begins an attempt."""
        leading = Leading(self._observer, self._begin)
        context = copy_context()

        def on_error(error: Exception) -> None:
            self._failed(error, leading, context)

        def on_completed() -> None:
            if not leading.over:
                if (empty := self._empty(leading.held)) is not None:
                    context.run(reject_answer)
                    self._failed(empty, leading, context)
                    return
                self._begin()
                leading.pass_on()
            self._observer.on_completed()

        subscription = SingleAssignmentDisposable()  # in place before a source that fails at once sets the pause
        self._running.disposable = subscription
        subscription.disposable = self._next().subscribe(
            leading.on_next, on_error, on_completed, scheduler=self._scheduler
        )

    def dispose(self) -> None:
        self._running.dispose()

    def _next(self) -> Observable[Any]:
        """What the attempt subscribes to."""
        return self._source

    def _empty(self, held: list[Any]) -> EmptyAnswerError | None:
        """Return the error of an attempt that has completed without content; None where that may be."""
        return empty_answer(held) if self._policy.retry_empty else None

    def _announce(self) -> None:
        """The attempt has content: only now what another has shown is void, for there is something in its place."""
        self._observer.on_next(Restarted(attempt=self._attempts, cause=self._failures[-1]))

    def _begin(self) -> bool:
        """Called at the first content of each attempt, or at its end."""
        if self._shown:
            self._announce()
        self._shown = True
        if self._policy.count_anew:
            self._failures = []
        return True

    def _failed(self, error: Exception, leading: Leading[Any], context: Context) -> None:
        verdict = self._verdict(error)
        if verdict is not error:
            self._failures.append(error)
        if isinstance(verdict, Exception):
            if not self._shown:
                leading.pass_on()
            self._end(verdict)
        else:
            self._attempts += 1
            scheduler = self._scheduler or TimeoutScheduler.singleton()
            self._context = context
            self._running.disposable = scheduler.schedule_relative(verdict, self._again, context)
            if isinstance(scheduler, LoopScheduler):
                # The source may be of another client, whose thread this is.
                scheduler.call(partial(scheduler.pauses.add, self))

    def dismiss(self, error: Exception) -> None:
        """End the chain in its pause; an exception that an operator below raises ends no other chain."""
        if self._running.is_disposed:
            return
        try:
            self._context.run(self._end, error)
        except BaseException as raised:  # noqa: BLE001 - an operator may raise anything
            raise_soon(as_exception(raised), self._scheduler)

    def _verdict(self, error: Exception) -> float | Exception:
        """Seconds until the next attempt, or what it all ends with."""
        if self._shown and self._policy.after_content == "fail":
            return error
        try:
            pause = self._policy.pause(error, len(self._failures) + 1)
        except Exception as raised:  # noqa: BLE001 - the caller's `retry_on`
            raised.__cause__ = error
            return raised
        return error if pause is None else pause

    def _again(self, _: abc.SchedulerBase, context: Any) -> None:
        if isinstance(self._scheduler, LoopScheduler):
            self._scheduler.pauses.discard(self)
        try:
            context.run(self._start_again)
        except Exception as error:  # noqa: BLE001 - a client or a loop that has been closed meanwhile
            self._end(error)

    def _start_again(self) -> None:
        forgive_failures()
        self.start()

    def _end(self, error: Exception) -> None:
        tell_attempts(error, self._failures)
        self._observer.on_error(error)
