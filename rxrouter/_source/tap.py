"""Tap: the body of an event stream straight from its socket; aiohttp reads the head, and all that is not plain."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import cast

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import StreamWriter

from rxrouter._wire.chunked import PlainChunks

_HEAD_END = b"\r\n\r\n"
# Seconds from the head to `begin`; later, something else reads the answer, such as a tool that records it.
_BEGIN_SECONDS = 0.1
_HEAD_BYTES = 1 << 17  # in a longer head aiohttp finds the end
_TYPE = re.compile(rb"\r\ncontent-type:[ \t]*text/event-stream[ \t]*[;\r]")
_CODINGS = re.compile(rb"\r\n(?:transfer-encoding|content-encoding|content-length)[^\r]*")


class Tap(asyncio.Protocol):
    """Stands before aiohttp's protocol, from the request's body on until all of the answer's is there.

    aiohttp gets everything but the plain chunks of an event stream. Those take half the time here
    (tests/perf/test_decode.py), and a read one turn of the loop, where a task that waits for it takes two.
    By public means: a payload is given its writer, which has the transport, which lets its protocol be changed.

    Args:
        transport: Of the connection.
        high: How many bytes may wait for being taken; with more, the socket is read no further.
        alive: Is called for what comes of the head, interim responses included.
    """

    __slots__ = (
        "_aiohttp",
        "_alive",
        "_blocks",
        "_body",
        "_chunks",
        "_flows",
        "_head",
        "_high",
        "_paused",
        "_size",
        "_take",
        "_transport",
        "_unclaimed",
        "content",
        "over",
    )

    content: aiohttp.StreamReader
    """Where aiohttp gives what it gets of the body."""

    def __init__(self, transport: asyncio.Transport, high: int, alive: Callable[[], object] = object) -> None:
        self.over = False  # aiohttp has the rest
        self._transport = transport
        below = transport.get_protocol()
        self._aiohttp: asyncio.Protocol = below.replaced() if isinstance(below, Tap) else cast(asyncio.Protocol, below)
        self._high = high
        self._alive = alive
        self._head = b""  # what is there of it
        self._chunks: PlainChunks | None = None  # where the body is ours
        # What has come of the body until `begin`, as received: until then aiohttp may still get it.
        self._body: list[bytes] | None = None
        self._unclaimed: asyncio.TimerHandle | None = None
        self._blocks: list[bytes] = []  # what they held, while nobody takes it
        self._size = 0
        self._paused = False  # the transport, by us
        self._flows = False
        self._take: Callable[[bytes], None] | None = None
        transport.set_protocol(self)

    @classmethod
    def on(cls, writer: AbstractStreamWriter, high: int, alive: Callable[[], object]) -> Tap | None:
        """A tap of the connection on which a request's body is being written; None where none can be."""
        try:
            transport = writer.transport if isinstance(writer, StreamWriter) else None
            return None if transport is None else cls(transport, high, alive)
        except NotImplementedError:  # a transport of somebody else's loop
            return None

    def replaced(self) -> asyncio.Protocol:
        """Gives way to the next request's tap: aiohttp has read an answer whose head had no end for us (bare LFs)."""
        self.over = True
        return self._aiohttp

    def begin(self, content: aiohttp.StreamReader, take: Callable[[bytes], None]) -> bool:
        """Whether the body is ours; if not, it is all with aiohttp. What has come so far waits for `flow`.

        Args:
            content: Where aiohttp gives what it gets of the body.
            take: Gets what each socket read has brought; last, when all is with aiohttp, which `over` tells.
        """
        chunks, body = self._chunks, self._claim()
        if chunks is None or body is None:
            return False
        self.content, self._take = content, take
        content.on_eof(self._idle)  # before the connection is used again
        self._size = 0
        self._keep(chunks, b"".join(body))
        return True

    def flow(self) -> bytes:
        """Has `take` called from now on; what it has missed."""
        self._flows = True
        data = b"".join(self._blocks)
        self._blocks.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        return data

    def hold(self) -> None:
        """Keeps what comes until `flow`; not without bounds, the socket is read no further."""
        self._flows = False

    def forget(self) -> None:
        """Calls nobody any more."""
        self._flows, self._take = False, None
        self._claim()

    def data_received(self, data: bytes) -> None:
        chunks = self._chunks
        if self.over:
            self._aiohttp.data_received(data)
        elif chunks is None:
            self._read_head(data)
        elif self._flows and self._take is not None:
            blocks = chunks.feed(bytes(data))  # no copy, but on Windows, whose loop has bytearrays
            if chunks.rest is not None:
                self._hand_over(chunks.rest)
            self._take(blocks[0] if len(blocks) == 1 else b"".join(blocks))
        else:
            self._keep(chunks, data)

    def eof_received(self) -> bool | None:
        return self._aiohttp.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        chunks = self._chunks
        if body := self._claim():
            self._aiohttp.data_received(b"".join(body))
        elif chunks is not None and chunks.rest is not None and not self.over:
            self._hand_over(chunks.rest)
        self.over = True
        self._aiohttp.connection_lost(exc)
        if self._take is not None:
            self._lose()
            if self._flows:
                self._take(b"")

    def _lose(self) -> None:
        if not self.content.is_eof() and self.content.exception() is None:
            # aiohttp closes the connection when it can't read a chunk, and tells nobody who waits for one (3.14).
            self.content.set_exception(aiohttp.ClientPayloadError("a chunk is damaged"))

    def pause_writing(self) -> None:
        self._aiohttp.pause_writing()

    def resume_writing(self) -> None:
        self._aiohttp.resume_writing()

    def _keep(self, chunks: PlainChunks, data: bytes) -> None:
        if self._body is None:
            self._blocks += chunks.feed(bytes(data))
        else:
            self._body.append(bytes(data))
        self._size += len(data)
        if chunks.rest is not None and self._take is not None:
            self._hand_over(chunks.rest)
        elif self._size > self._high and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def _claim(self) -> list[bytes] | None:
        """Return what has come of the body, the first time that this is called."""
        if self._unclaimed is not None:
            self._unclaimed.cancel()
            self._unclaimed = None
        body, self._body = self._body, None
        return body

    def _give_back(self) -> None:
        """Leave the body to aiohttp, because something between it and us reads there."""
        body = self._claim()
        if body is not None and not self._transport.is_closing():
            self._leave()
            if self._paused:
                self._paused = False
                self._transport.resume_reading()
            self._aiohttp.data_received(b"".join(body))

    def _hand_over(self, rest: bytes) -> None:
        self.over = True
        self._aiohttp.data_received(rest)

    def _read_head(self, data: bytes) -> None:
        """Passes the head on, and keeps what is behind it, if that is ours."""
        self._alive()
        while data:
            seen = self._head + data
            head, end, behind = seen.partition(_HEAD_END)
            if end and head.startswith(b"HTTP/1.1 1"):  # an interim response: the head is still to come
                self._head = b""
                self._aiohttp.data_received(data[: len(data) - len(behind)])
                data = behind
                continue
            if end and _is_plain_stream(head):
                self._chunks, self._body = PlainChunks(), []
                self._unclaimed = asyncio.get_running_loop().call_later(_BEGIN_SECONDS, self._give_back)
                self._aiohttp.data_received(data[: len(data) - len(behind)])
                self._keep(self._chunks, behind)
                return
            self._head = seen
            if end or len(seen) > _HEAD_BYTES:
                self._leave()
            self._aiohttp.data_received(data)
            return

    def _idle(self) -> None:
        """Leave the connection to its next request, which must not read bytes behind this answer's end."""
        self._leave()
        asyncio.get_running_loop().call_soon(self._check_end)

    def _check_end(self) -> None:
        # aiohttp has given the connection back before it parsed the bytes behind the end.
        if getattr(self._aiohttp, "should_close", False):
            self._transport.abort()

    def _leave(self) -> None:
        self.over = True
        # The connection may be guarded already, as an idle one.
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._aiohttp)


def _is_plain_stream(head: bytes) -> bool:
    """Whether that is an event stream in chunks, and in no other coding."""
    head = head.lower() + b"\r\n"
    return (
        head.startswith(b"http/1.1 200")
        and _CODINGS.findall(head) == [b"\r\ntransfer-encoding: chunked"]
        and _TYPE.search(head) is not None
        and head.count(b"\r\ncontent-type") == 1
    )
