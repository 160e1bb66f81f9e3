"""Reading: one blocking read for all generations that are followed in this process, and for its bell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

from rxrouter._errors import LogLostError, ProducerLostError, RouterError, UnknownGenerationError
from rxrouter.sharing._entries import another, decode, decode_ending, encode_ending
from rxrouter.sharing._redis_keys import BY, END, Id, Keys, fields
from rxrouter.sharing._redis_line import Line, Patience, UnreachableError
from rxrouter.sharing._redis_settings import Settings
from rxrouter.sharing._redis_write import Step
from rxrouter.sharing.tape import Tape

_COUNT = 100  # entries of one stream in one reply
_TURN = 0.005  # seconds that the loop is kept with what was read
# Seconds between two reads, for each generation that is followed: a read names them all, which takes Redis and us some
# 5 µs for each; so it takes a tenth of the time at most, and nobody sees the pause.
_PAUSE, _LONGEST_PAUSE = 50e-6, 0.01


class Reading:
    """One task for all followers of this process.

    Args:
        line: Its own; it blocks in the read.
        settings: Of the log.
        bell: The stream by which this process is woken.
        ring: Rings the bell.
        heard: Called with each key that the bell was rung for.
    """

    def __init__(
        self, line: Line, settings: Settings, *, bell: str, ring: Callable[[], None], heard: Callable[[str], None]
    ) -> None:
        self._line = line
        self._bell = bell
        self._heard = heard
        self._heard_to = b"0-0"
        self._lease = settings.lease
        self._ring = ring
        self._patience = Patience(settings)
        self._followed: dict[str, Followed] = {}  # by key
        self._news: list[Followed] = []
        self._next_look = 0.0
        self._blocked = False
        self._task: asyncio.Task[None] | None = None

    def follow(self, keys: Keys) -> Tape:
        """The generation under this key, from its first entry on."""
        followed = self._followed.get(keys.key)
        if followed is None:
            followed = self._followed[keys.key] = Followed(keys, self._forget)
            self._news.append(followed)
            self.start()
            if self._blocked:
                self._blocked = False  # one ring is enough
                self._ring()
        return followed.tape

    def start(self) -> None:
        """Begins to listen."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="rxrouter reads from Redis")

    async def aclose(self) -> None:
        """Listens no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _forget(self, followed: Followed) -> None:
        if self._followed.get(followed.key) is followed:
            del self._followed[followed.key]

    async def _run(self) -> None:
        while True:
            try:
                await self._look()
                await self._read()
            except UnreachableError as error:
                await self._bear(error)
            else:
                self._patience.reset()

    async def _look(self) -> None:
        """Whether what is new is there, and what is silent still is; ends what nobody writes any more."""
        news, self._news = self._news, []
        await self._take(step for followed in news for step in followed.exists())
        if (now := asyncio.get_running_loop().time()) >= self._next_look:
            self._next_look = now + self._lease / 2
            # A lease may have run out while Redis was away; its writer is to have the time to renew it.
            judge = self._line.since is not None and now - self._line.since > self._lease
            await self._take(step for followed in self._all() for step in followed.look(judge=judge))
            await self._take(step for followed in self._all() for step in followed.declare())

    def _all(self) -> tuple[Followed, ...]:
        return tuple(self._followed.values())

    async def _take(self, steps: Iterator[Step]) -> None:
        taken = list(steps)
        if taken:
            replies = await self._line.ask(command for command, _ in taken)
            for (_, take), reply in zip(taken, replies, strict=True):
                take(reply)

    async def _read(self) -> None:
        """The one blocking read."""
        streams: dict[bytes, Followed | None] = {followed.stream: followed for followed in self._all()}
        ids = [followed.read_to for followed in self._all()]
        block = 0.0 if self._news else self._next_look - asyncio.get_running_loop().time()
        command = ("XREAD", "COUNT", _COUNT, "BLOCK", max(1, round(block * 1000)), "STREAMS")
        self._blocked = True
        try:
            [reply] = await self._line.ask([(*command, self._bell, *streams, self._heard_to, *ids)], blocks=block)
        finally:
            self._blocked = False
        now = asyncio.get_running_loop().time
        until = now() + _TURN
        for name, entries in _streams(reply):
            if now() > until:
                await asyncio.sleep(0)
                until = now() + _TURN
            followed = streams.get(name)
            if followed is None:
                self._listen(entries)
            else:
                followed.take(entries)
        await asyncio.sleep(min(_PAUSE * len(streams), _LONGEST_PAUSE))

    def _listen(self, entries: list[Any]) -> None:
        for text, (_, key) in entries:
            self._heard_to = text
            self._heard(key.decode())

    async def _bear(self, error: UnreachableError) -> None:
        self._next_look = 0.0
        for followed in self._all():
            followed.silent = True
        try:
            await self._patience.pause(error)
        except LogLostError as lost:
            for followed in self._all():
                followed.tape.end(another(lost))


class Followed:
    """One generation that is read here: where its tape comes from.

    Args:
        keys: Its names in Redis.
        on_over: Called when nobody reads it any more, or when it has come to its end.
    """

    def __init__(self, keys: Keys, on_over: Callable[[Followed], None]) -> None:
        self.tape = Tape(on_empty=lambda: on_over(self), on_over=lambda: on_over(self))
        self.key = keys.key
        self.stream = keys.log.encode()
        self.read_to = b"0-0"
        self.silent = False  # nothing has come since the last look
        self._keys = keys
        self._epoch: int | None = None
        self._orphaned = False

    def exists(self) -> Iterator[Step]:
        """Whether there is such a log."""
        yield self._keys.first(), self._found

    def look(self, *, judge: bool) -> Iterator[Step]:
        """Whether the log is there, the same, and somebody writes it; asked where nothing has come for a while."""
        if self.silent and self._epoch is not None:
            yield self._keys.first(), self._is_same
            if judge:
                yield self._keys.holder(), self._is_held
        self.silent = True

    def declare(self) -> Iterator[Step]:
        """Writes the ending for who can't any more; if somebody else does, that one counts, and comes by the read."""
        if self._orphaned and self._epoch is not None:
            self._orphaned = False
            yield self._keys.add(Id(self._epoch + 1, 0), END, encode_ending(ProducerLostError())), _ignore
            yield self._keys.keep(), _ignore

    def take(self, entries: list[Any]) -> None:
        """What was read."""
        self.silent = False
        for entry in entries:
            at, pairs = fields(entry)
            self.read_to = entry[0]
            try:
                self._put(at, pairs)
            except RouterError as error:
                self.tape.end(error)
            if self.tape.over:
                break

    def _put(self, at: Id, pairs: list[bytes]) -> None:
        if pairs[0] == BY and self._epoch is None:
            self._epoch = at.epoch
        elif pairs[0] == END and at.epoch - 1 == self._epoch:
            self.tape.end(decode_ending(pairs[1]))
        elif at.epoch == self._epoch and at.number == len(self.tape.entries) + len(pairs) // 2:
            for entry in pairs[1::2]:
                self.tape.on_next(decode(entry))
        else:
            raise LogLostError("Redis has another one under its key, or only a part of it")

    def _found(self, reply: list[Any]) -> None:
        if not reply:
            self.tape.end(UnknownGenerationError(self.key))

    def _is_same(self, reply: list[Any]) -> None:
        if not reply:
            self.tape.end(LogLostError("Redis has it no more"))
        elif fields(reply[0])[0].epoch != self._epoch:
            self.tape.end(LogLostError("Redis has another one under its key"))

    def _is_held(self, reply: bytes | None) -> None:
        self._orphaned = reply is None


def _streams(reply: Any) -> list[Any]:
    """The streams of which something was read, by RESP3 or RESP2, and nothing."""
    if isinstance(reply, dict):
        reply = cast("dict[bytes, Any]", reply).items()
    return list(reply or ())


def _ignore(_: Any) -> None:
    pass
