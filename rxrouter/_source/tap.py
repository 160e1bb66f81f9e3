"""Tap: looks at a body right behind each socket read, where a task would be woken for it in the loop's next turn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp


def tap(response: aiohttp.ClientResponse, look: Callable[[], None]) -> bool:
    """Has `look` called behind each socket read, when aiohttp has parsed it, until the body is all there.

    By public means: a connection has its transport and protocol, and a transport lets its protocol be changed.

    Returns: whether that can be. Not, where the body is all there already, and the connection another's.
    """
    connection = response.connection
    if connection is None or connection.transport is None or connection.protocol is None:
        return False
    transport, protocol = connection.transport, connection.protocol
    try:
        transport.set_protocol(_Tap(protocol, look))
    except NotImplementedError:  # a transport of somebody else's loop
        return False
    response.content.on_eof(lambda: transport.set_protocol(protocol))  # before the connection is used again
    return True


class _Tap(asyncio.Protocol):
    """Stands before aiohttp's protocol, which gets everything first."""

    def __init__(self, protocol: asyncio.Protocol, look: Callable[[], None]) -> None:
        self._receive = protocol.data_received
        self._look = look
        self._protocol = protocol

    def data_received(self, data: bytes) -> None:
        self._receive(data)
        self._look()

    def eof_received(self) -> bool | None:
        return self._protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)
        self._look()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()
