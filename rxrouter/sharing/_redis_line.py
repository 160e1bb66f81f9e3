"""Line: one connection to Redis; commands go out together, replies come back in order, there is one kind of failure."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    ClusterDownError,
    MovedError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from rxrouter._errors import ClientClosedError, LogLostError
from rxrouter.sharing._redis_settings import Settings
from rxrouter.sharing._redis_tls import TLSMistakeError, connect

Command: TypeAlias = tuple[str | bytes | int, ...]

FENCED = object()
"""The reply to an XADD whose id is not above the last one."""

_ANSWER_SECONDS = 5.0  # a server from which nothing comes for longer is as good as gone
_AT_ONCE = 256  # commands and replies; then the loop has its turn, and the time for an answer begins anew
# Seconds between two tries. Whoever writes is back a good part of a lease before anybody who reads can miss it.
_FIRST_PAUSE, _LONGEST_PAUSE, _LONGEST_OF_LEASE = 0.02, 1.0, 0.25
# Time does not heal them.
_HOPELESS = (AuthenticationError, AuthorizationError, NoPermissionError, ClientClosedError, TLSMistakeError)
# Refusals for the state that the server is in; any other is for what one command asks. In a script's error, before
# Redis 7, there is only the text to tell them by.
_STATES = (OutOfMemoryError, ReadOnlyError, AskError, ClusterDownError, NoPermissionError, TryAgainError)
_STATE_CODES = re.compile(r"\b(BUSY|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|UNBLOCKED)\b")
# Of these, the ones of a server that can be read, and takes no writes.
_UNWRITABLE_CODES = re.compile(r"\b(MISCONF|NOREPLICAS|OOM|READONLY)\b")


class UnreachableError(Exception):
    """The commands were done, or not, or some of them: there was no reply, or one that is none.

    Args:
        since: When there should have been one at the earliest, by the loop's clock.
    """

    def __init__(self, since: float) -> None:
        super().__init__(since)
        self.since = since


class Step(NamedTuple):
    """A command, and who is told what became of it."""

    command: Command
    refused: Callable[[LogLostError], None] | None = None
    take: Callable[[Any], None] | None = None


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
        self._answer_seconds = min(_ANSWER_SECONDS, settings.outage)
        self._connection: Any = None
        self._moved: tuple[str, int] | None = None  # to the node of a cluster that has our keys
        self._turn = asyncio.Lock()
        self._waiting: dict[_Question, None] = {}
        self._limit: asyncio.Timeout | None = None
        self._closed = False

    async def ask(self, commands: Iterable[Command], *, blocks: float = 0.0) -> list[Any]:
        """The replies to these commands; a refusal of what a command asks is one.

        Args:
            commands: They go out as one write, with those of all who wait meanwhile: nobody waits for two round trips.
            blocks: How much longer than others they may take, in seconds.

        Raises:
            UnreachableError: what was done is unknown.
        """
        loop = asyncio.get_running_loop()
        question = _Question(list(commands))
        due = loop.time() + blocks
        self._waiting[question] = None
        try:
            async with self._turn:
                if question in self._waiting:
                    questions, self._waiting = self._waiting, {}
                    await self._exchange(questions, blocks)
        finally:
            self._waiting.pop(question, None)
        if question.error is not None:
            raise UnreachableError(min(due, loop.time())) from question.error
        return question.replies

    async def walk(self, steps: Iterable[Step]) -> None:
        """Asks for each step, and tells those who are to be told."""
        steps = list(steps)
        if not steps:
            return
        for step, reply in zip(steps, await self.ask(step.command for step in steps), strict=True):
            if not isinstance(reply, ResponseError):
                if step.take is not None:
                    step.take(reply)
            elif step.refused is not None:
                step.refused(lost(reply))

    async def insist(self, commands: Iterable[Command]) -> list[Any]:
        """The same as `ask`, until it succeeds: for commands that may be done twice.

        Raises:
            LogLostError: it did not for the time of an outage, or was refused.
        """
        commands = list(commands)
        patience = Patience(self._settings)
        while True:
            try:
                replies = await self.ask(commands)
            except UnreachableError as error:
                await patience.pause(error)
                continue
            for reply in replies:
                if isinstance(reply, ResponseError):
                    raise lost(reply)
            return replies

    def seconds_until(self, age: float) -> float:
        """Return when the connection has this age, but at least the half of it, in seconds from now."""
        now = asyncio.get_running_loop().time()
        return max(age / 2, (now if self.since is None else self.since) + age - now)

    async def aclose(self) -> None:
        """Closes the connection, for ever; who waits for a reply does not get it."""
        self._closed = True
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())
        async with self._turn:
            await self._drop()

    async def _exchange(self, questions: Iterable[_Question], blocks: float) -> None:
        try:
            async with asyncio.timeout(self._answer_seconds + blocks) as self._limit:
                connection = await self._connected()
                await _send(connection, list(chain.from_iterable(question.commands for question in questions)))
                await self._receive(connection, questions, self._limit)
        except (RedisError, OSError, TimeoutError, ClientClosedError, TLSMistakeError) as error:
            for question in questions:
                question.error = question.error and error
            await self._drop()
        except BaseException:  # cancelled: replies that nobody waits for are still to come
            await self._drop()
            raise
        finally:
            self._limit = None

    async def _receive(self, connection: Any, questions: Iterable[_Question], limit: asyncio.Timeout) -> None:
        received = 0
        bad: Exception | None = None
        for question in questions:
            error: Exception | None = None
            for _ in question.commands:
                received += 1
                if received % _AT_ONCE == 0:
                    await asyncio.sleep(0)
                    limit.reschedule(asyncio.get_running_loop().time() + self._answer_seconds)
                reply = await _reply(connection)
                question.replies.append(reply)
                if isinstance(reply, ResponseError) and _is_state(reply):
                    bad = error = reply
            question.error = error
        if bad is not None:
            if isinstance(bad, MovedError):
                host, _, port = str(bad).split()[-1].rpartition(":")
                self._moved = host or connection.host, int(port)
            await self._drop()

    async def _connected(self) -> Any:
        if self._closed:
            raise ClientClosedError("it is closed")
        if self._connection is None:
            connection = self._make()
            connection.retry = Retry(NoBackoff(), 0)
            connection.socket_timeout = None
            connection.health_check_interval = 0
            moved, self._moved = self._moved, None  # if it can't be had, the others may know better
            if moved is not None:
                connection.host, connection.port = moved
            self._connection = connection
            await connect(connection)
            self._moved = moved
            self.since = asyncio.get_running_loop().time()
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection, self.since = self._connection, None, None
        if connection is not None:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


class _Question:
    """What one asks; an error, until all is answered."""

    def __init__(self, commands: list[Command]) -> None:
        self.commands = commands
        self.replies: list[Any] = []
        self.error: Exception | None = ConnectionError("nobody asked")


class Patience:
    """Bears an outage for its time, with growing pauses between the tries.

    Args:
        settings: Of the log.
        more: Seconds beyond the outage.
    """

    def __init__(self, settings: Settings, *, more: float = 0.0) -> None:
        self.longest = min(_LONGEST_PAUSE, settings.lease * _LONGEST_OF_LEASE)
        self.until: float | None = None
        """The end of an outage that has begun, by the loop's clock."""
        self._seconds = settings.outage + more
        self._pause = _FIRST_PAUSE

    def reset(self) -> None:
        """It is over."""
        self.until = None
        self._pause = _FIRST_PAUSE

    async def pause(self, error: UnreachableError) -> None:
        """Waits before the next try.

        Raises:
            LogLostError: enough.
        """
        if self.until is None:
            self.until = error.since + self._seconds
        cause = error.__cause__
        if asyncio.get_running_loop().time() >= self.until or isinstance(cause, _HOPELESS):
            self.reset()
            raise lost(cause) from cause
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
        self._pause = min(2 * self._pause, self.longest)


