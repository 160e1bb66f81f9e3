"""of_thoughts(): an operator that selects the words or the thoughts of a text that holds both."""

from __future__ import annotations

from typing import Literal

from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter._wire.restarted import Restarted
from rxrouter._wire.thoughts import Split, ThoughtSplitter
from rxrouter.operators._types import Operator

Think = Literal["text", "reasoning"]
"""What a `<think>` block in the text is: a part of the text, as it was received, or reasoning."""


def require_think(think: object) -> None:
    """Refuse another word.

    Raises:
        ValueError: it is not one of the two.
    """
    if think not in {"text", "reasoning"}:
        raise ValueError(f'think must be "text" or "reasoning", got {think!r}')


def of_thoughts(choice: int, selected: Think) -> Operator[ChatChunk, str]:
    """Select one of the two.

    Args:
        choice: Which of the `n` answers.
        selected: The words, or the thoughts; these also from where they have a member of their own.
    """

    def operator(source: Observable[ChatChunk]) -> Observable[str]:
        def subscribe(
            observer: abc.ObserverBase[str], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            selection = _Selection(choice, selected, observer)
            return source.subscribe(selection.on_next, selection.on_error, selection.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Selection:
    """One subscription."""

    def __init__(self, choice: int, selected: Think, observer: abc.ObserverBase[str]) -> None:
        self._choice = choice
        self._selects_thoughts = selected == "reasoning"
        self._observer = observer
        self._splitter = ThoughtSplitter()

    def on_next(self, chunk: ChatChunk) -> None:
        if not chunk.choices and isinstance(chunk, Restarted):
            self._splitter = ThoughtSplitter()
        for part in chunk.choices:
            if part.index == self._choice:
                if self._selects_thoughts and (thought := reasoning_of(part.delta)):
                    self._observer.on_next(thought)
                if content := part.delta.content:
                    self._emit(self._splitter.add(content))

    def on_error(self, error: Exception) -> None:
        self._emit(self._splitter.finish())
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._emit(self._splitter.finish())
        self._observer.on_completed()

    def _emit(self, split: Split) -> None:
        text = split.thoughts if self._selects_thoughts else split.words
        if text:
            self._observer.on_next(text)
