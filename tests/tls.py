"""TLS for tests: certificates that nobody else trusts, and a door of TLS before any server of this machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import trustme
from yarl import URL


@cache
def authority() -> Any:
    """The issuer of the server's certificate; typed with a library that is not here."""
    return trustme.CA()


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's, and that of a client who trusts it."""
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority().issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority().configure_trust(client)
    return server, client


@asynccontextmanager
async def behind_tls(address: str) -> AsyncGenerator[str]:
    """The address of a door through which all goes to another, as it comes; ends and resets, too."""
    url = URL(address)
    going = list[asyncio.Future[Any]]()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while block := await reader.read(1 << 16):
                writer.write(block)
                await writer.drain()
            writer.close()
        except OSError:
            writer.transport.abort()

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(url.host, url.port)
        going.append(asyncio.gather(forward(reader, to_server), forward(from_server, writer)))

    async with await asyncio.start_server(enter, "127.0.0.1", 0, ssl=contexts()[0]) as door:
        yield str(url.with_scheme("https").with_port(door.sockets[0].getsockname()[1]))
        await asyncio.gather(*going)
