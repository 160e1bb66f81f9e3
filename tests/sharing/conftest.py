"""Servers, and logs on them."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rxrouter.sharing import MemoryLog
from rxrouter.sharing.redis import RedisLog
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Logs

SERVERS = sorted(binaries()) or ["redis"]  # one that is missing is an error of the test that wants it

LEASE = 0.4  # seconds; what waits for it waits that long


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RedisServer]]:
    """Starts a server of a kind, once; it writes nothing to its disk."""
    running: dict[str, RedisServer] = {}

    def server(kind: str) -> RedisServer:
        if kind not in running:
            running[kind] = RedisServer(binaries()[kind], tmp_path_factory.mktemp(kind), "--appendonly", "no")
            running[kind].start()
        return running[kind]

    yield server
    for each in running.values():
        each.kill()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> RedisServer:
    """A server that others use, too."""
    return servers(request.param)


@pytest.fixture(params=SERVERS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    """A server to be killed."""
    with RedisServer(binaries()[request.param], tmp_path) as server:
        yield server


@pytest.fixture(params=["memory", *SERVERS])
def logs(request: pytest.FixtureRequest, servers: Callable[[str], RedisServer]) -> Logs:
    """A log for each node of one test."""
    if request.param == "memory":
        log = MemoryLog()
        return lambda: log
    return redis_logs(servers(request.param))


def redis_logs(server: RedisServer, **options: Any) -> Logs:
    """Logs in a new namespace."""
    options = {"namespace": secrets.token_hex(4), "lease": LEASE, "outage": 20.0, **options}
    return lambda: RedisLog(server.url, **options)
