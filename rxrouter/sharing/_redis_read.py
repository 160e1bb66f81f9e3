"""Reading: one blocking read for all generations that are followed in this process, and for its bell."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any, cast

from redis.exceptions import ResponseError

from rxrouter._errors import LogLostError, UnknownGenerationError
from rxrouter.sharing._entries import another, decode, decode_ending, encode_ending
from rxrouter.sharing._redis_keys import BY, END, Id, Keys, claimed, fields, orphaned
from rxrouter.sharing._redis_line import (
    Command,
    Line,
    Patience,
    Step,
    UnreachableError,
    is_outage,
    is_unwritable,
    lost,
    lost_by,
    take_turns,
)
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
JUDGE = 1.5
"""Leases for which a connection must stand before this process concludes that a producer is gone."""
_LOOK = 0.5  # of a lease, between two looks at a generation that is silent
_PARTS, _PART = 4, 256  # in which they are looked at: so many, unless they would be smaller


class Reading:
    """One task for all followers of this process.

    Args:
        line: Its own; it blocks in the read.
        settings: Of the log.
        bell: The stream by which this process is woken.
        ring: Rings the bell.
        probe: Writes that change nothing: whether Redis takes them shows whether a producer could renew its lease.
        heard: Called with each key that the bell was rung for.
    """

    def __init__(  # noqa: PLR0913 - two functions, and what they are for
        self,
        line: Line,
        settings: Settings,
        *,
        bell: str,
        ring: Callable[[], None],
        probe: list[Command],
        heard: Callable[[str], None],
    ) -> None:
        self._line = line
        self._settings = settings
        self._bell = bell
        self._heard = heard
        self._heard_to = b"0-0"
        self._ring = ring
        self._probe = probe
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
            followed = self._follow(keys)
            self.start()
            if self._blocked:
                self._blocked = False  # one ring is enough
                self._ring()
            if self._closed:
                self._lose(LogLostError("it is closed"))
        return followed.tape

    def end(self, key: str, error: LogLostError) -> None:
        """End the readers here of a generation that was made, and given up, in this process."""
        if key in self._followed:
            self._followed[key].tape.end(another(error))

    def verdict(self, key: str) -> LogLostError | None:
        """Return the ending that an outage has given readers here; None if there was none."""
        return self._followed[key].verdict if key in self._followed else None

    def _follow(self, keys: Keys) -> Followed:
        followed = self._followed[keys.key] = Followed(keys, self._settings, self._forget)
        self._news.append(followed)
        return followed

    def start(self) -> None:
        """Begins to listen."""
        if self._task is None and not self._closed:
            # A producer whose Redis is away gives up after the outage, and writes that when it can. Its beats are a
            # third of a lease apart, so all readers that wait a lease longer get that ending, and no other one.
            patience = Patience(self._settings, more=self._settings.lease)
            turns = take_turns(patience, self._take_turn, self._doubt, self._lose)
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

    async def _take_turn(self, _: float | None) -> None:
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
        # A lease may have run out while Redis was away: its producer, or else those that have watched the generation
        # for longer, must have the time to write.
        judge = self._line.since is not None and now() - self._line.since > JUDGE * self._settings.lease
        await self._line.walk(step for followed in due for step in followed.look())
        if unheld := [followed for followed in due if followed.unheld and not followed.tape.over]:
            try:
                await self._line.ask(self._probe)
                orphans = [followed for followed in unheld if followed.miss() and (judge or followed.lost)]
                await self._line.walk(step for followed in orphans for step in followed.measure())
                await self._line.walk(step for followed in orphans for step in followed.declare())
            except UnreachableError as error:
                if not is_unwritable(error.__cause__):
                    raise
                for followed in unheld:
                    followed.bear()
                given_up = lost(error.__cause__)
                given_up.__cause__ = error.__cause__
                self._lose(given_up, [followed for followed in unheld if followed.given_up])
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

    def _lose(self, error: LogLostError, some: list[Followed] | None = None) -> None:
        """End all, or some; watch those that an outage ends, because it may have ended them here alone."""
        for followed in self._all() if some is None else some:
            followed.tape.end(another(error))
            if is_outage(error.__cause__) and not self._closed:
                followed.watch(self._follow, error)


class Followed:
    """One generation that is read here: where its tape comes from.

    Args:
        keys: Its names in Redis.
        settings: Of the log.
        on_over: Called when nobody reads it any more, or when it has come to its end.
    """

    def __init__(self, keys: Keys, settings: Settings, on_over: Callable[[Followed], None]) -> None:
        self.tape = Tape(on_empty=lambda: on_over(self), on_over=lambda: on_over(self))
        self._on_over = on_over
        self.key = keys.key
        self.stream = keys.log.encode()
        self.read_to = b"0-0"
        self.behind = True  # there is more than one read may bring
        self.due = 0.0  # to be looked at, by the loop's clock, if nothing has come till then
        self.unheld = False  # the last look found no lease
        self.verdict: LogLostError | None = None
        """The ending that an outage has given readers here."""
        self._watched_until = math.inf
        self._keys = keys
        self._lease = settings.lease
        self._keep = settings.keep
        self._outage = settings.outage
        self._clock = asyncio.get_running_loop().time
        self._silent = 0.0  # seconds without a sign of the producer, by the clock of Redis
        self._exists = 0  # the last reply to that question
        self._epoch: int | None = None
        self._missed: float | None = None  # since when no lease was found, though it could have been written
        self._unwritable: float | None = None  # since when no lease was found, and none could have been written

    def exists(self) -> Iterator[Step]:
        """Look whether there is such a log, and still the same."""
        yield Step(self._keys.exists(), self.tape.end, self._found)
        yield Step(self._keys.first(), self.tape.end, self._seen)

    def look(self) -> Iterator[Step]:
        """Look whether the log is there, the same, and whether a producer holds its lease."""
        self.due = self._clock() + self._lease * _LOOK
        self.unheld = False
        yield from self.exists()
        if not self.behind:
            yield Step(self._keys.holder(), self.tape.end, self._held)

    def miss(self) -> bool:
        """Return whether there is no producer, after a look without a lease in a log that can be written.

        There is none if two looks say so, and there was time for a beat between; Redis may have been held up.
        """
        now = self._clock()
        self._unwritable = None
        self._missed = self._missed or now
        return now - self._missed > self._lease / BEATS

    def bear(self) -> None:
        """Conclude nothing from a look without a lease: the log can't be written."""
        self._missed = None
        self._unwritable = self._unwritable or self._clock()

    @property
    def given_up(self) -> bool:
        """Whether the log could not be written for the time of an outage."""
        return self._unwritable is not None and self._clock() - self._unwritable >= self._outage

    def watch(self, follow: Callable[[Keys], Followed], error: LogLostError) -> None:
        """Follow on without a reader: if the generation has no producer, it ends for all as it did here."""
        until = min(self._watched_until, self._clock() + self._keep)
        if self._epoch is not None and self._clock() < until:
            follow(self._keys).be_watched(self._epoch, error, until)

    @property
    def lost(self) -> bool:
        """Whether an outage has ended readers here: a producer with the same outage has given up before."""
        return self.verdict is not None

    def be_watched(self, epoch: int, error: LogLostError, until: float) -> None:
        """Be the one that `watch` begins."""
        self._epoch = epoch
        self.verdict = error
        self._watched_until = until

    def measure(self) -> Iterator[Step]:
        """Look how long the producer has been silent."""
        yield Step(self._keys.time_to_live(), take=self._measured)

    def _measured(self, reply: int) -> None:
        self._silent = self._keys.silent_seconds(reply)

    def declare(self) -> Iterator[Step]:
        """Write the ending for a producer that is gone; if another process does, that one counts, and is read."""
        if self._epoch is not None and not self.tape.over:
            ending = self.verdict or orphaned(self._silent, self._outage)
            yield Step(self._keys.end(self._epoch, encode_ending(ending)), self.tape.end)

    def doubt(self) -> None:
        """Redis was away: nothing is known of the writer, and there may be much to read."""
        self.behind = True
        self.due = 0.0
        self._missed = None

    def take(self, entry: Any) -> None:
        """What was read."""
        if self.tape.over:
            return
        self.due = self._clock() + self._lease * _LOOK
        self._missed = self._unwritable = None
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
        self.unheld = reply is None
        if reply is not None:
            self._missed = self._unwritable = None
            if self.lost:
                self._be_alive()

    def _be_alive(self) -> None:
        """Stop watching: the producer has a reach of Redis that this process had not."""
        self.verdict = None
        if not len(self.tape):
            self._on_over(self)


def _streams(reply: Any) -> list[Any]:
    """The streams of which something was read, by RESP3 or RESP2, and nothing."""
    if isinstance(reply, dict):
        reply = cast("dict[bytes, Any]", reply).items()
    return list(reply or ())
