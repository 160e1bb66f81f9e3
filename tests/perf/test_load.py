"""What a chunk costs in the operators of load and routes, beside a bare `map`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import reactivex as rx
from reactivex import Observable, Subject, operators as ops

from rxrouter import ChatChunk, Limiter
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators import Operator, fallback, hedge, limit
from tests.operators.support import chunk
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

CHUNKS = 50_000
COPIES = 8  # of the operator, one behind the other: one alone is lost in the noise
WORD = chunk({"content": "word "})


def through(make: Callable[[], Operator[ChatChunk, ChatChunk]] | None = None) -> Run:
    async def run() -> int:
        source = Subject[ChatChunk]()
        chain: Observable[ChatChunk] = source
        for _ in range(COPIES if make else 0):
            chain = make()(chain) if make else chain
        subscription = chain.subscribe(lambda _: None)
        on_next = source.on_next
        for _ in range(CHUNKS):
            on_next(WORD)
        subscription.dispose()
        return CHUNKS

    return run


async def test_cost_of_a_chunk_under_load() -> None:
    other = Subject[ChatChunk]()
    results = await compare(
        {
            "nothing": through(),
            "map": through(lambda: ops.map(lambda value: value)),
            "limit(streams)": through(lambda: limit(Limiter(streams=4))),
            "limit(tokens_per_minute)": through(lambda: limit(Limiter(tokens_per_minute=10_000))),
            "fallback": through(lambda: fallback(other)),
            "hedge": through(lambda: hedge(other, delay=60)),
        }
    )
    bare, _ = results.pop("nothing")
    each = {name: ((cost - bare) / COPIES, 0.0) for name, (cost, _) in results.items()}
    first, _ = each["map"]
    table("a chunk in one operator", {name: (cost, cost / first) for name, (cost, _) in each.items()})


async def test_cost_of_a_permit() -> None:
    """From subscribing to the end; the last of them waits for all others."""
    count = 10_000
    empty: Observable[ChatChunk] = rx.empty()

    def ending(limiter: Limiter | None) -> Run:
        async def run() -> int:
            scheduler = LoopScheduler(asyncio.get_running_loop())
            first, over = Subject[ChatChunk](), asyncio.Event()
            operator: Operator[ChatChunk, ChatChunk] = limit(limiter) if limiter else ops.map(lambda value: value)
            first.pipe(operator).subscribe(scheduler=scheduler)
            for _ in range(count):
                empty.pipe(operator).subscribe(scheduler=scheduler)
            empty.pipe(operator).subscribe(on_completed=over.set, scheduler=scheduler)
            first.on_completed()
            await over.wait()
            return count

        return run

    results = {"map": ending(None), "limit, no wait": ending(Limiter()), "limit, in a queue": ending(Limiter(1))}
    table("a subscription", await compare(results, rounds=3), "subscr.")
