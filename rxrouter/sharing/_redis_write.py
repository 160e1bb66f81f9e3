"""Writing: takes what this process's generations say to Redis, keeps their leases, and learns when they have lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import Any

from rxrouter._errors import LogLostError, RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.sharing._entries import another, encode, encode_ending
from rxrouter.sharing._redis_keys import Id, Keys, claimed, fields
from rxrouter.sharing._redis_line import FENCED, Command, Line, Patience, Step, UnreachableError, take_turns
from rxrouter.sharing._redis_settings import Settings

BEATS = 3
"""In the time of a lease."""

_BATCH = 256  # chunks in one entry
_MOST_OWED = 10_000  # endings; beyond, the oldest is forgotten


class Writing:
    """One task for all generations of this process: each turn, what they have to say goes out as one write.

    Args:
        line: Nobody waits on it for long.
        settings: Of the log.
        on_given_up: Called with each generation that is given up because of Redis, and the error it ends with.
    """

    def __init__(self, line: Line, settings: Settings, on_given_up: Callable[[str, LogLostError], None]) -> None:
        self.writers: dict[str, RedisWriter] = {}
        self._line = line
        self._settings = settings
        self._on_given_up = on_given_up
        self._owed: dict[str, Owed] = {}
        self._buffered_bytes = 0
        self._beat_seconds = settings.lease / BEATS
        self._next_beat = 0.0
        self._turn: dict[RedisWriter, None] = {}  # who has something to say
        self._more: list[Command] = []
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def add(self, key: str, writer: RedisWriter) -> None:
        """A generation begins."""
        if key in self.writers:  # or Redis had not let this one begin
            self.writers[key].give_up(LogLostError("Redis has it no more"))
        self.writers[key] = writer
        self._wake()  # or nobody would beat for it before it speaks
        if self._closed:
            writer.give_up(LogLostError("it is closed"))

    def remove(self, key: str, writer: RedisWriter) -> None:
        """A generation is over."""
        self._turn.pop(writer, None)
        if self.writers.get(key) is writer:
            del self.writers[key]

    def speak(self, writer: RedisWriter) -> None:
        """Has its steps taken in the next turn."""
        self._turn[writer] = None
        self._wanted.set()

    def send(self, commands: list[Command]) -> None:
        """Has these sent in the next turn, if that is possible; nobody asks what became of them."""
        self._more += commands
        self._wake()

    def owe(self, keys: Keys, token: str, error: LogLostError, *, epoch: int | None = None) -> None:
        """Write this ending as soon as Redis takes it: readers here already have it, and all others are to get it."""
        until = asyncio.get_running_loop().time() + self._settings.keep
        owed = Owed(keys, token, error, until, epoch=epoch)
        self._owed[owed.name] = owed
        if len(self._owed) > _MOST_OWED:
            del self._owed[next(iter(self._owed))]
        self._wake()

    def hold(self, size: int) -> None:
        """So many bytes more, or less, wait for Redis; when they are too many, whoever has most of them is given up."""
        self._buffered_bytes += size
        if self._buffered_bytes > self._settings.buffer_bytes:
            greediest = max(self.writers.values(), key=lambda writer: writer.pending_bytes)
            greediest.fail(f"more than {self._settings.buffer_bytes} bytes wait for Redis")

    async def aclose(self, seconds: float) -> None:
        """Ends when every generation has its ending, or the time is up."""
        if waiting := [asyncio.ensure_future(writer.over.wait()) for writer in self.writers.values()]:
            _, late = await asyncio.wait(waiting, timeout=seconds)
            for wait in late:
                wait.cancel()
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._give_up(LogLostError("it is closed"))

    def _wake(self) -> None:
        self._wanted.set()
        if self._task is None and not self._closed:
            turns = take_turns(Patience(self._settings), self._take_turn, self._doubt, self._give_up)
            self._task = asyncio.get_running_loop().create_task(turns, name="rxrouter writes to Redis")

    async def _take_turn(self, until: float | None) -> None:
        await self._due()
        # An outage ends here to the second, also within an exchange: readers elsewhere count on it, see `Reading`.
        try:
            async with asyncio.timeout_at(until):
                await self._line.walk(self._steps())
        except TimeoutError as error:
            raise UnreachableError(asyncio.get_running_loop().time()) from error

    async def _due(self) -> None:
        """Returns when there is something to say, or a beat is due."""
        if not self.writers and not self._owed:
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
        more, self._more = self._more, []
        now = asyncio.get_running_loop().time()
        if now >= self._next_beat:
            self._next_beat = now + self._beat_seconds
            yield from chain.from_iterable(writer.beat() for writer in self.writers.values())
            yield from self._settle(now)
        yield from chain.from_iterable(writer.steps() for writer in turn)
        yield from map(Step, more)

    def _settle(self, now: float) -> Iterator[Step]:
        for name, owed in list(self._owed.items()):
            if owed.until <= now:
                del self._owed[name]
            else:
                yield from owed.steps(self._settings.lease)

    def _doubt(self) -> None:
        for writer in self.writers.values():
            writer.doubt()

    def _give_up(self, error: LogLostError) -> None:
        for key, writer in tuple(self.writers.items()):
            writer.give_up(another(error))
            if not self._closed:
                writer.owe(error)
                self._on_given_up(key, error)


class Owed:
    """The ending of a generation that was given up while Redis could not be written.

    Args:
        keys: Its names in Redis.
        token: Of the writer; another one's generation is left alone.
        error: The ending.
        until: When the log, if Redis still has it, is forgotten, by the loop's clock.
        epoch: The generation's; None if its claim had no reply.
    """

    def __init__(self, keys: Keys, token: str, error: LogLostError, until: float, *, epoch: int | None = None) -> None:
        self.name = keys.log
        self.until = until
        self._keys = keys
        self._token = token.encode()
        self._ending = encode_ending(error)
        self._epoch = epoch
        self._clock = asyncio.get_running_loop().time

    def steps(self, lease: float) -> Iterator[Step]:
        """Look for the log, then end it. A claim without a reply may begin one even after a look, but not much later.

        Args:
            lease: Seconds.
        """
        if self._epoch is not None:
            yield Step(self._keys.end(self._epoch, self._ending), self._settle, self._settle)
            return

        def seen(first: list[Any]) -> None:
            try:
                begun = claimed(0, first)
            except LogLostError:
                begun = None
            if begun is not None and begun.token == self._token:
                self._epoch = begun.epoch
            elif begun is not None:
                self._settle(None)
            else:
                self.until = min(self.until, self._clock() + lease)

        yield Step(self._keys.first(), self._settle, seen)

    def _settle(self, _: object) -> None:
        self.until = 0.0


class RedisWriter:
    """Writes one generation: the chunks as they are acknowledged, then the ending.

    Each entry has an id above the one before it, and the ending one above them all: so once anybody has written an
    ending, Redis itself refuses whatever this writer still says.
    """

    def __init__(self, writing: Writing, keys: Keys, *, token: str, epoch: int, on_lost: Callable[[], None]) -> None:
        self.over = asyncio.Event()
        self.error: RouterError | None = None  # why it was given up
        self.pending_bytes = 0
        self._writing = writing
        self._keys = keys
        self._token = token
        self._epoch = epoch
        self._on_lost = on_lost
        self._written = 0  # chunks that Redis has acknowledged
        self._sent = 0  # chunks in the entry that has no reply yet
        self._pending: deque[bytes] = deque()  # those after them
        self._ending: bytes | None = None
        self._doubt = False  # what Redis has is to be looked at first
        writing.add(keys.key, self)

    def append(self, chunk: ChatChunk) -> None:
        """See `Writer`."""
        entry = encode(chunk)
        if self._ending is None and not self.over.is_set():
            self._pending.append(entry)
            self._writing.speak(self)
            self._hold(len(entry))

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
        yield Step(self._keys.renew(self._token, only_if_held=True), self.give_up, self._renewed)

    def steps(self) -> Iterator[Step]:
        """What is to be said next; more only when that is acknowledged."""
        if self.over.is_set():
            return
        if self._doubt:
            yield Step(self._keys.renew(self._token, only_if_held=False))  # before the look: who ends it takes it
            yield Step(self._keys.last(1), self.give_up, self._looked)
        elif self._pending:
            # An entry without a reply may still arrive, even behind the look that misses it. So it is repeated as it
            # was: of two entries with one id and one content, Redis takes one.
            self._sent = self._sent or min(len(self._pending), _BATCH)
            batch = list(islice(self._pending, self._sent))
            at = Id(self._epoch, self._written + self._sent)
            yield Step(self._keys.add(at, *chain.from_iterable(enumerate(batch))), self.give_up, self._added)
        elif self._ending is not None:
            yield Step(self._keys.end(self._epoch, self._ending), self.give_up, self._ended)

    def fail(self, reason: str) -> None:
        """Ends it with what is written, and an error."""
        self._forget_pending()
        self._ending = encode_ending(LogLostError(reason))
        self._writing.speak(self)
        self._on_lost()

    def give_up(self, error: RouterError) -> None:
        """Nothing more can be written; who reads elsewhere will find the lease run out."""
        if not self.over.is_set():
            self.error = error
            self._over()

    def owe(self, error: LogLostError) -> None:
        """Have the ending written as soon as Redis takes it."""
        self._writing.owe(self._keys, self._token, error, epoch=self._epoch)

    def _renewed(self, reply: Any) -> None:
        if reply is None:  # run out while Redis was away, or taken by who has written the ending
            self.doubt()
        else:
            # Only now: a full Redis would take this one without the other.
            self._writing.send([self._keys.keep()])

    def _added(self, reply: Any) -> None:
        if reply is None:
            self._over()
        elif reply is FENCED:
            self.doubt()
        else:
            self._acknowledge(self._sent)

    def _acknowledge(self, count: int) -> None:
        if count:
            self._sent = 0
        self._written += count
        self._hold(-sum(len(self._pending.popleft()) for _ in range(min(count, len(self._pending)))))
        if self._pending or self._ending is not None:
            self._writing.speak(self)

    def _looked(self, reply: list[Any]) -> None:
        """Goes on from what Redis has, if that is still this generation, and no less than it has acknowledged."""
        self._doubt = False
        last = fields(reply[0])[0] if reply else None
        if last is None or last.epoch != self._epoch:
            self._over()
        elif last.number < self._written:
            self.fail("Redis has forgotten entries that it had acknowledged")
        else:
            self._acknowledge(last.number - self._written)

    def _ended(self, _: Any) -> None:
        """By us, or by somebody who was faster."""
        self._over()

    def _over(self) -> None:
        if not self.over.is_set():
            self.over.set()
            self._forget_pending()
            self._writing.remove(self._keys.key, self)
            self._on_lost()

    def _forget_pending(self) -> None:
        self._pending.clear()
        self._hold(-self.pending_bytes)

    def _hold(self, size: int) -> None:
        self.pending_bytes += size
        self._writing.hold(size)
