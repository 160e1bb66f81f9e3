"""Reading: one blocking read for all generations that are followed in this process, and for its bell."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any, cast

from redis.exceptions import ResponseError

from rxrouter._errors import LogLostError, ProducerLostError, UnknownGenerationError
from rxrouter.sharing._entries import another, decode, decode_ending, encode_ending
from rxrouter.sharing._redis_keys import BY, END, Id, Keys, claimed, fields
from rxrouter.sharing._redis_line import UNWRITABLE, Line, Step, UnreachableError, lost_by, take_turns
from rxrouter.sharing._redis_settings import Settings
from rxrouter.sharing._redis_write import BEATS
from rxrouter.sharing.tape import Tape

# A reply is in memory as a whole, and has its time; an entry has up to 256 chunks. Who keeps up finds few entries in a
# stream; the streams with more are read by turns, so many of them, and of all of them so many entries, at once.
_COUNT, _LONGEST_COUNT = 4, 100
_BEHIND, _BEHIND_COUNT = 256, 512
_TURN = 0.005  # seconds that the loop is kept with what was read
# Seconds between two reads, for each generation that is followed: a read names them all, which takes Redis and us some
# 5 µs for each; so it takes a tenth of the time at most, and nobody sees the pause.
_PAUSE, _LONGEST_PAUSE = 50e-6, 0.01
_LOOK = 0.5  # of a lease, between two looks at a generation that is silent
_PARTS, _PART = 4, 256  # in which they are looked at: so many, unless they would be smaller


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
        self._settings = settings
        self._bell = bell
        self._heard = heard
        self._heard_to = b"0-0"
        self._ring = ring
        self._followed: dict[str, Followed] = {}  # by key; those that are behind in the order of their turns
        self._news: list[Followed] = []
        self._next_look = 0.0
        self._until = 0.0  # the loop may be kept
        self._blocked = False
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def follow(self, keys: Keys) -> Tape:
        """The generation under this key, from its first entry on."""
        followed = self._followed.get(keys.key)
        if followed is None:
            followed = self._followed[keys.key] = Followed(keys, self._settings.lease, self._forget)
            self._news.append(followed)
            self.start()
            if self._blocked:
                self._blocked = False  # one ring is enough
                self._ring()
            if self._closed:
                self._lose(LogLostError("it is closed"))
        return followed.tape

    def start(self) -> None:
        """Begins to listen."""
        if self._task is None and not self._closed:
            turns = take_turns(self._settings, self._take_turn, self._doubt, self._lose)
            self._task = asyncio.get_running_loop().create_task(turns, name="rxrouter reads from Redis")

    async def aclose(self) -> None:
        """Listens no more."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._lose(LogLostError("it is closed"))

    def _forget(self, followed: Followed) -> None:
        if self._followed.get(followed.key) is followed:
            del self._followed[followed.key]

    def _all(self) -> tuple[Followed, ...]:
        return tuple(self._followed.values())

    async def _take_turn(self) -> None:
        news, self._news = self._news, []
        await self._line.walk(step for followed in news for step in followed.exists())
        if asyncio.get_running_loop().time() >= self._next_look:
            await self._look()
        if behind := [followed for followed in self._all() if followed.behind]:
            turn = behind[:_BEHIND]
            await self._read(turn, min(_LONGEST_COUNT, _BEHIND_COUNT // len(turn)))
        block = 0.0 if behind or self._news else self._next_look - asyncio.get_running_loop().time()
        await self._read([followed for followed in self._all() if not followed.behind], _COUNT, block)

    async def _look(self) -> None:
        """Whether what is silent is still there, and written; ends what nobody writes any more."""
        now = asyncio.get_running_loop().time
        part = max(_PART, len(self._followed) // _PARTS)
        parts = 1 + len(self._followed) // part
        due = sorted((one for one in self._all() if one.due <= now()), key=lambda one: one.due)[:part]
        # A lease may have run out while Redis was away; its writer is to have the time to renew it.
        judge = self._line.since is not None and now() - self._line.since > self._settings.lease
        await self._line.walk(step for followed in due for step in followed.look(judge=judge))
        orphans = [followed for followed in due if followed.orphaned]
        try:
            await self._line.walk(step for followed in orphans for step in followed.declare())
        except UnreachableError as error:
            if not isinstance(error.__cause__, UNWRITABLE):
                raise
            for followed in orphans:  # nobody could be told more
                followed.tape.end(ProducerLostError())
        self._next_look = now() + self._settings.lease * _LOOK / parts  # a look that took long says little

    async def _read(self, followed: list[Followed], count: int, block: float = 0.0) -> None:
        """One read of these, and the bell."""
        blocking = ("BLOCK", max(1, round(block * 1000))) if block > 0 else ()
        streams = {one.stream: one for one in followed}
        ids = [one.read_to for one in followed]
        self._blocked = block > 0
        try:
            [reply] = await self._line.ask(
                [("XREAD", "COUNT", count, *blocking, "STREAMS", self._bell, *streams, self._heard_to, *ids)],
                blocks=max(0.0, block),
            )
        finally:
            self._blocked = False
        if isinstance(reply, ResponseError):
            await self._search(followed, reply)
            return
        for one in followed:
            one.behind = False
        for name, entries in _streams(reply):
            if name not in streams:
                self._listen(entries)
            else:
                if len(entries) == count:
                    self._postpone(streams[name])
                await self._hand(streams[name], entries)
        await asyncio.sleep(min(_PAUSE * (1 + len(followed)), _LONGEST_PAUSE))

    async def _hand(self, followed: Followed, entries: list[Any]) -> None:
        """Gives it what was read; with the loop's turn between, where that takes long."""
        now = asyncio.get_running_loop().time
        for entry in entries:
            if now() > self._until:
                await asyncio.sleep(0)
                self._until = now() + _TURN
            followed.take(entry)

    def _postpone(self, followed: Followed) -> None:
        """There is more; it is behind, and behind those that are."""
        followed.behind = True
        if followed.key in self._followed:
            self._followed[followed.key] = self._followed.pop(followed.key)

    async def _search(self, followed: list[Followed], error: ResponseError) -> None:
        """One of them is bad, or Redis is."""
        await self._line.walk(step for one in followed for step in one.exists())
        if not any(one.tape.over for one in followed):
            raise UnreachableError(asyncio.get_running_loop().time()) from error

    def _listen(self, entries: list[Any]) -> None:
        for text, pairs in entries:
            self._heard_to = text
            self._heard(pairs[-1].decode(errors="replace"))

    def _doubt(self) -> None:
        self._next_look = 0.0
        for followed in self._all():
            followed.doubt()

    def _lose(self, error: LogLostError) -> None:
        for followed in self._all():
            followed.tape.end(another(error))


class Followed:
    """One generation that is read here: where its tape comes from.

    Args:
        keys: Its names in Redis.
        lease: In seconds.
        on_over: Called when nobody reads it any more, or when it has come to its end.
    """

    def __init__(self, keys: Keys, lease: float, on_over: Callable[[Followed], None]) -> None:
        self.tape = Tape(on_empty=lambda: on_over(self), on_over=lambda: on_over(self))
        self.key = keys.key
        self.stream = keys.log.encode()
        self.read_to = b"0-0"
        self.behind = True  # there is more than one read may bring
        self.due = 0.0  # to be looked at, by the loop's clock, if nothing has come till then
        self.orphaned = False
        self._keys = keys
        self._lease = lease
        self._clock = asyncio.get_running_loop().time
        self._exists = 0  # the last reply to that question
        self._epoch: int | None = None
        self._unheld: float | None = None  # since when no lease was found

    def exists(self) -> Iterator[Step]:
        """Look whether there is such a log, and still the same."""
        yield Step(self._keys.exists(), self.tape.end, self._found)
        yield Step(self._keys.first(), self.tape.end, self._seen)

    def look(self, *, judge: bool) -> Iterator[Step]:
        """Whether the log is there, the same, and, if that is to be judged, somebody writes it."""
        self.due = self._clock() + self._lease * _LOOK
        self.orphaned = False
        yield from self.exists()
        if judge and not self.behind:
            yield Step(self._keys.holder(), self.tape.end, self._held)

    def declare(self) -> Iterator[Step]:
        """Writes the ending for who can't any more; if somebody else does, that one counts, and comes by the read."""
        if self._epoch is not None and not self.tape.over:
            ending = encode_ending(ProducerLostError())
            yield Step(self._keys.add(Id(self._epoch + 1, 0), END, ending), self.tape.end)
            yield Step(self._keys.keep())

    def doubt(self) -> None:
        """Redis was away: nothing is known of the writer, and there may be much to read."""
        self.behind = True
        self.due = 0.0
        self._unheld = None

    def take(self, entry: Any) -> None:
        """What was read."""
        if self.tape.over:
            return
        self.due = self._clock() + self._lease * _LOOK
        self._unheld = None
        self.read_to = entry[0]
        try:
            self._put(*fields(entry))
        except LogLostError as error:
            self.tape.end(error)
        except Exception as error:  # noqa: BLE001 - a damaged entry, of this generation alone
            self.tape.end(lost_by(error))

    def _put(self, at: Id, pairs: list[bytes]) -> None:
        if pairs[0] == BY and self._epoch in (None, at.epoch):
            self._epoch = at.epoch
        elif pairs[0] == END and at.epoch - 1 == self._epoch:
            self.tape.end(decode_ending(pairs[1]))
        elif at.epoch == self._epoch and at.number == len(self.tape.entries) + len(pairs) // 2:
            for entry in pairs[1::2]:
                self.tape.on_next(decode(entry))
        else:
            raise LogLostError("Redis has another one under its key, or only a part of it")

    def _found(self, reply: int) -> None:
        self._exists = reply

    def _seen(self, reply: list[Any]) -> None:
        try:
            begun = claimed(self._exists, reply)
        except LogLostError as error:
            self.tape.end(error)
            return
        if begun is None:
            gone = UnknownGenerationError(self.key) if self._epoch is None else LogLostError("Redis has it no more")
            self.tape.end(gone)
        elif self._epoch not in {None, begun.epoch}:
            self.tape.end(LogLostError("Redis has another one under its key"))
        else:
            self._epoch = begun.epoch

    def _held(self, reply: bytes | None) -> None:
        """Nobody writes if two looks say so, and there was time for a beat between; Redis may have been held up."""
        now = self._clock()
        self._unheld = None if reply is not None else self._unheld or now
        self.orphaned = self._unheld is not None and now - self._unheld > self._lease / BEATS


def _streams(reply: Any) -> list[Any]:
    """The streams of which something was read, by RESP3 or RESP2, and nothing."""
    if isinstance(reply, dict):
        reply = cast("dict[bytes, Any]", reply).items()
    return list(reply or ())
