"""Spread: several logs as one, each with its share of the keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b

from rxrouter._errors import RouterError
from rxrouter.sharing.log import Log, Status, Writer
from rxrouter.sharing.tape import Tape


class Spread:
    """Spreads keys over logs: `RedisLog`s of several servers, or of several namespaces in a cluster.

    Each key has its log by the key alone, so every process that has the same logs, in this order, finds it there. One
    log more, behind the others, takes only its own share of the keys from them.
    """

    def __init__(self, *logs: Log) -> None:
        if not logs:
            raise ValueError("there is nothing to spread keys over")
        self._logs = logs

    async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
        """See `Log`."""
        return await self._of(key).claim(key, on_lost)

    def follow(self, key: str) -> Tape:
        """See `Log`."""
        return self._of(key).follow(key)

    async def stop(self, key: str, error: RouterError) -> None:
        """See `Log`."""
        await self._of(key).stop(key, error)

    async def status(self, key: str) -> Status:
        """See `Log`."""
        return await self._of(key).status(key)

    async def aclose(self) -> None:
        """See `Log`."""
        await asyncio.gather(*(log.aclose() for log in self._logs))

    def _of(self, key: str) -> Log:
        """The log whose number gives the highest hash with the key (rendezvous hashing)."""

        def weight(number: int) -> bytes:
            return blake2b(f"{number} {key}".encode(), digest_size=8).digest()

        return self._logs[max(range(len(self._logs)), key=weight)]
