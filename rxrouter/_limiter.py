"""Limiter: how many streams at once, and how many requests and tokens a minute, for all that share it."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from threading import RLock
from typing import Any, TypeVar
from weakref import WeakSet, finalize, ref

from reactivex import abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from rxrouter._errors import APIError, StatusError, StreamError
from rxrouter._wire.chunk import ChatChunk, Usage

T = TypeVar("T")

_MINUTE = timedelta(minutes=1)
_LONGEST_PAUSE = 86_400.0  # seconds: OpenRouter's longest limit is one a day (WIRE 7); who names more is mistaken
_TOO_MANY_REQUESTS = 429
_ESTIMATE = 1000  # tokens of a request


class Limiter:
    """What shares one limit (an account, a key, a model) shares one of these: a fair queue, and permits.

    A subscriber waits until it is its turn, in the order of subscribing; it holds its permit until its stream has ended
    or is disposed. One that is disposed while it waits leaves the queue at once, and sends nothing. A 429 that names a
    pause makes everybody wait until then: the limits of free models are so learnt from the errors.

    What is guaranteed, by the scheduler's clock: never more than `streams` at once; between the start of a request and
    of the one `requests_per_minute` after it at least 60 s; and no start by which the tokens charged in the last 60 s
    would be more than `tokens_per_minute`. What lies between here and the server, and makes two requests arrive closer
    together than they were sent, is not in it.

    It serves any number of clients, from any thread; each starts on its own loop. Give it to `OpenRouter(limiter=)`,
    for all requests of a client, or to the operator `limit()`, for one chain; not to both, for a stream would wait for
    itself. `running` and `waiting` say how it stands; its other methods are for sources and operators.

    Args:
        streams: Streams at once; any number when None.
        requests_per_minute: Requests that may start in 60 seconds; any number when None.
        tokens_per_minute: Tokens that may be charged in 60 seconds; any number when None. A request is charged an
            estimate when it starts, and instead of it what it used, when that is known.
        tokens_per_request: The estimate, in tokens; it stays where the stream ends without usage. When None, 1000, or
            all of a minute's, where those are fewer.

    Raises:
        TypeError: a limit is no integer.
        ValueError: a limit is less than one, or the estimate more than the tokens of a minute.
    """

    def __init__(
        self,
        streams: int | None = None,
        *,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        tokens_per_request: int | None = None,
    ) -> None:
        self._streams = _limit("streams", streams)
        self._requests = _Window(_limit("requests_per_minute", requests_per_minute))
        self._tokens = _Window(_limit("tokens_per_minute", tokens_per_minute))
        self._estimate = min(_ESTIMATE, tokens_per_minute or _ESTIMATE)
        self._estimate = self.estimate(tokens_per_request, "tokens_per_request")
        self._lock = RLock()
        _limiters.add(self)
        self._queue: OrderedDict[_Place, None] = OrderedDict()
        self._running: WeakSet[_Place] = WeakSet()  # what nobody holds nobody can end any more, and is none
        self._starting: set[_Place] = set()  # of these, those that have not yet subscribed their source
        self._schedulers: WeakSet[abc.SchedulerBase] = WeakSet()  # of those inside, and of some who were
        self._timer = SerialDisposable()  # there is one while the head of the queue waits for time to pass
        self._clock: abc.SchedulerBase | None = None
        self._zero: datetime  # times are counted from here, on that clock
        self._paused_until = timedelta()

    def __repr__(self) -> str:
        return f"Limiter(running={self.running}, waiting={self.waiting})"

    @property
    def running(self) -> int:
        """How many streams have a permit."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many subscribers wait for one."""
        return len(self._queue)

    def estimate(self, tokens: int | None, name: str = "tokens") -> int:
        """What a request is charged at its start; the limiter's own estimate when None.

        Raises:
            ValueError: with this estimate it could never start.
        """
        charged = _limit(name, tokens)
        most = self._tokens.most
        if charged is not None and most is not None and charged > most:
            raise ValueError(f"a request of {charged} tokens can't start, with {most} tokens per minute")
        return charged or self._estimate

    def enter(
        self,
        observer: abc.ObserverBase[T],
        subscribe: Callable[[abc.ObserverBase[T]], abc.DisposableBase],
        scheduler: abc.SchedulerBase,
        tokens: int | None = None,
    ) -> abc.DisposableBase:
        """Has `subscribe` called when there is a permit: now, or later on the scheduler.

        Args:
            observer: The subscriber, whose ending disposes what is returned, as RxPY's does.
            subscribe: Subscribes the observer that it is given to the source.
            scheduler: The subscriber's time.
            tokens: The estimate for this request.
        """
        place = _Place(self, observer, subscribe, scheduler, self.estimate(tokens))
        with self._lock:
            self._schedulers.add(scheduler)
            self._forget_the_dead()
            self._keep_time_by(scheduler)
            self._queue[place] = None
        self._admit(entering=place)
        return place

    def dismiss(self, scheduler: abc.SchedulerBase, error: Callable[[], Exception]) -> None:
        """End those that wait, and came with this scheduler."""
        with self._lock:
            dismissed = [place for place in self._queue if place.scheduler is scheduler]
        for place in dismissed:
            place.dismiss(error())

    def heed(self, error: Exception) -> None:
        """Pauses for as long as a 429 says."""
        if isinstance(error, APIError) and error.retry_after and _is_rate_limit(error):
            with self._lock:
                pause = timedelta(seconds=min(error.retry_after, _LONGEST_PAUSE))
                self._paused_until = max(self._paused_until, self._now() + pause)

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where a thread of the parent may hold it for ever."""
        self._lock = RLock()

    def settle(self, place: _Place) -> None:
        """Charges what was used instead of what was estimated."""
        with self._lock:
            if place.used is not None:
                self._tokens.correct(place.charge, place.used, self._now())
                place.used = None

    def leave(self, place: _Place) -> None:
        """Takes the permit, or the place in the queue, back."""
        self.settle(place)
        with self._lock:
            if place in self._running:
                self._running.discard(place)
                place.watched.detach()
                if place in self._starting:  # it has sent nothing
                    self._starting.discard(place)
                    self._requests.refund(place.request)
                    self._tokens.refund(place.charge)
            elif place in self._queue:
                del self._queue[place]
            else:
                return
        self._admit()

    def _admit(self, entering: _Place | None = None) -> None:
        """Starts whoever may; who subscribes in this very call starts in it, others by their scheduler.

        So it is their own loop on which they start, and no row of endings and starts can overflow the stack.
        """
        admitted: list[_Place] = []
        with self._lock:
            self._forget_the_dead()
            pause = self._pause()
            while pause == timedelta():
                admitted.append(self._take())
                pause = self._pause()
            at_once = admitted == [entering] and not self._starting
            if not at_once:
                self._starting.update(admitted)
            self._wake_after(pause)
        for place in admitted:
            if at_once:
                place.start()
            else:
                place.start_soon()

    def starts(self, place: _Place) -> None:
        """One of those that were to start soon does."""
        with self._lock:
            self._starting.discard(place)

    def _forget_the_dead(self) -> None:
        """Those whose loop was closed under them, and that nothing will ever start or end."""
        dead = {scheduler for scheduler in self._schedulers if getattr(scheduler, "closed", False)}
        if not dead:
            return
        self._schedulers -= dead
        for places in (self._running, self._starting):
            places -= {place for place in places if place.scheduler in dead}
        self._queue = OrderedDict.fromkeys(place for place in self._queue if place.scheduler not in dead)

    def _pause(self) -> timedelta | None:
        """How long the head of the queue has to wait, as far as is known; None if time alone doesn't help it."""
        if not self._queue or (self._streams is not None and len(self._running) >= self._streams):
            return None
        now = self._now()
        tokens = next(iter(self._queue)).tokens
        opens = max(self._paused_until, self._requests.opens(1, now), self._tokens.opens(tokens, now))
        return max(opens - now, timedelta())

    def _wake_after(self, pause: timedelta | None) -> None:
        self._timer.disposable = (
            Disposable()
            if pause is None
            else next(iter(self._queue)).scheduler.schedule_relative(pause, lambda _, __: self._admit())
        )

    def _take(self) -> _Place:
        place, _ = self._queue.popitem(last=False)
        now = self._now()
        place.request = self._requests.charge(1, now)
        place.charge = self._tokens.charge(place.tokens, now)
        self._running.add(place)
        place.watched = finalize(place, _wake, ref(self))
        place.watched.atexit = False
        return place

    def wake(self) -> None:
        """Has a permit that was freed given on: by the head's scheduler, for this may be called from anywhere."""
        with self._lock:
            if head := next(iter(self._queue), None):
                head.scheduler.schedule(lambda _, __: self._admit())

    def _now(self) -> timedelta:
        return self._clock.now - self._zero if self._clock is not None else timedelta()

    def _keep_time_by(self, scheduler: abc.SchedulerBase) -> None:
        """One clock for all, for those of two clients may be hours apart; a new one only when nobody is inside.

        So a limiter outlives its loops: `asyncio.run` after `asyncio.run`.
        """
        if self._clock is None or not (self._running or self._queue):
            self._zero = scheduler.now - self._now()
            self._clock = scheduler


