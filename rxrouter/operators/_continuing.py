"""A retry that goes on where the answer was cut, instead of from its beginning."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from functools import reduce
from typing import Any, TypeAlias

import msgspec
from reactivex import Observable, Observer, abc

from rxrouter._attempt import Attempt
from rxrouter._continuation import Continuation, continuing
from rxrouter._errors import ContinuationRefusedError, EmptyAnswerError, RouterError, StreamError
from rxrouter._wire.chunk import ChatChunk, Usage
from rxrouter._wire.completion import ChatCompletion, CompletionChoice, state_after
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.json import as_object
from rxrouter._wire.request import ChatRequest
from rxrouter.operators._bill import generation_of, parts_of
from rxrouter.operators._echo import without_echo
from rxrouter.operators._retry_policy import RetryPolicy
from rxrouter.operators._retrying import Retrying
from rxrouter.operators._routes import Leading
from rxrouter.operators._types import fused

GoOn: TypeAlias = Callable[[ChatCompletion], Observable[ChatChunk]]


class Continuing(Retrying):
    """Asks for the rest of an answer that was cut.

    `go_on` says where; if it is None, the same request is sent again, with the beginning of its answer. While there is
    no text there is nothing to go on from: then the answer begins anew, behind a `Restarted`.
    """

    def __init__(
        self,
        source: Observable[ChatChunk],
        policy: RetryPolicy,
        observer: abc.ObserverBase[ChatChunk],
        scheduler: abc.SchedulerBase | None,
        go_on: GoOn | None,
    ) -> None:
        answer = CompletionFold()

        def on_next(chunk: ChatChunk) -> None:
            answer.add(chunk)
            observer.on_next(chunk)

        super().__init__(source, policy, Observer(on_next, observer.on_error, observer.on_completed), scheduler)
        self._go_on = go_on
        self._answer = answer  # as the reader has it
        self._posts: list[Attempt] = []  # of this attempt
        self._beginning: Continuation | None = None  # with which the same request is sent again
        self._goes_on = False  # this attempt, with the answer
        self._used: tuple[tuple[object, Usage], ...] = ()  # in this attempt, so far
        self._spent: tuple[tuple[object, Usage], ...] = ()  # in those before, as far as they have said

    def post(self, attempt: Attempt) -> None:
        """Takes note of a POST."""
        self._posts.append(attempt)

    def _next(self) -> Observable[ChatChunk]:
        partial = self._partial()
        request = self._request()
        self._posts, self._used, self._beginning = [], (), None
        self._goes_on = bool(partial.text.strip())
        if self._shown and not self._goes_on:
            self._spent = ()  # on another answer, which the mark says is void
        source = self._source
        if self._goes_on:
            if self._go_on is not None:
                source = self._go_on(partial)
            elif request is not None:
                self._beginning = Continuation(request, partial.text)
                source = _within(self._beginning, source)
            source = source.pipe(without_echo(partial.text))
        return source.pipe(fused(self._charging))

    def _empty(self, held: list[ChatChunk]) -> EmptyAnswerError | None:
        # A continuation without content means that the model has nothing to add.
        return None if self._goes_on else super()._empty(held)

    def _announce(self) -> None:
        if not self._goes_on:
            super()._announce()

    def _begin(self) -> bool:
        if self._beginning is not None:
            self._beginning.over = True
            if not self._posts or not all(post.continues for post in self._posts):
                self._running.dispose()
                self._end(self._refused("its source is not the one request that it was", self._failures[-1]))
                return False
        return super()._begin()

    def _failed(self, error: Exception, leading: Leading[ChatChunk], context: Context) -> None:
        if self._beginning is not None:
            self._beginning.over = True
        billed = error.usage if isinstance(error, StreamError) else None
        used = ((None, billed),) if billed is not None else self._used
        self._spent += tuple((generation or generation_of(error), usage) for generation, usage in used)
        super()._failed(error, leading, context)

    def _verdict(self, error: Exception) -> float | Exception:
        verdict = super()._verdict(error)
        if self._shown and not isinstance(verdict, Exception) and (obstacle := self._obstacle()):
            return self._refused(obstacle, error)
        return verdict

    def _obstacle(self) -> str | None:
        """Why the answer can't be gone on with; None if it can."""
        partial, request = self._partial(), self._request()
        if request is not None and _is_json(request):
            return "it is JSON"
        if self._go_on is None and partial.text.strip() and not _has_messages(request):
            return "its source is not one chat request with messages"
        if request is not None and _choices(request) > 1:
            return "it is several answers"
        return _unfit(partial)

    def _refused(self, reason: str, cause: Exception) -> ContinuationRefusedError:
        refused = ContinuationRefusedError(reason)
        refused.__cause__ = cause
        if isinstance(cause, RouterError):
            refused.generation_id = cause.generation_id
            refused.chunks_seen = cause.chunks_seen
            refused.elapsed = cause.elapsed
        return refused

    def _partial(self) -> ChatCompletion:
        return self._answer.completion(state_after(self._failures[-1]) if self._failures else "streaming")

    def _request(self) -> ChatRequest | None:
        """What was asked; None if that was not one thing, or is not known."""
        asked = [post.request for post in self._posts] or [None]
        return asked[0] if all(request == asked[0] for request in asked) else None

    def _charging(self, emit: abc.OnNext[ChatChunk]) -> abc.OnNext[ChatChunk]:
        """Adds to the usage what the attempts before this one have used."""

        def on_next(chunk: ChatChunk) -> None:
            if chunk.usage is not None:
                self._used = parts_of(chunk.usage, chunk.id)
                if self._spent:
                    chunk = msgspec.structs.replace(chunk, usage=_sum((*self._spent, *self._used)))
            emit(chunk)

        return on_next


