"""Watch: tells that the connection of a response is gone, in the moment in which its loop learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast


class Watch(asyncio.Protocol):
    """Stands before a server's protocol, which gets all, for as long as a response is sent.

    aiohttp tells a handler that its reader has left by cancelling it, if `handler_cancellation` is set, and otherwise
    not before its next write; and to look at each connection in turn costs most where nothing happens.

    Args:
        transport: Of the connection.
        lost: Called once or twice when it is gone, or nothing can be sent on it any more.
    """

    __slots__ = ("_lost", "_server", "_transport")

    def __init__(self, transport: asyncio.Transport, lost: Callable[[], None]) -> None:
        self._transport = transport
        self._lost = lost
        self._server = cast(asyncio.Protocol, transport.get_protocol())
        transport.set_protocol(self)

    def close(self) -> None:
        """Gives way."""
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._server)

    def data_received(self, data: bytes) -> None:
        """The server's."""
        self._server.data_received(data)

    def eof_received(self) -> bool | None:
        """The reader sends nothing more: to the server it has left."""
        stays = self._server.eof_received()
        if not stays:  # the transport closes, but not before what it has is read, which may be never
            self._lost()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        """It has."""
        try:
            self._server.connection_lost(exc)
        finally:
            self._lost()

    def pause_writing(self) -> None:
        """The server's."""
        self._server.pause_writing()

    def resume_writing(self) -> None:
        """The server's."""
        self._server.resume_writing()
