"""RedisLog: generations on Redis Streams, for the readers of many processes and machines."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from itertools import count
from typing import Any

try:
    from redis.asyncio import Redis
except ImportError as error:
    raise ImportError("RedisLog needs redis-py: pip install 'rxrouter[redis]'") from error

from rxrouter._errors import LogLostError, RouterError, UnknownGenerationError
from rxrouter.sharing._entries import another, encode_ending
from rxrouter.sharing._redis_keys import LAST, Keys, bell, claimed, orphaned, ring, status
from rxrouter.sharing._redis_line import Line, is_outage
from rxrouter.sharing._redis_read import JUDGE, Reading
from rxrouter.sharing._redis_settings import Settings
from rxrouter.sharing._redis_write import RedisWriter, Writing
from rxrouter.sharing.log import Status, Writer
from rxrouter.sharing.tape import Tape


class RedisLog:
    """Keeps generations in Redis 6.2 or later, or Valkey, where every process that has the same namespace finds them.

    What a server has to do (tests/perf/test_sharing.py; chunks of 74 bytes, one process makes and another reads):

    - A socket read's chunks are one XADD. At 100 generations and more, a chunk takes a server 13 to 21 µs, with its
      part of the reads, 0.03 XREADs for a chunk and reading process: one core carries some 50,000 chunks a second, or
      1,000 answers at 50 a second. Each further process that reads an answer is one more copy of it on the wire.
    - 310 bytes go to the server for a chunk, 180 come from it to each process that reads it, and it keeps some 80: what
      the chunk has, and little else. Readers in one process, however many, are one.
    - Two connections a process. Each generation that runs takes 2 commands a third of a `lease`, for its signs of life.

    Redis replicates asynchronously: a replica that is promoted may lack the last entries, which readers already have. A
    generation that still runs then ends with LogLostError. Of one that had ended, the new server may have a part
    only, without its ending: for later readers and for `status` it has lost its producer, though earlier ones read
    all. `min-replicas-to-write` bounds the loss; it does not exclude it.

    The keys of a namespace are in one slot, because one read blocks on all of them: so a namespace is on one server.
    `Spread` over three namespaces, on three servers or in a cluster, carries three times that.

    Args:
        server: A URL (`redis://`, `rediss://`, `unix://`), or a redis-py client, whose settings are used and whose
            connections are not.
        namespace: In front of all names in Redis.
        lease: How long a producer may give no sign before it counts as lost, in seconds; its readers know within
            three times as long, when two looks have found no sign. While Redis can't be read, or takes no writes (it is
            full, or a replica), no producer counts as lost.
        keep: How long a generation is kept after its end, in seconds.
        outage: How long Redis may be out of reach, or take no writes, in seconds. Then this process gives its
            generations up. They end with LogLostError for all their readers; in other processes a lease later, or when
            Redis is back, and `status` waits as readers do. A producer that has given no sign for as long counts as
            one that has given up: its generation ends with LogLostError, not with ProducerLostError. So all processes
            of a namespace need the same `keep` and `outage`.
        buffer_bytes: How much may wait for Redis in this process; the generation that has most of it is given up when
            it is more.
    """

    def __init__(  # noqa: PLR0913 - the settings of a log
        self,
        server: str | Redis,
        *,
        namespace: str = "rxrouter",
        lease: float = 5.0,
        keep: float = 600.0,
        outage: float = 30.0,
        buffer_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        if not namespace or {"{", "}"} & set(namespace):
            raise ValueError("a namespace has at least one character, and no braces")
        if not (lease > 0 and keep >= 2 * lease and outage > 0 and buffer_bytes > 0):
            raise ValueError("lease, outage and buffer_bytes are positive, keep is at least two leases")
        self._settings = settings = Settings(namespace, lease, keep, outage, buffer_bytes)
        self._node = secrets.token_urlsafe(9)
        self._numbers = count()
        pool = _pool(server)
        self._commands = Line(pool.make_connection, settings)
        self._blocking = Line(pool.make_connection, settings)
        self._probe = ring(settings, self._node, "")
        self._reading = Reading(
            self._blocking,
            settings,
            bell=bell(settings, self._node),
            ring=lambda: self._ring(self._node, ""),
            probe=self._probe,
            heard=self._look_after,
        )
        self._writing = Writing(self._commands, settings, self._reading.end)

    def __repr__(self) -> str:
        return f"RedisLog(namespace={self._settings.namespace!r})"

    async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
        """See `Log`."""
        keys = self._keys(key)
        token = f"{self._node} {next(self._numbers)}"
        try:
            exists, first = await self._commands.insist([keys.exists(), keys.claim(token)])
        except LogLostError as error:
            if is_outage(error.__cause__):  # it may have been claimed, or be claimed when Redis goes on
                self._writing.owe(keys, token, error)
            raise
        begun = claimed(exists, first)
        if begun is None:
            raise LogLostError("Redis has something else under its key")
        if begun.token != token.encode():
            return None
        self._reading.start()  # of the bell
        return RedisWriter(self._writing, keys, token=token, epoch=begun.epoch, on_lost=on_lost)

    def follow(self, key: str) -> Tape:
        """See `Log`."""
        return self._reading.follow(self._keys(key))

    async def stop(self, key: str, error: RouterError) -> None:
        """See `Log`."""
        writer = self._writing.writers.get(key)
        if writer is not None:
            writer.end(error)
            await writer.over.wait()
            if writer.error is not None:
                raise another(writer.error)
            return
        keys = self._keys(key)
        holder = await self._end(keys, error)
        if holder is not None:
            self._ring(holder.decode().partition(" ")[0], key)

    async def status(self, key: str) -> Status:
        """See `Log`."""
        keys = self._keys(key)
        found, held = await self._look(keys)
        if found.state == "running" and not held:
            # As readers do: look again when the log could be written for a while, and its producer renew the lease, or
            # those with longer knowledge write the ending.
            await self._commands.insist(self._probe)
            await asyncio.sleep(self._commands.seconds_until(JUDGE * self._settings.lease))
            found, held = await self._look(keys)
        if found.state == "running" and not held:
            await self._end(keys, self._reading.verdict(key) or await self._orphaned(keys))
            found, _ = await self._look(keys)
        return found

    async def aclose(self) -> None:
        """See `Log`."""
        await self._writing.aclose(self._settings.lease)
        await self._reading.aclose()
        await self._commands.aclose()
        await self._blocking.aclose()

    async def _look(self, keys: Keys) -> tuple[Status, bool]:
        """How far it is, and whether somebody holds its lease."""
        looks = [keys.exists(), keys.first(), keys.last(LAST), keys.holder()]
        exists, first, last, holder = await self._commands.insist(looks)
        return status(exists, first, last), holder is not None

    async def _end(self, keys: Keys, error: RouterError) -> bytes | None:
        """Write the ending, unless there is one; return the token of a producer that has the lease."""
        exists, first = await self._commands.insist([keys.exists(), keys.first()])
        begun = claimed(exists, first)
        if begun is None:
            raise UnknownGenerationError(keys.key)
        end = [keys.holder(), keys.end(begun.epoch, encode_ending(error))]
        holder: bytes | None = (await self._commands.insist(end))[0]
        return holder

    async def _orphaned(self, keys: Keys) -> RouterError:
        """Return the ending for a generation without a producer, by how long that has been silent."""
        [time_to_live] = await self._commands.insist([keys.time_to_live()])
        return orphaned(keys.silent_seconds(time_to_live), self._settings.outage)

    def _keys(self, key: str) -> Keys:
        return Keys(self._settings, key)

    def _ring(self, node: str, key: str) -> None:
        self._writing.send(ring(self._settings, node, key))

    def _look_after(self, key: str) -> None:
        """Somebody has ended what we write."""
        if key in self._writing.writers:
            self._writing.writers[key].doubt()


def _pool(server: Any) -> Any:
    """What knows how to make connections; none is taken from it."""
    if not isinstance(server, str | Redis):
        raise TypeError(f"server is a URL, or a redis.asyncio client, not {type(server).__name__}")
    try:
        client = Redis.from_url(server, protocol=2) if isinstance(server, str) else server  # pyright: ignore[reportUnknownMemberType]
    except ValueError:  # which quotes a part of it: of the password, if that has a slash
        raise ValueError("a server's URL begins with redis://, rediss:// or unix://, and has %2F for a slash") from None
    return client.connection_pool
