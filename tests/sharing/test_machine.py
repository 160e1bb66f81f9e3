from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from rxrouter import RouterError, StreamError
from rxrouter._errors import ClientClosedError, GenerationStopped, ProducerLostError, UnknownGenerationError
from rxrouter.sharing import Hub, Log, MemoryLog
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import VirtualLoop
from tests.sharing.conftest import LEASE
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, Source, word
from tests.support import until

# Two hubs on one log against one simple model: a list of words, and an ending, for each key.

KEYS = st.sampled_from("ab")
HUBS = st.integers(0, 1)
COUNTS = st.integers(1, 5)
KEEP = 60.0  # seconds
_STATES: dict[Any, str] = {"running": "running", None: "completed", GenerationStopped: "stopped"}


class _Shared(MemoryLog):
    """Outlives the hub that closes it, as a server does."""

    async def aclose(self) -> None:
        pass


class Generation:
    """What the model knows of one."""

    def __init__(self, hub: int) -> None:
        self.hub = hub  # that makes it
        self.source = Source()
        self.words: list[bytes] = []
        self.endings: list[type[RouterError] | None] = []  # none while it runs


class Followed:
    """A reader, and what the model says that it gets."""

    def __init__(self, reader: Reader, generation: Generation | None, after: int, hub: int) -> None:
        self.reader = reader
        self.hub = hub
        self._generation = generation
        self._after = after
        self._ending: type[RouterError] | None = None
        self._cut: int | None = None  # what it had read when it left, or its hub closed

    @property
    def words(self) -> list[bytes]:
        if self._generation is None:
            return []
        return self._generation.words[self._after : self._cut]

    @property
    def endings(self) -> list[type[RouterError] | None]:
        if self._cut is not None:
            return [] if self._ending is None else [self._ending]
        return [UnknownGenerationError] if self._generation is None else self._generation.endings

    def cut(self, ending: type[RouterError] | None = None) -> None:
        if self._cut is None and not self.endings:
            self._cut = self._after + len(self.words)
            self._ending = ending

    def is_right(self) -> bool:
        told = [None if ending is None else type(ending) for ending in self.reader.endings]
        return self.reader.read == self.words and told == self.endings


