"""A write that a proxy delivers late, after its connection was given up, leaves a log that every reader can read."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from tests.sharing.conftest import LEASE, redis_logs
from tests.sharing.redis_proxy import LateWrites, late_writes
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, Source, started, words


@asynccontextmanager
async def behind_proxy(server: RedisServer) -> AsyncGenerator[tuple[LateWrites, Hub, Hub]]:
    """A proxy, a hub that reaches the server through it, and one that does not."""
    namespace = secrets.token_hex(4)
    async with late_writes(server.port) as proxy:
        url = f"redis://127.0.0.1:{proxy.port}/0"
        # The pause after a write without a reply is a part of the lease: the producer is back within it.
        here = RedisLog(url, namespace=namespace, lease=10 * LEASE, outage=20.0)
        async with (
            Hub(here) as through,
            Hub(redis_logs(server, namespace=namespace, lease=10 * LEASE)()) as beside,
        ):
            yield proxy, through, beside


@pytest.fixture(autouse=True)
def _short_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rxrouter.sharing._redis_line._ANSWER_SECONDS", 0.2)


async def test_a_log_stays_readable_when_a_write_arrives_between_the_look_and_the_next_write(
    server: RedisServer,
) -> None:
    async with behind_proxy(server) as (proxy, through, beside):
        source = Source()
        await started(through, "k", source)
        readers = [Reader(hub.follow("k")) for hub in (through, beside)]
        source.say(2)
        for reader in readers:
            await reader.until_read(2)

        proxy.hold(b"XADD")
        source.say(2)
        await asyncio.sleep(0)
        source.say(3)
        await proxy.delivered.wait()
        source.say()
        source.end()

        late = Reader(beside.follow("k"))
        for reader in (*readers, late):
            assert (await reader.until_over(), reader.read) == (None, words(8))
        for hub in (through, beside):
            status = await hub.status("k")
            assert (status.state, status.entries) == ("completed", 8)


async def test_an_ending_that_arrives_late_is_the_ending(server: RedisServer) -> None:
    async with behind_proxy(server) as (proxy, through, beside):
        source = Source()
        await started(through, "k", source)
        readers = [Reader(hub.follow("k")) for hub in (through, beside)]
        source.say(2)
        for reader in readers:
            await reader.until_read(2)

        proxy.hold(b"XADD")
        source.end()
        await proxy.delivered.wait()

        for reader in (*readers, Reader(beside.follow("k"))):
            assert (await reader.until_over(), reader.read) == (None, words(2))
        assert (await beside.status("k")).state == "completed"
