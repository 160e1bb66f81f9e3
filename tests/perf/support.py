"""Measuring on a machine whose speed drifts: contenders take turns, and only ratios inside a round count."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Generator, Mapping
from contextlib import contextmanager

RESULTS: dict[str, tuple[float, float]] = {}
"""All that was measured in this session: the cost, and its ratio to the first of its group."""

Run = Callable[[], Awaitable[int]]
"""Does the work once; returns for how many units."""


async def compare(contenders: Mapping[str, Run], rounds: int = 7) -> dict[str, tuple[float, float]]:
    """CPU µs a unit (median), and the median ratio to the first contender in the same round."""
    costs: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            with _quiet():
                began = time.process_time_ns()
                units = await run()
                cost = (time.process_time_ns() - began) / 1e3 / units
            if turn:  # the first round warms up
                costs[name].append(cost)
    first = costs[next(iter(contenders))]
    return {
        name: (statistics.median(own), statistics.median(a / b for a, b in zip(own, first, strict=True)))
        for name, own in costs.items()
    }


def table(title: str, results: Mapping[str, tuple[float, float]], unit: str = "chunk") -> None:
    """Notes a comparison, and prints it; `pytest -m perf -s` shows it at once."""
    RESULTS.update({f"{title}: {name}": result for name, result in results.items()})
    print(f"\n{title:44s} {'µs/' + unit:>10s} {'ratio':>7s}")
    for name, (cost, ratio) in results.items():
        print(f"  {name:42s} {cost:10.3f} {ratio:7.2f}")


@contextmanager
def _quiet() -> Generator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