class _Place(abc.ObserverBase[Any], abc.DisposableBase):
    """One subscriber: in the queue, then running, then gone, which is when RxPY disposes it: at every ending."""

    def __init__(
        self,
        limiter: Limiter,
        observer: abc.ObserverBase[Any],
        subscribe: Callable[[abc.ObserverBase[Any]], abc.DisposableBase],
        scheduler: abc.SchedulerBase,
        tokens: int,
    ) -> None:
        self.scheduler = scheduler
        self.tokens = tokens
        self.charge = self.request = _Charge(0, timedelta())
        self.watched: finalize[Any, Any]  # while it runs
        self.used: int | None = None
        self._limiter = limiter
        self._observer = observer
        self._subscribe = subscribe
        self._source = SingleAssignmentDisposable()
        self._subscribing = False
        self._context = copy_context()  # a later start must not be taken for a part of the stream whose end allows it

    def start(self) -> None:
        """Subscribes the source, unless there is nobody any more who wants it."""
        self._subscribing = True  # from here on the source may have opened something
        self._limiter.starts(self)
        try:
            if not self._source.is_disposed:
                self._source.disposable = self._subscribe(self)
        except Exception:
            self._source.dispose()
            raise
        finally:
            self._subscribing = False
            if self._source.is_disposed:
                self._limiter.leave(self)

    def start_soon(self) -> None:
        """The same on the subscriber's loop, in the subscriber's context."""
        self.scheduler.schedule(lambda _, __: self._context.run(self._start_late))

    def on_next(self, value: Any) -> None:
        if isinstance(value, ChatChunk) and value.usage is not None:
            self._count(value.usage)
        self._observer.on_next(value)

    def on_error(self, error: Exception) -> None:
        if isinstance(error, StreamError):
            self._count(error.usage)
        self._limiter.heed(error)
        self._limiter.settle(self)  # before the reader is told, who may ask for the next at once
        self._observer.on_error(error)

    def dismiss(self, error: Exception) -> None:
        """End the subscriber that waits, in its own context; what its callbacks raise ends no other."""
        try:
            self._context.run(self.on_error, error)
        except BaseException as raised:  # noqa: BLE001 - the loop reports it
            self.scheduler.schedule(partial(_raise, raised))

    def on_completed(self) -> None:
        self._limiter.settle(self)
        self._observer.on_completed()

    def dispose(self) -> None:
        self._source.dispose()  # first: the socket is closed before the next may open one
        if not self._subscribing:  # on another thread, which leaves when it knows what there is to close
            self._limiter.leave(self)

    def _count(self, usage: Usage | None) -> None:
        if usage is not None and usage.total_tokens is not None:
            self.used = usage.total_tokens

    def _start_late(self) -> None:
        try:
            self.start()
        except Exception as error:  # noqa: BLE001 - the subscriber's own call is long over; it is told here
            self._observer.on_error(error)


