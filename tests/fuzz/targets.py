"""What a fuzzer calls: each takes any bytes, makes an input of them, and raises where a promise is broken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import msgspec

from rxrouter import ChatChunk, Choice, ChunkDecodeError, RouterError, StreamError, TruncatedStreamError
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader
from rxrouter._wire.chunk import decode_odd, has_content, is_chunk
from rxrouter._wire.chunked import PlainChunks
from rxrouter._wire.failure import body_error, says_something, stream_error
from rxrouter._wire.json import without_nulls
from rxrouter._wire.likeness import like
from rxrouter._wire.sse import ServerSentEvent
from rxrouter.testing import COMMENT, DONE, chunk
from tests.wire.test_sse import PIECES, Reference, bytewise, delivered, parse

_SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2.5, 1e308, 10**30, 10**400, "", "3", "1e999", "stop", "error", "\ud800", "é", "{}"),
)
_MEMBERS = {  # of the objects in a chunk; a list has objects of the same kind
    "": ("id", "model", "created", "choices", "usage", "error", "debug", "object", "x"),
    "choices": ("index", "delta", "finish_reason", "native_finish_reason", "error", "logprobs"),
    "delta": ("role", "content", "reasoning", "refusal", "tool_calls", "images", "audio", "reasoning_details"),
    "tool_calls": ("index", "id", "function", "type"),
    "function": ("name", "arguments"),
    "content": ("type", "text", "thinking"),
    "thinking": ("type", "text"),
    "reasoning_details": ("type", "text", "summary", "index"),
    "usage": ("cost", "prompt_tokens", "prompt_tokens_details", "cost_details", "is_byok"),
    "cost": ("total_cost", "x"),
    "prompt_tokens_details": ("cached_tokens", "x"),
    "error": ("code", "message", "metadata", "availability", "type"),
    "availability": ("retryable", "retry_after"),
    "metadata": ("error_type", "provider_name"),
}
_LISTS = {"choices", "tool_calls", "content", "thinking", "reasoning_details"}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.5}
_EVENTS = (
    *[chunk({"content": "f"})] * 30,  # or streams would end before there is anything in them
    *(chunk({"content": "a"}), chunk({"content": None, "tool_calls": [{"index": 0}]}), chunk({"reasoning": "b"})),
    *(chunk(finish="stop"), chunk(finish="error"), chunk(usage=_USAGE), chunk({"content": "c"}, usage=_USAGE)),
    *(chunk({"content": "d"}, error={"code": 502, "message": "x"}), b'data: {"error":{"code":429}}\n\n'),
    *(COMMENT, DONE, b"data: : ping\n\n", b"data:\n\n", b"data: [DONE] \n\n", b"event: error\ndata: no\n\n"),
    *(b'data: {"choices":[]}\n\n', b'data: {"id":"x","choices":null}\n\n', b"data: nonsense\n\n", b"id: 7\n\n"),
    *(b'data: {"choices":[{"index":1,"delta":{"content":"e"}}]}\n\n', b"event: x\n", b"event: error\n"),
    *(b'data: {"choices":[{"index":1,"finish_reason":"stop"}]}\n\n', b"data: {}\n\n", b'data: "\xff"\n\n'),
)
_CODED = (
    *(b"5\r\nhello\r\n", b"5\r\nhello\r\n", b"1\r\nx\r\n", b"0\r\n\r\n", b"\r\n", b"\r", b"\n", b"5;a=b\r\n"),
    *(b"a\r\n0\r\n\r\nyes!!\r\n", b"00005\r\n", b"A\r\n", b"ffffffff\r\n", b"x" * 40, b"20\r\n" + b"y" * 32 + b"\r\n"),
)
_LIKE = b'{"id":"g","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}],"service_tier":null}'
_READ = like(_LIKE, msgspec.json.decode(_LIKE, type=ChatChunk))


def parser(data: bytes) -> None:
    """The parser reads as the standard says, however the stream is cut, under any bound."""
    cuts, stream = _cut_and_made(data, PIECES)
    cuts = bytes(size % 16 for size in cuts)
    reference = Reference(stream)

    items, used = parse(_blocks(stream, cuts))

    assert items == reference.items
    assert used.last_event_id == reference.last_event_id
    assert used.reconnection_time == (reference.reconnection_time and reference.reconnection_time / 1000)
    bound = 1 + sum(cuts) % 50
    whole = delivered([stream], bound)
    assert delivered(_blocks(stream, cuts), bound) == whole
    assert delivered(bytewise(stream), bound) == whole


def decoder(data: bytes) -> None:
    """The lenient decoder refuses what is no chunk by its one error, and reads as the strict one what that takes."""
    text = json.dumps(_grown(iter(data), "", 0)).encode()
    try:
        strict = msgspec.json.decode(text, type=ChatChunk)
    except (ValueError, RecursionError):
        strict = None
    try:
        lenient = decode_odd(text)
    except ChunkDecodeError:
        assert strict is None
        return
    assert lenient.raw == text
    stream_error(lenient)
    if strict is not None:
        assert without_nulls(msgspec.to_builtins(lenient)) == without_nulls(msgspec.to_builtins(strict))


def reader(data: bytes) -> None:
    """The reader delivers and ends as a plain reading of the events does, however it is cut and made to wait."""
    cuts, stream = _cut_and_made(data, _EVENTS)
    choices = 1 + sum(cuts) % 2

    values, ending = naive(Reference(stream).items, choices)

    assert run([stream], choices, ()) == (values, ending)
    assert run(_blocks(stream, cuts), choices, cuts) == (values, ending)


def chunked(data: bytes) -> None:
    """What HTTP's chunks hold is the same however the body is cut, and so is what is left to a parser of HTTP."""
    cuts, body = _cut_and_made(data, _CODED)

    whole, cut = PlainChunks(), PlainChunks()
    held = b"".join(whole.feed(body))

    assert b"".join(block for part in _blocks(body, cuts) for block in cut.feed(part)) == held
    if whole.rest is None or not whole.rest.startswith(b"\r\n"):  # damaged: the rest of the block does not matter
        assert cut.rest == whole.rest
    else:
        assert cut.rest is not None
        assert cut.rest.startswith(b"\r\n")


