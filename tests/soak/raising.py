"""Operators and readers that raise on purpose, and the recognition of their exceptions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxrouter import ChatChunk
from tests.soak.seen import Seen

T = TypeVar("T")

MOMENTS = ("next", "error", "completed", "dispose")
_LATEST = 20  # values before one raises


class Raised(Exception):  # noqa: N818 - an operator raises it, which is not an error of a stream
    """The mistake of an operator or of a reader."""


class RaisedBase(BaseException):
    """The same from a library whose exceptions derive from BaseException."""


class Raising:
    """Callbacks of which one raises: the n-th `next`, or the first of another kind.

    Args:
        chance: Draws the moment and the class.
    """

    def __init__(self, chance: random.Random) -> None:
        self.moment = chance.choice(MOMENTS)
        self.raised = 0
        self._kind = chance.choice([Raised, RaisedBase])
        self._left = chance.randrange(_LATEST) if self.moment == "next" else 0

    def __repr__(self) -> str:
        return f"{self._kind.__name__} in {self.moment}"

    def at(self, moment: str) -> None:
        """Raise, if the time for it has come."""
        if moment != self.moment:
            return
        if self._left:
            self._left -= 1
            return
        self.raised += 1
        raise self._kind(moment)

    def operator(self, source: Observable[T]) -> Observable[T]:
        """Pass everything on, but raise before the moment's notification is passed on."""

        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            def before(moment: str, action: Callable[..., object]) -> Callable[..., None]:
                def callback(*values: Any) -> None:
                    self.at(moment)
                    action(*values)

                return callback

            subscription = source.subscribe(
                before("next", observer.on_next),
                before("error", observer.on_error),
                before("completed", observer.on_completed),
                scheduler=scheduler,
            )
            return Disposable(before("dispose", subscription.dispose))

        return Observable(subscribe)


def is_made_up(error: BaseException | None) -> bool:
    """Return whether the exception, or the cause or a part of it, was raised here."""
    parts: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if parts:
        return all(map(is_made_up, parts))
    return error is not None and (isinstance(error, Raised | RaisedBase) or is_made_up(error.__cause__))


def subscribe_raising(source: Observable[ChatChunk], raising: Raising, seen: Seen) -> None:
    """Subscribe a reader of which one callback raises, after it has noted its value or ending."""

    def show(chunk: ChatChunk) -> None:
        seen.show(chunk)
        raising.at("next")

    def fail(error: Exception) -> None:
        seen.end(error)
        raising.at("error")

    def complete() -> None:
        seen.end()
        raising.at("completed")

    source.subscribe(show, fail, complete)


@asynccontextmanager
async def counting_faults() -> AsyncGenerator[list[dict[str, Any]]]:
    """Collect the reports to the loop's exception handler, but for the exceptions that are raised on purpose."""
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def note(_: object, context: dict[str, Any]) -> None:
        if not is_made_up(context.get("exception")):
            faults.append(context)

    loop.set_exception_handler(note)
    yield faults
    loop.set_exception_handler(before)
