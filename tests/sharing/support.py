"""Generations for the tests of hubs: chunks as they are received, sources that say what they are told to, readers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxrouter import ChatChunk
from rxrouter.sharing import Hub, Log
from tests.support import proven, until

Logs = Callable[[], Log]
"""Makes the log of one node; what they make is one."""


def word(number: int) -> ChatChunk:
    """The chunk with this word, as it came: with fields that nobody knows, and odd spaces."""
    raw = b'{ "id":"gen-1","odd":%d, "choices":[{"index":0,"delta":{"content":"w%d "}}]}' % (number, number)
    chunk = msgspec.json.decode(raw, type=ChatChunk)
    chunk.received = raw
    return chunk


def words(count: int) -> list[bytes]:
    """The bytes of the first words."""
    return [word(number).raw for number in range(1, count + 1)]


class Source:
    """A source that counts who subscribes and who leaves."""

    def __init__(self) -> None:
        self.subscribed = 0
        self.left = 0
        self.said = 0
        self.observer: abc.ObserverBase[Any] = Subject[Any]()

    @property
    def chunks(self) -> Observable[ChatChunk]:
        def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            self.subscribed += 1
            self.observer = observer
            return Disposable(self._leave)

        return proven(Observable(subscribe))

    def _leave(self) -> None:
        self.left += 1

    def say(self, count: int = 1) -> None:
        for _ in range(count):
            self.said += 1
            self.observer.on_next(word(self.said))

    def end(self, error: Exception | None = None) -> None:
        self.observer.on_completed() if error is None else self.observer.on_error(error)


class Reader:
    """What one reader was told; it can wait for more."""

    def __init__(self, chunks: Observable[ChatChunk], on_next: Callable[[ChatChunk], None] = lambda _: None) -> None:
        self.read: list[bytes] = []
        self.endings: list[Exception | None] = []  # None for a good one

        def note(chunk: ChatChunk) -> None:
            self.read.append(chunk.raw)
            on_next(chunk)

        self._subscription = chunks.subscribe(note, self.endings.append, lambda: self.endings.append(None))

    def leave(self) -> None:
        self._subscription.dispose()

    async def until_read(self, count: int) -> None:
        await until(lambda: len(self.read) >= count)

    async def until_over(self) -> Exception | None:
        """The ending, when there was time for a second one."""
        await until(lambda: bool(self.endings))
        for _ in range(3):
            await asyncio.sleep(0)
        [ending] = self.endings
        return ending


async def started(hub: Hub, key: str, source: Source) -> None:
    """Begins a generation; returns when it makes its chunks."""
    hub.start(key, source.chunks)
    await until(lambda: source.subscribed == 1)


def facts(error: Exception | None) -> Any:
    """What can be known of an error, but for its own identity."""
    if error is None:
        return None
    known = {name: facts(value) if isinstance(value, Exception) else value for name, value in vars(error).items()}
    with suppress(KeyError):
        known["attempts"] = [facts(attempt) for attempt in known["attempts"]]
    return type(error), str(error), known, facts(_cause(error))


def _cause(error: Exception) -> Exception | None:
    return error.__cause__ if isinstance(error.__cause__, Exception) else None
