"""A TCP proxy before a Redis server, that delivers one chosen write late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class LateWrites:
    """Forward all bytes; hold the first block after `hold` that has `part`, and deliver it before the next such block.

    The held block goes to the server on its own connection, which stays open towards the server whatever the client
    does. So the server executes it late, as behind a proxy whose queue was full.
    """

    def __init__(self) -> None:
        self.port = 0
        self.delivered = asyncio.Event()
        """The held block was executed."""
        self._part: bytes | None = None
        self._held: tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter] | None = None

    def hold(self, part: bytes) -> None:
        """Hold the next block that has this part."""
        self._part = part

    async def block(self, block: bytes, from_server: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> bool:
        """Return whether to forward the block now."""
        if self._part is None or self._part not in block:
            return True
        if self._held is None:
            self._held = block, from_server, to_server
            return False
        if not self.delivered.is_set():
            held, reply, old_server = self._held
            old_server.write(held)
            assert await reply.read(1 << 16)
            self.delivered.set()
        return True


@asynccontextmanager
async def late_writes(port: int) -> AsyncGenerator[LateWrites]:
    """Open a proxy before the server on this port."""
    proxy = LateWrites()
    tasks: set[asyncio.Task[None]] = set()
    opened: list[asyncio.StreamWriter] = []

    async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        opened.extend((writer, to_server))
        back = asyncio.create_task(_forward(from_server, writer))
        tasks.add(back)
        with suppress(ConnectionError):
            while block := await reader.read(1 << 16):
                if await proxy.block(block, from_server, to_server):
                    to_server.write(block)
                elif not back.cancel():
                    raise AssertionError("the server closed the connection of a held write")

    async with await asyncio.start_server(enter, "127.0.0.1", 0) as door:
        proxy.port = door.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            for writer in opened:
                writer.transport.abort()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while block := await reader.read(1 << 16):
            writer.write(block)
