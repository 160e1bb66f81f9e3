"""Desk: looks after a loop's connections: one callback a turn for what is to be sent, one timer for who has left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rxrouter.relay.connection import Connection

# How often connections are looked at: aiohttp tells a handler that its reader has left by cancelling it, if
# `handler_cancellation` is set, and otherwise not before its next write.
_LOOK_SECONDS = 0.1


class Desk:
    """Is there as long as a connection is."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.connections: set[Connection] = set()
        self._ready: list[Connection] = []
        self._frames: list[bytes] = []  # that were sent last in this turn,
        self._chunk = b""  # and what they became
        self._loop = loop
        self._timer = loop.call_later(_LOOK_SECONDS, self._look)

    @classmethod
    def open(cls, connection: Connection) -> Desk:
        """The desk of the loop that runs here, which looks after this connection from now on."""
        loop = asyncio.get_running_loop()
        if (desk := _desks.get(loop)) is None:
            desk = _desks[loop] = cls(loop)
        desk.connections.add(connection)
        return desk

    def close(self, connection: Connection) -> None:
        """Forgets it."""
        self.connections.discard(connection)
        if not self.connections and _desks.get(self._loop) is self:
            self._timer.cancel()
            del _desks[self._loop]

    def ready(self, connection: Connection) -> None:
        """Has it flushed at the end of this turn of the loop."""
        if not self._ready:
            self._loop.call_soon(self._flush)
        self._ready.append(connection)

    def body_of(self, frames: list[bytes], *, chunked: bool) -> bytes:
        """The frames as bytes of a body; made once a turn for all who are sent the same."""
        if not chunked:
            return b"".join(frames)
        if frames != self._frames:
            body = b"".join(frames)
            self._frames = frames
            self._chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""  # a chunk of nothing would be the last
        return self._chunk

    def _flush(self) -> None:
        ready, self._ready = self._ready, []
        for connection in ready:
            try:
                connection.flush()
            except Exception as error:  # noqa: BLE001 - its own, and the others are still to be flushed
                connection.fail(error)
        self._frames, self._chunk = [], b""

    def _look(self) -> None:
        self._timer = self._loop.call_later(_LOOK_SECONDS, self._look)
        for connection in [connection for connection in self.connections if connection.lost]:
            try:
                connection.answer.leave()
            except Exception as error:  # noqa: BLE001 - likewise
                connection.fail(error)


_desks: dict[asyncio.AbstractEventLoop, Desk] = {}


def connections() -> list[Connection]:
    """All that are open in the loop that runs here."""
    desk = _desks.get(asyncio.get_running_loop())
    return [] if desk is None else list(desk.connections)
