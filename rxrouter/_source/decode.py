"""Events → values, and what the end of the stream means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any

import msgspec

from rxrouter._errors import ChunkDecodeError, EventTooLargeError, RouterError, StreamError, TruncatedStreamError
from rxrouter._gate import Gate
from rxrouter._wire.chunk import ChatChunk, decode_odd, has_content, require_chunk
from rxrouter._wire.failure import event_error, stream_error
from rxrouter._wire.likeness import Likeness
from rxrouter._wire.sse import Comment, ServerSentEvent, SSEParser

_decode: Callable[[Any], ChatChunk] = msgspec.json.Decoder(ChatChunk).decode
_DONE = b"[DONE]"
_ODD = (msgspec.DecodeError, TypeError, RecursionError, UnicodeDecodeError)  # what decoding raises, on anything

Item = bytes | ServerSentEvent | Comment


class Reader(ABC):
    """Takes a body's blocks, delivers values until the gate closes, and judges the end."""

    def __init__(self, max_event_bytes: int, gate: Gate, on_next: Callable[[Any], None]) -> None:
        self.seen = 0  # values delivered
        self.ended = False  # nothing more is to be delivered
        self.proven = False  # the answer is all there; only its usage may not be
        self.lingering = False  # all is there that has to be; only the end of the body is not
        self.generation_id: str | None = None
        self.on_comment: Callable[[], None] = _ignore
        self._failure: RouterError | None = None
        self._usage: ChatChunk | None = None  # the last one that was seen to have one
        self._gate = gate
        self._on_next = on_next
        self._parser = SSEParser(max_event_bytes)
        self._items: Iterator[Any] = iter(())  # Item; Any, because the hot loop tries before it asks
        self._too_large: EventTooLargeError | None = None

    def feed(self, block: bytes) -> None:
        """Delivers what the block completes; stops where the gate closes."""
        try:
            self._items = iter(self._parser.split(block))
        except EventTooLargeError as error:
            self._items = iter(error.events)
            self._too_large = error
            error.events = []  # they are delivered, and not told
        self.resume()

    def resume(self) -> None:
        """Delivers what is left of the block, unless the gate is closed."""
        if self.ended:
            self._discard()
        elif not self._gate.closed:
            self._deliver()
        if self._too_large is not None and not self._gate.closed:
            self._fail(self._too_large)

    @abstractmethod
    def _deliver(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None:
        """Takes what comes behind the end."""

    @property
    def draining(self) -> bool:
        """Whether the rest of the body is worth a wait: it frees the connection for the next request, or has usage."""
        return False

    @property
    def billed(self) -> ChatChunk | None:
        """The chunk with the usage of the whole generation; None if none has come, or only of its beginning."""
        return None

    @abstractmethod
    def outcome(self, cut: RouterError | None) -> RouterError | None:
        """What the stream ended with, None if it is complete.

        Args:
            cut: Why there is no more to read; None for a body that has come to its end.
        """

    def _fail(self, error: RouterError) -> None:
        if not self.ended:  # what comes behind the end changes nothing of it
            self._failure = error
            if not self.lingering:
                self._usage = None  # it is of the beginning
        self.ended = True


def _ignore() -> None:
    pass


class EventReader(Reader):
    """Delivers events and comments as they are; the end is the end of the body."""

    def _deliver(self) -> None:
        for item in self._items:
            self.seen += 1
            if isinstance(item, Comment):
                self.on_comment()
            self._on_next(
                ServerSentEvent("message", item.decode(errors="replace")) if isinstance(item, bytes) else item
            )
            if self._gate.closed:
                return

    def _discard(self) -> None:
        """Nothing does: it ends with the body, or by a failure of the framing."""

    def outcome(self, cut: RouterError | None) -> RouterError | None:
        """Any cut is a failure: only the protocol above could tell what was still to come."""
        return self._failure or cut


class ChunkReader(Reader):
    """Delivers chunks, by the ending table of DESIGN 4.2."""

    def __init__(self, max_event_bytes: int, choices: int, gate: Gate, on_next: Callable[[Any], None]) -> None:
        super().__init__(max_event_bytes, gate, on_next)
        self._choices = choices  # as many as were asked for; not every provider heeds it
        self._likeness = Likeness()
        self._done = False
        # Whether each choice has a finish reason; without those of plain chunks, whose index is 0.
        self._has_finished: dict[int, bool] = {}
        self._unfinished = 0  # choices of these
        self._noted = 0  # chunks that were not plain

    def _deliver(self) -> None:  # noqa: C901, PLR0912 - one fused loop from item to observer: the hot path
        gate, on_next, decode, items = self._gate, self._on_next, _decode, self._items
        read = self._likeness.read
        # What was delivered is what was taken, but for what was nothing: counting each takes 200 instructions.
        before = self.seen + length_hint(items)
        try:
            for item in items:
                chunk = read(item)
                if chunk is not None:  # nearly always
                    on_next(chunk)
                    if gate.closed:
                        break
                    continue
                try:
                    chunk = decode(item)  # raises TypeError for what is no plain event
                    chunk.received = item
                    [choice] = chunk.choices
                except _ODD:
                    chunk = self._decode_other(item)
                except ValueError:  # not one choice
                    pass
                else:
                    if (
                        choice.finish_reason is None
                        and not choice.index
                        and choice.error is None
                        and chunk.error is None
                        and chunk.usage is None
                    ):
                        self.generation_id = self.generation_id or chunk.id
                        if choice.delta.content:
                            self._likeness.learn(item, chunk, before - length_hint(items))
                            read = self._likeness.read
                        on_next(chunk)
                        if gate.closed:
                            break
                        continue
                self.seen = before - length_hint(items) - 1
                if chunk is None or not self._note(chunk):
                    before -= 1
                else:
                    self.generation_id = self.generation_id or chunk.id
                    on_next(chunk)  # also with an error in it: no text is ever dropped
                if self.ended or gate.closed:
                    break
        finally:
            self.seen = before - length_hint(items)
        if self.proven:  # by what was seen then
            self.proven = self._proven(self._choices)
            self.lingering = self.lingering and self.proven
        if self.ended:
            self._discard()

    def _decode_other(self, item: Item) -> ChatChunk | None:
        """What is no plain chunk: [DONE], comments, other framings and other encodings; None if it is nothing."""
        if isinstance(item, Comment):
            self.on_comment()
            return None
        event, data = (item.event, item.data.encode()) if isinstance(item, ServerSentEvent) else ("", item)
        if data.strip() == _DONE:
            self._done = self.ended = True
            return None
        if not data or data.startswith(b":"):  # a keep-alive that a proxy made data of (WIRE 9)
            self.on_comment()
            return None
        try:
            chunk = decode_odd(data)
            if event == "error" and chunk.error is None:
                self._fail(event_error(data))
                return None
        except ChunkDecodeError as error:
            self._fail(event_error(data) if event == "error" else error)
            return None
        return chunk

    def _note(self, chunk: ChatChunk) -> bool:
        """Takes a chunk with an error, a finish reason, several choices or none; says whether to deliver it."""
        if error := stream_error(chunk):
            self._fail(error)
            self.generation_id = self.generation_id or chunk.id
            if chunk.usage is not None:
                self._usage = chunk
            return any(has_content(choice.delta) for choice in chunk.choices)
        try:
            require_chunk(chunk)
        except ChunkDecodeError as wrong:
            self._fail(wrong)
            return False
        for choice in chunk.choices:
            if choice.finish_reason:
                self._unfinished -= not self._has_finished.get(choice.index, True)
                self._has_finished[choice.index] = True
            elif choice.index not in self._has_finished:
                self._unfinished += 1
                self._has_finished[choice.index] = False
        self.proven = self._proven(self._choices)
        self._noted += 1
        if chunk.usage is not None:
            self._count(chunk)
        return True

    def _count(self, chunk: ChatChunk) -> None:
        self._usage = chunk
        self.lingering = self.proven

    def _discard(self) -> None:
        """What comes behind an error matters only for what it says of the cost."""
        failure = self._failure
        if isinstance(failure, StreamError) and failure.usage is None:
            for item in self._items:
                try:
                    chunk = _decode(item)
                except _ODD:
                    continue
                if chunk.usage is not None:
                    failure.usage, self._usage = chunk.usage, chunk

    @property
    def draining(self) -> bool:
        """After [DONE], and after an error, whose usage may follow."""
        return self._done or isinstance(self._failure, StreamError)

    @property
    def billed(self) -> ChatChunk | None:
        """With the end of the answer, or behind it; some providers say with each chunk what was used so far."""
        return self._usage if self._done or self.lingering or self._failure is not None else None

    def _proven(self, choices: int) -> bool:
        finished = len(self._has_finished) - self._unfinished
        has_plain = self.seen > self._noted
        return finished >= choices and not self._unfinished and (not has_plain or self._has_finished.get(0, False))

    def outcome(self, cut: RouterError | None) -> RouterError | None:
        """Complete by [DONE] or by a finish reason of every choice; the end of a body alone proves nothing.

        A body that ended well is complete with fewer choices than were asked for, one that was cut is not.
        """
        if self._failure is not None or self._done or self._proven(1 if cut is None else self._choices):
            return self._failure
        return cut or TruncatedStreamError()