class _Charge:
    """Something spent, which counts for a minute."""

    __slots__ = ("amount", "until")

    def __init__(self, amount: int, until: timedelta) -> None:
        self.amount = amount
        self.until = until


class _Window:
    """What was spent in the last minute, of at most so much; where there is no limit, nothing is kept.

    A log and no bucket that refills: that one lets nearly twice as much through in its worst minute, and OpenRouter
    counts the minute.
    """

    def __init__(self, most: int | None) -> None:
        self.most = most
        self._charges: deque[_Charge] = deque()
        self._sum = 0

    def opens(self, amount: int, now: timedelta) -> timedelta:
        """When so much may be spent: now, or, as far as is known, later."""
        while self._charges and self._charges[0].until <= now:
            self._cancel(self._charges.popleft())
        if self.most is None or self._sum + amount <= self.most:
            return now
        return self._charges[0].until

    def charge(self, amount: int, now: timedelta) -> _Charge:
        """Spends it."""
        charge = _Charge(amount, now + _MINUTE)
        if self.most is not None:
            self._charges.append(charge)
            self._sum += amount
        return charge

    def correct(self, charge: _Charge, amount: int, now: timedelta) -> None:
        """Spends another amount instead, and from now on: that it was so much is known only now."""
        if self.most is not None:
            self._cancel(charge)
            self.charge(amount, now)

    def refund(self, charge: _Charge) -> None:
        """Takes it back: it was not spent."""
        if self.most is not None:
            self._cancel(charge)

    def _cancel(self, charge: _Charge) -> None:
        self._sum -= charge.amount
        charge.amount = 0


def _limit(name: str, value: object) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} is an integer, or None, not {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} is at least 1, or None, not {value}")
    return value


_limiters: WeakSet[Limiter] = WeakSet()


def dismiss_waiting(scheduler: abc.SchedulerBase, error: Callable[[], Exception]) -> None:
    """End the subscribers with this scheduler that wait in any limiter."""
    for limiter in list(_limiters):
        limiter.dismiss(scheduler, error)


def _raise(error: BaseException, *_: object) -> None:
    raise error


def _renew_locks() -> None:
    for limiter in list(_limiters):
        limiter.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _wake(limiter: ref[Limiter]) -> None:
    if (alive := limiter()) is not None:
        alive.wake()


def _is_rate_limit(error: APIError) -> bool:
    status = error.status if isinstance(error, StatusError) else error.code
    return status == _TOO_MANY_REQUESTS or error.error_type == "rate_limit_exceeded"
