"""The context of a chain: how it ends when a callback raises, and which of its sources have proven their answers.

An Rx `subscribe` has no argument for either. A source may stand any number of operators above the subscriber, and is
often subscribed later: by a retry's timer, or by `concat` when the source before it has completed. All of these run in
the context of the subscription, or in a copy of it, so a `ContextVar` reaches them.
"""

from __future__ import annotations

import enum
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol
from weakref import ref

from reactivex import abc
from reactivex.observer.autodetachobserver import AutoDetachObserver

from rxrouter._errors import GenerationStopped, RouterError, TruncatedStreamError
from rxrouter._wire.chunk import ChatChunk, has_content
from rxrouter._wire.failure import stream_error
from rxrouter._wire.finish_proof import FinishProof
from rxrouter._wire.restarted import Restarted

_detach: Any = AutoDetachObserver
_TERMINAL = {_detach.on_error.__code__, _detach.on_completed.__code__}


class ChainEnd(Protocol):
    """The object that ends a subscription when one of its callbacks raises where no observer can receive the error."""

    sources: set[abc.DisposableBase]
    """The open requests below the subscription; each is closed when disposing the chain itself raises."""

    def fail(self, error: Exception) -> None:
        """End the chain with `error`, or report the error if the chain has already ended."""
        ...


# A weak reference, because timers that live long, such as a connection pool's, keep the context in which they began.
_end: ContextVar[ref[ChainEnd] | None] = ContextVar("rxrouter_chain_end", default=None)
_ledgers: ContextVar[tuple[ProofLedger, ...]] = ContextVar("rxrouter_ledgers", default=())


def chain_end() -> ChainEnd | None:
    """Return the object that ends the running chain; None outside of any chain."""
    end = _end.get()
    return None if end is None else end()


def close_chain(chain: abc.DisposableBase, sources: set[abc.DisposableBase]) -> BaseException | None:
    """Dispose of a chain; if an operator raises meanwhile, close its open requests, and return the exception."""
    try:
        chain.dispose()
    except BaseException as raised:  # noqa: BLE001 - an operator may raise anything
        for source in tuple(sources):
            source.dispose()
        return raised
    return None


@contextmanager
def ending(end: ChainEnd, *, apart: bool = False) -> Generator[None]:
    """End the chains that are subscribed in this block through `end`, whenever one of their callbacks raises.

    Args:
        end: The subscription's end.
        apart: Hide their sources from the ledgers outside: a callback of another chain subscribes, which does not get
            their values.
    """
    token = _end.set(ref(end))
    ledgers = _ledgers.set(()) if apart else None
    try:
        yield
    finally:
        if ledgers is not None:
            _ledgers.reset(ledgers)
        _end.reset(token)


def lost_an_ending(raised: BaseException) -> bool:
    """Return whether the exception left a terminal callback, whose observer ignores every later notification.

    `take(1)` completes its observer inside `on_next`: an operator below that raises then is already stopped, and the
    `on_error` of the source does not reach it.
    """
    trace = raised.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in _TERMINAL:
            return True
        trace = trace.tb_next
    return False


class Proof(enum.Enum):
    """The judgement of a stream that has completed."""

    COMPLETE = "at least one source has finished, and none is open"
    CUT = "an operator has completed the stream before its source had finished"
    UNKNOWN = "no source of this library was subscribed; the finish reasons of the chunks decide"


