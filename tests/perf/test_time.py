"""What time limits and retries cost a chunk, beside a bare `map`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable, Subject, operators as ops

from rxrouter import ChatChunk, Choice, Delta
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators import continue_from_partial, retry_transient, timeouts
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

CHUNKS = 50_000


def through(make: Callable[[Observable[ChatChunk]], Observable[Any]]) -> Run:
    """The same chunk so often through an operator, on a loop's scheduler."""
    chunk = ChatChunk(id="gen-1", model="a/b", choices=[Choice(delta=Delta(role="assistant", content=" token"))])

    async def run() -> int:
        chunks = Subject[ChatChunk]()
        scheduler = LoopScheduler(asyncio.get_running_loop())
        subscription = make(chunks).subscribe(lambda _: None, scheduler=scheduler)
        on_next = chunks.on_next
        for _ in range(CHUNKS):
            on_next(chunk)
        subscription.dispose()
        return CHUNKS

    return run


async def test_cost_of_a_chunk() -> None:
    results = await compare(
        {
            "map": through(lambda chunks: chunks.pipe(ops.map(lambda chunk: chunk))),
            "nothing": through(lambda chunks: chunks),
            "ops.timeout": through(lambda chunks: chunks.pipe(ops.timeout(60))),
            "timeouts": through(lambda chunks: chunks.pipe(timeouts(first_content=60, content=60, total=600))),
            "retry_transient": through(lambda chunks: chunks.pipe(retry_transient())),
            "continue_from_partial": through(lambda chunks: chunks.pipe(continue_from_partial())),
        }
    )

    table("time and retries", results)
    assert results["timeouts"][1] < 3  # a bare map costs about 1 µs
    assert results["retry_transient"][1] < 1.5