class Machine(RuleBasedStateMachine):
    """What users do, on a log in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = self.new_loop()
        self.open()
        self.hubs = [Hub(self.log()), Hub(self.log())]
        self.generations: dict[str, Generation] = {}
        self.followed: list[Followed] = []
        self.said = 0

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return VirtualLoop()

    def open(self) -> None:
        self.memory = _Shared(keep_seconds=KEEP)

    def log(self) -> Log:
        return self.memory

    def expire_all(self) -> None:
        self.run(asyncio.sleep(KEEP + 1))

    def run(self, doing: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(doing, 2 * KEEP))

    @rule(hub=HUBS, key=KEYS)
    def start(self, hub: int, key: str) -> None:
        generation = self.generations.get(key)
        source = Source()
        if generation is None:
            generation = self.generations[key] = Generation(hub)
            generation.source = source

        async def start() -> None:
            self._note(Reader(self.hubs[hub].start(key, source.chunks)), key, 0, hub)
            await self.hubs[hub].status(key)
            await until(lambda: generation.source.subscribed == 1)

        self.run(start())

    @rule(hub=HUBS, key=KEYS, after=st.integers(0, 8))
    def follow(self, hub: int, key: str, after: int) -> None:
        async def follow() -> None:
            self._note(Reader(self.hubs[hub].follow(key, after=after)), key, after, hub)

        self.run(follow())

    def _note(self, reader: Reader, key: str, after: int, hub: int) -> None:
        self.followed.append(Followed(reader, self.generations.get(key), after, hub))

    @precondition(lambda self: self.running())
    @rule(key=KEYS, count=COUNTS)
    def chunk(self, key: str, count: int) -> None:
        self.run(self._say(key, count))

    async def _say(self, key: str, count: int) -> None:
        if key in self.running():
            generation = self.generations[key]
            for _ in range(count):
                self.said += 1
                generation.words.append(word(self.said).raw)
                generation.source.observer.on_next(word(self.said))

    @precondition(lambda self: self.running())
    @rule(key=KEYS, well=st.booleans())
    def end(self, key: str, *, well: bool) -> None:
        async def end() -> None:
            self.generations[key].source.end(None if well else StreamError(502))

        if key in self.running():
            self.generations[key].endings = [None if well else StreamError]
            self.run(end())

    @precondition(lambda self: self.followed)
    @rule(number=st.integers(0))
    def leave(self, number: int) -> None:
        async def leave() -> None:
            followed.cut()
            followed.reader.leave()

        followed = self.followed[number % len(self.followed)]
        self.run(leave())

    @rule(hub=HUBS, key=KEYS)
    def stop(self, hub: int, key: str) -> None:
        if key in self.generations:
            if key in self.running():
                self.generations[key].endings = [GenerationStopped]
            self.run(self.hubs[hub].stop(key))
        else:
            with pytest.raises(UnknownGenerationError):
                self.run(self.hubs[hub].stop(key))

    @precondition(lambda self: len(self.running()) < len(self.generations))
    @rule()
    def expire(self) -> None:
        self.expire_all()
        self.generations = {key: self.generations[key] for key in self.running()}

    @rule(hub=HUBS)
    def restart(self, hub: int) -> None:
        """A node closes, and another comes in its place."""
        for followed in self.followed:
            if followed.hub == hub:
                followed.cut(ClientClosedError)
        for key in self.running():
            if self.generations[key].hub == hub:
                self.generations[key].endings = [ProducerLostError]
        self.run(self.close(self.hubs[hub]))
        self.hubs[hub] = Hub(self.log())

    async def close(self, hub: Hub) -> None:
        await hub.aclose()

    @invariant()
    def is_the_model(self) -> None:
        self.run(self._settle())

    async def settled(self) -> None:
        """Returns when all that is on its way has arrived, or should have."""
        for _ in range(20):
            await asyncio.sleep(0)

    async def _settle(self) -> None:
        await self.settled()
        for followed in self.followed:
            assert followed.is_right(), (followed.reader.endings, followed.endings)
        assert await self.statuses() == self.expected()

    async def statuses(self) -> dict[str, tuple[str, int, int]]:
        """How far each generation is, and whether its source was left."""
        told = {key: await self.hubs[0].status(key) for key in "ab"}
        sources = {key: generation.source for key, generation in self.generations.items()}
        return {
            key: (status.state, status.entries, sources[key].left if key in sources else 0)
            for key, status in told.items()
        }

    def expected(self) -> dict[str, tuple[str, int, int]]:
        told: dict[str, tuple[str, int, int]] = {}
        for key, generation in self.generations.items():
            ending = generation.endings[0] if generation.endings else "running"
            state = _STATES.get(ending, "failed")
            told[key] = (state, len(generation.words), int(state != "running"))
        return {"a": ("unknown", 0, 0), "b": ("unknown", 0, 0)} | told

    def running(self) -> list[str]:
        return [key for key, generation in self.generations.items() if not generation.endings]

    def teardown(self) -> None:
        for hub in self.hubs:
            self.run(hub.aclose())
        self.expire_all()
        assert not asyncio.all_tasks(self.loop)
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


class RedisMachine(Machine):
    """The same on a server, that is killed in between."""

    server: RedisServer

    def __init__(self) -> None:
        self._namespace = secrets.token_hex(4)
        super().__init__()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop()

    def open(self) -> None:
        pass

    def log(self) -> Log:
        return RedisLog(self.server.url, namespace=self._namespace, lease=5 * LEASE)

    async def settled(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await until(lambda: all(followed.is_right() for followed in self.followed))
                while await self.statuses() != self.expected():  # noqa: ASYNC110 - it asks, and has to wait for it
                    await asyncio.sleep(0)

    def expire_all(self) -> None:
        """What the server does in time."""
        for key in self.generations.keys() - set(self.running()):
            self.server.ask("DEL", f"{{{self._namespace}}}:log:{key}")

    @rule(counts=st.fixed_dictionaries({}, optional={"a": COUNTS, "b": COUNTS}))
    def restart_server(self, counts: dict[str, int]) -> None:
        """Killed, and back with what it had; meanwhile the generations go on."""
        self.server.kill()
        for key, count in counts.items():
            self.run(self._say(key, count))
        self.server.start()


def test_a_hub_in_memory_is_the_model() -> None:
    run_state_machine_as_test(Machine)


def test_a_hub_on_a_server_is_the_model(own_server: RedisServer) -> None:
    class OwnMachine(RedisMachine):
        server = own_server

    run_state_machine_as_test(OwnMachine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
