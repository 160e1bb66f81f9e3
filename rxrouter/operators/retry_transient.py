"""retry_transient(): try again what may pass, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from reactivex import Observable, abc

from rxrouter.operators._retry_policy import RetryPolicy
from rxrouter.operators._retrying import Retrying
from rxrouter.operators.continue_from_partial import continue_from_partial

T = TypeVar("T")


def retry_transient(
    policy: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
) -> Callable[[Observable[T]], Observable[T]]:
    """Subscribe again, which sends and pays another request, after an error that may pass: 429, 5xx, a cut, silence.

    Marble:
        source              --#(x)
        again               --a-b-|
        retry_transient()   -------a-b-|

    Before the first content nobody sees it: what an attempt says before that is held, and said only if it gets there.
    So it is with an answer that is finished and empty (no text, reasoning, refusal, tool call or media, and a finish
    reason such as `stop`), unless the policy has `retry_empty=False`.
    After content the policy's `after_content` says what happens: `fail` passes the error; `restart` begins anew, and
    emits a `Restarted` before the new content, which the folds and displays of this library understand; `continue` is
    `continue_from_partial()`.

    Args:
        policy: How often, and when.
    Emits: the values of one attempt; with `restart`, of several, each from the second on behind a `Restarted`. In
        streams of other values than chunks each is content, but for comments and "".
    Errors: what is not transient, at once; the last attempt's, with those of the others as `attempts` on it, also
        EmptyAnswerError; one after content, with `fail`; one with a pause longer than `max_retry_after`, at once; what
        `retry_on` raised.
    Cancels: the attempt that runs, or the pause, on dispose.
    Source: RxPY's `retry` doubles the text and counts every error (RX 2f); PEERS P6, C.1; WIRE 13.11 on what may pass.

    Raises:
        TypeError: the policy is none.
    """
    if not isinstance(policy, RetryPolicy):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
        raise TypeError(f"policy is a RetryPolicy(...), not {type(policy).__name__}")

    if policy.after_content == "continue":
        return cast(Callable[[Observable[T]], Observable[T]], continue_from_partial(policy=policy))

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            retrying = Retrying(source, policy, observer, scheduler)
            retrying.start()
            return retrying

        return Observable(subscribe)

    return operator
