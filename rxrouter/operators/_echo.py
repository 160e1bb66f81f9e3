"""Echo: what a continuation repeats of the text that it continues, and how it is taken away."""

from __future__ import annotations

import msgspec
from reactivex import Observable, abc

from rxrouter._wire.chunk import ChatChunk, Choice
from rxrouter.operators._types import Operator

# So many characters are no coincidence; fewer have to be words, from the beginning of one: "hel" + "lo" has no echo.
_NO_COINCIDENCE = 8


def echo(shown: str, said: str, *, whole: bool = False) -> int | None:
    """How many characters at the beginning of `said` repeat the end of `shown`; None while that can't be known.

    The longest overlap counts, unless `shown` ends with it twice: what repeats itself there anyway (lists, code)
    may well go on repeating itself. White space at the end of `shown` is never sent back (see `ChatRequest.continued`),
    so there it is always an echo.

    Args:
        shown: The text so far.
        said: The beginning of its continuation.
        whole: There is no more of it to come.
    """
    at = shown.find(said)
    if not whole and -1 < at < len(shown) - len(said):
        return None  # it may be on its way through the end of `shown`
    overlap = _overlap(shown, said)
    start, space = len(shown) - overlap, shown[len(shown.rstrip()) :]
    repeated = said[:overlap]
    words = any(map(str.isalnum, repeated)) and not (shown[:start][-1:].isalnum() and repeated[0].isalnum())
    is_echo = not shown[:start].endswith(repeated) and (words or overlap >= _NO_COINCIDENCE)
    return overlap if is_echo or overlap <= len(space) else _overlap(space, said)


def _overlap(shown: str, said: str) -> int:
    """The longest end of the one that is a beginning of the other."""
    return next((n for n in range(min(len(shown), len(said)), 0, -1) if shown.endswith(said[:n])), 0)


def without_echo(shown: str) -> Operator[ChatChunk, ChatChunk]:
    """Takes away what the chunks' text repeats of what was shown; their beginning is held until that is known."""

    def operator(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
        def subscribe(
            observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            beginning = _Beginning(shown, observer)
            return source.subscribe(beginning.on_next, beginning.on_error, beginning.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    return operator


class _Beginning:
    """Holds chunks from the first text on, until it is known where the new text begins.

    Where an error comes first, their text is on its way through what is shown already. It is dropped: shown, it would
    double an echo, and an answer that is cut a little sooner is still what the model said. All else on them passes.
    """

    def __init__(self, shown: str, observer: abc.ObserverBase[ChatChunk]) -> None:
        self._shown = shown
        self._observer = observer
        self._held: list[ChatChunk] = []
        self._said = ""
        self._known = False

    def on_next(self, chunk: ChatChunk) -> None:
        if not self._known:
            self._said += "".join(choice.delta.content or "" for choice in chunk.choices)
        if self._known or not self._said:
            self._observer.on_next(chunk)
            return
        self._held.append(chunk)
        self._look(whole=any(choice.finish_reason for choice in chunk.choices))

    def on_error(self, error: Exception) -> None:
        self._pass_on(len(self._said))
        self._observer.on_error(error)

    def on_completed(self) -> None:
        self._look(whole=True)
        self._observer.on_completed()

    def _look(self, *, whole: bool) -> None:
        left = echo(self._shown, self._said, whole=whole)
        if left is not None:
            self._pass_on(left)

    def _pass_on(self, left: int) -> None:
        """Tells what was held, without the first so many characters of its text."""
        self._known = True
        held, self._held = self._held, []
        for chunk in held:
            choices: list[Choice] = []
            for choice in chunk.choices:
                text = choice.delta.content or ""
                delta = msgspec.structs.replace(choice.delta, content=text[left:])
                choices.append(msgspec.structs.replace(choice, delta=delta) if left and text else choice)
                left = max(0, left - len(text))
            self._observer.on_next(
                msgspec.structs.replace(chunk, choices=choices) if choices != chunk.choices else chunk
            )
