"""of_document(): an operator that reads one JSON document out of text that comes in pieces, or in chunks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from reactivex import Observable, abc
from reactivex.disposable import SingleAssignmentDisposable

from rxrouter._errors import AnswerDecodeError
from rxrouter._wire.chunk import ChatChunk, Choice
from rxrouter._wire.document_finder import BOM, DocumentFinder
from rxrouter._wire.restarted import Restarted
from rxrouter._wire.tool_call_index import ToolCallIndex
from rxrouter.operators._types import Operator


class Reader(Protocol):
    """What reads a document, and has something to tell of it."""

    def feed(self, piece: str) -> None:
        """Reads on; raises an AnswerDecodeError."""

    def skip(self, count: int) -> None:
        """Count so many characters in front of the document."""

    def finish(self) -> None:
        """The text is at its end; raises an AnswerDecodeError."""

    def tell(self, emit: Callable[[Any], None]) -> None:
        """Emits what there is to tell since the last time."""


def of_document(
    begin: Callable[[], Reader], choice: int, tool_call: int | None, *, find: bool
) -> Operator[str | ChatChunk, Any]:
    """Feed a reader with the document, and emit what it tells.

    Args:
        begin: Makes the reader: for each subscription, and anew after each `Restarted`.
        choice: Whose text the document is, where chunks come.
        tool_call: The number of the tool call whose arguments it is instead, as `ToolCallIndex` counts.
        find: Whether the document may have other text before and behind it.
    """

    def operator(source: Observable[str | ChatChunk]) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            document = _Document(begin, choice, tool_call, observer, find=find)
            document.upstream.disposable = source.subscribe(
                document.on_next, observer.on_error, document.on_completed, scheduler=scheduler
            )
            return document.upstream

        return Observable(subscribe)

    return operator


class _Document:
    """One subscription."""

    def __init__(
        self,
        begin: Callable[[], Reader],
        choice: int,
        tool_call: int | None,
        observer: abc.ObserverBase[Any],
        *,
        find: bool,
    ) -> None:
        self.upstream = SingleAssignmentDisposable()
        self._begin = begin
        self._choice = choice
        self._tool_call = tool_call
        self._observer = observer
        self._find = find
        self._begin_document()

    def on_next(self, value: str | ChatChunk) -> None:
        if not isinstance(value, str):
            self._read_chunk(value)
            return
        try:
            self._feed(value)
        except AnswerDecodeError as error:
            self._refuse(error)
        else:
            self._reader.tell(self._observer.on_next)

    def on_completed(self) -> None:
        try:
            self._feed(self._held_back())
            self._require_document()
            self._reader.finish()
        except AnswerDecodeError as error:
            self._refuse(error)
        else:
            self._reader.tell(self._observer.on_next)
            self._observer.on_completed()

    def _read_chunk(self, chunk: ChatChunk) -> None:
        for part in chunk.choices:
            if part.index == self._choice and (piece := self._piece(part)):
                self.on_next(piece)
        if not chunk.choices and isinstance(chunk, Restarted):
            self._begin_document()

    def _begin_document(self) -> None:
        self._reader = self._begin()
        self._calls = ToolCallIndex()
        self._finder = DocumentFinder() if self._find else None  # until the document is found
        self._has_begun = False

    def _feed(self, piece: str) -> None:
        if not self._has_begun and piece:
            self._has_begun = True
            if piece.startswith(BOM):
                piece = piece.removeprefix(BOM)
                self._reader.skip(1)
        if self._finder is not None:
            piece = self._finder.add(piece)
            if not self._finder.found:
                return
            self._reader.skip(self._finder.skipped)
            self._finder = None
        self._reader.feed(piece)

    def _require_document(self) -> None:
        if self._finder is not None:
            raise AnswerDecodeError("there is no JSON document in the text", self._finder.seen)

    def _refuse(self, error: AnswerDecodeError) -> None:
        self.upstream.dispose()
        self._reader.tell(self._observer.on_next)  # what the same piece held before
        self._observer.on_error(error)

    def _piece(self, part: Choice) -> str:
        if self._tool_call is None:
            return part.delta.content or ""
        grown = filter(None, map(self._calls.add, part.delta.tool_calls))
        return "".join([text for call, text in grown if call.number == self._tool_call])

    def _held_back(self) -> str:
        """Return the arguments that wait for those behind them."""
        return "".join([call.undecided for call in self._calls.calls if call.number == self._tool_call])
