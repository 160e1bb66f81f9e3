"""One subscription that folds an answer, and judges its ending by the proof of the sources above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxrouter._chain import Proof, ProofLedger
from rxrouter._errors import RouterError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import ChatCompletion, State, state_after
from rxrouter._wire.fold import CompletionFold


class AnswerSubscription:
    """Folds the chunks of one source.

    Args:
        fold: Receives the chunks.
    """

    def __init__(self, fold: CompletionFold) -> None:
        self._fold = fold
        self._ledger = ProofLedger()

    def subscribe(
        self,
        source: Observable[ChatChunk],
        on_next: abc.OnNext[ChatChunk],
        observer: abc.ObserverBase[Any],
        on_completed: Callable[[], None],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        """Subscribe; an error reaches the observer with the answer so far as `partial`."""

        def on_error(error: Exception) -> None:
            self._ledger.over = True
            if isinstance(error, RouterError):
                error.partial = self._fold.completion(state_after(error))
            observer.on_error(error)

        def complete() -> None:
            self._ledger.over = True
            on_completed()

        with self._ledger.collecting():
            return source.subscribe(on_next, on_error, complete, scheduler=scheduler)

    @property
    def state(self) -> State:
        """The state of an answer whose stream completes now; a fold turns `complete` into `incomplete` by itself."""
        proof = self._ledger.proof
        if proof is Proof.UNKNOWN:
            return "complete" if self._fold.finished else "truncated"
        return "complete" if proof is Proof.COMPLETE else "stopped"

    def completion(self) -> ChatCompletion:
        """Return the answer of a stream that completes now."""
        return self._fold.completion(self.state)