async def take_turns(
    patience: Patience,
    turn: Callable[[float | None], Awaitable[None]],
    doubt: Callable[[], None],
    lose: Callable[[LogLostError], None],
) -> None:
    """One turn after the other, for ever; outages are borne.

    Args:
        patience: How long outages are borne.
        turn: The work. Its argument is the end of the outage that has begun, by the loop's clock; None in good times.
        doubt: Called when a turn's commands were done, or not.
        lose: Called when all must be given up: the outage is too long, or there is a fault in a turn.
    """
    while True:
        try:
            try:
                await turn(patience.until)
            except UnreachableError as error:
                doubt()
                await patience.pause(error)
            else:
                patience.reset()
        except LogLostError as error:
            lose(error)
            await asyncio.sleep(patience.longest)
        except Exception as error:  # noqa: BLE001 - or all who wait would wait for ever
            told = {"message": "a fault in a log on Redis; its generations are given up", "exception": error}
            asyncio.get_running_loop().call_exception_handler(told)
            lose(lost_by(error))
            await asyncio.sleep(patience.longest)


def is_unwritable(error: BaseException | None) -> bool:
    """Return whether a server that can be read takes no writes, by its refusal of one."""
    return isinstance(error, ResponseError) and (
        isinstance(error, OutOfMemoryError | ReadOnlyError) or _UNWRITABLE_CODES.search(_said(error)) is not None
    )


def is_outage(error: BaseException | None) -> bool:
    """Return whether this is a failure of Redis, or of the way to it."""
    return isinstance(error, RedisError | OSError | TimeoutError)


def lost_by(error: Exception) -> LogLostError:
    """What readers are told of an error that is none of Redis'."""
    lost = LogLostError(f"it can't be read or written ({type(error).__name__})")
    lost.__cause__ = error
    return lost


def lost(error: BaseException | None) -> LogLostError:
    """Return the error that readers get when Redis has failed by this one."""
    if isinstance(error, ResponseError):
        return LogLostError(f"Redis refuses: {_said(error)}")
    if isinstance(error, ClientClosedError | TLSMistakeError):
        return LogLostError(str(error))
    return LogLostError(f"Redis is out of reach ({type(error).__name__})")


async def _send(connection: Any, commands: list[Command]) -> None:
    for first in range(0, len(commands), _AT_ONCE):
        if first:
            await asyncio.sleep(0)
        packed = connection.pack_commands(commands[first : first + _AT_ONCE])
        await connection.send_packed_command(packed, check_health=False)


async def _reply(connection: Any) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except ResponseError as error:
        return FENCED if "equal or smaller" in str(error) else error


def _is_state(error: ResponseError) -> bool:
    return isinstance(error, _STATES) or _STATE_CODES.search(_said(error)) is not None


def _said(error: ResponseError) -> str:
    """What is wrong; behind the comma, Redis quotes keys and chunks."""
    return str(error).partition(",")[0]
