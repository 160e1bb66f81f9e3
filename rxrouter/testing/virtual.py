"""VirtualLoop: an event loop in which waiting takes no time, and no network is needed."""

from __future__ import annotations

import asyncio
import errno
import selectors
import socket
from typing import Any
from weakref import WeakSet

from rxrouter.testing._memory import Address, Factory, MemoryServer, MemoryTransport

_FIRST_PORT = 49152
_PATIENCE_SECONDS = 5.0  # of the real clock: for what a thread may still bring


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer as soon as there is nothing else to do: an hour takes milliseconds.

    Servers that are started on it, a `Simulator` too, and the connections to them are in memory; so everything that
    happens, happens in the same order each time. Other sockets, subprocesses and threads have no place in its time.

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(test())

    It raises RuntimeError when nothing is left that anybody could be waiting for.
    """

    def __init__(self) -> None:
        self._elapsed = 0.0
        self._servers: dict[Address, MemoryServer] = {}
        self._dialled: dict[socket.socket, MemoryServer] = {}
        self._next_port = _FIRST_PORT
        self._connections = WeakSet[MemoryTransport]()
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._elapsed

    def block(self, seconds: float) -> None:
        """Lets time pass as if a callback had held the loop up for so long."""
        self._elapsed += seconds

    @property
    def connections(self) -> int:
        """How many are open."""
        return sum(transport.peer is not None for transport in self._connections)

    @property
    def timers(self) -> int:
        """How many are armed."""
        armed: list[asyncio.TimerHandle] = vars(self)["_scheduled"]  # where asyncio has them; it tells nobody
        return sum(not timer.cancelled() for timer in armed)

    async def create_server(  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        self, protocol_factory: Factory, host: str | None = None, port: int | None = None, **_: Any
    ) -> MemoryServer:
        """Listens at the address, in this process only; the options of a socket are passed over."""
        address = (host or "127.0.0.1", port or self._free_port())
        server = self._servers.get(address)
        if server is not None and server.serving:
            raise OSError(errno.EADDRINUSE, f"something listens at {address} already")
        self._servers[address] = MemoryServer(protocol_factory, address)
        return self._servers[address]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Finds the server; the socket is only a name for the connection."""
        self._dialled[sock] = self._listening(address[:2])

    async def create_connection(  # type: ignore[override] # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        protocol_factory: Factory,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        sock: socket.socket | None = None,
        **_: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connects to the server at the address, or to the one that `sock_connect` has found."""
        server = self._listening((host, port)) if sock is None else self._dialled.pop(sock)
        if sock is not None:
            sock.close()
        here = ("127.0.0.1", self._free_port())
        protocol = protocol_factory()
        near = MemoryTransport(self, protocol, here, server.address)
        far = MemoryTransport(self, server.factory(), server.address, here)
        far.connect(near)
        near.connect(far)
        self._connections.add(near)
        return near, protocol

    def _listening(self, address: Address) -> MemoryServer:
        server = self._servers.get(address)
        if server is None or not server.serving:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nothing listens at {address}")
        return server

    def _free_port(self) -> int:
        self._next_port += 1
        return self._next_port


class _Selector(selectors.DefaultSelector):
    """Waits for nothing, and says that it has."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; if nothing is, the time is over."""
        ready = super().select(_PATIENCE_SECONDS if timeout is None else 0)
        if not ready and timeout is None:
            raise RuntimeError("nothing is left to happen, and something still waits")
        if not ready and timeout:
            self._loop.block(timeout)
        return ready
