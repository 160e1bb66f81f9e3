"""What operators with several sources have in common: leading chunks, errors that another source may not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxrouter._errors import (
    APIError,
    BudgetExceededError,
    ClientClosedError,
    ContinuationRefusedError,
    GenerationStopped,
    GuardError,
    RouterError,
    SlowReaderError,
    StatusError,
)
from rxrouter.operators._content import is_content

T = TypeVar("T")

# Chunks that are held for want of content; a source that says more than that, of whatever kind, is heard.
_MOST_HELD = 1000
# Where it was the reader's side that ended it: another source would not do better, and cost as much.
_READERS = (
    ClientClosedError,
    BudgetExceededError,
    GuardError,
    ContinuationRefusedError,
    GenerationStopped,
    SlowReaderError,
)
# A request that is wrong for every source, as a status, a code or a type.
_BAD_REQUEST = {400, 422, "invalid_request", "invalid_request_error", "bad_request", "invalid_prompt", "unprocessable"}
# Refusals with status 400 that another model may not have.
_OF_THE_MODEL = {
    *("context_length_exceeded", "max_tokens_exceeded", "token_limit_exceeded", "string_too_long"),
    *("model_not_found", "model_not_available", "not_found", "content_policy_violation", "content_filter", "refusal"),
    *("unsupported_image_format", "image_too_large", "image_too_small", "unsupported_parameter", "unsupported_value"),
}


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


def worth_another_source(error: Exception) -> bool:
    """Return whether another source (model, provider, key, server) may answer where this one failed.

    Not after a request that no source accepts (400 and 422, unless the provider behind the server or a limit of its
    model refused it), and not where the reader's side ended the stream.
    """
    if isinstance(error, APIError):
        return error.transient or error.provider is not None or not _is_bad_request(error)
    return isinstance(error, RouterError) and not isinstance(error, _READERS)


def _is_bad_request(error: APIError) -> bool:
    if error.error_type in _OF_THE_MODEL or error.code in _OF_THE_MODEL:
        return False
    status = error.status if isinstance(error, StatusError) else error.code
    return status in _BAD_REQUEST or (not isinstance(status, int) and error.error_type in _BAD_REQUEST)


def tell_attempts(error: Exception, before: Sequence[Exception]) -> None:
    """Puts on an error what was tried before, each cause once, however the sources themselves have tried."""
    if isinstance(error, RouterError):
        causes = dict.fromkeys(
            cause
            for attempt in (*before, error)
            for cause in (*(attempt.attempts if isinstance(attempt, RouterError) else ()), attempt)
        )
        error.attempts = tuple(cause for cause in causes if cause is not error)
