"""Production: a generation that is made in this process, for whoever reads it, or nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from functools import partial

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._chain import ChunkProof, Proof, close_chain, ending
from rxrouter._consume import Subscription
from rxrouter._errors import GenerationTooLargeError, ProducerLostError, RouterError
from rxrouter._gate import as_exception, leave_gate, scope
from rxrouter._source.loop import LoopScheduler
from rxrouter._source.observable import LoopObservable
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._fanout import FanoutReader
from rxrouter.sharing._entries import decode_ending, encode, encode_ending
from rxrouter.sharing.log import Log, Writer
from rxrouter.sharing.tape import Tape

_producing: ContextVar[Production | None] = ContextVar("rxrouter_producing", default=None)


def producing() -> Production | None:
    """Return the generation whose chunks are subscribed in the running context; None outside of any."""
    return _producing.get()


class Production(abc.ObserverBase[ChatChunk]):
    """Claims a key, then takes the chunks, on whatever thread they come, into the log.

    Args:
        scheduler: The hub's; on its loop everything happens.
        max_bytes: Where the generation is cut.
        on_over: Called when it is nobody's here any more: ended, or refused because another hub makes it.
    """

    def __init__(self, scheduler: LoopScheduler, max_bytes: int, on_over: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.begun: asyncio.Future[None] = loop.create_future()  # the log knows the key, or can't be had
        self.over: asyncio.Future[None] = loop.create_future()
        self._scheduler = scheduler
        self._max_bytes = max_bytes
        self._bytes = 0
        self._on_over = on_over
        self._refusal: Exception | None = None
        self._writer: Writer | None = None
        self.sources: set[abc.DisposableBase] = set()
        self._proof = ChunkProof()
        self._follows: set[Production] = set()
        self._upstream = SingleAssignmentDisposable()
        self._subscription: abc.DisposableBase | None = None

    async def begin(self, chunks: Observable[ChatChunk], log: Log, key: str) -> None:
        """Subscribes the chunks, if nobody else has the key."""
        try:
            self._writer = await log.claim(key, self.leave)
        except Exception as error:  # noqa: BLE001 - told to who asked
            self._refusal = error
        finally:
            if self._writer is None:
                self.leave()
            self.begun.set_result(None)
        await asyncio.sleep(0)  # who waits for it joins before it can be over
        if not self.over.done():
            self._subscribe(chunks)
        elif self._writer is not None:  # the hub was closed while the key was claimed
            self._writer.end(_gone())

    def _subscribe(self, chunks: Observable[ChatChunk]) -> None:
        # For the rest of this task: a consumer of the starter's values must not pause the generation.
        leave_gate()
        _producing.set(self)
        scheduler = None if isinstance(chunks, LoopObservable) else self._scheduler
        with scope(set()), ending(self), self._proof.ledger.collecting(alone=True):
            try:
                self._subscription = chunks.subscribe(self, scheduler=scheduler)
            except BaseException as raised:  # noqa: BLE001 - a source may raise anything
                self._finish(as_exception(raised))
            else:
                self._upstream.disposable = self._subscription

    def may_follow(self, other: Production) -> bool:
        """Note that this generation is made of another one's chunks; return False if that would be a cycle."""
        if other is self or other.reaches(self):
            return False
        self._follows.add(other)
        return True

    def reaches(self, other: Production) -> bool:
        """Return whether this generation follows the other, directly or by way of others."""
        return any(followed is other or followed.reaches(other) for followed in self._follows)

    def join(self, reader: FanoutReader[ChatChunk], follow: Callable[[], Tape], after: int) -> None:
        """Has a reader follow what is, or will be, in the log."""
        if not self.begun.done():
            self.begun.add_done_callback(lambda _: self.join(reader, follow, after))
        elif self._refusal is not None:
            reader.fail(self._refusal)
        else:
            follow().read(reader, after)

    def on_next(self, value: ChatChunk) -> None:
        self._scheduler.call(partial(self._append, value))

    def on_error(self, error: Exception) -> None:
        self._scheduler.call(partial(self._finish, error))

    def on_completed(self) -> None:
        # The judgement is that of this moment: an operator that ends the stream early disposes its source next.
        self._scheduler.call(partial(self._complete, self._proof.ledger.proof))

    def fail(self, error: Exception) -> None:
        """End the generation by an error that an operator of its chain raised, and that no observer received."""
        self._scheduler.call(partial(self._finish, error))

    def _append(self, chunk: ChatChunk) -> None:
        if self._writer is None or self.over.done():
            return
        try:
            self._bytes += len(encode(chunk))
            if self._bytes > self._max_bytes:
                raise GenerationTooLargeError(self._max_bytes)  # noqa: TRY301 - ends it as any other
            self._writer.append(chunk)
            self._proof.add(chunk)
        except Exception as error:  # noqa: BLE001 - what is no chunk, too, ends the generation, and not its source
            self._finish(error)

    def _complete(self, proof: Proof) -> None:
        """End well, if the answer is proven; behind all chunks, which may have come on another thread."""
        self._finish(self._proof.error(proof))

    def _finish(self, error: Exception | None) -> None:
        """Writes the ending; as facts, in which everybody gets it."""
        if self._writer is not None and not self.over.done():
            ending = decode_ending(encode_ending(error))
            self.leave()
            self._writer.end(ending)

    def leave(self) -> None:
        """Takes no more, and closes the source."""
        if not self.over.done():
            self.over.set_result(None)
            self._follows.clear()
            self._on_over()
            if (raised := close_chain(self._upstream, self.sources)) is not None:
                what = "the source of a shared generation raised when it was disposed"
                asyncio.get_running_loop().call_exception_handler({"message": what, "exception": as_exception(raised)})

    async def aclose(self) -> None:
        """Ends the generation for those elsewhere, and returns when its source has let go of everything."""
        self._finish(_gone())
        self.leave()
        if isinstance(self._subscription, Subscription):
            await self._subscription.aclose()


def _gone() -> RouterError:
    return ProducerLostError("the hub that made the generation was closed")
