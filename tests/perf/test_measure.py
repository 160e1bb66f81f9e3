"""What measuring, limiting and guarding cost a chunk, beside a bare `map`."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from reactivex import Observable, operators as ops
from reactivex.subject import Subject

from rxrouter import ChatChunk
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators import budget, guard, meter
from rxrouter.testing import answer
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

CHUNKS = 20_000
DECODER = msgspec.json.Decoder(ChatChunk)
EVENTS = [event[6:] for event in answer("word " * 200, comments=0) if event.startswith(b"data: {")][:-2]
PIECES = [DECODER.decode(event) for event in EVENTS] * (CHUNKS // len(EVENTS))


def through(chain: Observable[Any], values: list[Any], source: Subject[Any]) -> Run:
    async def run() -> int:
        subscription = chain.subscribe(lambda _: None, scheduler=LoopScheduler(asyncio.get_running_loop()))
        for value in values:
            source.on_next(value)
        subscription.dispose()
        return len(values)

    return run


async def test_cost_of_a_chunk() -> None:
    source = Subject[Any]()
    operators: dict[str, Any] = {
        "map": ops.map(lambda chunk: chunk),
        "meter()": meter(),
        "meter(watch)": meter(lambda _: None),
        "budget(tokens=…)": budget(tokens=1_000_000),
        "budget(cost=…, price=…)": budget(cost=1_000.0, price=1e-6),
        "guard(…, hold_back=0)": guard(lambda _: None, hold_back=0),
        "guard(…, hold_back=40)": guard(lambda _: None, hold_back=40),
        "guard(…, hold_back=1000)": guard(lambda _: None, hold_back=1000),
    }

    results = await compare(
        {name: through(source.pipe(operator), PIECES, source) for name, operator in operators.items()}
    )

    table("measure, limit, guard", results)


async def test_cost_of_a_text() -> None:
    source = Subject[Any]()
    texts = [piece.choices[0].delta.content or "" for piece in PIECES]
    operators: dict[str, Any] = {
        "map": ops.map(lambda text: text),
        "guard(…, hold_back=40)": guard(lambda _: None, hold_back=40),
        "guard that masks each": guard(lambda text: text.replace("word", "****"), hold_back=40),
    }

    results = await compare(
        {name: through(source.pipe(operator), texts, source) for name, operator in operators.items()}
    )

    table("guard, of texts", results, "text")
