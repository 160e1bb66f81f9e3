"""Hub: generations under names, made once, read by anybody who knows the name."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import Struct
from reactivex import Observable, abc, operators as ops

from rxrouter._chain import Proof
from rxrouter._errors import ClientClosedError, GenerationCycleError, GenerationStopped, RouterError
from rxrouter._gate import running_loop
from rxrouter._source.loop import Home
from rxrouter._source.observable import Direct, LoopObservable
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._fanout import FanoutReader
from rxrouter.sharing._entries import another
from rxrouter.sharing._production import Production, producing
from rxrouter.sharing.log import Log, Status
from rxrouter.sharing.memory import MemoryLog

T = TypeVar("T")

_CLAIM_SECONDS = 1.0  # a claim under way is waited for so long: one that came through wants an ending


class Entry(Struct, frozen=True):
    """One chunk of a generation, and its number: the first is 1, and none is left out."""

    number: int
    chunk: ChatChunk


class Hub:
    """Gives names to generations, so that other requests, tabs, processes and machines can join them.

    A generation belongs to its key: it begins without a reader, goes on when all have left, and is stopped by `stop`
    alone. Each reader gets every entry once, in order, at its own pace, then the ending, which is the same for all;
    also when it comes late, or again. A slow one costs its place in the log, and harms nobody.

    Who knows a key can read and stop what is under it: take one that nobody guesses, such as `secrets.token_urlsafe()`.

    A hub belongs to the event loop in which it is first used, like a client.

    Args:
        log: Where generations are kept: in this process's memory when None; `rxrouter.sharing.redis.RedisLog` has them
            in Redis, for many processes and machines. It is closed with the hub.
        max_bytes: How large a generation may become, in bytes of its chunks; beyond, it ends with
            GenerationTooLargeError.
    """

    def __init__(self, log: Log | None = None, *, max_bytes: int = 64 * 1024 * 1024) -> None:
        if max_bytes <= 0:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        self._log: Log = log or MemoryLog()
        self._max_bytes = max_bytes
        self._home = Home("hub", "async with Hub() as hub: …", moves=False)
        self._closing = False
        self._productions: dict[str, Production] = {}

    def start(self, key: str, chunks: Observable[ChatChunk]) -> LoopObservable[ChatChunk]:
        """Begin a generation under this key, or join the one that is there.

        Args:
            key: Its name; there is one producer for it among all hubs of the log.
            chunks: Subscribed at most once, by this hub, whether anybody reads or not.
        Emits: what `follow(key)` does; elsewhere, too, once `await status(key)` here has returned.
        Errors: what the generation ended with. It is kept, too: a new try wants a new key. Chunks that follow this very
            generation, also by way of others of this hub, end it with GenerationCycleError; an operator that ends the
            chunks before their source has finished ends it with GenerationStopped.
        Cancels: the reading. The generation goes on; see `stop`.

        Raises:
            TypeError: chunks is no Observable.
            ValueError: the key is empty, or no Unicode text.
            ClientClosedError: the hub is closed, or being closed.
        """
        _check_kind(chunks)
        self._check(key)
        if self._closing:
            raise ClientClosedError("the hub is being closed")
        loop = self._home.bind()

        def begin() -> None:
            if key not in self._productions and not self._closing:
                production = Production(self._home.scheduler, self._max_bytes, lambda: self._forget(key))
                self._productions[key] = production
                task = loop.create_task(production.begin(chunks, self._log, key), name="rxrouter start")
                self._home.tasks.add(task)
                task.add_done_callback(self._home.tasks.discard)

        self._home.call(begin)
        return self.follow(key)

    def follow(self, key: str, *, after: int | None = None) -> LoopObservable[ChatChunk]:
        """Read a generation, whoever makes it: what is there, then what comes.

        Args:
            key: The generation's name.
            after: The number of the last entry that is known already; None for all.
        Emits: the chunks with higher numbers, `Restarted` among them, each once; `raw` is what the producer received.
        Errors: the generation's, with all of it that was kept as `partial`; UnknownGenerationError; LogLostError.
        Cancels: the reading alone.

        Raises:
            ValueError: the key is empty, or `after` is negative.
        """
        start = after or 0
        if start < 0:
            raise ValueError(f"entries are numbered from 1; after is no less than 0, not {after}")
        self._check(key)

        def read(observer: abc.ObserverBase[ChatChunk]) -> abc.DisposableBase:
            reader = _Reader(observer, self._home.scheduler)
            reader.gate.offer()
            reads_for = producing()
            self._home.call(lambda: self._join(key, reader, start, reads_for))
            return reader

        return LoopObservable(Direct(read), self._home)

    def entries(self, key: str, *, after: int | None = None) -> LoopObservable[Entry]:
        """`follow` with the numbers: for relays, whose readers come back and say which was their last.

        Args:
            key: See `follow`.
            after: See `follow`.
        Emits: entries; the ending has no number, who has read all before it gets it again.
        Errors: as of `follow`.
        Cancels: as of `follow`.
        """
        first = (after or 0) + 1

        def number(chunk: ChatChunk, index: int) -> Entry:
            return Entry(first + index, chunk)

        return self.follow(key, after=after).pipe(ops.map_indexed(number))

    async def stop(self, key: str) -> None:
        """End a generation, from any process: it ends with GenerationStopped, and its request is closed.

        Returns when the ending is in the log. What has ended already is left as it is.

        Raises:
            UnknownGenerationError: there is none under this key.
            LogLostError: the log is out of reach.
        """
        self._check(key)
        await self._here(self._stop(key))

    async def status(self, key: str) -> Status:
        """How far a generation is, wherever it is made.

        Raises:
            LogLostError: the log is out of reach.
        """
        self._check(key)
        return await self._here(self._status(key))

    async def aclose(self, *, grace: float = 0.0) -> None:
        """Ends everything that runs here, and returns when it is released.

        Readers end with ClientClosedError; readers of this hub's generations elsewhere with ProducerLostError.

        Args:
            grace: How long the generations that are made here may still go on, in seconds; none begins any more.
        """
        if self._home.bound is not None and self._home.running:
            await self._here(self._close(grace))
            if self._home.own:
                await asyncio.to_thread(self._home.end)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _check(self, key: str) -> None:
        if not key:
            raise ValueError("the key of a generation is not empty")
        try:
            key.encode()
        except UnicodeEncodeError:
            raise ValueError("the key of a generation is Unicode text") from None
        if self._home.closed:
            raise ClientClosedError("the hub is closed")

    def _join(self, key: str, reader: FanoutReader[ChatChunk], after: int, reads_for: Production | None) -> None:
        production = self._productions.get(key)
        if reads_for is not None and production is not None and not reads_for.may_follow(production):
            reader.fail(GenerationCycleError(key))
            return
        if self._home.closed:
            reader.fail(ClientClosedError("the hub is closed"))
        elif production is None:
            self._log.follow(key).read(reader, after)
        else:
            production.join(reader, lambda: self._log.follow(key), after)

    async def _stop(self, key: str) -> None:
        production = self._productions.get(key)
        if production is not None:
            await asyncio.shield(production.begun)  # who stops waiting stops nobody else
            production.leave()
        await self._log.stop(key, GenerationStopped())

    async def _status(self, key: str) -> Status:
        production = self._productions.get(key)
        if production is not None:
            await asyncio.shield(production.begun)  # who stops waiting stops nobody else
        return await self._log.status(key)

    async def _close(self, grace: float) -> None:
        self._closing = True
        productions = list(self._productions.values())
        if grace and productions:
            await asyncio.wait([production.over for production in productions], timeout=grace)
        self._home.closed = True
        self._home.readers.close()
        for production in productions:
            await production.aclose()
        if claiming := list(self._home.tasks):
            _, late = await asyncio.wait(claiming, timeout=_CLAIM_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*claiming, return_exceptions=True)
        await self._log.aclose()
        await self._home.end_resources()

    def _forget(self, key: str) -> None:
        del self._productions[key]

    async def _here(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Has it run on the hub's loop."""
        try:
            loop = self._home.bind()
        except RuntimeError:
            coroutine.close()
            raise
        if running_loop() is loop:
            return await coroutine
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


def _check_kind(chunks: Any) -> None:
    if not isinstance(chunks, Observable):
        raise TypeError(f"chunks is an Observable, not {type(chunks).__name__}")


class _Reader(FanoutReader[ChatChunk]):
    """A reader that is told of an error by an object of its own."""

    def _tell(self, error: Exception | None, proof: Proof = Proof.CUT) -> None:
        super()._tell(another(error) if isinstance(error, RouterError) else error, proof)
