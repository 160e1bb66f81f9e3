"""Read an event stream to the letter, and give the lines that the standard ignores as events of their own."""

from __future__ import annotations

from rxrouter._wire.sse import Comment, ServerSentEvent, SSEParser

# A name that no event of a stream can have.
UNFRAMED = "\n"
_EMPTY = (b"", b'""', b"{}", b"[]", b"null", b"false")
_FIELDS = (b"", b"data", b"event", b"id", b"retry")


class LineKeepingParser(SSEParser):
    """A parser whose `split` also has, in their order, the lines that are no field: errors and bodies without framing.

    A field named `error` (llama.cpp) becomes an event of that name, every other line one of the name `UNFRAMED`.
    """

    __slots__ = ()

    @property
    def unfinished(self) -> bool:
        """Whether a line, or an event, has begun and not ended."""
        return bool(self._line or self._inside or self._data)

    @property
    def unfinished_line(self) -> bytes:
        """The line that has begun."""
        return bytes(self._line)

    def _read_field(self, line: bytes, out: list[bytes | ServerSentEvent | Comment]) -> None:
        name, _, value = line.partition(b":")
        if name in _FIELDS:
            super()._read_field(line, out)
        elif name == b"error" and value.strip() not in _EMPTY:
            out.append(ServerSentEvent("error", value.decode(errors="replace").strip()))
        elif line.strip():
            out.append(ServerSentEvent(UNFRAMED, line.decode(errors="replace")))
