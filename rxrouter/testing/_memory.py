"""Connections that have no socket: two transports in one process, each the other's far end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

Address = tuple[str, int]
Factory = Callable[[], asyncio.BaseProtocol]

_HIGH = 1 << 16  # bytes on their way at which the writer is asked to pause


class MemoryServer:
    """Who listens at an address."""

    def __init__(self, factory: Factory, address: Address) -> None:
        self.factory = factory
        self.address = address
        self.sockets = (_NoSocket(address),)
        self.serving = True

    def close(self) -> None:
        self.serving = False

    def is_serving(self) -> bool:
        return self.serving

    async def wait_closed(self) -> None:
        """Is closed at once."""


class MemoryTransport(asyncio.Transport):
    """One end of a connection: what is written arrives in the loop's next turn, if the other end reads."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol, here: Address, there: Address
    ) -> None:
        super().__init__({"sockname": here, "peername": there, "socket": _NoSocket(here)})
        self.protocol = cast(asyncio.Protocol, protocol)
        self.peer: MemoryTransport | None = None  # until the connection is lost
        self.reading = True
        self._loop = loop
        self._sent = bytearray()  # on its way
        self._paused = False  # the protocol was asked to write no more
        self._closing = False

    def connect(self, peer: MemoryTransport) -> None:
        """Makes `peer` the far end of this one."""
        self.peer = peer
        self.protocol.connection_made(self)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or self.peer is None:
            return
        self._sent += data
        if len(self._sent) > _HIGH and not self._paused:
            self._paused = True
            self.protocol.pause_writing()
        self._loop.call_soon(self.carry)

    def carry(self) -> None:
        """Brings what was written to the other end."""
        peer = self.peer
        if peer is None:
            return
        if self._sent and peer.reading:
            data, self._sent = bytes(self._sent), bytearray()
            peer.protocol.data_received(data)
            if self._paused:
                self._paused = False
                self.protocol.resume_writing()
        if self._closing and not self._sent:
            self._lose(None)

    def close(self) -> None:
        """Takes leave, when all that was written has arrived."""
        self._closing = True
        self._loop.call_soon(self.carry)

    def abort(self) -> None:
        """Takes leave at once; the other end sees a reset."""
        self._closing = True
        self._lose(ConnectionResetError("reset by the other end"))

    def is_closing(self) -> bool:
        return self._closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        if self.peer is not None:
            self._loop.call_soon(self.peer.carry)

    def is_reading(self) -> bool:
        return self.reading and not self._closing

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return len(self._sent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Has limits of its own."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = cast(asyncio.Protocol, protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.protocol

    def lost(self, error: Exception | None) -> None:
        """The connection is gone, by the other end if there is an error."""
        self._closing = True
        self.protocol.connection_lost(error)

    def _lose(self, error: Exception | None) -> None:
        peer, self.peer = self.peer, None
        if peer is not None:
            peer.peer = None
            self._loop.call_soon(self.lost, None)
            self._loop.call_soon(peer.lost, error)


class _NoSocket:
    """In place of a socket, for those who ask it for its address, or set its options."""

    family = socket.AF_UNSPEC

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        return self._address

    def setsockopt(self, *_: Any) -> None:
        """Has no options."""
