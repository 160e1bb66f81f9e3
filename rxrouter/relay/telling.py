"""Telling: one answer as the frames that one reader still needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rxrouter._wire.chunk import ChatChunk
from rxrouter.relay.dialects.dialect import Encoder
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Place


class Telling:
    """Has the encoder say it, numbers the frames, and leaves out what the reader has.

    Args:
        encoder: Says it in the reader's dialect.
        after: How far the reader is already; None if the frames are to have no ids.
    """

    __slots__ = ("_after", "_encoder", "_frame", "_place", "_skip", "numbered")

    def __init__(self, encoder: Encoder, after: Place | None) -> None:
        self.numbered = after is not None
        self._after = after or Place()
        self._place = Place()
        self._encoder = encoder
        self._frame = encoder.framing.frame
        self._skip: Callable[[ChatChunk], object] | None = getattr(encoder, "skip", None)

    @property
    def resumes(self) -> bool:
        """Whether the reader was told something before."""
        return self._after > Place()

    @property
    def behind(self) -> bool:
        """Whether the reader claims to have more than was said so far."""
        return self._place < self._after

    def begin(self) -> list[bytes]:
        """What comes before the first chunk."""
        return self._frames(self._encoder.begin())

    def chunk(self, chunk: ChatChunk) -> list[bytes]:
        """An entry of the log: it is read when the last of its frames is, also if it says nothing."""
        if not self.numbered:
            return list(map(self._frame, self._encoder.chunk(chunk)))
        place = Place(self._place.entries + 1)
        if place <= self._after:
            if chunk.choices and self._skip is not None:
                self._skip(chunk)
            else:  # a `Restarted` is the end in a dialect that can't say it
                for _ in self._encoder.chunk(chunk):  # a generator would else never hear of it
                    pass
            self._place = place
            return []
        payloads = list(self._encoder.chunk(chunk))
        frames = self._frames(payloads[:-1])
        self._place = place
        return frames + [self._frame(payload, place) for payload in payloads[-1:]]

    def end(self) -> list[bytes]:
        """The good end."""
        return self._frames(self._encoder.end())

    def error(self, failure: Failure, *, of_log: bool) -> list[bytes] | None:
        """Any other end; None if there is no word for it. What is not in the log has no place there."""
        payloads = self._encoder.error(failure)
        if payloads is None:
            return None
        if of_log:
            return self._frames(payloads)
        self._after = self._place  # there is no more to wait for
        return list(map(self._frame, payloads))

    def _frames(self, payloads: Iterable[bytes]) -> list[bytes]:
        if not self.numbered:
            return list(map(self._frame, payloads))
        frames: list[bytes] = []
        for payload in payloads:
            self._place = place = Place(self._place.entries, self._place.frames + 1)
            if place > self._after:
                frames.append(self._frame(payload, place))
        return frames
