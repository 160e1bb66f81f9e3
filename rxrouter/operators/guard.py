"""guard(): nobody sees text that was not checked."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._attempt import watching
from rxrouter._errors import GuardError
from rxrouter._wire.chunk import ChatChunk, has_content
from rxrouter._wire.restarted import Restarted
from rxrouter.operators._progress import Progress

T = TypeVar("T", str, ChatChunk)
Check = Callable[[str], str | None]


def guard(check: Check, *, hold_back: int) -> Callable[[Observable[T]], Observable[T]]:
    """Check text before it is let through: pass it, replace it, or cut the stream.

    Marble:
        source    -a-b-c-d-|
        guard()   -----a-b-(cd|)

    For chunks, and for texts from `text()` or `reasoning()`. The end of the text is held back until what follows has
    come, so that what is looked for is seen whole, however it is cut into pieces, before any of it is let through.

    Args:
        check: Gets each new piece of text with the `hold_back` characters before it. Returns None if that may pass, or
            what to say in place of all of it; raises, best a `GuardError`, to cut the stream. It is no coroutine
            function: what has to be awaited has its place in an `async for` over the stream, which waits meanwhile.
        hold_back: Characters; one less than the longest phrase that is looked for.
    Emits: the values that came, later; where text was replaced others, which have no logprobs. Of chunks only `content`
        is checked; reasoning, refusals and tool calls pass, and those of a choice keep their order.
    Errors: the source's, behind all text that came; what `check` raised, and then what is held back is never shown. A
        `GuardError`, too, if what is to be replaced has gone: a finish reason, reasoning or a tool call lets go all
        that is held back before it.
    Cancels: the source, on dispose; before the error of a check, too.
    Source: others check too late, or piece by piece (PEERS P25).

    Raises:
        ValueError: `hold_back` is negative.
    """
    if not hold_back >= 0:
        raise ValueError("hold_back is a number of characters >= 0")

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            queue = _Queue(check, hold_back, observer.on_next)
            progress = Progress(scheduler)
            upstream = SingleAssignmentDisposable()

            def on_next(value: T) -> None:
                if upstream.is_disposed:  # a source that says all at once can't be left in between
                    return
                progress.seen += 1
                progress.last = value
                try:
                    queue.add(value)
                except Exception as error:  # noqa: BLE001 - the check's word, and told to the reader
                    upstream.dispose()
                    progress.tell(error)
                    observer.on_error(error)
                else:
                    queue.release()

            def on_error(error: Exception) -> None:
                queue.flush()
                observer.on_error(error)

            def on_completed() -> None:
                queue.flush()
                observer.on_completed()

            with watching(progress.attempt):
                upstream.disposable = source.subscribe(on_next, on_error, on_completed, scheduler=scheduler)
            return upstream

        return Observable(subscribe)

    return operator


class _Waiting(Struct, eq=False):
    """A value that is held back."""

    value: str | ChatChunk
    pieces: Sequence[_Piece]
    choices: Collection[int]  # in whose order it stands


class _Queue:
    """The values that wait, those of each choice in order: those whose text is held back, and those behind them.

    One choice that says nothing more does not hold up another; what is of no choice stands in the order of all.
    """

    def __init__(self, check: Check, hold_back: int, emit: abc.OnNext[Any]) -> None:
        self._check = check
        self._hold_back = hold_back
        self._emit = emit
        self._texts: dict[int, _Text] = {}  # by choice
        self._waiting: dict[int, deque[_Waiting]] = {0: deque()}  # by choice

    def add(self, value: str | ChatChunk) -> None:
        """Has the text of a value checked; raises what the check raises."""
        if isinstance(value, str):
            waiting = _Waiting(value, [self._text(0).add(value)], (0,))
        else:
            choices = {choice.index for choice in value.choices}
            waiting = _Waiting(value, self._read(value), choices or tuple(self._waiting))
        for choice in waiting.choices:
            self._waiting.setdefault(choice, deque()).append(waiting)

    def release(self) -> None:
        """Emits what need not wait any longer."""
        going = True
        while going:  # what was of several choices may have been in the way of another
            going = False
            for line in tuple(self._waiting.values()):
                while line and self._may_go(line[0]):
                    going = len(line[0].choices) > 1 or going
                    self._let_go(line[0])

    def flush(self) -> None:
        """Emits all: it is checked, and nothing more comes."""
        self._end_texts()
        self.release()

    def _may_go(self, waiting: _Waiting) -> bool:
        return all(self._waiting[choice][0] is waiting for choice in waiting.choices) and all(
            piece.text.may_go(piece.length) for piece in waiting.pieces
        )

    def _let_go(self, waiting: _Waiting) -> None:
        value, pieces = waiting.value, waiting.pieces
        for choice in waiting.choices:
            self._waiting[choice].popleft()
        texts: list[str] = []
        changed = False
        for piece in pieces:
            changed = changed or piece.changed
            texts.append(piece.text.go())
        if not changed:
            self._emit(value)
        elif not isinstance(value, str):
            self._emit(_rewritten(value, texts))
        elif texts[0]:
            self._emit(texts[0])

    def _end_texts(self) -> None:
        for text in self._texts.values():
            text.over = True

    def _read(self, chunk: ChatChunk) -> list[_Piece]:
        pieces: list[_Piece] = []
        for choice in chunk.choices:
            content = choice.delta.content
            if content:
                pieces.append(self._text(choice.index).add(content))
            if choice.finish_reason or (not content and has_content(choice.delta)):
                self._text(choice.index).over = True
        if not chunk.choices and isinstance(chunk, Restarted):
            self._end_texts()
            self._texts.clear()
        return pieces

    def _text(self, choice: int) -> _Text:
        text = self._texts.get(choice)
        if text is None:
            text = self._texts[choice] = _Text(self._check, self._hold_back)
        return text


class _Piece(Struct):
    """What is left of the text that a value brought."""

    text: _Text
    length: int
    changed: bool = False


class _Text:
    """The text of one choice: its end, which is held back, behind some that has gone and that a check has to see."""

    def __init__(self, check: Check, hold_back: int) -> None:
        self.over = False  # something else has begun, so that there is nothing to wait for
        self._check = check
        self._hold_back = hold_back
        self._held = ""
        self._gone = 0  # characters at the beginning of it, `hold_back` at most
        self._pieces: deque[_Piece] = deque()  # the others are those of these, in order

    def add(self, piece: str) -> _Piece:
        held = self._held
        start = max(len(held) - self._hold_back, 0)
        window = held[start:] + piece
        shown = self._check(window)
        if shown is None or shown == window:
            self._held = held + piece
            added = _Piece(self, len(piece))
        else:
            added = self._replace(start, shown)
        self._pieces.append(added)
        self.over = False
        return added

    def _replace(self, start: int, shown: str) -> _Piece:
        """What is new goes with the newest piece; those that it is taken from keep what is before it."""
        if not isinstance(shown, str):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
            raise TypeError(f"check returns None or a str, not {type(shown).__name__}")
        text = self._held[:start] + shown
        same = _common(self._held, text)
        if start and same < start + self._hold_back:  # it stands beside text that was not in the window
            again = self._check(text)
            text = text if again is None else again
            same = _common(self._held, text)
        if same < self._gone:
            raise GuardError("what was to be replaced had been let through")
        taken = len(self._held) - same
        for piece in reversed(self._pieces):
            if not taken:
                break
            length = min(piece.length, taken)
            taken -= length
            piece.length -= length
            piece.changed = True
        self._held = text
        return _Piece(self, len(text) - same, changed=True)

    def may_go(self, length: int) -> bool:
        return self.over or not length or len(self._held) - self._gone - length >= self._hold_back

    def go(self) -> str:
        """Lets the first piece go; returns its text."""
        begin = self._gone
        self._gone = end = begin + self._pieces.popleft().length
        text = self._held[begin:end]
        if end > self._hold_back:
            self._held = self._held[end - self._hold_back :]
            self._gone = self._hold_back
        return text


def _common(one: str, other: str) -> int:
    """How many characters at the beginning are the same."""
    length = min(len(one), len(other))
    return next((at for at in range(length) if one[at] != other[at]), length)


def _rewritten(chunk: ChatChunk, texts: Sequence[str]) -> ChatChunk:
    """The chunk with these in place of its texts, and without what quotes them: raw JSON and logprobs."""
    news = iter(texts)
    replace = msgspec.structs.replace
    choices = [
        replace(choice, delta=replace(choice.delta, content=next(news)), logprobs=None)
        if choice.delta.content
        else choice
        for choice in chunk.choices
    ]
    return replace(chunk, choices=choices)
