"""The relay as a server of the soak, and the small buffers of its sockets."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any, Self

import aiohttp
from aiohttp import web

from rxrouter.relay.aiohttp import shutdown

_CLOSING = 15.0  # seconds
_SMALL_BUFFER = 8192  # bytes


class Relay:
    """An application with one route, on a port that it keeps when it is started again."""

    def __init__(self, get: Any, post: Any) -> None:
        self.url = ""
        self._get = get
        self._post = post
        self._port = 0
        self._listening: socket.socket | None = None
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        path = "/{place}/{dialect}/{name}"
        app.add_routes([web.get(path, self._get), web.post(path, self._post)])
        app.on_shutdown.append(shutdown)
        # A connection that was made just when it closes keeps aiohttp (3.14) waiting for all of this time.
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        # A forked child may have the one before, for moments.
        self._listening = listening = socket.create_server(("127.0.0.1", self._port), reuse_port=True)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SMALL_BUFFER)
        self._port = listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        await web.SockSite(self._runner, listening).start()

    def leave_to_parent(self) -> None:
        """Close the listening socket in a forked child, where nothing accepts connections."""
        if self._listening is not None and self._listening.fileno() >= 0:
            os.close(self._listening.fileno())

    async def stop(self) -> None:
        if self._runner is None:
            return
        try:
            async with asyncio.timeout(_CLOSING):
                await self._runner.cleanup()
        except TimeoutError:
            raise AssertionError(f"the relay has not closed, for {_waiting()}") from None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _waiting() -> list[str]:
    """Where the tasks of this loop are, but for those of the soak itself."""
    frames = [[f"{frame.f_code.co_name}:{frame.f_lineno}" for frame in _stack(task)] for task in asyncio.all_tasks()]
    return [" > ".join(names) for names in frames if names and names[0].startswith(("start:", "_handle"))]


def _stack(task: asyncio.Task[Any]) -> Iterator[Any]:
    """The frames of the coroutines that wait for each other; a task's own `get_stack` gives the outermost alone."""
    coroutine: Any = task.get_coro()
    while getattr(coroutine, "cr_frame", None) is not None:
        yield coroutine.cr_frame
        coroutine = coroutine.cr_await


def small_connector() -> aiohttp.TCPConnector:
    def make(info: Any) -> socket.socket:
        family, kind, protocol, _, _ = info
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        return made

    return aiohttp.TCPConnector(limit=0, socket_factory=make)
