"""Tape: one generation as this process knows it, and those who read it here."""

from __future__ import annotations

from collections.abc import Callable

from rxrouter._chain import Proof
from rxrouter._errors import RouterError
from rxrouter._queue import Overflow
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.completion import state_after
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators._fanout import Fanout, FanoutReader
from rxrouter.sharing._entries import decode, encode


class Tape(Fanout[ChatChunk]):
    """Keeps a generation's entries, and gives them to its readers: those before to the late, then each as it comes.

    A log makes one for each generation that is read in this process, and tells it what comes: `on_next` with the chunks
    in order from the first, then `end`. Who is late, or slow, has a place on the tape and no queue of its own.

    Args:
        on_empty: Called when the last reader has left before the end.
        on_over: Called when the last entry is on the tape, before the readers are told.
    """

    def __init__(self, on_empty: Callable[[], None] = lambda: None, on_over: Callable[[], None] = lambda: None) -> None:
        super().__init__(1, Overflow.PAUSE, self._keep, on_empty)
        self.entries: list[bytes] = []  # the first has number 1
        self.size_bytes = 0
        self.error: RouterError | None = None
        self._on_over = on_over

    def end(self, error: RouterError | None) -> None:
        """The generation has ended: by this error, or well; only the first time counts."""
        if not self._ending:
            self.error = error
            self.on_completed() if error is None else self.on_error(error)

    def read(self, reader: FanoutReader[ChatChunk], after: int) -> None:
        """Has a reader get all entries above the number `after`, and the ending."""
        known = len(self.entries)
        if after > known:  # it was read elsewhere, where more has already come
            reader.on_next = _without(after - known, reader.on_next)
        self.join(reader, Place(self, after) if after < known else None)

    def queue(self, before: object = ()) -> Place:  # noqa: ARG002 - nothing is copied for a reader here
        """For a reader that stops keeping up: at the entry that it could not take."""
        return Place(self, len(self.entries) - 1)

    def _keep(self, chunk: ChatChunk) -> None:
        entry = encode(chunk)
        self.entries.append(entry)
        self.size_bytes += len(entry)

    def _end(self) -> None:
        if self.error is not None and self.entries:
            self.error.partial = self._partial(self.error)
        self._on_over()
        super()._end()

    def _partial(self, error: RouterError) -> object:
        fold = CompletionFold()
        for entry in self.entries:
            fold.add(decode(entry))
        return fold.completion(state_after(error))


class Place:
    """Where on the tape one reader is: all that a reader costs who is late, slow, or asleep."""

    def __init__(self, tape: Tape, place: int) -> None:
        self.ended = False
        self.error: Exception | None = None
        self.proof = Proof.CUT
        self._tape = tape
        self._place = place

    @property
    def items(self) -> range:
        """What is still to be read."""
        return range(self._place, len(self._tape.entries))

    def take(self) -> ChatChunk:
        """The next entry."""
        self._place += 1
        return decode(self._tape.entries[self._place - 1])

    def on_next(self, value: ChatChunk) -> None:
        """It is on the tape."""

    def on_error(self, error: Exception) -> None:
        """What to end with, when all is read."""
        self.error = error
        self.ended = True

    def on_completed(self) -> None:
        """That all is on the tape."""
        self.ended = True

    def close(self) -> None:
        """The reader has left."""
        self._place = len(self._tape.entries)


def _without(count: int, on_next: Callable[[ChatChunk], object]) -> Callable[[ChatChunk], None]:
    """Drops the first values."""
    left = count

    def skip(chunk: ChatChunk) -> None:
        nonlocal left
        if left:
            left -= 1
        else:
            on_next(chunk)

    return skip
