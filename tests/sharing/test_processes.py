from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from rxrouter._errors import GenerationStopped, ProducerLostError
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import STORY, Reply, Simulator, answer
from tests.sharing.conftest import LEASE
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, words

# Several processes on one server.

ROOT = Path(__file__).parents[2]


class Node:
    """A process of `tests.sharing.node`, and what it said so far."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.said: list[dict[str, Any]] = []

    async def until_said(self, name: str) -> Any:
        """What it says under this name, next."""
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            self.said.append(json.loads(line))
            if name in self.said[-1]:
                return self.said[-1][name]
        raise AssertionError(f"it ended, and did not say {name}, but {self.said}")

    async def until_over(self) -> dict[str, Any]:
        """The last that it says."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.said.append(json.loads(line))
        return self.said[-1]


class Cluster:
    """Processes in one namespace, and a hub of this one among them."""

    def __init__(self, server: RedisServer, stack: AsyncExitStack) -> None:
        self._arguments = (server.url, secrets.token_hex(4), str(LEASE))
        self._stack = stack
        self.hub = Hub(RedisLog(server.url, namespace=self._arguments[1], lease=LEASE))

    async def node(self, role: str, *arguments: object) -> Node:
        """A new process."""
        command = (sys.executable, "-m", "tests.sharing.node", *self._arguments, role, *map(str, arguments))
        process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
        self._stack.push_async_callback(_end, process)
        return Node(process)


@asynccontextmanager
async def processes(server: RedisServer) -> AsyncGenerator[Cluster]:
    async with AsyncExitStack() as stack:
        cluster = Cluster(server, stack)
        await stack.enter_async_context(cluster.hub)
        yield cluster


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.communicate()


async def test_readers_on_three_processes_read_the_same_bytes(server: RedisServer) -> None:
    async with processes(server) as cluster:
        maker = await cluster.node("make", "k", 300, 300)
        await maker.until_said("subscribed")
        readers = [await cluster.node("read", "k", 0), await cluster.node("read", "k", 10)]
        mine = Reader(cluster.hub.follow("k"))
        assert await mine.until_over() is None
        readers.append(await cluster.node("read", "k", 0))  # when it is over

        told = [await reader.until_over() for reader in readers]

        assert mine.read == words(300)
        for after, one in zip((0, 10, 0), told, strict=True):
            digest = hashlib.sha256(b"".join(words(300)[after:])).hexdigest()
            assert one == {"count": 300 - after, "digest": digest, "ending": "None", "text": None}


async def test_the_death_of_a_producer_ends_its_readers_everywhere_in_bounded_time(server: RedisServer) -> None:
    async with processes(server) as cluster:
        maker = await cluster.node("make", "k", 100_000, 200)
        await maker.until_said("subscribed")
        away = await cluster.node("read", "k", 0)
        mine = Reader(cluster.hub.follow("k"))
        await mine.until_read(5)
        await away.until_said("reading")

        maker.process.send_signal(signal.SIGKILL)
        async with asyncio.timeout(2.5 * LEASE + 5):  # and what a busy machine takes
            ending = await mine.until_over()
            told = await away.until_over()

        assert isinstance(ending, ProducerLostError)
        assert mine.read == words(len(mine.read))
        assert told["text"] == ending.partial.text == "".join(f"w{number + 1} " for number in range(len(mine.read)))
        assert told["digest"] == hashlib.sha256(b"".join(mine.read)).hexdigest()
        late = Reader(cluster.hub.follow("k"))
        assert isinstance(await late.until_over(), ProducerLostError)
        assert late.read == mine.read


async def test_a_producer_that_wakes_too_late_is_fenced_and_closes_its_source(server: RedisServer) -> None:
    async with processes(server) as cluster:
        maker = await cluster.node("make", "k", 100_000, 200)
        await maker.until_said("subscribed")
        mine = Reader(cluster.hub.follow("k"))
        await mine.until_read(5)

        maker.process.send_signal(signal.SIGSTOP)
        ending = await mine.until_over()
        maker.process.send_signal(signal.SIGCONT)

        assert isinstance(ending, ProducerLostError)
        assert await maker.until_said("left") == "k"
        late = Reader(cluster.hub.follow("k"))
        assert isinstance(await late.until_over(), ProducerLostError)
        assert late.read == mine.read


async def test_processes_that_race_have_one_producer_a_key(server: RedisServer) -> None:
    async with processes(server) as cluster:
        keys = [str(number) for number in range(10)]
        nodes = [await cluster.node("make", ",".join(keys), 20, 500) for _ in range(3)]

        for node in nodes:
            await node.until_over()

        assert sorted(line["subscribed"] for node in nodes for line in node.said if "subscribed" in line) == keys
        for key in keys:
            reader = Reader(cluster.hub.follow(key))
            assert (await reader.until_over(), reader.read) == (None, words(20))


async def test_a_generation_is_stopped_from_another_process_and_its_socket_closed(server: RedisServer) -> None:
    async with processes(server) as cluster, Simulator(Reply.of(answer(STORY), rate=5)) as simulator:
        maker = await cluster.node("ask", "k", simulator.base_url)
        await maker.until_said("subscribed")
        mine = Reader(cluster.hub.follow("k"))
        await mine.until_read(1)

        await cluster.hub.stop("k")

        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        assert isinstance(await mine.until_over(), GenerationStopped)