class ProofLedger:
    """The sources that were subscribed below one fold, hub, or relay, as counts.

    Attributes:
        open: Sources that are neither finished nor closed.
        finished: Whether a source has proven its answer.
        closed: Whether a source has ended in any other way.
        failed: Whether a source has failed behind content, which is now part of what the fold has. A retry of this
            library announces that the answer begins anew, or goes on with it; RxPY's only adds another answer.
        over: Whether the fold has received its ending. What is subscribed later in a copy of its context, such as the
            next round of a `repeat` below it, is not its source.
    """

    __slots__ = ("closed", "failed", "finished", "open", "over")

    def __init__(self) -> None:
        self.open = 0
        self.finished = False
        self.closed = False
        self.failed = False
        self.over = False

    @contextmanager
    def collecting(self, *, alone: bool = False) -> Generator[None]:
        """Register the sources that are subscribed in this block, or later in a copy of its context.

        Args:
            alone: Hide these sources from the ledgers outside: the values are shared, and one reader's fold must not
                depend on what the shared source does after that reader has left.
        """
        outside = () if alone else (ledger for ledger in _ledgers.get() if not ledger.over)
        token = _ledgers.set((*outside, self))
        try:
            yield
        finally:
            _ledgers.reset(token)

    @property
    def proof(self) -> Proof:
        """The judgement, for a stream that completes now."""
        if self.open or self.failed:
            return Proof.CUT
        if self.finished:
            return Proof.COMPLETE
        return Proof.CUT if self.closed else Proof.UNKNOWN


def reject_answer() -> None:
    """Take back the proof of the running chain's answer, for which an operator requests another.

    Until the next source is subscribed, which may be after a pause or in a queue, nothing else is open.
    """
    for ledger in _ledgers.get():
        ledger.closed = ledger.closed or ledger.finished
        ledger.finished = False


def forgive_failures() -> None:
    """Have the failed sources of the running context no longer count: their answer begins anew, or is continued."""
    for ledger in _ledgers.get():
        ledger.failed = False


class SourceProof:
    """The entry of one source in every ledger above it; the first of its calls counts."""

    __slots__ = ("_ledgers",)

    def __init__(self) -> None:
        """Register an open source with the ledgers of the running context."""
        self._ledgers = _ledgers.get()
        for ledger in self._ledgers:
            ledger.open += 1

    def finish(self) -> None:
        """Note that the answer is proven; to be called before the source completes."""
        for ledger in self._take():
            ledger.finished = True

    def close(self) -> None:
        """Note any other end: an error, a disposal, or a completion that an operator above has caused."""
        for ledger in self._take():
            ledger.closed = True

    def fail(self) -> None:
        """Note that the source has failed behind content."""
        for ledger in self._take():
            ledger.closed = ledger.failed = True

    def withdraw(self) -> None:
        """Forget the source: only the chunks can prove the answer.

        They come from elsewhere, or the source has failed without any content, and another may stand in for it.
        """
        self._take()

    def _take(self) -> tuple[ProofLedger, ...]:
        ledgers, self._ledgers = self._ledgers, ()
        for ledger in ledgers:
            ledger.open -= 1
        return ledgers


class ChunkProof:
    """The judgement of a stream of chunks that a hub or a relay passes on.

    Attributes:
        ledger: Collects the sources below the subscription.
    """

    __slots__ = ("_finishes", "_in_band", "ledger")

    def __init__(self) -> None:
        self.ledger = ProofLedger()
        self._finishes = FinishProof()
        self._in_band: RouterError | None = None

    def add(self, chunk: ChatChunk) -> None:
        """Take the next chunk into account, if no source of this library can prove it."""
        if self.ledger.open or self.ledger.proof is not Proof.UNKNOWN:
            return
        if not chunk.choices and isinstance(chunk, Restarted):
            self._finishes = FinishProof()
            self._in_band = None
            return
        self._in_band = self._in_band or stream_error(chunk)
        for choice in chunk.choices:
            self._finishes.add_from_elsewhere(choice.index, choice.finish_reason, content=has_content(choice.delta))

    def error(self, proof: Proof) -> RouterError | None:
        """Return the error that a completion stands for; None if the answer is proven.

        Args:
            proof: The ledger's judgement at the moment of the completion.
        """
        if proof is Proof.CUT:
            return GenerationStopped()
        if proof is Proof.COMPLETE:
            return None
        return self._in_band or (None if self._finishes.proven(1) else TruncatedStreamError())
