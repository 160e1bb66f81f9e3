"""Writing: takes what this process's generations say to Redis, keeps their leases, and learns when they have lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any, TypeAlias

from rxrouter._errors import LogLostError, RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.sharing._entries import encode, encode_ending
from rxrouter.sharing._redis_keys import END, Id, Keys, fields
from rxrouter.sharing._redis_line import FENCED, Command, Line, Patience, UnreachableError
from rxrouter.sharing._redis_settings import Settings

Step: TypeAlias = tuple[Command, Callable[[Any], None]]
"""A command, and what takes its reply."""

_BATCH = 256  # chunks in one entry
_BEATS = 3  # in the time of a lease


class Writing:
    """One task for all generations of this process: each turn, what they have to say goes out as one write.

    Args:
        line: Nobody waits on it for long.
        settings: Of the log.
    """

    def __init__(self, line: Line, settings: Settings) -> None:
        self.writers: dict[str, RedisWriter] = {}
        self.buffered_bytes = 0
        self.buffer_bytes = settings.buffer_bytes
        self._line = line
        self._beat_seconds = settings.lease / _BEATS
        self._next_beat = 0.0
        self._patience = Patience(settings)
        self._turn: dict[RedisWriter, None] = {}  # who has something to say
        self._more: list[Command] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, key: str, writer: RedisWriter) -> None:
        """A generation begins."""
        self.writers[key] = writer
        self._start()

    def remove(self, key: str) -> None:
        """A generation is over."""
        self._turn.pop(self.writers.pop(key), None)

    def speak(self, writer: RedisWriter) -> None:
        """Has its steps taken in the next turn."""
        self._turn[writer] = None
        self._wanted.set()

    def send(self, commands: list[Command]) -> None:
        """Has these sent in the next turn, if that is possible; nobody asks what became of them."""
        self._more += commands
        self._wanted.set()
        self._start()

    async def aclose(self, seconds: float) -> None:
        """Ends when every generation has its ending, or the time is up."""
        if waiting := [asyncio.ensure_future(writer.over.wait()) for writer in self.writers.values()]:
            _, late = await asyncio.wait(waiting, timeout=seconds)
            for wait in late:
                wait.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rxrouter writes to Redis")

    async def _run(self) -> None:
        while True:
            await self._due()
            steps = list(self._steps())
            more, self._more = self._more, []
            if not steps and not more:
                continue
            try:
                replies = await self._line.ask([*(command for command, _ in steps), *more])
            except UnreachableError as error:
                await self._bear(error)
                continue
            self._patience.reset()
            for (_, take), reply in zip(steps, replies, strict=False):
                take(reply)

    async def _due(self) -> None:
        """Returns when there is something to say, or a beat is due."""
        if not self.writers:
            await self._wanted.wait()
            return
        try:
            async with asyncio.timeout_at(self._next_beat):
                await self._wanted.wait()
        except TimeoutError:
            pass

    def _steps(self) -> Iterator[Step]:
        self._wanted.clear()
        turn, self._turn = self._turn, {}
        now = asyncio.get_running_loop().time()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            yield from chain.from_iterable(writer.beat() for writer in self.writers.values())
        yield from chain.from_iterable(writer.steps() for writer in turn)

    async def _bear(self, error: UnreachableError) -> None:
        for writer in self.writers.values():
            writer.doubt()
        try:
            await self._patience.pause(error)
        except LogLostError:
            for writer in tuple(self.writers.values()):
                writer.give_up()


class RedisWriter:
    """Writes one generation: the chunks as they are acknowledged, then the ending.

    Each entry has an id above the one before it, and the ending one above them all: so once anybody has written an
    ending, Redis itself refuses whatever this writer still says.
    """

    def __init__(self, writing: Writing, keys: Keys, *, token: str, epoch: int, on_lost: Callable[[], None]) -> None:
        self.over = asyncio.Event()
        self.given_up = False
        self._writing = writing
        self._keys = keys
        self._token = token
        self._epoch = epoch
        self._on_lost = on_lost
        self._written = 0  # chunks that Redis has acknowledged
        self._sent = 0  # chunks in the entry on its way
        self._pending: deque[bytes] = deque()  # those after them
        self._ending: bytes | None = None
        self._doubt = False  # what Redis has is to be looked at first
        writing.add(keys.key, self)

    def append(self, chunk: ChatChunk) -> None:
        """See `Writer`."""
        entry = encode(chunk)
        if self._ending is None:
            self._pending.append(entry)
            self._writing.buffered_bytes += len(entry)
            self._writing.speak(self)
            if self._writing.buffered_bytes > self._writing.buffer_bytes:
                self._fail(f"more than {self._writing.buffer_bytes} bytes wait for Redis")

    def end(self, error: RouterError | None) -> None:
        """See `Writer`."""
        if self._ending is None:
            self._ending = encode_ending(error)
            self._writing.speak(self)

    def doubt(self) -> None:
        """Whether the last steps were taken is unknown, or whether the log is still ours."""
        self._doubt = True
        self._writing.speak(self)

    def beat(self) -> Iterator[Step]:
        """The signs of life."""
        yield self._keys.renew(self._token, only_if_held=True), self._renewed
        yield self._keys.keep(), _ignore

    def steps(self) -> Iterator[Step]:
        """What is to be said next; more only when that is acknowledged."""
        if self.over.is_set():
            return
        if self._doubt:
            yield self._keys.renew(self._token, only_if_held=False), _ignore  # before the look: who ends it takes it
            yield self._keys.last(1), self._looked
        elif self._pending:
            batch = list(islice(self._pending, _BATCH))
            self._sent = len(batch)
            at = Id(self._epoch, self._written + self._sent)
            yield self._keys.add(at, *chain.from_iterable(enumerate(batch))), self._added
        elif self._ending is not None:
            yield self._keys.add(Id(self._epoch + 1, 0), END, self._ending), self._ended
            yield self._keys.keep(), _ignore
            yield self._keys.release(), _ignore

    def give_up(self) -> None:
        """Redis was out of reach for too long; who reads elsewhere will find the lease run out."""
        self.given_up = True
        self._over()

    def _renewed(self, reply: Any) -> None:
        if reply is None:  # run out while Redis was away, or taken by who has written the ending
            self.doubt()

    def _added(self, reply: Any) -> None:
        if reply is None:
            self._over()
        elif reply is FENCED:
            self.doubt()
        else:
            self._acknowledge(self._sent)

    def _acknowledge(self, count: int) -> None:
        self._written += count
        for _ in range(min(count, len(self._pending))):
            self._writing.buffered_bytes -= len(self._pending.popleft())
        if self._pending or self._ending is not None:
            self._writing.speak(self)

    def _looked(self, reply: list[Any]) -> None:
        """Goes on from what Redis has, if that is still this generation, and no less than it has acknowledged."""
        self._doubt = False
        last = fields(reply[0])[0] if reply else None
        if last is None or last.epoch != self._epoch:
            self._over()
        elif last.number < self._written:
            self._fail("Redis has forgotten entries that it had acknowledged")
        else:
            self._acknowledge(last.number - self._written)

    def _ended(self, _: Any) -> None:
        """By us, or by somebody who was faster."""
        self._over()

    def _fail(self, reason: str) -> None:
        self._forget_pending()
        self._ending = encode_ending(LogLostError(reason))
        self._writing.speak(self)
        self._on_lost()

    def _over(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self._forget_pending()
            self._writing.remove(self._keys.key)
            self._on_lost()

    def _forget_pending(self) -> None:
        self._writing.buffered_bytes -= sum(map(len, self._pending))
        self._pending.clear()


def _ignore(_: Any) -> None:
    pass
