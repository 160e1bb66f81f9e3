"""Receipts: what each generation of a client really cost, however it ended, told to those who want to know."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from weakref import WeakMethod

from msgspec.structs import replace
from reactivex import abc
from reactivex.disposable import Disposable

from rxrouter._errors import APIError, StatusError, is_transient
from rxrouter._source.loop import Home
from rxrouter._source.resources import Resources
from rxrouter._wire.account import Generation, Receipt
from rxrouter._wire.chunk import ChatChunk

# When OpenRouter is asked, in seconds after the look before. Its books know a generation after more than 0.5 s
# (RooCodeInc/Roo-Code#915), or after some 20 s (measured in public code in 2026-09); until then they say 404.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
_LONGEST_PAUSE = 60.0  # a server that wants more (Retry-After) is not asked again
_AT_ONCE = 8  # requests
_WAITING = 1_000  # generations that are looked up; one more gets its receipt at once, without a cost
_NOT_FOUND = 404
_CLOSED = "the client was closed before OpenRouter knew"

LookUp = Callable[[str], Awaitable[Generation]]


class Receipts:
    """The look-ups of a client, and who waits for them; all of it on the client's loop.

    While nobody is subscribed nothing is done and nothing kept. The last one to leave ends the look-ups.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._observers: tuple[abc.ObserverBase[Receipt], ...] = ()
        self._look_up: LookUp | None = None  # while somebody is subscribed
        self._pending: set[asyncio.Task[Receipt]] = set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._resources: Resources | None = None  # of the loop on which the subscribers are

    def subscribe(self, observer: abc.ObserverBase[Receipt], look_up: LookUp) -> abc.DisposableBase:
        """Has the observer told of what ends from now on; from any thread."""
        self._home.call(lambda: self._add(observer, look_up))
        return Disposable(lambda: self._home.call(lambda: self._remove(observer)))

    def ended(self, how: str, generation_id: str | None, billed: ChatChunk | None) -> None:
        """A generation has ended, and its reader knows.

        Args:
            how: See `Receipt.ended`.
            generation_id: By which it can be looked up.
            billed: The chunk that has its usage.
        """
        if not self._observers or self._resources is not self._home.resources:
            return
        receipt = Receipt(how, self._home.scheduler.now, generation_id)
        if billed is not None:
            receipt = replace(receipt, model=billed.model, provider=billed.provider, usage=billed.usage)
        if receipt.usage is not None and receipt.usage.cost is not None:
            self._emit(replace(receipt, cost=receipt.usage.cost))
        elif generation_id is None:
            self._emit(replace(receipt, error="the server has not said which generation it is"))
        elif len(self._pending) >= _WAITING:
            self._emit(replace(receipt, error=f"{_WAITING} others are being looked up"))
        else:
            # A context of its own: in the subscriber's may be the gate of another stream, which is not to be held.
            task = asyncio.create_task(
                self._looked_up(receipt, generation_id), name="rxrouter receipt", context=Context()
            )
            self._pending.add(task)
            task.add_done_callback(partial(self._settle, receipt))

    async def _looked_up(self, receipt: Receipt, generation_id: str) -> Receipt:
        assert self._look_up is not None  # noqa: S101 - somebody is subscribed
        look_up, why, wait = self._look_up, "", 0.0
        for pause in _PAUSES:
            await asyncio.sleep(max(pause, wait))
            try:
                async with self._at_once:
                    found = await look_up(generation_id)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is why there is no cost
                why = str(error) or type(error).__name__
                wait = (error.retry_after or 0.0) if isinstance(error, APIError) else 0.0
                late = isinstance(error, StatusError) and error.status == _NOT_FOUND
                if wait > _LONGEST_PAUSE or not (late or is_transient(error)):
                    break
            else:
                if found.total_cost is not None:
                    model, provider = found.model or receipt.model, found.provider_name or receipt.provider
                    return replace(receipt, cost=found.total_cost, generation=found, model=model, provider=provider)
                why, wait = "the look-up names no cost", 0.0
        return replace(receipt, error=why)

    def _settle(self, receipt: Receipt, task: asyncio.Task[Receipt]) -> None:
        if task not in self._pending:  # of readers who have left; who has come since did not ask for it
            return
        self._pending.discard(task)
        self._emit(replace(receipt, error=_CLOSED) if task.cancelled() else task.result())

    def _emit(self, receipt: Receipt) -> None:
        for observer in self._observers:
            self._tell(partial(observer.on_next, receipt))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            Context().run(call)
        except Exception as raised:  # noqa: BLE001 - one reader's, and no concern of the next
            self._home.report(raised, "a reader of receipts raised")

    def _add(self, observer: abc.ObserverBase[Receipt], look_up: LookUp) -> None:
        if self._home.refuses:  # told in the loop's next turn: a `repeat` above would else never come to an end
            asyncio.get_running_loop().call_soon(self._tell, observer.on_completed)
            return
        if self._resources is not self._home.resources:
            self._begin()
        self._observers = (*self._observers, observer)
        self._look_up = look_up

    def _begin(self) -> None:
        """Begin on another loop, or in a forked child: subscribers and look-ups from before are not of this loop."""
        self._resources = self._home.resources
        self._resources.before_readers = WeakMethod(self._close)
        self._observers, self._pending = (), set()
        self._at_once = asyncio.Semaphore(_AT_ONCE)

    def _remove(self, observer: abc.ObserverBase[Receipt]) -> None:
        self._observers = tuple(other for other in self._observers if other is not observer)
        if not self._observers:
            self._look_up = None
            self._cancel()
            self._pending.clear()

    def _cancel(self) -> None:
        for task in self._pending:
            self._home.tasks.add(task)  # who waits for the release of what was cancelled, waits for this too
            task.add_done_callback(self._home.tasks.discard)
            task.cancel()

    async def _close(self) -> None:
        """End the look-ups, which gives receipts without a cost, and complete."""
        pending = tuple(self._pending)
        self._cancel()
        if pending:
            await asyncio.wait(pending)
        observers, self._observers, self._look_up = self._observers, (), None
        for observer in observers:
            self._tell(observer.on_completed)
