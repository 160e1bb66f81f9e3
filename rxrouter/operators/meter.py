"""meter(): how a stream goes, in figures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from copy import copy
from typing import Any, overload

from msgspec import Struct
from reactivex import Observable, abc
from reactivex.scheduler import TimeoutScheduler

from rxrouter._attempt import AT_ONCE, Attempt, watching
from rxrouter._errors import StreamError
from rxrouter._wire.chunk import ChatChunk, Delta, Usage, has_content, reasoning_of
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._bill import Bill
from rxrouter.operators._clock import clock_of
from rxrouter.operators._types import Operator


class Meter(Struct, gc=False):
    """How a stream goes. Times are seconds from subscribing, None for what has not happened; nothing is estimated.

    After a `Restarted` characters, usage and rates are those of the new answer; all else is of the whole subscription.
    """

    elapsed: float = 0.0
    attempts: int = 0  # POSTs so far, those of retries and lost hedges included
    time_to_headers: float | None = None  # of the first POST that was answered, if only by an error
    time_to_first_comment: float | None = None  # a keep-alive: queued, not hung
    time_to_first_content: float | None = None  # of any kind
    time_to_first_reasoning: float | None = None
    time_to_first_text: float | None = None
    longest_gap: float | None = None  # between two chunks with content
    content_seconds: float = 0.0  # from the first content of this answer to the last
    chunks: int = 0
    text_characters: int = 0  # of all choices
    reasoning_characters: int = 0
    usage: Usage | None = None  # as it was said last
    cost: float | None = None  # credits that were said; what a cut attempt cost is only in its receipt
    generation_id: str | None = None
    provider: str | None = None
    model: str | None = None
    finish_reason: str | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Of what was shown, while it was; None until the usage says how many, which is at the end as a rule."""
        usage = self.usage
        if usage is None or usage.completion_tokens is None or not self.content_seconds:
            return None
        details = usage.completion_tokens_details
        hidden = details.reasoning_tokens if details is not None and not self.reasoning_characters else None
        return (usage.completion_tokens - (hidden or 0)) / self.content_seconds

    @property
    def characters_per_second(self) -> float | None:
        """Of text and reasoning, while they came: the rate to show meanwhile (4 to a token, roughly, in English)."""
        characters = self.text_characters + self.reasoning_characters
        return characters / self.content_seconds if self.content_seconds else None


@overload
def meter() -> Operator[ChatChunk, Meter]: ...
@overload
def meter(watch: Callable[[Meter], object]) -> Operator[ChatChunk, ChatChunk]: ...
def meter(watch: Callable[[Meter], object] | None = None) -> Operator[ChatChunk, Any]:
    """Measure a stream: time to headers and to the first words, rates, gaps, attempts, usage and cost.

    Marble:
        source    -a-b-u-|
        meter()   -A-B-U-(E|)

    Args:
        watch: Gets the Meters, and the reader the chunks, each after its Meter; without it the reader gets the Meters.
    Emits: a Meter for each chunk, which later ones don't change, and a last one before the end or the error.
    Errors: the source's, or what `watch` raised.
    Cancels: the source, on dispose.
    Source: the marks that PEERS 56 misses everywhere. Headers, comments and attempts are those of POSTs that are sent
        by this subscription: behind a `share` they are known to its first reader.
    """

    def operator(source: Observable[ChatChunk]) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            measurement = _Measurement(observer, watch, scheduler or TimeoutScheduler.singleton())
            with watching(measurement.attempt):
                return source.subscribe(
                    measurement.on_next, measurement.on_error, measurement.on_completed, scheduler=scheduler
                )

        return Observable(subscribe)

    return operator


class _Cost:
    """What one generation said that it cost."""

    __slots__ = ("said",)

    def __init__(self) -> None:
        self.said = 0.0


