"""Frames: what a dialect says, cut into what HTTP carries: server-sent events, lines, or nothing at all."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

_LF, _CR = 10, 13
_KEPT_BYTES = 4096  # of one frame, kept for the next reader; a larger one costs more to send than to make
_LINE_END = re.compile(rb"\r\n|\r|\n")
_PLACE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")


class Place(NamedTuple):
    """How far a reader is: it has all that was said of the first entries of a log, and some frames behind that."""

    entries: int = 0
    frames: int = 0

    def __str__(self) -> str:
        return f"{self.entries}.{self.frames}" if self.frames else f"{self.entries}"

    @classmethod
    def parse(cls, event_id: str) -> Place:
        """The place that a `Last-Event-ID` names.

        Raises:
            ValueError: it names none.
        """
        match = _PLACE.fullmatch(event_id)
        if match is None:
            raise ValueError("Last-Event-ID is none of ours")
        return cls(int(match[1]), int(match[2] or 0))


class Framing(ABC):
    """How payloads become the bytes of one body.

    Args:
        content_type: Of the body.
        headers: Others of the response, that tell the reader what comes.
    """

    numbered = False  # whether a frame can carry an id, by which a reader that comes back says what it has

    def __init__(self, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        self.headers = {"Content-Type": content_type, **(headers or {})}

    @abstractmethod
    def frame(self, payload: bytes, place: Place | None = None) -> bytes:
        """One payload, as it is sent; where frames have ids, the place that the reader has reached with it."""

    @abstractmethod
    def comment(self) -> bytes:
        """What is sent when there is nothing to say, and no reader sees; nothing, where there is no such thing."""


class Events(Framing):
    """Server-sent events."""

    numbered = True

    def __init__(self, headers: Mapping[str, str] | None = None) -> None:
        super().__init__("text/event-stream", headers)
        self._last: tuple[bytes, Place | None, bytes] = b"", None, _event(b"", None)

    def frame(self, payload: bytes, place: Place | None = None) -> bytes:
        """An event, of as many data lines as the payload has."""
        known, its_place, frame = self._last
        if payload is known and place == its_place:  # as the reader before got it, of many who read the same
            return frame
        frame = _event(payload, place)
        if len(payload) <= _KEPT_BYTES:
            self._last = payload, place, frame
        return frame

    def comment(self) -> bytes:
        """A comment."""
        return b": keep-alive\n\n"


class Lines(Framing):
    """One payload a line."""

    def frame(self, payload: bytes, place: Place | None = None) -> bytes:  # noqa: ARG002 - a line is all there is
        """A line; JSON is the same with a space where it had a line end."""
        if _LF in payload or _CR in payload:
            payload = b" ".join(_LINE_END.split(payload))
        return payload + b"\n"

    def comment(self) -> bytes:
        """A blank line."""
        return b"\n"


class Bare(Framing):
    """The payloads, one behind the other; silence is silence."""

    def frame(self, payload: bytes, place: Place | None = None) -> bytes:  # noqa: ARG002 - the payload is all there is
        """The payload."""
        return payload

    def comment(self) -> bytes:
        """Nothing."""
        return b""


def _event(payload: bytes, place: Place | None) -> bytes:
    head = b"data: " if place is None else f"id: {place}\ndata: ".encode()
    if _LF in payload or _CR in payload:
        payload = b"\ndata: ".join(_LINE_END.split(payload))
    return b"%b%b\n\n" % (head, payload)
