"""A log that can't be written: one ending for all readers of a generation, wherever they are and whenever they come."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from rxrouter._errors import LogLostError, RouterError
from rxrouter.sharing import Hub, Status
from rxrouter.sharing.redis import RedisLog
from tests.sharing.conftest import SERVERS
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Reader, Source, started, words

LEASE, OUTAGE, ANSWER, PAUSE = 5.0, 30.0, 5.0, 1.0
"""The defaults of a RedisLog and of its connections, in seconds."""


def fill(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "1")


def empty(server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "0")


def demote(server: RedisServer) -> None:
    # Nothing listens on that port: the replica keeps its data.
    server.ask("REPLICAOF", "127.0.0.1", "1")


def promote(server: RedisServer) -> None:
    server.ask("REPLICAOF", "NO", "ONE")


FAULTS: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "full": (fill, empty),
    "read-only": (demote, promote),
    "stopped": (RedisServer.pause, RedisServer.resume),
}

KEYS = ("speaking", "silent")
"""Generations: one goes on during the fault."""

SECONDS = (1.0, 3.0, 12.0, 40.0)


class Ended(NamedTuple):
    """A reader's ending and chunks, and the time of the ending since the fault began, in seconds."""

    ending: type[Exception] | None
    read: list[bytes]
    at: float


async def _ended(reader: Reader, began: float, scale: float) -> Ended:
    ending = await reader.until_over()
    now = asyncio.get_running_loop().time()
    return Ended(None if ending is None else type(ending), reader.read, (now - began) / scale)


async def _status(hub: Hub, key: str) -> Status | RouterError:
    try:
        return await hub.status(key)
    except RouterError as error:
        return error


class Outage:
    """Two generations, and readers of both that come before, during and after a fault.

    Args:
        server: Of its own.
        fault: A name in FAULTS.
        seconds: The fault's duration, in the time of the defaults.
        scale: The length of such a second, in seconds.
    """

    def __init__(self, server: RedisServer, fault: str, seconds: float, scale: float) -> None:
        self.endings: dict[str, Ended] = {}
        self.statuses: dict[str, Status | RouterError] = {}
        self._server = server
        self._begin, self._end = FAULTS[fault]
        self._seconds = seconds
        self._scale = scale
        self._namespace = secrets.token_hex(4)
        self._began = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def hub(self) -> Hub:
        lease, outage = LEASE * self._scale, OUTAGE * self._scale
        return Hub(RedisLog(self._server.url, namespace=self._namespace, lease=lease, outage=outage))

    def _note(self, name: str, ended: Awaitable[Ended]) -> None:
        async def note() -> None:
            self.endings[name] = await ended

        self._tasks.append(asyncio.create_task(note()))

    def _ask(self, name: str, hub: Hub, key: str) -> None:
        async def ask() -> None:
            self.statuses[name] = await _status(hub, key)

        self._tasks.append(asyncio.create_task(ask()))

    def _read(self, when: str, **hubs: Hub) -> None:
        for place, hub in hubs.items():
            for key in KEYS:
                self._note(f"{key}, {when}, {place}", _ended(Reader(hub.follow(key)), self._began, self._scale))
                self._ask(f"{key}, {when}, {place}", hub, key)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:

            async def new() -> Hub:
                return await stack.enter_async_context(self.hub())

            here, there = await new(), await new()
            sources = {key: Source() for key in KEYS}
            before: list[tuple[str, Reader]] = []
            for key, source in sources.items():
                await started(here, key, source)
                source.say(3)
                before += [(f"{key}, before, here", Reader(here.follow(key)))]
                before += [(f"{key}, before, there", Reader(there.follow(key)))]
            for _, reader in before:
                await reader.until_read(3)

            self._begin(self._server)
            self._began = loop.time()
            for name, reader in before:
                self._note(name, _ended(reader, self._began, self._scale))
            for part in range(10):
                sources["speaking"].say()
                if part in {1, 5, 8}:
                    self._read(f"during {part}", here=here, there=there, elsewhere=await new())
                # The fault lasts for its time, whatever the machine does meanwhile.
                await asyncio.sleep(self._began + self._seconds * self._scale * (part + 1) / 10 - loop.time())
            self._end(self._server)
            self._read("after", there=there, elsewhere=await new())
            # Long enough for a wrong judgement of a producer that is there.
            await asyncio.sleep(2 * LEASE * self._scale)
            for source in sources.values():
                source.say()
                source.end()
            await asyncio.gather(*self._tasks)
            self._read("last", here=here, there=there, elsewhere=await new())
            await asyncio.gather(*self._tasks)

    def check(self) -> None:
        """Check that all readers of a generation have the ending that its duration demands, and that statuses agree."""
        lost = self._seconds > OUTAGE
        right = LogLostError if lost else None
        wrong = {name: ended for name, ended in self.endings.items() if ended.ending is not right}
        assert not wrong, {name: (ended.ending, ended.at) for name, ended in wrong.items()}
        for name, ended in self.endings.items():
            whole = words(14 if name.startswith("speaking") else 4)
            assert ended.read == (whole[: len(ended.read)] if lost else whole), name
            if name.partition(", ")[2].startswith(("before, here", "during")) and lost and "elsewhere" not in name:
                # The time of a hung exchange, and a look, come on top.
                assert ended.at < self._seconds + 2 * LEASE + ANSWER, (name, ended.at)
        for name, status in self.statuses.items():
            if isinstance(status, RouterError):
                assert lost, (name, status)
                assert isinstance(status, LogLostError), (name, status)
            elif "last" in name:
                assert status.state == ("failed" if lost else "completed"), (name, status)
                assert isinstance(status.error, LogLostError) == lost, (name, status)
            else:
                assert status.state in ({"running", "failed"} if lost else {"running", "completed"}), (name, status)
                assert status.error is None or isinstance(status.error, LogLostError), (name, status)


async def _outages(fault: str, seconds: float, scale: float, directory: Path) -> list[Outage]:
    """On each server at the same time."""
    async with AsyncExitStack() as stack:
        outages: list[Outage] = []
        for kind in SERVERS:
            (directory / kind).mkdir()
            server = stack.enter_context(RedisServer(binaries()[kind], directory / kind, "--appendonly", "no"))
            outages.append(Outage(server, fault, seconds, scale))
        await asyncio.gather(*(outage.run() for outage in outages))
        return outages


@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_all_readers_end_alike_when_the_log_can_not_be_written(
    fault: str, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = 0.1
    monkeypatch.setattr("rxrouter.sharing._redis_line._ANSWER_SECONDS", ANSWER * scale)
    monkeypatch.setattr("rxrouter.sharing._redis_line._LONGEST_PAUSE", PAUSE * scale)

    for outage in await _outages(fault, seconds, scale, tmp_path):
        outage.check()


@pytest.mark.long
@pytest.mark.parametrize("seconds", SECONDS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_all_readers_end_alike_when_the_log_can_not_be_written_at_full_length(
    fault: str, seconds: float, tmp_path: Path
) -> None:
    for outage in await _outages(fault, seconds, 1.0, tmp_path):
        outage.check()
        ends = [ended.at for ended in outage.endings.values()]
        print(f"{fault} for {seconds:.0f} s: {len(ends)} readers end alike, after {min(ends):.1f} to {max(ends):.1f} s")  # noqa: T201 - the figures of a long form