class _Measurement:
    """One subscription: its Meter in the making, and to whom it is shown."""

    def __init__(
        self, observer: abc.ObserverBase[Any], watch: Callable[[Meter], object] | None, scheduler: abc.SchedulerBase
    ) -> None:
        self._observer = observer
        self._watch = watch
        self._now = clock_of(scheduler)
        self._meter = Meter()
        self._attempts: deque[Attempt] = deque(maxlen=AT_ONCE)
        self._first: float | None = None  # content of this answer
        self._last: float | None = None  # content of any
        self._bill = Bill(_Cost)
        self._running: _Cost | None = None  # that was said last
        self._others = 0.0  # what all but that one cost
        self._began = self._now()

    def attempt(self, attempt: Attempt) -> None:
        """Takes note of a POST."""
        self._look()
        self._attempts.append(attempt)
        self._meter.attempts += 1
        self._meter.generation_id = None

    def on_next(self, chunk: ChatChunk) -> None:
        self._meter.elapsed = now = self._now() - self._began
        if chunk.choices or not isinstance(chunk, Restarted):
            self._add(chunk, now)
        else:
            self._restart(chunk.cause)
        self._tell()
        if self._watch is not None:
            self._observer.on_next(chunk)

    def on_error(self, error: Exception) -> None:
        self._pay_for(error)
        self._end()
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._end()
        self._observer.on_completed()

    def _tell(self) -> None:
        """Shows a copy of the Meter to whom it is for; a watcher that raises ends the stream, whatever follows."""
        meter = copy(self._meter)
        if self._watch is None:
            self._observer.on_next(meter)
            return
        try:
            self._watch(meter)
        except Exception as error:  # noqa: BLE001 - the caller's, and told to the reader
            self._observer.on_error(error)

    def _end(self) -> None:
        self._meter.elapsed = self._now() - self._began
        self._look()
        self._tell()

    def _add(self, chunk: ChatChunk, now: float) -> None:
        meter = self._meter
        meter.chunks += 1
        if meter.time_to_first_comment is None:
            self._look()
        for choice in chunk.choices:
            if has_content(choice.delta):
                self._content(choice.delta, now)
            if choice.finish_reason:
                meter.finish_reason = choice.finish_reason
        if chunk.id:
            meter.generation_id = chunk.id
        if chunk.model:
            meter.model = chunk.model
        if chunk.provider:
            meter.provider = chunk.provider
        if chunk.usage is not None:
            meter.usage = chunk.usage
            self._pay(self._bill.said(chunk.usage, chunk.id))

    def _content(self, delta: Delta, now: float) -> None:
        meter = self._meter
        if self._first is None:
            self._first = now
            if meter.time_to_first_content is None:
                meter.time_to_first_content = now
        meter.content_seconds = now - self._first
        if self._last is not None and now - self._last >= (meter.longest_gap or 0.0):
            meter.longest_gap = now - self._last
        self._last = now
        if delta.content:
            meter.text_characters += len(delta.content)
            if meter.time_to_first_text is None:
                meter.time_to_first_text = now
        if thought := reasoning_of(delta):
            meter.reasoning_characters += len(thought)
            if meter.time_to_first_reasoning is None:
                meter.time_to_first_reasoning = now

    def _pay(self, said: Iterable[tuple[_Cost, Usage]]) -> None:
        for cost, usage in said:
            if usage.cost is not None:
                if cost is not self._running:
                    self._running, self._others = cost, (self._meter.cost or 0.0) - cost.said
                self._meter.cost = self._others + usage.cost
                cost.said = usage.cost

    def _pay_for(self, error: Exception | None) -> None:
        if isinstance(error, StreamError) and error.usage is not None:
            self._meter.usage = error.usage
        self._pay(self._bill.ended(error))

    def _restart(self, cause: Exception | None) -> None:
        meter = self._meter
        self._pay_for(cause)
        self._first = None
        meter.content_seconds = 0.0
        meter.text_characters = meter.reasoning_characters = 0
        meter.usage = meter.finish_reason = None

    def _look(self) -> None:
        """What only the source knows: each mark is the first of its kind, of whichever attempt."""
        meter = self._meter
        for attempt in self._attempts:
            meter.time_to_headers = self._earlier(meter.time_to_headers, attempt.headers)
            meter.time_to_first_comment = self._earlier(meter.time_to_first_comment, attempt.first_comment)
        if meter.generation_id is None and self._attempts:
            meter.generation_id = self._attempts[-1].generation_id

    def _earlier(self, known: float | None, at: float | None) -> float | None:
        if at is None:
            return known
        return at - self._began if known is None else min(known, at - self._began)
