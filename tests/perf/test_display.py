"""What a delta costs in the operators of display, beside a bare `map`; in a long answer the same as in a short one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from reactivex import Observable, Subject, operators as ops

from rxrouter._source.loop import LoopScheduler
from rxrouter.operators import coalesce, sentences, smooth
from tests.operators.support import chunk
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

SHORT, LONG = 1_000, 100_000
BURST, SECONDS = 10, 1 / 300  # 300 deltas a second are fast; all times are a tenth here, below the suite's time limit
WORDS = ["Hello", " there", ".", " How", " are", " you", " to", "day", "?", "\n\n"]
IDEOGRAPHS = ["你好", "，", "世界", "。", "今天", "天气", "怎么样", "？", "我", "很好"]

Operator = Callable[[Observable[Any]], Observable[Any]]


def through(operator: Operator, values: Sequence[Any], count: int) -> Run:
    """So many deltas through an operator, on a loop whose time goes on by itself: its timers cost what they cost."""

    async def run() -> int:
        loop = asyncio.get_running_loop()
        time = loop.time()
        loop.time = lambda: time  # type: ignore[method-assign]
        source = Subject[Any]()
        subscription = operator(source).subscribe(lambda _: None, scheduler=LoopScheduler(loop))
        for _ in range(count // BURST):
            for value in values:
                source.on_next(value)
            time += SECONDS
            await asyncio.sleep(0)
        subscription.dispose()
        del loop.time
        return count

    return run


@pytest.mark.parametrize("kind", ["words", "ideographs", "chunks"])
async def test_cost_of_a_delta_on_display(kind: str) -> None:
    texts = IDEOGRAPHS if kind == "ideographs" else WORDS
    values = [chunk({"role": "assistant", "content": text}) for text in texts] if kind == "chunks" else texts
    operators: dict[str, Operator] = {
        "map": ops.map(lambda value: value),
        "coalesce": coalesce(0.005),
        "smooth": smooth(lag=0.025, frame=1 / 300),
        "sentences": sentences(),
    }
    runs = {
        f"{name}, {count} deltas": through(operator, values, count)
        for name, operator in operators.items()
        for count in (LONG, SHORT)
    }
    table(f"{kind} on display", await compare(runs, rounds=5), unit="delta")
