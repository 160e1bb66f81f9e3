"""Reading takes time in proportion to the number of calls, and to the number of choices."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest
import reactivex

from rxrouter import ChatChunk
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import partial_json, tool_calls
from rxrouter.relay import UIMessages
from tests.strategies import decoded

SMALL, LARGE = 2_000, 8_000
FINISH: dict[str, Any] = {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}


def calls(count: int) -> list[dict[str, Any]]:
    """Calls under one index with ids of their own."""
    function = {"name": "f", "arguments": '{"a":1}'}
    pieces = [{"index": 0, "id": f"c{number}", "function": function} for number in range(count)]
    return [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]


def strays(count: int) -> list[dict[str, Any]]:
    """Pieces of one call, each with an index and an id of its own."""
    begin = {"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a":"'}}
    pieces = [{"index": at, "id": f"n{at}", "function": {"arguments": "x"}} for at in range(1, count)]
    return [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in [begin, *pieces]]


def names(count: int) -> list[dict[str, Any]]:
    """Pieces of one call, each with its whole name and no id."""
    pieces = [{"index": 0, "function": {"name": "f", "arguments": text}} for text in ['{"a":"', *"}" * count]]
    return [{"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]} for piece in pieces]


def choices(count: int) -> list[dict[str, Any]]:
    return [{"choices": [{"index": number, "delta": {"content": "a"}}]} for number in range(count)]


def fold(chunks: list[ChatChunk]) -> None:
    folded = CompletionFold()
    for chunk in chunks:
        folded.add(chunk)
    folded.completion()
    folded.chunks()


def relay(chunks: list[ChatChunk]) -> None:
    encoder = UIMessages()
    for chunk in chunks:
        encoder.chunk(chunk)
    encoder.end()


def release(chunks: list[ChatChunk]) -> None:
    reactivex.from_iterable(chunks).pipe(tool_calls()).subscribe(on_error=lambda _: None)


def document(chunks: list[ChatChunk]) -> None:
    reactivex.from_iterable(chunks).pipe(partial_json(tool_call=1)).subscribe(on_error=lambda _: None)


def read(chunks: list[ChatChunk]) -> None:
    loop = asyncio.new_event_loop()
    reader = ChunkReader(1 << 20, 1, Gate(loop), lambda _: None)
    for chunk in chunks:
        reader.feed(b"data: " + chunk.raw + b"\n\n")
    reader.outcome(None)
    loop.close()


def seconds(work: Callable[[list[ChatChunk]], None], chunks: list[ChatChunk]) -> float:
    began = perf_counter()
    work(chunks)
    return perf_counter() - began


@pytest.mark.parametrize("work", [fold, relay, release, document, read])
@pytest.mark.parametrize("answer", [calls, strays, names, choices])
def test_work_grows_with_the_answer_and_not_with_its_square(
    answer: Callable[[int], list[dict[str, Any]]], work: Callable[[list[ChatChunk]], None]
) -> None:
    small, large = ([decoded(body) for body in [*answer(count), FINISH]] for count in (SMALL, LARGE))
    gc.disable()
    try:
        # Quadratic work takes sixteen times as long. The machine may be busy, so the shortest of several runs counts.
        ratios = [seconds(work, large) / seconds(work, small) for _ in range(3)]
        while min(ratios) >= 6 and len(ratios) < 20:
            ratios.append(seconds(work, large) / seconds(work, small))
    finally:
        gc.enable()

    assert min(ratios) < 6, json.dumps(ratios)
