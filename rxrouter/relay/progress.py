"""Progress: how much of a response the reader's machine has taken, as the kernel counts it."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_LINUX = sys.platform == "linux"
# `tcpi_bytes_acked` of Linux' struct tcp_info, since 4.1: https://github.com/torvalds/linux/blob/v6.12/include/uapi/linux/tcp.h
_TCP_INFO_BYTES, _BYTES_ACKED = 128, 120


def progress_of(transport: asyncio.Transport) -> int:
    """Return a number that grows as the reader takes bytes, or, where that is unknown, as the kernel does."""
    acknowledged = _acknowledged(transport.get_extra_info("socket"))
    return -transport.get_write_buffer_size() if acknowledged is None else acknowledged


class PeerSocket:
    """The socket of this process between two addresses, for servers that do not give their transport away.

    Args:
        server: Host and port of its own end.
        client: Host and port of the reader's.
    """

    def __init__(self, server: Sequence[Any] | None, client: Sequence[Any] | None) -> None:
        self._ends = None if server is None or client is None else (tuple(server[:2]), tuple(client[:2]))
        self._descriptor: int | None = None

    def progress(self) -> int | None:
        """Return the number of bytes that the reader has acknowledged; None if that is unknown."""
        if not _LINUX or self._ends is None:
            return None
        if self._descriptor is not None and (found := self._look(self._descriptor)) is not None:
            return found
        with suppress(OSError):
            for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are enough
                if (found := self._look(int(name))) is not None:
                    self._descriptor = int(name)
                    return found
        return None

    def _look(self, descriptor: int) -> int | None:
        try:
            # A descriptor of its own: closing it leaves the server's open.
            with socket.socket(fileno=os.dup(descriptor)) as found:
                if (found.getsockname()[:2], found.getpeername()[:2]) == self._ends:
                    return _acknowledged(found)
        except (OSError, TypeError):
            pass
        return None


def _acknowledged(sock: Any) -> int | None:
    """Return the bytes of a TCP connection that the other end has acknowledged; None if the kernel does not count."""
    if not _LINUX or sock is None:
        return None
    try:
        info: bytes = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except (OSError, AttributeError):
        return None
    if len(info) < _TCP_INFO_BYTES:
        return None
    (acknowledged,) = struct.unpack_from("=Q", info, _BYTES_ACKED)
    return int(acknowledged)
