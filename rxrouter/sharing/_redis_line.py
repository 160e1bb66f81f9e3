"""Line: one connection to Redis; commands go out together, replies come back in order, there is one kind of failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
)

from rxrouter._errors import LogLostError
from rxrouter.sharing._redis_settings import Settings

Command: TypeAlias = tuple[str | bytes | int, ...]

FENCED = object()
"""The reply to an XADD whose id is not above the last one."""

_ANSWER_SECONDS = 5.0  # a server that takes longer for one turn's commands is as good as gone
# Seconds between two tries. Whoever writes is back a good part of a lease before anybody who reads can miss it.
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_OF_LEASE = 0.02, 1.0, 0.25
_HOPELESS = (AuthenticationError, AuthorizationError, NoPermissionError)  # time does not heal them


class UnreachableError(Exception):
    """The commands were done, or not, or some of them: there was no reply, or one that is none."""


class Line:
    """One connection, made when it is needed, and again when it broke.

    It is redis-py's, used below its client: that one answers differently in each version and protocol, and tries again
    by itself what a writer must first look at.

    Args:
        connection: Makes one of redis-py's connections.
        settings: Its outage is how long `insist` tries.
    """

    def __init__(self, connection: Callable[[], Any], settings: Settings) -> None:
        self.since: float | None = None  # connected, by the loop's clock
        self._make = connection
        self._settings = settings
        self._connection: Any = None
        self._moved: tuple[str, int] | None = None  # to the node of a cluster that has our keys
        self._turn = asyncio.Lock()

    async def ask(self, commands: Iterable[Command], *, blocks: float = 0.0) -> list[Any]:
        """The replies to these commands.

        Args:
            commands: They go out as one write.
            blocks: How much longer than others they may take, in seconds.

        Raises:
            UnreachableError: what was done is unknown.
        """
        commands = list(commands)
        async with self._turn:
            try:
                async with asyncio.timeout(_ANSWER_SECONDS + blocks):
                    connection = await self._connected()
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    return [await _reply(connection) for _ in commands]
            except (RedisError, OSError, TimeoutError) as error:
                self._moved = _address(error)
                await self._drop()
                raise UnreachableError from error
            except BaseException:  # cancelled: replies that nobody waits for are still to come
                await self._drop()
                raise

    async def insist(self, commands: Iterable[Command]) -> list[Any]:
        """The same, until it succeeds: for commands that may be done twice.

        Raises:
            LogLostError: it did not for the time of an outage.
        """
        commands = list(commands)
        patience = Patience(self._settings)
        while True:
            try:
                return await self.ask(commands)
            except UnreachableError as error:
                await patience.pause(error)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._drop()

    async def _connected(self) -> Any:
        if self._connection is None:
            connection = self._make()
            connection.retry = Retry(NoBackoff(), 0)
            connection.socket_timeout = None
            connection.health_check_interval = 0
            if self._moved is not None:
                connection.host, connection.port = self._moved
            self._connection = connection
            await connection.connect()
            self.since = asyncio.get_running_loop().time()
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection, self.since = self._connection, None, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


class Patience:
    """Bears an outage for its time, with growing pauses between the tries."""

    def __init__(self, settings: Settings) -> None:
        self._seconds = settings.outage
        self._longest = min(_LONGEST_PAUSE, settings.lease * _LONGEST_OF_LEASE)
        self._until: float | None = None
        self._pause = _FIRST_PAUSE

    def reset(self) -> None:
        """It is over."""
        self._until = None
        self._pause = _FIRST_PAUSE

    async def pause(self, error: UnreachableError) -> None:
        """Waits before the next try.

        Raises:
            LogLostError: enough.
        """
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._seconds
        cause = error.__cause__
        if now >= self._until or isinstance(cause, _HOPELESS):
            self.reset()
            raise LogLostError(f"Redis is out of reach ({type(cause).__name__})") from cause
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
        self._pause = min(2 * self._pause, self._longest)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        if "equal or smaller" in str(error):
            return FENCED
        raise


def _address(error: Exception) -> tuple[str, int] | None:
    """Where the keys are, if that was the answer (`3999 127.0.0.1:6381`)."""
    if not isinstance(error, MovedError):
        return None
    host, _, port = str(error).split()[-1].rpartition(":")
    return host, int(port)