def _within(beginning: Continuation, source: Observable[ChatChunk]) -> Observable[ChatChunk]:
    def subscribe(
        observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        with continuing(beginning):
            return source.subscribe(observer, scheduler=scheduler)

    return Observable(subscribe)


def _has_messages(request: ChatRequest | None) -> bool:
    return request is not None and bool(request.messages) and "messages" not in (request.extra or {})


def _choices(request: ChatRequest) -> int:
    asked = (request.extra or {}).get("n", request.n)
    return asked if isinstance(asked, int) else 1


def _is_json(request: ChatRequest) -> bool:
    asked = msgspec.to_builtins((request.extra or {}).get("response_format", request.response_format))
    return as_object(asked).get("type", "text") not in {"text", None}


def _unfit(partial: ChatCompletion) -> str | None:
    """What of an answer is not its text, and would be lost or doubled if only its text were sent back."""
    answer = partial.choices[0] if partial.choices else CompletionChoice()
    encrypted = any("encrypted" in str(detail.get("type")) for detail in answer.reasoning_details)
    obstacles = {
        "it is several answers": len(partial.choices) > 1,
        "it had come to its end": answer.finish_reason is not None,
        "a tool call had begun": answer.tool_calls or answer.partial_tool_calls,
        "its reasoning is encrypted": encrypted,
        "it is a refusal": answer.refusal,
        "it has images or audio": answer.images or answer.audio,
    }
    return next((obstacle for obstacle, there in obstacles.items() if there), None)


def _sum(parts: tuple[tuple[object, Usage], ...]) -> Usage:
    total = msgspec.convert(reduce(_added, (msgspec.to_builtins(usage) for _, usage in parts)), Usage)
    total.parts = parts  # who adds up costs below must not add these again
    return total


def _added(one: Any, other: Any) -> Any:
    """Numbers added up, objects field by field; of anything else, and of what only one has, the later."""
    if one is None or other is None:
        return one if other is None else other
    if isinstance(one, dict) and isinstance(other, dict):
        mine, its = as_object(one), as_object(other)
        return {name: _added(mine.get(name), its.get(name)) for name in mine | its}
    number = (int, float)
    return one + other if isinstance(one, number) and isinstance(other, number) and not isinstance(one, bool) else other
