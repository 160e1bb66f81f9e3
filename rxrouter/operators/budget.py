"""budget(): stop when too much was spent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._attempt import watching
from rxrouter._errors import BudgetExceededError
from rxrouter._wire.chunk import ChatChunk, Delta, Usage, reasoning_of
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._bill import Bill
from rxrouter.operators._progress import Progress
from rxrouter.operators._types import Operator

_ROUNDING = 1e-9  # of a limit: 0.1 + 0.2 credits are not more than 0.3


class Spent(Struct, gc=False):
    """What answers have cost: what servers said of it, and what is only estimated until they do."""

    cost: float = 0.0  # credits
    tokens: int = 0  # of completions
    estimated_cost: float = 0.0
    estimated_tokens: float = 0.0


def _quarter(text: str) -> float:
    return len(text) / 4


def budget(
    *,
    cost: float | None = None,
    tokens: int | None = None,
    price: float | None = None,
    count: Callable[[str], float] = _quarter,
    spent: Spent | None = None,
) -> Operator[ChatChunk, ChatChunk]:
    """End a stream, and close its connection, as soon as more is spent than was allowed.

    Marble:
        source     -a-b-c-d-|
        budget()   -a-b-(c#)

    Spent is what the usage says, and an estimate of what came since it was said: OpenRouter says it at the very end.

    Args:
        cost: Credits that may be spent.
        tokens: Completion tokens that may be spent: text, reasoning and tool calls, not the prompt.
        price: Credits a completion token, which the model list calls `pricing.completion`, to estimate the cost by;
            without it a cost is known when it is said.
        count: Estimates the tokens in a piece of text: by default a quarter of its characters; a tokenizer knows more.
        spent: What was spent before, and what this is added to: one for all answers, on one loop, that share a budget.
    Emits: the source's chunks; the one that passes the limit is the last.
    Errors: the source's; `BudgetExceededError`, at once and without a request where nothing is left to spend.
    Cancels: the source, on dispose, and before a `BudgetExceededError`.
    Source: WIRE 6 and 8: usage comes last, and never for an answer that was cut: that stays an estimate.

    Raises:
        ValueError: no limit is given, or a number is not > 0.
    """
    terms = _Terms(cost, tokens, price, count)

    def operator(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
        def subscribe(
            observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            account = _Account(terms, spent or Spent())
            progress = Progress(scheduler)
            upstream = SingleAssignmentDisposable()

            def stop(error: Exception) -> None:
                upstream.dispose()
                progress.tell(error)
                observer.on_error(error)

            def on_next(chunk: ChatChunk) -> None:
                if upstream.is_disposed:  # a source that says all at once can't be left in between
                    return
                progress.seen += 1
                progress.last = chunk
                try:
                    account.add(chunk)
                except Exception as error:  # noqa: BLE001 - from `count`, and told to the reader
                    stop(error)
                    return
                observer.on_next(chunk)
                if exceeded := account.exceeded():
                    stop(exceeded)

            def on_error(error: Exception) -> None:
                account.bill_for(error)
                observer.on_error(error)

            if nothing_left := account.exceeded(beforehand=True):
                stop(nothing_left)
                return upstream
            with watching(progress.attempt):
                upstream.disposable = source.subscribe(on_next, on_error, observer.on_completed, scheduler=scheduler)
            return upstream

        return Observable(subscribe)

    return operator


class _Terms(Struct, frozen=True):
    """What `budget` was told."""

    cost: float | None
    tokens: int | None
    price: float | None
    count: Callable[[str], float]

    def __post_init__(self) -> None:
        if self.cost is None and self.tokens is None:
            raise ValueError("budget() needs a limit: cost=, in credits, or tokens=")
        for name in ("cost", "tokens", "price"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} is a number > 0, or None")


class _Generation:
    """What is known of one generation."""

    __slots__ = ("cost", "estimated", "tokens", "unpriced")

    def __init__(self) -> None:
        self.cost = 0.0  # as said
        self.tokens = 0  # as said
        self.estimated = 0.0  # tokens, since they were said
        self.unpriced = 0.0  # tokens, said or estimated, since the cost was said


class _Account:
    """What one subscription adds to what was spent."""

    def __init__(self, terms: _Terms, spent: Spent) -> None:
        self._terms = terms
        self._price = terms.price or 0.0
        self._spent = spent
        self._bill = Bill(_Generation)

    def add(self, chunk: ChatChunk) -> None:
        """Takes note of a chunk."""
        count = self._terms.count
        for choice in chunk.choices:
            for piece in _pieces(choice.delta):
                self._estimate(self._bill.of(chunk.id), count(piece))
        if chunk.usage is not None:
            self._say(self._bill.said(chunk.usage, chunk.id))
        if not chunk.choices and isinstance(chunk, Restarted):
            self.bill_for(chunk.cause)

    def bill_for(self, error: Exception | None) -> None:
        """Failed attempts were billed, too, and may have said so."""
        self._say(self._bill.ended(error))

    def exceeded(self, *, beforehand: bool = False) -> BudgetExceededError | None:
        """The error, if more is spent than the limit; beforehand, if nothing is left."""
        spent, terms = self._spent, self._terms
        if terms.cost is not None:
            cost = spent.cost + spent.estimated_cost
            if _is_over(cost, terms.cost, beforehand):
                estimated = not _is_over(spent.cost, terms.cost, beforehand)
                return BudgetExceededError("cost", terms.cost, cost, estimated=estimated)
        if terms.tokens is not None:
            tokens = spent.tokens + int(spent.estimated_tokens)
            if _is_over(tokens, terms.tokens, beforehand):
                estimated = not _is_over(spent.tokens, terms.tokens, beforehand)
                return BudgetExceededError("tokens", terms.tokens, tokens, estimated=estimated)
        return None

    def _estimate(self, generation: _Generation, tokens: float) -> None:
        generation.estimated += tokens
        self._spent.estimated_tokens += tokens
        self._leave_unpriced(generation, tokens)

    def _say(self, said: Iterable[tuple[_Generation, Usage]]) -> None:
        """The server's word, which is of a whole generation, replaces what it said before and what was estimated."""
        spent = self._spent
        for generation, usage in said:
            if usage.completion_tokens is not None:
                more = usage.completion_tokens - generation.tokens
                self._leave_unpriced(generation, more - generation.estimated)
                spent.tokens += more
                spent.estimated_tokens -= generation.estimated
                generation.tokens, generation.estimated = usage.completion_tokens, 0.0
            if usage.cost is not None:
                self._leave_unpriced(generation, -generation.unpriced)
                spent.cost += usage.cost - generation.cost
                generation.cost = usage.cost

    def _leave_unpriced(self, generation: _Generation, tokens: float) -> None:
        generation.unpriced += tokens
        self._spent.estimated_cost += tokens * self._price


def _pieces(delta: Delta) -> Iterator[str]:
    """The texts in a delta that a model was paid for."""
    if delta.content:
        yield delta.content
    if thought := reasoning_of(delta):
        yield thought
    if delta.refusal:
        yield delta.refusal
    for call in delta.tool_calls:
        yield from filter(None, (call.function.name, call.function.arguments))


def _is_over(spent: float, limit: float, beforehand: bool) -> bool:  # noqa: FBT001 - as `exceeded` has it
    return spent >= limit * (1 - _ROUNDING) if beforehand else spent > limit * (1 + _ROUNDING)
