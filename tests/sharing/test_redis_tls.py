"""Mistakes of TLS between a RedisLog and its server: reported at once, and TLS is named."""

from __future__ import annotations

import asyncio
import datetime as dt
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from reactivex import from_iterable

from rxrouter._errors import LogLostError
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, word, words
from tests.support import proven

PAST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


def _server_context(certificate: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


@asynccontextmanager
async def door(port: int, context: ssl.SSLContext) -> AsyncGenerator[int]:
    """The port of a TLS server before the one on this port."""
    going: set[asyncio.Task[Any]] = set()
    opened: list[asyncio.StreamWriter] = []

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while block := await reader.read(1 << 16):
                writer.write(block)
        writer.close()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        opened.extend((writer, to_server))
        for pair in ((reader, to_server), (from_server, writer)):
            going.add(asyncio.create_task(forward(*pair)))

    def enter_in_task(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        going.add(asyncio.create_task(enter(reader, writer)))

    async with await asyncio.start_server(enter_in_task, "127.0.0.1", 0, ssl=context) as listening:
        yield listening.sockets[0].getsockname()[1]
    for writer in opened:
        writer.transport.abort()
    for task in going:
        task.cancel()
    await asyncio.gather(*going, return_exceptions=True)


async def _check_refused(url: str) -> None:
    """All that a hub can be asked ends long before the outage, and names TLS."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with Hub(RedisLog(url, outage=60.0)) as hub:
        readers = [Reader(hub.start("k", proven(from_iterable([word(1)])))), Reader(hub.follow("other"))]
        endings = [await reader.until_over() for reader in readers]
        with pytest.raises(LogLostError, match="TLS"):
            await hub.status("k")

    assert loop.time() - began < 10
    for ending in endings:
        assert isinstance(ending, LogLostError)
        assert "TLS" in str(ending)


@pytest.mark.parametrize("certificate", ["of another authority", "expired", "of another host"])
async def test_a_certificate_is_refused_at_once(server: RedisServer, certificate: str, tmp_path: Path) -> None:
    authority: Any = trustme.CA()  # typed with a library that is not here
    other: Any = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = {
        "of another authority": lambda: other.issue_cert("127.0.0.1"),
        "expired": lambda: authority.issue_cert("127.0.0.1", not_after=PAST),
        "of another host": lambda: authority.issue_cert("example.org"),
    }[certificate]()

    async with door(server.port, _server_context(issued)) as port:
        await _check_refused(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}")


async def test_a_server_without_tls_is_refused_at_once_when_it_is_asked_by_tls(server: RedisServer) -> None:
    await _check_refused(server.url.replace("redis://", "rediss://"))


async def test_a_server_with_tls_is_refused_at_once_when_it_is_asked_without(server: RedisServer) -> None:
    authority: Any = trustme.CA()
    async with door(server.port, _server_context(authority.issue_cert("127.0.0.1"))) as port:
        await _check_refused(f"redis://127.0.0.1:{port}/0")


async def test_a_log_works_behind_tls(server: RedisServer, tmp_path: Path) -> None:
    authority: Any = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with door(server.port, _server_context(authority.issue_cert("127.0.0.1"))) as port:
        log = RedisLog(f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={tmp_path / 'ca.pem'}", namespace="tls")
        async with Hub(log) as hub:
            reader = Reader(hub.start("k", proven(from_iterable([word(1), word(2)]))))

            assert (await reader.until_over(), reader.read) == (None, words(2))
