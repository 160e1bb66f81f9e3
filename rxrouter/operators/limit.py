"""limit(): a permit for each stream."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.scheduler import TimeoutScheduler

from rxrouter._limiter import Limiter

T = TypeVar("T")


def limit(limiter: Limiter, *, tokens: int | None = None) -> Callable[[Observable[T]], Observable[T]]:
    """Subscribe the source only with a permit, which is held until the stream has ended or is disposed.

    Marble:
        source    -a-b-|
        limit()   -a-b-|

    Args:
        limiter: Who gives the permits, one after the other, to all who share it.
        tokens: What this request is charged until its usage is known; the limiter's estimate when None.
    Emits: what the source does.
    Errors: the source's; a 429 that names a pause makes all who wait do so until then.
    Cancels: the source, on dispose, which frees the permit; who still waits leaves the queue, and sends nothing.
    Source: limits that end with the headers let more streams through than they say (PEERS P22); OpenRouter's free
        models take 20 requests a minute (WIRE 7).

    Raises:
        ValueError: a request of that many tokens could never start.
    """
    charged = limiter.estimate(tokens)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            def start(permitted: abc.ObserverBase[T]) -> abc.DisposableBase:
                return source.subscribe(permitted, scheduler=scheduler)

            return limiter.enter(observer, start, scheduler or TimeoutScheduler.singleton(), charged)

        return Observable(subscribe)

    return operator
