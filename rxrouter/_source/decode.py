"""Events → values, and what the end of the stream means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any

import msgspec

from rxrouter._errors import ChunkDecodeError, EventTooLargeError, RouterError, StreamError, TruncatedStreamError
from rxrouter._gate import Gate
from rxrouter._wire.chunk import (
    ChatChunk,
    decode_odd,
    has_content,
    is_chunk,
    is_unusual,
)
from rxrouter._wire.failure import body_error, event_error, says_something, stream_error, unframed_error
from rxrouter._wire.finish_proof import FinishProof
from rxrouter._wire.halves import Halves
from rxrouter._wire.likeness import Likeness, unlike
from rxrouter._wire.repetition import Repetition
from rxrouter._wire.sse import Comment, ServerSentEvent, SSEParser
from rxrouter._wire.sse_lines import UNFRAMED, LineKeepingParser
from rxrouter._wire.usage import merged_usage, with_usage

Decode = Callable[[Any], ChatChunk]

_decode: Decode = msgspec.json.Decoder(ChatChunk).decode
_DONE = b"[DONE]"
_ODD = (msgspec.DecodeError, TypeError, RecursionError, UnicodeDecodeError)  # what decoding raises, on anything
# Names of events that hold chunks; in an unnamed event, as nearly all are, the name is "".
_CHUNKS = {"", "message", "data", "chunk", "delta", "completion", "chat.completion", "chat.completion.chunk"}
# JSON that says nothing at all.
_EMPTY = {b"null", b"[]", b"false"}
# The item behind the last one of a body; no event of a stream can have its name.
_END = ServerSentEvent("\r")

Item = bytes | ServerSentEvent | Comment


def _refuse(_: Any) -> ChatChunk:
    """Send every item the slow way, where it is looked at closely."""
    raise msgspec.DecodeError


class Reader(ABC):
    """Takes a body's blocks, delivers values until the gate closes, and judges the end."""

    def __init__(self, parser: SSEParser, gate: Gate, on_next: Callable[[Any], None]) -> None:
        self.seen = 0  # values delivered
        self.ended = False  # nothing more is to be delivered
        self.proven = False  # the answer is all there; only usage and [DONE] may not be
        self.lingering = False  # all is there that has to be; only the end of the body is not
        self.generation_id: str | None = None
        self.on_comment: Callable[[], None] = _ignore
        self._failure: RouterError | None = None
        self._gate = gate
        self._on_next = on_next
        self._parser = parser
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
    def has_content(self) -> bool:
        """Whether anything was delivered that is a part of an answer."""
        return bool(self.seen)

    @property
    def unfinished(self) -> bool:
        """Whether `end` may deliver anything."""
        return False

    @abstractmethod
    def end(self, cut: RouterError | None) -> None:
        """Deliver what the body has ended in the middle of; called once, when the gate is open.

        Args:
            cut: Why there is no more to read; None for a body that has come to its end.
        """

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
        self.ended = True


def _ignore() -> None:
    pass


class EventReader(Reader):
    """Delivers events and comments as they are; the end is the end of the body."""

    def __init__(self, max_event_bytes: int, gate: Gate, on_next: Callable[[Any], None]) -> None:
        super().__init__(SSEParser(max_event_bytes), gate, on_next)

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

    def end(self, cut: RouterError | None) -> None:
        """Deliver nothing: to the letter of the standard, an event without its blank line is no event."""

    def outcome(self, cut: RouterError | None) -> RouterError | None:
        """Any cut is a failure: only the protocol above could tell what was still to come."""
        return self._failure or cut


