"""A scheduler's clock as operators read it: seconds, and cheap enough for every chunk."""

from __future__ import annotations

from collections.abc import Callable

from reactivex import abc

from rxrouter._source.loop import LoopScheduler


def clock_of(scheduler: abc.SchedulerBase) -> Callable[[], float]:
    """Tells the scheduler's time in seconds."""
    if isinstance(scheduler, LoopScheduler):
        return scheduler.seconds
    return lambda: scheduler.to_seconds(scheduler.now)
