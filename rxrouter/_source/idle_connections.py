"""Kept connections between two requests: a byte that comes there closes the connection."""

from __future__ import annotations

import asyncio
import selectors
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

# An answer that no server has sent. A parser that is not between two answers reads something else in it.
_REASON = "Nothing Before"
_PROBE = f"HTTP/1.1 204 {_REASON}\r\n\r\n".encode()
# Windows has no poll.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class CleanConnector(aiohttp.TCPConnector):
    """Reuse a connection only if no byte came behind the end of its last answer.

    aiohttp keeps such bytes, and reads them as the next request's answer. By public means: `connect` gives all
    connections out, those of the pool, too; a connection has callbacks for its release; a transport lets its protocol
    be changed. tests/source/test_idle_connections.py fails where aiohttp changes that.

    Source: https://www.rfc-editor.org/rfc/rfc9112.html#section-9.2
    """

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """Return a connection that is new, or clean."""
        while True:
            connection = await super().connect(*args, **kwargs)
            transport, aiohttps = connection.transport, connection.protocol
            # aiohttp has just looked that both are there.
            assert transport is not None  # noqa: S101 - for type checkers
            assert aiohttps is not None  # noqa: S101 - for type checkers
            guard = transport.get_protocol()
            if not isinstance(guard, _IdleGuard) or guard.remove():
                connection.add_callback(partial(_guard, transport, aiohttps))
                return connection
            connection.close()


class _IdleGuard(asyncio.Protocol):
    """Stands before aiohttp's protocol while the connection has no request."""

    def __init__(self, transport: asyncio.Transport, aiohttps: ResponseHandler) -> None:
        self._transport = transport
        self._aiohttps = aiohttps
        transport.set_protocol(self)
        # aiohttp gives a connection back before it has parsed the bytes behind the end.
        asyncio.get_running_loop().call_soon(self._check)

    def remove(self) -> bool:
        """Leave the connection to a request; return False if it has to be closed instead."""
        # Bytes may have come that the loop has not read yet, or the end of the connection.
        clean = self._is_clean() and not _is_readable(self._transport)
        self._transport.set_protocol(self._aiohttps)
        return clean

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - of no interest, whatever they are
        if not self._transport.is_closing():
            self._transport.abort()

    def eof_received(self) -> None:
        self._aiohttps.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._aiohttps.connection_lost(exc)

    def _check(self) -> None:
        transport = self._transport
        if not transport.is_closing() and transport.get_protocol() is self and not self._is_clean():
            transport.abort()

    def _is_clean(self) -> bool:
        """Return whether aiohttp has nothing of another answer, and not even of its beginning."""
        aiohttps = self._aiohttps
        if aiohttps.should_close:
            return False
        aiohttps.data_received(_PROBE)
        return aiohttps.exception() is None and _holds_probe_alone(aiohttps)


def _guard(transport: asyncio.Transport, aiohttps: ResponseHandler) -> None:
    """Guard the connection that is being released, unless it is being closed."""
    if not (transport.is_closing() or aiohttps.should_close):
        _IdleGuard(transport, aiohttps)


def _holds_probe_alone(aiohttps: ResponseHandler) -> bool:
    """Take one answer; return whether it is the probe, and the only one."""
    if not aiohttps.should_close:
        # There is not one answer to take.
        return False
    try:
        aiohttps.read().send(None)
    except StopIteration as read:
        # Its fields may be those of a trailer, which aiohttp's parser in C keeps for the next answer.
        return read.value[0].reason == _REASON and not aiohttps.should_close
    return False


def _is_readable(transport: asyncio.Transport) -> bool:
    try:
        with _Selector() as selector:
            selector.register(transport.get_extra_info("socket"), selectors.EVENT_READ)
            return bool(selector.select(0))
    except ValueError:
        # A connection in memory, which has no socket: nothing can wait there unread.
        return False
