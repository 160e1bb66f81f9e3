"""Connecting to Redis: a mistake of TLS is recognised at once, because no waiting mends it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import SSLConnection
from redis.exceptions import ConnectionError as RedisConnectionError, InvalidResponse, RedisError

_PATIENCE = 1.0
"""Seconds for a handshake, after which the server is asked whether it has TLS at all."""
_CHECK = 2.0
"""Seconds for that question."""
# A server without TLS takes the beginning of a handshake for a command, and may wait for its end for ever.
_PING = b"PING\r\n"
_REPLIES = (b"+", b"-")


class TLSMistakeError(Exception):
    """The client and the server disagree about TLS, or about a certificate."""


async def connect(connection: Any) -> None:
    """Connect one of redis-py's connections.

    Raises:
        TLSMistakeError: there is no connection because of TLS.
    """
    connecting = asyncio.ensure_future(connection.connect())
    encrypted = isinstance(connection, SSLConnection)
    try:
        if encrypted and not (await asyncio.wait([connecting], timeout=_PATIENCE))[0] and await _is_plain(connection):
            raise TLSMistakeError("Redis has no TLS there: is its URL to begin with redis://?")
        await connecting
    except (RedisError, OSError) as error:
        if encrypted:
            _raise_mistake(error)
        elif _is_cut(error) and hasattr(connection, "host") and await _has_tls(connection):
            raise TLSMistakeError("Redis has TLS there: is its URL to begin with rediss://?") from error
        raise
    finally:
        if not connecting.cancel() and not connecting.cancelled():
            # It is raised above, or else does not matter any more.
            connecting.exception()


def _raise_mistake(error: BaseException | None) -> None:
    """Raise the mistake in the TLS settings that this error or its cause shows; return for a broken connection."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            raise TLSMistakeError(f"TLS refuses the certificate of Redis ({error.verify_message})") from error
        broken = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        if isinstance(error, ssl.SSLError) and not isinstance(error, broken):
            raise TLSMistakeError(f"TLS with Redis fails ({error.reason})") from error
        error = error.__cause__ or error.__context__


def _is_cut(error: BaseException) -> bool:
    """Return whether the server closed the connection, or sent something else than a reply, as one with TLS does."""
    return isinstance(error, InvalidResponse | ConnectionResetError) or (
        type(error) is RedisConnectionError
        and isinstance(error.__cause__ or error.__context__, ConnectionResetError | None)
    )


async def _is_plain(connection: Any) -> bool:
    """Return whether the server answers without TLS."""
    reply = b""
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CHECK):
            reader, writer = await asyncio.open_connection(connection.host, connection.port)
            try:
                writer.write(_PING)
                reply = await reader.read(1)
            finally:
                writer.transport.abort()
    return reply in _REPLIES


async def _has_tls(connection: Any) -> bool:
    """Return whether the server completes a handshake, whatever its certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    # Nothing is sent over this connection.
    context.verify_mode = ssl.CERT_NONE
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(_CHECK):
            _, writer = await asyncio.open_connection(connection.host, connection.port, ssl=context)
            writer.transport.abort()
            return True
    return False