def likeness(data: bytes) -> None:
    """What is compared is what parsing gives, or is left to the parser."""
    at, size = (data[0], data[1] % 16) if len(data) > 1 else (0, 0)
    item = _LIKE[:at] + data[2:] + _LIKE[at + size :]

    read = _READ(item)

    if read is not None:
        assert read == msgspec.json.decode(item, type=ChatChunk)
        assert read.raw == item


TARGETS: dict[str, Callable[[bytes], None]] = {
    "parser": parser,
    "decoder": decoder,
    "reader": reader,
    "chunked": chunked,
    "likeness": likeness,
}


def naive(items: Iterable[Any], choices: int) -> tuple[list[bytes], str]:  # noqa: C901, PLR0912 - a table, row by row
    """The ending table, event by event, with nothing fused: the chunks' bytes, and the name of the ending."""
    values: list[bytes] = []
    standings: dict[int, str] = {}
    truncated = TruncatedStreamError.__name__
    for item in items:
        if not isinstance(item, ServerSentEvent):
            continue
        data = item.data.encode()
        said = data.strip()
        if said.strip(b"\"'") == b"[DONE]":
            return values, "complete" if standings else truncated
        if item.event != "error" and (not said or said.startswith(b":")):
            continue
        if item.event not in ("message", "error"):
            continue
        try:
            value = decode_odd(data)
        except ChunkDecodeError as error:
            if item.event == "error":
                if not says_something(item.data):
                    continue
                return values, StreamError.__name__
            if said in (b"null", b"[]", b"false"):
                continue
            return values, type(body_error(data) or error).__name__
        if item.event == "error" and not says_something(value.error):
            return values, StreamError.__name__
        if stream_error(value) is not None:
            if any(has_content(choice.delta) for choice in value.choices):
                values.append(data)
            return values, StreamError.__name__
        if not is_chunk(value):
            continue
        values.append(data)
        for choice in value.choices:
            standings[choice.index] = _standing(standings.get(choice.index, ""), choice)
    finished = standings and all(standing == "finished" for standing in standings.values())
    return values, "complete" if finished else truncated


def _standing(before: str, choice: Choice) -> str:
    """What a choice is after one more piece: open, finished, or finished too early."""
    if has_content(choice.delta) and before in ("finished", "reopened"):
        return "reopened"
    return "finished" if choice.finish_reason else before or "open"


def run(blocks: Iterable[bytes], choices: int, holds: Sequence[int]) -> tuple[list[bytes], str]:
    """What a reader does with the blocks; the gate closes at the values that `holds` says."""
    gate = Gate(_LOOP)
    values: list[bytes] = []
    pauses: Iterator[int] = iter(holds)

    def note(value: ChatChunk) -> None:
        assert not gate.closed
        values.append(value.raw.decode(errors="replace").encode())
        gate.closed = bool(next(pauses, 0) & 1)

    used = ChunkReader(1 << 20, choices, gate, note)
    for block in blocks:
        used.feed(block)
        while gate.closed:
            before = len(values)
            gate.closed = False
            used.resume()
            assert len(values) > before or not gate.closed
        if used.ended:
            break
    assert used.seen == len(values)
    error: RouterError | None = used.outcome(None)
    return values, "complete" if error is None else type(error).__name__


_LOOP = asyncio.new_event_loop()  # a gate wants one; nothing runs on it
_LOOP.close()


def _cut_and_made(data: bytes, pieces: Sequence[bytes]) -> tuple[bytes, bytes]:
    """Some bytes that say where to cut, and the stream that the others make."""
    count = data[0] % 8 if data else 0
    return data[1 : 1 + count], _made(data[1 + count :], pieces)


def _made(data: bytes, pieces: Sequence[bytes]) -> bytes:
    """A byte below 128 is itself; each of the others names a piece."""
    return b"".join(data[at : at + 1] if byte < 128 else pieces[byte % len(pieces)] for at, byte in enumerate(data))


def _blocks(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    blocks: list[bytes] = []
    for size in cuts:
        blocks.append(stream[:size])
        stream = stream[size:]
    return [*blocks, stream]


def _grown(source: Iterator[int], name: str, depth: int) -> Any:
    """The JSON value of a member, as it should be or of another kind, as the bytes say."""
    byte = next(source, 255)
    members = _MEMBERS.get(name, ("x",))
    if depth > 8 or byte >= 160 or (byte >= 96 and name not in _MEMBERS):
        return _SCALARS[byte % len(_SCALARS)]
    if byte % 8 == 0 or (byte % 8 < 5 and name in _LISTS):
        return [_grown(source, name, depth + 1) for _ in range(byte // 8 % 4)]
    keys = (members[next(source, 0) % len(members)] for _ in range(byte // 8 % 6))
    return {key: _grown(source, key, depth + 1) for key in keys}
