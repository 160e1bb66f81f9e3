"""One stream of values to many readers: each gets its part in order, and none can harm another."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Sequence, Sized
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from reactivex import abc
from reactivex.scheduler import TimeoutScheduler

from rxrouter._chain import Proof, SourceProof, chain_end, lost_an_ending
from rxrouter._gate import Barrier, ReaderGate, as_exception, leave_gate
from rxrouter._queue import Overflow, Queue
from rxrouter._source.loop import LoopScheduler
from rxrouter._source.observable import delivering

T = TypeVar("T")

# How much of what it missed a reader is given before others have their turn; a chunk takes some 3 µs, and hundreds may
# come back at once.
_AT_A_TURN = 200


class Unread(Protocol[T]):
    """What one reader has not read yet: a `Queue`, or a place in what is kept for all."""

    ended: bool
    error: Exception | None
    proof: Proof

    @property
    def items(self) -> Sized: ...
    def take(self) -> T: ...
    def on_next(self, value: T) -> None: ...
    def on_error(self, error: Exception) -> None: ...
    def on_completed(self) -> None: ...
    def close(self) -> None: ...


class Fanout(abc.ObserverBase[T], Generic[T]):
    """Takes one stream, as its observer, and gives it to all who have joined.

    A reader that keeps up costs a call. One that does not, because its gate is held or because it still reads what was
    before it, has a queue of its own, with a bound and a policy. All of it happens on one thread.

    Args:
        high: How many values may wait for one reader.
        overflow: What a full queue does.
        remember: Called with each value before the readers are.
        on_empty: Called when the last reader has left before the end.
    """

    def __init__(
        self, high: int, overflow: Overflow, remember: Callable[[T], object], on_empty: Callable[[], None]
    ) -> None:
        self.gates: set[Barrier] = set()  # of the sources above, for PAUSE
        self.over = False
        self.proof = Proof.COMPLETE
        """The judgement of a good end, which each reader's own ledger then has."""
        self._error: Exception | None = None
        self._high = high
        self._overflow = overflow
        self._remember = remember
        self._on_empty = on_empty
        self._ending = False  # the source has ended; what came before that may still be on its way
        self._readers: dict[FanoutReader[T], None] = {}
        self._audience: tuple[FanoutReader[T], ...] | None = ()  # they, so that a loop goes on undisturbed
        self._delivering = False
        self._late: deque[T] = deque()  # what came while a value was being delivered: everybody gets it after that one

    def __len__(self) -> int:
        return len(self._readers)

    def on_next(self, value: T) -> None:
        self._late.append(value)
        if not self._delivering:
            self._deliver()

    def _deliver(self) -> None:
        late = self._late
        self._delivering = True
        try:
            while late:
                value = late.popleft()
                try:
                    self._remember(value)
                except Exception as error:  # noqa: BLE001 - told to all
                    late.clear()
                    self.fail(error)
                    break
                for reader in self._audience or self._gathered():
                    if reader.waiting is None and not reader.gate.closed:
                        try:
                            reader.on_next(value)
                        except BaseException as raised:  # noqa: BLE001 - this reader's, and told to it alone
                            reader.fail(raised)
                    else:
                        reader.wait(value)
        finally:
            self._delivering = False
        if self._ending:
            self._end()

    def _gathered(self) -> tuple[FanoutReader[T], ...]:
        self._audience = tuple(self._readers)
        return self._audience

    def fail(self, error: Exception) -> None:
        """It can't go on."""
        self.on_error(error)

    def on_error(self, error: Exception) -> None:
        self._error = error
        self.on_completed()

    def on_completed(self) -> None:
        self._ending = True
        if not self._delivering:
            self._end()

    def _end(self) -> None:
        self.over = True
        readers, self._readers, self._audience = self._readers, {}, ()
        for reader in readers:
            reader.end(self._error, self.proof)

    def join(self, reader: FanoutReader[T], unread: Unread[T] | None = None) -> None:
        """A new reader gets what was before it, then all that comes, then the end."""
        if not self.over:
            self._readers[reader] = None
            self._audience = None
        reader.begin(self, unread)
        if self.over:
            reader.end(self._error, self.proof)

    def leave(self, reader: FanoutReader[T]) -> None:
        """This reader gets nothing more."""
        if reader in self._readers:
            del self._readers[reader]
            self._audience = None
            if not self._readers and not self._ending:
                self._on_empty()

    def queue(self, before: Sequence[T] = ()) -> Unread[T]:
        """For a reader that does not keep up; what was before it does not count."""
        high = self._high + len(before)
        queue = Queue[T](high, high // 4, self._overflow)
        queue.items.extend(before)
        queue.gates = self.gates
        return queue


class FanoutReader(abc.DisposableBase, Generic[T]):
    """One reader of several; its callbacks run in the context in which it subscribed.

    So each reader has its own request ids, tenants and spans, and consumers below it find its gate, not the gate of the
    source, which serves all.

    Args:
        observer: Whom to tell.
        scheduler: The reader's; a client's loop, on whose thread all is delivered, or any.
    """

    __slots__ = (
        "_at_a_turn",
        "_chain_end",
        "_context",
        "_fanout",
        "_left",
        "_observer",
        "_reading",
        "_scheduler",
        "_source_proof",
        "call",
        "gate",
        "on_next",
        "waiting",
    )

    def __init__(self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> None:
        self._context = context = copy_context()
        context.run(leave_gate)
        run: Any = context.run
        self.on_next: abc.OnNext[T] = partial(run, observer.on_next)
        self._chain_end = chain_end()
        self._source_proof = SourceProof()
        self.call, self._at_a_turn = _now, sys.maxsize  # there are no turns but those of a loop
        if isinstance(scheduler, LoopScheduler):
            self.call, self._at_a_turn = scheduler.call, _AT_A_TURN
        self.gate = ReaderGate(self.call, self._catch_up)
        self.waiting: Unread[T] | None = None
        self._observer = observer
        self._scheduler = scheduler or TimeoutScheduler.singleton()
        self._fanout: Fanout[T] | None = None
        self._left = False
        self._reading = False

    def begin(self, fanout: Fanout[T], unread: Unread[T] | None) -> None:
        self._fanout = fanout
        if self._left:
            fanout.leave(self)
        elif unread is not None:
            self.waiting = unread
            self._catch_up()

    def wait(self, value: T) -> None:
        """Takes a value for which the reader is not ready."""
        if self._left or self._fanout is None:
            return
        if self.waiting is None:
            self.waiting = self._fanout.queue()
        self.waiting.on_next(value)
        if self.waiting.ended:  # overflown
            self._fanout.leave(self)

    def end(self, error: Exception | None, proof: Proof) -> None:
        """End behind the values that wait.

        Args:
            error: The error, or None for a good end.
            proof: The judgement of a good end.
        """
        if self.waiting is not None:
            self.waiting.proof = proof
            self.waiting.on_completed() if error is None else self.waiting.on_error(error)
        elif not self._left:
            self._left = True
            self._tell(error, proof)

    def fail(self, raised: BaseException) -> None:
        """End this reader alone, by an exception that one of its callbacks raised, or by an error of its own."""
        error = as_exception(raised)
        if not self._left:
            self.dispose()
            self._tell(error)
        if lost_an_ending(raised):
            self._fail_chain(error)

    def _tell(self, error: Exception | None, proof: Proof = Proof.CUT) -> None:
        self._note(error, proof)
        observer = self._observer
        try:
            if error is None:
                self._context.run(observer.on_completed)
            else:
                self._context.run(observer.on_error, error)
        except BaseException as raised:  # noqa: BLE001 - or the readers behind this one would have no ending
            self._fail_chain(as_exception(raised))

    def _note(self, error: Exception | None, proof: Proof) -> None:
        if proof is Proof.UNKNOWN:
            self._source_proof.withdraw()
        elif error is None and proof is Proof.COMPLETE:
            self._source_proof.finish()
        elif error is None:
            self._source_proof.close()
        else:
            self._source_proof.fail()

    def _fail_chain(self, error: Exception) -> None:
        """End the reader's chain from outside, after an operator has raised while it passed an ending on."""
        if self._chain_end is not None:
            self._chain_end.fail(error)
        else:
            raise_soon(error, self._scheduler)

    def dispose(self) -> None:
        """Leaves; from any thread."""
        if not self._left:
            self._left = True
            self.on_next = _ignore
            self.gate.shut_down()
            self.call(self._leave)

    def _leave(self) -> None:
        self._source_proof.close()
        if self.waiting is not None:
            self.waiting.close()
        if self._fanout is not None:
            self._fanout.leave(self)

    def _catch_up(self) -> None:
        """Reads what waits, as long as nobody holds the gate."""
        queue = self.waiting
        if queue is None or self._reading:
            return
        self._reading = True
        try:
            with delivering():
                for _ in range(self._at_a_turn):
                    if not queue.items or self.gate.closed:
                        break
                    self.on_next(queue.take())
        except BaseException as raised:  # noqa: BLE001 - as in Fanout
            self.fail(raised)
        finally:
            self._reading = False
        if self.gate.closed:
            return
        if queue.items:
            self._scheduler.schedule(self._go_on)
        else:
            self.waiting = None
            if queue.ended:
                self.end(queue.error, queue.proof)

    def _go_on(self, *_: object) -> None:
        self._catch_up()


def _ignore(_: object) -> None:
    pass


def _now(action: Callable[[], None]) -> None:
    action()


def raise_soon(error: Exception, scheduler: abc.SchedulerBase | None) -> None:
    """Raise an error where no chain is left that could receive it: in a turn of the loop, which reports it."""
    scheduler = scheduler or TimeoutScheduler.singleton()
    Context().run(lambda: scheduler.schedule(partial(_raise, error)))


def _raise(error: Exception, *_: object) -> None:
    raise error