class ChunkReader(Reader):
    """Delivers chunks; passes over what is no chunk; judges the end by finish reasons, [DONE] and errors."""

    def __init__(self, max_event_bytes: int, choices: int, gate: Gate, on_next: Callable[[Any], None]) -> None:
        self._lines = LineKeepingParser(max_event_bytes)
        super().__init__(self._lines, gate, on_next)
        self.passed_over = 0
        """Events and objects that were no chunks, and no errors."""
        self._choices = choices  # as many as were asked for; not every provider heeds it
        self._likeness = Likeness()
        self._decode = _decode
        self._done = False
        self._proof = FinishProof()
        self._repetition = Repetition()
        self._noted = 0  # chunks that were not plain
        self._has_content = False  # one of these
        self._halves = Halves()
        self._usage: ChatChunk | None = None  # the last one with a usage, which has all that was said of it
        self._bill: ChatChunk | None = None  # the same, of the whole answer
        self._rest: ChatChunk | None = None  # made of halves that were left
        self._max_event_bytes = max_event_bytes
        self._unframed = bytearray()  # lines that were no fields
        self._only_object = b""  # passed over, without a name
        self._at_end = False

    def _deliver(self) -> None:  # noqa: C901, PLR0912, PLR0915 - one fused loop from item to observer: the hot path
        gate, on_next, decode, items = self._gate, self._on_next, self._decode, self._items
        read = self._likeness.read if decode is _decode else unlike
        spoken = self._repetition.plain
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
                    delta = choice.delta
                    if (
                        choice.finish_reason is None
                        and not choice.index
                        and choice.error is None
                        and chunk.error is None
                        and chunk.usage is None
                        and (delta.content or delta.reasoning or delta.reasoning_content or delta.tool_calls)
                    ):
                        self.generation_id = self.generation_id or chunk.id
                        if delta.content:
                            spoken.add("content")
                            self._likeness.learn(item, chunk, before - length_hint(items))
                            read = self._likeness.read
                        if delta.tool_calls:
                            spoken.add("tool_calls")
                        if delta.reasoning or delta.reasoning_content:
                            spoken.add("reasoning")
                        on_next(chunk)
                        if gate.closed:
                            break
                        continue
                self.seen = before - length_hint(items) - 1
                if chunk is not None:
                    chunk = self._note(chunk)
                decode = self._decode = self._decoder()
                read = self._likeness.read if decode is _decode else unlike
                if chunk is None:
                    before -= 1
                else:
                    self.generation_id = self.generation_id or chunk.id
                    on_next(chunk)  # also with an error in it: no text is ever dropped
                if self.ended or gate.closed:
                    break
        finally:
            self.seen = before - length_hint(items)
        if self.ended:
            self._discard()

    def _decoder(self) -> Decode:
        """The fast way to a chunk; not behind a finish, nor with half a character in hand."""
        return _refuse if self._halves or self._proof.any_finished else _decode

    def _decode_other(self, item: Item) -> ChatChunk | None:  # noqa: C901, PLR0911 - one way out for each kind of item
        """What is no plain chunk: [DONE], comments, other framings and other encodings; None if it is nothing."""
        if isinstance(item, Comment):
            self.on_comment()
            return None
        if item is _END:
            return self._read_unframed() or self._release()
        event, data = (item.event, item.data.encode()) if isinstance(item, ServerSentEvent) else ("", item)
        if event == UNFRAMED:
            return self._take_line(data)
        said = data.strip()
        if said.strip(b"\"'") == _DONE:
            self._done = self.ended = True
            return self._release()
        if event.lower() == "error":
            return self._take_error(data)
        if not said or said.startswith(b":"):  # a keep-alive that a proxy made data of
            self.on_comment()
            return None
        if event not in _CHUNKS:
            self.passed_over += 1
            return None
        try:
            return decode_odd(data, self._halves)
        except ChunkDecodeError as error:
            if said in _EMPTY:
                self.passed_over += 1
                return None
            failure = body_error(data)
            if failure is None and self._at_end:  # a piece of an event
                return None
            return self._end_with(failure or error)

    def _take_error(self, data: bytes) -> ChatChunk | None:
        """An event, or a field, named error."""
        try:
            chunk = decode_odd(data)
        except ChunkDecodeError:
            return self._end_with(event_error(data)) if says_something(data.decode()) else None
        if says_something(chunk.error):
            return chunk
        error = event_error(data)
        error.usage = chunk.usage
        return self._end_with(error)

    def _take_line(self, line: bytes) -> ChatChunk | None:
        """Return the chunk of a line without SSE framing, if the line is a chunk; an error ends the stream."""
        if line.lstrip().startswith((b"{", b"[")):
            if (error := body_error(line)) is not None:
                return self._end_with(error)
            if (chunk := _answer_in(line)) is not None:
                return chunk
        if len(self._unframed) + len(line) < self._max_event_bytes:
            self._unframed += line + b"\n"
        return None

    def _read_unframed(self) -> ChatChunk | None:
        """The answer that a body without events is, as JSON on several lines."""
        return _answer_in(bytes(self._unframed)) if self._unframed and not self._answered else None

    def _end_with(self, error: RouterError) -> ChatChunk | None:
        """End with this error, behind what is left of halves."""
        self._fail(error)
        return self._release()

    def _release(self) -> ChatChunk | None:
        """Return a chunk of the half surrogates that still wait at the end of the body; None if no half waits."""
        if not self._halves:
            return None
        choices = self._halves.release()
        self._rest = msgspec.convert({"id": self.generation_id or "", "choices": choices}, ChatChunk)
        return self._rest

    def _fail(self, error: RouterError) -> None:
        if not self.ended:
            self._usage = self._bill  # else it is of the beginning
        super()._fail(error)

    def _note(self, chunk: ChatChunk) -> ChatChunk | None:
        """Take a chunk with an error, a finish reason, several choices or none; return it if it is to be delivered."""
        if chunk is self._rest:
            return chunk
        if is_unusual(chunk):
            try:
                chunk = decode_odd(chunk.raw, self._halves)
            except ChunkDecodeError as wrong:
                return self._end_with(wrong)
        if error := stream_error(chunk):
            return self._note_error(chunk, error)
        if not is_chunk(chunk):
            self.passed_over += 1
            self._only_object = chunk.raw if self.passed_over == 1 else b""
            return None
        chunk = self._repetition.strip(chunk)
        if self.seen > self._noted:
            self._proof.begin(0)
        for choice in chunk.choices:
            content = has_content(choice.delta)
            self._has_content = self._has_content or content
            self._proof.add(choice.index, choice.finish_reason, content=content)
        self._noted += 1
        if not self._proof.proven(self._choices):
            self._bill = None
        if chunk.usage is not None:
            chunk = self._count(chunk)
        self.proven = self._proof.unambiguous(self._choices)
        self.lingering = self.proven and self._bill is not None
        return chunk

    def _note_error(self, chunk: ChatChunk, error: StreamError) -> ChatChunk | None:
        self._fail(error)
        self.generation_id = self.generation_id or chunk.id
        if chunk.usage is not None:
            self._usage = chunk
        if (rest := self._release()) is not None:
            chunk = msgspec.structs.replace(chunk, choices=[*rest.choices, *chunk.choices])
        return chunk if any(has_content(choice.delta) for choice in chunk.choices) else None

    def _count(self, chunk: ChatChunk) -> ChatChunk:
        """Take the usage of a chunk, and give it all that was said of the usage so far."""
        usage = merged_usage(None if self._usage is None else self._usage.usage, chunk.usage)
        if usage is not None and usage != chunk.usage:
            chunk = with_usage(chunk, usage)
        self._usage = chunk
        if self._proof.proven(self._choices):
            self._bill = chunk
        return chunk

    def _discard(self) -> None:
        """What comes behind an error matters only for what it says of the cost."""
        failure = self._failure
        if not isinstance(failure, StreamError):
            return
        for item in self._items:
            if isinstance(item, Comment):
                continue
            try:
                chunk = decode_odd(item.data.encode() if isinstance(item, ServerSentEvent) else item)
            except ChunkDecodeError:
                continue
            if chunk.usage is not None:
                failure.usage, self._usage = merged_usage(failure.usage, chunk.usage), chunk

    @property
    def has_content(self) -> bool:
        return self._has_content or self.seen > self._noted

    @property
    def unfinished(self) -> bool:
        return not self.ended and bool(self._lines.unfinished or self._halves or self._unframed)

    def end(self, cut: RouterError | None) -> None:
        """A last event without its blank line counts at a good end, if it is whole."""
        if self.ended:
            return
        self._at_end = True
        last = list[Item]()
        if cut is None:
            try:
                last = self._lines.split(b"\n\n")
            except EventTooLargeError:
                return
        self._items = iter([*last, _END])
        self.resume()

    @property
    def draining(self) -> bool:
        """After [DONE], and after an error, whose usage may follow."""
        return self._done or isinstance(self._failure, StreamError)

    @property
    def billed(self) -> ChatChunk | None:
        """With the end of the answer, or behind it; some providers say with each chunk what was used so far."""
        return self._usage if self._done or self._failure is not None else self._bill

    @property
    def _answered(self) -> bool:
        """Whether there was any choice of any chunk."""
        return bool(self._proof) or self.seen > self._noted

    def outcome(self, cut: RouterError | None) -> RouterError | None:
        """Complete by [DONE] behind a chunk, or by a finish reason of every choice; the end of a body proves nothing.

        A body that ended well is complete with fewer choices than were asked for, one that was cut is not.
        """
        if self._failure is not None:
            return self._failure
        if self._answered and (self._done or self._proof.proven(1 if cut is None else self._choices)):
            return None
        if (error := self._error_of_body() or cut) is not None:
            return error
        return TruncatedStreamError() if self._answered else TruncatedStreamError("the body ended without any chunk")

    def _error_of_body(self) -> StreamError | None:
        """The error that a body without an answer, or its rest, was."""
        body = bytes(self._unframed) + self._lines.unfinished_line
        error = unframed_error(body) if body else None
        if self._answered:
            return error if error is not None and error.code is not None else None
        return error or (unframed_error(self._only_object) if self.passed_over == 1 else None)


def _answer_in(body: bytes) -> ChatChunk | None:
    """The chunk that JSON without framing is, if it has choices."""
    try:
        chunk = decode_odd(body)
    except ChunkDecodeError:
        return None
    return chunk if chunk.choices else None
