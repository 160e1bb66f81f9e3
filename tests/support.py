"""What tests share: a client beside the server it talks to, what a stream did, and where the recordings are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest
from reactivex import Observable, abc

from rxrouter import OpenRouter
from rxrouter._chain import SourceProof
from rxrouter.testing import Simulator

T = TypeVar("T")

SHARED = Path(__file__).parent.parent.parent / "shared"  # beside the checkout, where there is one

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the recordings are not part of the project")


@asynccontextmanager
async def served(answer: Any = None, **options: Any) -> AsyncGenerator[tuple[OpenRouter, Simulator]]:
    """A client and the simulator that it asks; `options` are the client's, but for `fault`, which is the server's."""
    async with (
        Simulator(answer, fault=options.pop("fault", None)) as simulator,
        OpenRouter("sk-test", base_url=simulator.base_url, **options) as client,
    ):
        yield client, simulator


def proven(source: Observable[T]) -> Observable[T]:
    """The source with the proof of an answer that has finished, as a client's request has it."""

    def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        proof = SourceProof()

        def on_error(error: Exception) -> None:
            proof.close()
            observer.on_error(error)

        def on_completed() -> None:
            proof.finish()
            observer.on_completed()

        return source.subscribe(observer.on_next, on_error, on_completed, scheduler=scheduler)

    return Observable(subscribe)


class Observed(Generic[T]):
    """An observer that keeps what it was told, and can be waited for."""

    def __init__(self) -> None:
        self.values: list[T] = []
        self.endings: list[Exception | None] = []  # None for completion; more than one is a broken promise
        self.over = asyncio.Event()

    def on_next(self, value: T) -> None:
        self.values.append(value)

    def on_error(self, error: Exception) -> None:
        self.endings.append(error)
        self.over.set()

    def on_completed(self) -> None:
        self.endings.append(None)
        self.over.set()


def told(stderr: str) -> str:
    """What a program said, without what asyncio's debug mode says of the machine: that a callback took long."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("Executing <"))


async def until(true: Callable[[], bool]) -> None:
    """Lets the loop turn until something is so that no event tells of; the test's time limit is the only one."""
    while not true():  # noqa: ASYNC110 - polled, because a server's thread or socket has no event for it
        await asyncio.sleep(0)


async def observe(source: Observable[T]) -> Observed[T]:
    """Subscribes, waits for the ending, and gives whatever else comes a chance to break the promise that none does."""
    seen = Observed[T]()
    source.subscribe(seen.on_next, seen.on_error, seen.on_completed)
    await seen.over.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(seen.endings) == 1
    return seen
