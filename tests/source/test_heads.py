"""The head of an answer: any size that servers send, any 2xx status, any content type in front of an event stream."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from rxrouter import (
    ChatChunk,
    ContentTypeError,
    OpenRouter,
    Receipt,
    SilenceTimeoutError,
    StreamError,
    Timeouts,
    TransportError,
    TruncatedStreamError,
    is_transient,
)
from rxrouter.operators import completion
from rxrouter.testing import Act, Reply, Step, answer
from tests.support import Observed, observe, served, until

WORDS = "one two three"
EVENTS = answer(WORDS)
STREAM = b"".join(EVENTS)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"


def coded(*blocks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks) + b"0\r\n\r\n"


@asynccontextmanager
async def raw(parts: Sequence[bytes | float]) -> AsyncGenerator[str]:
    """A server that writes these bytes, with these pauses, and keeps the connection until the client leaves."""
    handled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
            for part in parts:
                if isinstance(part, bytes):
                    writer.write(part)
                    await writer.drain()
                else:
                    await asyncio.sleep(part)
            await reader.read()
        writer.close()
        handled.set()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await handled.wait()


async def asked(parts: Sequence[bytes | float], silence: float = 5) -> Observed[ChatChunk]:
    async with raw(parts) as url, OpenRouter("sk-test", base_url=url, timeouts=Timeouts(silence=silence)) as client:
        return await observe(client.chat("hi"))


def said(seen: Observed[ChatChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in seen.values for choice in chunk.choices)


# Size


@pytest.mark.parametrize(
    "more",
    [
        b"X-Policy: " + b"x" * 9_000 + b"\r\n",
        b"X-Policy: " + b"x" * 60_000 + b"\r\n",
        b"".join(b"X-Policy-%d: %b\r\n" % (number, b"x" * 300) for number in range(200)),
        b"".join(b"Set-Cookie: a%d=b\r\n" % number for number in range(1_000)),
    ],
    ids=["9 kB", "60 kB", "200 headers", "1000 headers"],
)
async def test_head_is_read_when_it_has_up_to_64_kilobytes(more: bytes) -> None:
    seen = await asked([HEAD + more + b"\r\n", coded(STREAM)])

    assert seen.endings == [None]
    assert said(seen) == WORDS


@pytest.mark.parametrize(
    "more",
    [b"X-Policy: " + b"sk-x" * 20_000 + b"\r\n", b"X: y\r\n" * 12_000],
    ids=["one header", "12000 headers"],
)
async def test_head_is_named_when_it_is_larger_than_64_kilobytes(more: bytes) -> None:
    seen = await asked([HEAD + more + b"\r\n", coded(STREAM)])

    [error] = seen.endings
    assert type(error) is TransportError
    assert "headers are larger than 65536 bytes" in str(error)
    assert "sk-x" not in str(error)
    assert not is_transient(error)


async def test_head_of_the_account_is_read_when_it_has_60_kilobytes() -> None:
    body = b'{"data":{"label":"x"}}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX-A: %b\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head % (len(body), b"x" * 60_000) + body)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with OpenRouter("sk-test", base_url=url) as client:
            assert (await observe(client.key())).endings == [None]


# Content codings


@pytest.mark.parametrize("coding", ["br", "zstd", "BR", "compress", "x-snappy", "gzip, br"])
async def test_coding_is_named_when_it_can_not_be_decoded(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aiohttp.http_parser.HAS_BROTLI", False)
    monkeypatch.setattr("aiohttp.http_parser.HAS_ZSTD", False)
    seen = await asked([HEAD + f"Content-Encoding: {coding}\r\n\r\n".encode(), coded(b"\x0b\x02\x80\x01\x02")])

    [error] = seen.endings
    assert type(error) is TransportError
    assert error.phase == "read"
    assert f"content coding {coding.lower()!r}" in str(error)
    assert not is_transient(error)


@pytest.mark.parametrize("coding", ["identity", "none", "utf-8", ""])
async def test_coding_is_passed_over_when_it_is_none(coding: str) -> None:
    seen = await asked([HEAD + f"Content-Encoding: {coding}\r\n\r\n".encode(), coded(STREAM)])

    assert seen.endings == [None]


# Interim responses


@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", b"HTTP/1.1 102 Wait\r\n\r\n"])
async def test_interim_responses_are_signs_of_life_when_the_head_is_late(interim: bytes) -> None:
    waiting: list[bytes | float] = [interim, 0.2]
    seen = await asked([*waiting * 4, HEAD + b"\r\n", coded(STREAM)], silence=0.5)

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_silence_ends_a_request_when_interim_responses_stop() -> None:
    seen = await asked([b"HTTP/1.1 102 Wait\r\n\r\n"], silence=0.2)

    assert type(seen.endings[0]) is SilenceTimeoutError


# The first bytes


KINDS = ["text/plain", "application/octet-stream", "application/json", "text/html; charset=utf-8", None]
STARTS = [b"data: x\n\n", b":\n\n", b": keep-alive\n\n", b"event: message\n\n", b"id: 1\n\n", b"retry: 5\n\n"]


def kind_of(kind: str | None) -> bytes:
    return b"" if kind is None else f"Content-Type: {kind}\r\n".encode()


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 299])
@pytest.mark.parametrize("kind", [*KINDS, "text/event-stream"])
async def test_event_stream_is_read_when_its_type_or_status_is_another(kind: str | None, status: int) -> None:
    head = b"HTTP/1.1 %d Fine\r\nTransfer-Encoding: chunked\r\n%b\r\n" % (status, kind_of(kind))

    seen = await asked([head, coded(*EVENTS)])

    assert seen.endings == [None]
    assert said(seen) == WORDS


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf", b"\n\r\n \n", b"\xef\xbb\xbf\n", *STARTS[1:]])
@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_event_stream_is_read_when_it_begins_in_any_way_and_comes_in_pieces(start: bytes, step: int) -> None:
    body = start + STREAM
    pieces = [body[at : at + step] for at in range(0, len(body), step)]

    seen = await asked(
        [b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n", coded(*pieces)]
    )

    assert seen.endings == [None]
    assert said(seen) == WORDS


async def test_chunks_arrive_at_once_when_an_event_stream_has_another_type() -> None:
    reply = Reply([EVENTS[0], *EVENTS[1:3], Act.HANG], headers={"Content-Type": "text/plain"})
    async with served(reply) as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = client.chat("hi").subscribe(seen.on_next)
        await until(lambda: said(seen) != "")
        subscription.dispose()
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize("kind", ["text/plain", None])
async def test_silence_ends_an_answer_when_no_byte_of_its_body_comes(kind: str | None) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % kind_of(kind)

    assert type((await asked([head], silence=0.2)).endings[0]) is SilenceTimeoutError
    later = await asked([head, b"9\r\ndata: {}\n\r\n"], silence=0.2)
    assert type(later.endings[0]) is SilenceTimeoutError


@pytest.mark.parametrize("cut", [b"", b"da", b"data: ", STREAM[: len(STREAM) // 2]])
async def test_cut_of_an_event_stream_is_a_transport_error_when_it_has_another_type(cut: bytes) -> None:
    body: list[Step] = [cut] if cut else []
    async with served(Reply([*body, 0.02, Act.CUT], headers={"Content-Type": "application/json"})) as (client, _):
        seen = await observe(client.chat("hi"))

    assert type(seen.endings[0]) is TransportError
    assert is_transient(seen.endings[0])


async def test_events_are_read_when_an_event_stream_has_another_type() -> None:
    async with served(Reply(EVENTS, 202, {"Content-Type": "text/plain"})) as (client, _):
        seen = await observe(client.events("/responses", {"stream": True}))

    assert seen.endings == [None]
    assert len(seen.values) == len(EVENTS)


@pytest.mark.parametrize("body", [b"<html>data: x</html>", b"hello", b"database: down", b"x\ndata: {}\n\n"])
async def test_body_is_a_content_type_error_when_its_first_bytes_are_no_event_stream(body: bytes) -> None:
    async with served(Reply([body], headers={"Content-Type": "text/plain"})) as (client, _):
        [error] = (await observe(client.chat("hi"))).endings

    assert isinstance(error, ContentTypeError)
    assert error.data == body


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
async def test_event_stream_of_another_type_has_a_receipt_when_it_ends(kind: str) -> None:
    async with served(Reply(EVENTS, headers={"Content-Type": kind})) as (client, _):
        receipts: list[tuple[str, int | None]] = []

        def note(receipt: Receipt) -> None:
            receipts.append((receipt.ended, None if receipt.usage is None else receipt.usage.prompt_tokens))

        client.receipts.subscribe(note)
        await observe(client.chat("hi"))
        await until(lambda: bool(receipts))

    assert receipts == [("completed", 12)]


# JSON though a stream was asked for


def whole(indent: int | None = None, **choice: object) -> bytes:
    message = {"role": "assistant", "content": WORDS}
    value = {
        "id": "gen-1",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop", **choice}],
        "usage": {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19, "cost": 0.25},
    }
    return json.dumps(value, indent=indent).encode()


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("kind", ["application/json", "text/plain", None])
async def test_completion_as_json_is_one_chunk_when_a_stream_was_asked(kind: str | None, indent: int | None) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n%b\r\n" % kind_of(kind)

    seen = await asked([head, coded(b" \n\n", whole(indent))])

    assert seen.endings == [None]
    assert said(seen) == WORDS
    assert len(seen.values) == 1
    assert [seen.values[0].choices[0].finish_reason, seen.values[0].id] == ["stop", "gen-1"]
    assert seen.values[0].usage is not None


async def test_completion_as_json_folds_and_has_a_receipt_when_it_ends() -> None:
    async with served(Reply.json(whole())) as (client, _):
        receipts: list[Receipt] = []
        client.receipts.subscribe(receipts.append)
        made = await client.chat("hi").pipe(completion())
        await until(lambda: bool(receipts))

    assert (made.text, made.state, made.finish_reason) == (WORDS, "complete", "stop")
    assert [(receipt.ended, receipt.cost) for receipt in receipts] == [("completed", 0.25)]


async def test_completion_as_json_is_truncated_when_it_has_no_finish_reason() -> None:
    async with served(Reply.json(whole(finish_reason=None))) as (client, _):
        seen = await observe(client.chat("hi"))

    assert said(seen) == WORDS
    assert type(seen.endings[0]) is TruncatedStreamError


async def test_completion_as_json_is_a_stream_error_when_its_choice_failed() -> None:
    failed = whole(finish_reason="error", error={"code": 502, "message": "No"})
    async with served(Reply.json(failed)) as (client, _):
        seen = await observe(client.chat("hi"))

    assert said(seen) == WORDS
    [error] = seen.endings
    assert isinstance(error, StreamError)
    assert error.code == 502


async def test_completion_as_json_is_a_transport_error_when_it_is_cut() -> None:
    async with served(Reply([whole()[:-30], 0.02, Act.CUT], headers={"Content-Type": "application/json"})) as (
        client,
        _,
    ):
        seen = await observe(client.chat("hi"))

    assert (type(seen.endings[0]), seen.values) == (TransportError, [])


async def test_completion_as_json_is_a_content_type_error_when_events_were_asked() -> None:
    async with served(Reply.json(whole())) as (client, _):
        seen = await observe(client.events("/chat/completions", {}))

    assert isinstance(seen.endings[0], ContentTypeError)


# Without aiohttp's extensions

DAMAGED = """
import asyncio, sys
sys.path.insert(0, {root!r})
from tests.source.test_heads import HEAD, EVENTS, asked

async def main():
    for size in (b"123456789abcdef01", b"0" * 20 + b"1" * 17, b"f" * 4096):
        start = HEAD + b"\\r\\n%x\\r\\n%b\\r\\n" % (len(EVENTS[0]), EVENTS[0])
        line = size + b"\\r\\n"
        for parts in ([start + line], [start, 0.05, line], [start, 0.05, size, 0.05, b"\\r\\n"]):
            print(type((await asked(parts)).endings[0]).__name__)

asyncio.run(main())
"""


@pytest.mark.parametrize("extensions", ["", "1"], ids=["with extensions", "without"])
def test_damaged_body_ends_at_once_when_aiohttp_has_no_extensions(extensions: str) -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", DAMAGED.format(root=root)],
        env=os.environ | {"AIOHTTP_NO_EXTENSIONS": extensions},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )

    assert done.stderr == ""
    assert done.stdout.split() == ["TransportError"] * 9
