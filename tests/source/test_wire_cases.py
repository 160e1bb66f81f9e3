"""Answers of real servers, byte for byte and at any cut: each ends in the one way that is right."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from rxrouter import ChatCompletion, OpenRouter, ToolCall, is_transient
from rxrouter.operators import completion, text, tool_calls
from tests.support import SHARED, Observed, needs_shared, observe

FOLDER = SHARED / "cases" / "wire"
CASES: dict[str, Any] = json.loads((FOLDER / "cases.json").read_bytes()) if FOLDER.is_dir() else {}

Part = bytes | float
Cut = Callable[[bytes], list[bytes]]


def whole(data: bytes) -> list[bytes]:
    return [data]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


def at_random(seed: int) -> Cut:
    def cut(data: bytes) -> list[bytes]:
        places = random.Random(seed * 1000 + len(data))
        ends = sorted({places.randrange(1, len(data)) for _ in range(12)}) if len(data) > 1 else []
        return [data[begin:end] for begin, end in zip([0, *ends], [*ends, len(data)], strict=True)]

    return cut


CUTS: dict[str, Cut] = {"whole": whole, "bytewise": bytewise} | {f"cut-{n}": at_random(n) for n in range(3)}


@asynccontextmanager
async def raw_answer(parts: Sequence[Part], cut: Cut = whole) -> AsyncGenerator[str]:
    """Serve one request with these bytes and pauses, and close behind the last."""

    handled = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            for part in parts:
                if not isinstance(part, bytes):
                    await asyncio.sleep(part)
                    continue
                for piece in cut(part):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        handled.set()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"
        await handled.wait()


def wrong_of_error(error: Exception | None, right: dict[str, Any]) -> list[str]:
    """How an ending differs from the error that it should be."""
    if error is None or type(error).__name__ != right["error"]:
        return [f"ended with {error!r}"]
    wrong: list[str] = []
    if "code" in right and getattr(error, "code", None) != right["code"]:
        wrong.append(f"code {getattr(error, 'code', None)!r}")
    if "message" in right and right["message"] not in str(error):
        wrong.append(f"message {error}")
    if "transient" in right and is_transient(error) is not right["transient"]:
        wrong.append(f"transient {is_transient(error)}")
    if "retry_after" in right and getattr(error, "retry_after", None) != right["retry_after"]:
        wrong.append(f"retry_after {getattr(error, 'retry_after', None)}")
    return wrong


def wrong_of_completion(seen: Observed[ChatCompletion], right: dict[str, Any]) -> list[str]:
    """How a fold differs from the completion that it should be."""
    if seen.endings != [None] or len(seen.values) != 1:
        return [f"{len(seen.values)} completions, ended with {seen.endings[0]!r}"]
    [made] = seen.values
    wrong = [
        f"{name} {getattr(made, name)!r}"
        for name, value in right.get("completion", {}).items()
        if getattr(made, name) != value
    ]
    usage = None if made.usage is None else [made.usage.prompt_tokens, made.usage.completion_tokens]
    if "usage" in right and usage != right["usage"]:
        wrong.append(f"usage {usage}")
    return wrong


def wrong_of_tools(seen: Observed[ToolCall], right: dict[str, Any]) -> list[str]:
    """How released calls differ from those that should have been."""
    calls = [[call.name, json.loads(call.arguments)] for call in seen.values]
    if "tools" in right:
        return [] if seen.endings == [None] and calls == right["tools"] else [f"{calls}, {seen.endings[0]!r}"]
    refused = seen.endings[0] is not None and not calls
    return [] if refused or calls == [right["tools_or_error"]] else [f"{calls}, {seen.endings[0]!r}"]


async def wrong_of(base_url: str, right: dict[str, Any]) -> list[str]:
    """Everything in which the answer differs from what is right."""
    async with OpenRouter("sk-test", base_url=base_url) as client:
        chunks = client.chat("hi")
        if "error" in right:
            return wrong_of_error((await observe(chunks)).endings[0], right)
        if "tools" in right or "tools_or_error" in right:
            return wrong_of_tools(await observe(chunks.pipe(tool_calls())), right)
        if "text_contains" in right:
            words = await observe(chunks.pipe(text()))
            held = words.endings == [None] and right["text_contains"] in "".join(words.values)
            return [] if held else [f"{''.join(words.values)!r}, {words.endings[0]!r}"]
        return wrong_of_completion(await observe(chunks.pipe(completion())), right)


@needs_shared
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", CASES)
async def test_an_answer_of_a_real_server_ends_right_at_any_cut(name: str, cut: str) -> None:
    case = CASES[name]
    parts: list[Part] = [
        float(part) if isinstance(part, int | float) else (FOLDER / part).read_bytes() for part in case["parts"]
    ]

    async with raw_answer(parts, CUTS[cut]) as base_url, asyncio.timeout(30):
        wrong = await wrong_of(base_url, case["right"])

    assert not wrong, case["what"]
