"""record_marbles(): a picture of the run as it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.scheduler import TimeoutScheduler

from rxrouter._wire.restarted import Restarted
from rxrouter.operators._clock import clock_of
from rxrouter.operators._recording import COMPLETE, Recording

T = TypeVar("T")

_log = logging.getLogger("rxrouter")


def record_marbles(
    to: str | PathLike[str] | Callable[[str], object],
) -> Callable[[Observable[T]], Observable[T]]:
    """Draw what came when, as an SVG on a true axis of time, and pass it through untouched.

    Marble:
        source             -a-b-u-|
        record_marbles()   -a-b-u-|

    Args:
        to: The file to write, or what to do with the SVG's text. It is written when a run has ended, by itself or by
            its reader, and no other goes on. Each run has its lane: above a `retry` each attempt, below one what comes
            after a `Restarted`. What can't be written is told in the log `rxrouter`.
    Emits: what the source does, of any type; strokes are by kind for chunks, for text and for usage.
    Errors: the source's.
    Cancels: the source, on dispose.
    Source: memory is bounded: the last 12 runs, each in 1024 moments, which double as it goes on; values of one kind in
        one moment, or on one of about 580 pixels, are one stroke. A chunk takes 0.7 µs.
    """
    write: Callable[[str], object] = to if callable(to) else partial(Path(to).write_text, encoding="utf-8")

    def operator(source: Observable[T]) -> Observable[T]:
        recording = Recording()

        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            now = clock_of(scheduler or TimeoutScheduler.singleton())
            run = recording.begin(now())

            def on_next(value: T) -> None:
                nonlocal run
                if type(value) is Restarted:
                    run.end("restarted", now())
                    run = recording.begin(now())
                else:
                    run.add(value, now())
                observer.on_next(value)

            def on_error(error: Exception) -> None:
                end(type(error).__name__, failed=True)
                observer.on_error(error)

            def on_completed() -> None:
                end(COMPLETE)
                observer.on_completed()

            def end(ending: str, *, failed: bool = False) -> None:
                if not run.ending:
                    run.end(ending, now(), failed=failed)
                    if recording.over:
                        _write(recording, write)

            subscription = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return CompositeDisposable(subscription, Disposable(lambda: end("left")))

        return Observable(subscribe)

    return operator


def _write(recording: Recording, write: Callable[[str], object]) -> None:
    try:
        write(recording.picture())
    except Exception as error:  # noqa: BLE001 - a picture is not worth a stream
        _log.warning("the marbles of a run were not written: %s", error)
