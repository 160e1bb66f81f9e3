from __future__ import annotations

import asyncio
import random
import secrets
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import Callable, Coroutine
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from rxrouter import ChatChunk, Overflow, StreamError, iterate
from rxrouter._errors import ProducerLostError
from rxrouter.sharing import Hub, Log, MemoryLog
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import VirtualLoop
from tests.sharing.conftest import LEASE
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, Source, started, words
from tests.sharing.test_processes import ROOT

# Something goes wrong at some time; none of the others loses a chunk, or gets one twice, and each ends once.

SIBLINGS = 6
WORDS = 120
FAULTS = ("raise", "leave", "stall")
SERVER_FAULTS = (*FAULTS, "restart", "die")


class Run:
    """One generation, and what goes wrong with it, as a seed says."""

    def __init__(self, seed: int, log: Callable[[], Log], faults: tuple[str, ...], server: RedisServer | None) -> None:
        self._random = random.Random(seed)
        self._log = log
        self._server = server
        self._fault = self._random.choice(faults)
        self._error = self._random.choice([None, None, StreamError(502)])
        self._when = self._random.randrange(WORDS)
        self._siblings: list[Reader] = []

    async def run(self) -> None:
        async with Hub(self._log()) as here, Hub(self._log()) as there:
            hubs = (here, there)
            source = Source()
            await started(here, "k", source)
            joins = sorted(self._random.randrange(WORDS) for _ in range(SIBLINGS))
            victim: Coroutine[Any, Any, None] | None = None
            for said in range(WORDS):
                while joins and joins[0] <= said:
                    joins.pop(0)
                    self._siblings.append(Reader(self._random.choice(hubs).follow("k")))
                if said == self._when:
                    victim = await self._go_wrong(self._random.choice(hubs))
                source.say()
                await asyncio.sleep(self._random.choice([0, 0, 0, 0.001, 0.004]))
            source.end(self._error)
            await self._check(None if self._error is None else type(self._error))
            if victim is not None:
                await victim

    async def _go_wrong(self, hub: Hub) -> Coroutine[Any, Any, None] | None:
        """Returns what is to be checked of it in the end."""
        at = self._random.randrange(1, 20)
        if self._fault == "raise":
            return self._raise(hub, at)
        if self._fault == "leave":
            return self._leave(hub)
        if self._fault == "stall":
            return await self._stall(hub)
        if self._server is not None:
            self._server.kill()
            asyncio.get_running_loop().call_later(self._random.uniform(0, LEASE), self._server.start)
        return None

    def _raise(self, hub: Hub, at: int) -> Coroutine[Any, Any, None]:
        seen = count(1)

        def clumsy(_: ChatChunk) -> None:
            if next(seen) == at:
                raise ZeroDivisionError

        victim = Reader(hub.follow("k"), clumsy)

        async def check() -> None:
            assert isinstance(await victim.until_over(), ZeroDivisionError)
            assert victim.read == words(at)

        return check()

    def _leave(self, hub: Hub) -> Coroutine[Any, Any, None]:
        loop = asyncio.get_running_loop()
        left: asyncio.Future[int] = loop.create_future()

        def leave() -> None:
            victim.leave()
            left.set_result(len(victim.read))

        victim = Reader(hub.follow("k"))
        loop.call_later(self._random.uniform(0, 0.1), leave)

        async def check() -> None:
            read = await left
            assert victim.read == words(read)
            assert victim.endings == [] or read == WORDS

        return check()

    async def _stall(self, hub: Hub) -> Coroutine[Any, Any, None]:
        victim = iterate(hub.follow("k"), high=3, low=1, overflow=Overflow.PAUSE)
        pulled = asyncio.ensure_future(anext(victim))

        async def check() -> None:
            read = [(await pulled).raw]
            with suppress(StreamError):
                async for chunk in victim:
                    read.append(chunk.raw)  # noqa: PERF401 - what came before the error counts
            assert read == words(WORDS)

        return check()

    async def _check(self, ending: type[Exception] | None) -> None:
        for reader in self._siblings:
            told = await reader.until_over()
            assert (None if told is None else type(told)) is ending
            assert reader.read == words(WORDS)


async def _die(seed: int, server: RedisServer, namespace: str, log: Callable[[], Log]) -> None:
    """The process that makes it is killed."""
    chance = random.Random(seed)
    command = (
        sys.executable,
        "-m",
        "tests.sharing.node",
        server.url,
        namespace,
        str(LEASE),
        "make",
        "k",
        "100000",
        "300",
    )
    maker = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE)
    async with Hub(log()) as here, Hub(log()) as there:
        while (await here.status("k")).entries == 0:  # noqa: ASYNC110 - it asks about another process
            await asyncio.sleep(0.01)
        readers = [first := Reader(here.follow("k"))]
        for _ in range(SIBLINGS):
            await asyncio.sleep(chance.uniform(0, 0.03))
            readers.append(Reader(chance.choice((here, there)).follow("k")))
        maker.send_signal(signal.SIGKILL)
        endings = [await reader.until_over() for reader in readers]
        await maker.communicate()

        assert all(isinstance(ending, ProducerLostError) for ending in endings)
        assert first.read == words(len(first.read))
        assert all(reader.read == first.read for reader in readers)


def run_in_memory(seed: int) -> None:
    memory = MemoryLog(keep_seconds=0)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(Run(seed, lambda: memory, FAULTS, None).run())


def run_on_server(seed: int, server: RedisServer) -> None:
    namespace = secrets.token_hex(4)

    def log() -> Log:
        return RedisLog(server.url, namespace=namespace, lease=LEASE)

    async def run() -> None:
        async with asyncio.timeout(60):
            if seed % len(SERVER_FAULTS) == 0:
                await _die(seed, server, namespace, log)
            else:
                await Run(seed, log, SERVER_FAULTS[:-1], server).run()

    asyncio.run(run())


def test_whatever_goes_wrong_in_memory_no_sibling_loses_or_repeats_a_chunk() -> None:
    for seed in range(50):
        run_in_memory(seed)


def test_whatever_goes_wrong_on_a_server_no_sibling_loses_or_repeats_a_chunk(own_server: RedisServer) -> None:
    for seed in range(10):
        run_on_server(seed, own_server)


@pytest.mark.long
def test_whatever_goes_wrong_in_memory_a_thousand_times() -> None:
    for seed in range(1_000):
        run_in_memory(seed)


@pytest.mark.long
def test_whatever_goes_wrong_on_a_server_a_thousand_times(own_server: RedisServer) -> None:
    for seed in range(1_000):
        run_on_server(seed, own_server)
