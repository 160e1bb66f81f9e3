"""What Redis holds of a generation: the names, the ids, and the one script.

{namespace}:log:KEY     a stream, whose first entry says who writes it:   EPOCH-0    by TOKEN
                        then come the chunks, several in one entry:       EPOCH-N    0 CHUNK 1 CHUNK …
                        and the ending, after which nothing can:          EPOCH+1-0  end ENDING
{namespace}:lease:KEY   TOKEN, for as long as the writer lives
{namespace}:bell:NODE   a stream, by which one process wakes another, or itself: key KEY

The log's time to live is set anew with each sign of life, and with nothing else while the writer lives: how much of it
has passed is how long the writer has been silent, by the clock of Redis alone.

N is the number of the entry's last chunk; EPOCH is Redis' time in milliseconds when the generation was claimed, so a
generation that was lost and one that was begun anew under its key are never taken for one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from rxrouter._errors import LogLostError, ProducerLostError
from rxrouter.sharing._entries import decode_ending
from rxrouter.sharing._redis_line import Command, lost_by
from rxrouter.sharing._redis_settings import Settings
from rxrouter.sharing.log import Status

BY, END, KEY = b"by", b"end", b"key"

LAST = 3
"""Entries at a log's end that show how far it is: the ending, one with chunks, and the one that those are behind."""

# Begins a log, and its lease, if there is none; gives its first entry either way. So it may be run again by who does
# not know whether it was. A log without a writer is forgotten as one that has ended.
_CLAIM = """
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('XADD', KEYS[1], '*', 'by', ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
end
return redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
"""

# Ends a log, and keeps it from now on. A full Redis refuses an XADD, but neither a PEXPIRE nor a DEL: as one script,
# all of it is done or nothing, so that a refused ending is not a sign of life.
_END = """
local id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', ARGV[1], 'end', ARGV[2])
if id then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  redis.call('DEL', KEYS[2])
end
return id
"""


class Id(NamedTuple):
    """A stream's id."""

    epoch: int
    number: int

    @classmethod
    def of(cls, text: bytes) -> Id:
        """The id that Redis told."""
        epoch, _, number = text.partition(b"-")
        return cls(int(epoch), int(number))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number}"


class Keys:
    """The commands for one generation.

    Args:
        settings: The namespace is in front of all names; in braces, so that all are in one slot of a cluster.
        key: The generation's.
    """

    def __init__(self, settings: Settings, key: str) -> None:
        self.key = key
        self.log = f"{{{settings.namespace}}}:log:{key}"
        self.lease = f"{{{settings.namespace}}}:lease:{key}"
        self._lease_ms = round(settings.lease * 1000)
        self._keep_ms = round(settings.keep * 1000)

    def claim(self, token: str) -> Command:
        """Gives the first entry."""
        return ("EVAL", _CLAIM, 2, self.log, self.lease, token, self._lease_ms, self._keep_ms)

    def add(self, at: Id, *fields: Any) -> Command:
        """Gives the id; None if there is no log, FENCED if it has gone on without us."""
        return ("XADD", self.log, "NOMKSTREAM", str(at), *fields)

    def end(self, epoch: int, ending: bytes) -> Command:
        """Gives the same as `add`; gives the lease back."""
        return ("EVAL", _END, 2, self.log, self.lease, str(Id(epoch + 1, 0)), ending, self._keep_ms)

    def time_to_live(self) -> Command:
        """Gives the milliseconds that are left to the log; fewer than 0 if it has no end, or if there is no log."""
        return ("PTTL", self.log)

    def silent_seconds(self, time_to_live: int) -> float:
        """Return the seconds without a sign of life, of the reply to `time_to_live`; 0 if the log has no end."""
        return max(0.0, (self._keep_ms - time_to_live) / 1000) if time_to_live >= 0 else 0.0

    def exists(self) -> Command:
        """Gives 1 if there is anything under the name of the log, 0 otherwise."""
        return ("EXISTS", self.log)

    def first(self) -> Command:
        """Gives the first entry, in a list that may be empty."""
        return ("XRANGE", self.log, "-", "+", "COUNT", 1)

    def last(self, count: int) -> Command:
        """Gives the last entries, the very last first."""
        return ("XREVRANGE", self.log, "+", "-", "COUNT", count)

    def keep(self) -> Command:
        """Has the log kept from now on for its time."""
        return ("PEXPIRE", self.log, self._keep_ms)

    def renew(self, token: str, *, only_if_held: bool) -> Command:
        """Gives None if it should have been held, and was not."""
        return ("SET", self.lease, token, *(("XX",) if only_if_held else ()), "PX", self._lease_ms)

    def holder(self) -> Command:
        """Gives the token of the writer that lives; None if there is none."""
        return ("GET", self.lease)


def bell(settings: Settings, node: str) -> str:
    """The name of a process's bell."""
    return f"{{{settings.namespace}}}:bell:{node}"


def ring(settings: Settings, node: str, key: str) -> list[Command]:
    """Wakes a process, and tells it where to look."""
    name = bell(settings, node)
    return [("XADD", name, "MAXLEN", "~", 100, "*", KEY, key), ("PEXPIRE", name, round(settings.keep * 1000))]


def fields(entry: Any) -> tuple[Id, list[bytes]]:
    """Return an entry's id, and its fields and values in turn."""
    text, pairs = entry
    return Id.of(text), pairs


class Claimed(NamedTuple):
    """A generation's first entry."""

    epoch: int
    token: bytes


def claimed(exists: int, first: list[Any]) -> Claimed | None:
    """Return the first entry, of the replies to `exists` and `first`; None if there is no log.

    Raises:
        LogLostError: something else is under its name.
    """
    if first:
        at, pairs = fields(first[0])
        if at.number == 0 and len(pairs) == 2 and pairs[0] == BY:  # noqa: PLR2004 - a field and its value
            return Claimed(at.epoch, pairs[1])
    if first or exists:
        raise LogLostError("Redis has something else under its key")
    return None


def orphaned(silent: float, outage: float) -> ProducerLostError | LogLostError:
    """Return the ending for a generation without a producer.

    A producer that was silent for longer than an outage may last has given its log up, if it was there, and its readers
    with it: so the judgement is the same in all processes, whichever of them is the first to write it.

    Args:
        silent: Seconds without a sign of life, by the clock of Redis.
        outage: Seconds.
    """
    if silent < outage:
        return ProducerLostError()
    return LogLostError("Redis has no sign of the producer for longer than an outage may last")


def status(exists: int, first: list[Any], last: list[Any]) -> Status:
    """Return how far a generation is, of the replies to `exists`, `first` and `last(LAST)`.

    Raises:
        LogLostError: a reader could not read it.
    """
    begun = claimed(exists, first)
    if begun is None or not last:
        return Status("unknown")
    try:
        entries = [fields(entry) for entry in last]
        ending = entries.pop(0)[1] if entries[0][1][0] == END and entries[0][0] == (begun.epoch + 1, 0) else None
        at = entries[0][0]
        # The entry before it, or the first one, has the number from which its chunks are counted.
        before = entries[1][0] if at.number else at
        counted = len(entries[0][1]) // 2 if at.number else 0
        if {at.epoch, before.epoch} != {begun.epoch} or at.number != before.number + counted:
            raise LogLostError("Redis has another one under its key, or only a part of it")  # noqa: TRY301 - as below
        return Status("running", at.number) if ending is None else Status.ended(at.number, decode_ending(ending[1]))
    except LogLostError:
        raise
    except Exception as error:
        raise lost_by(error) from error
