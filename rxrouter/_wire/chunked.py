"""HTTP's chunked coding taken off, where it is plain: a size alone on its line, that many bytes, a line end."""

from __future__ import annotations

import re

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")
# A chunk of 2^64 bytes, or more, is damage. Only aiohttp's parser in C refuses it; the one in Python waits for it.
_TOO_LONG = re.compile(rb"0*[1-9A-Fa-f][0-9A-Fa-f]{16}")
_BEGUN = re.compile(rb"[0-9A-Fa-f]{0,8}\r?")  # what may become one
# Where a size should be, any parser refuses it.
_NO_SIZE = b"\r\n"
_LAST = b"0\r\n\r\n".split(b"\r\n")
_SMALL = 4096  # bytes of a chunk up to which looking for line ends inside is cheaper than leaping from size to size
_sizes: dict[bytes, int] = {}  # of small chunks, as they were written; so reading one again is a look-up


class PlainChunks:
    """Takes a body in blocks cut anywhere, gives what its chunks hold, each byte with the block that brought it.

    Only the plain chunks of RFC 9112, 7.1: at the last chunk, at one with an extension, and at one that is damaged it
    stops. All of that is for a parser of HTTP, which goes on as if there had been none of the chunks before.
    """

    __slots__ = ("_are_small", "_left", "_start", "rest")

    def __init__(self) -> None:
        self.rest: bytes | None = None  # what is not plain, and all behind it
        self._start = b""  # of a size, or of the line end behind a chunk
        self._left = 0  # bytes of the chunk that are still to come, its line end with them
        self._are_small = True

    def feed(self, data: bytes) -> list[bytes]:
        """What the chunks in `data` hold, in order."""
        if self.rest is not None:
            self.rest += data
            return []
        if self._start:
            data, self._start = self._start + data, b""
        if not self._left and len(data) <= _SMALL and data.endswith(b"\r\n"):
            size, _, chunk = data[:-2].partition(b"\r\n")
            if _sizes.get(size) == len(chunk):
                return [chunk]  # one chunk in one read, as a model types
        return self._take_apart(data)

    def _take_apart(self, data: bytes) -> list[bytes]:
        out: list[bytes] = []
        at, end, left = 0, len(data), self._left
        at_once = self._are_small
        while at < end:
            if not left:
                if at_once:
                    at_once = False
                    blocks, at = _whole_chunks(data, at)
                    out += blocks
                size = _SIZE.match(data, at)
                if size is None and _BEGUN.fullmatch(data, at):
                    self._start = data[at:]
                    break
                if size is None or not (left := int(size[1], 16)):
                    self.rest = _NO_SIZE if _TOO_LONG.match(data, at) else data[at:]
                    break
                self._are_small = left <= _SMALL
                if self._are_small and len(_sizes) < _SMALL:
                    _sizes[size[1]] = left
                at, left = size.end(), left + 2
            stop = at + left - 2  # where the line end begins
            if at != stop:
                out.append(data[at:stop])
            line_end = data[stop : stop + 2]
            if not b"\r\n".startswith(line_end):
                self.rest = _NO_SIZE
                break
            if len(line_end) < 2:  # noqa: PLR2004 - the rest of it, or of the chunk, is still to come
                left -= min(stop, end) - at
                self._start = line_end
                break
            at, left = stop + 2, 0
        self._left = left
        return out


def _whole_chunks(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The small chunks that are all there, and where they end; none where a line end is in one, or a size is new.

    One C-level split a block: 0.4 of what aiohttp takes, where one after the other takes as much as there
    (tests/perf/test_decode.py).
    """
    lines = data[at:].split(b"\r\n")
    count = (len(lines) - 1) // 2 * 2
    if lines[-3:] == _LAST:
        count -= 2
    blocks = lines[1:count:2]
    if list(map(_sizes.get, lines[0:count:2])) != list(map(len, blocks)):
        return [], at
    return blocks, len(data) - len(b"\r\n".join(lines[count:]))
