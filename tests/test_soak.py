"""Mixed traffic with every fault for a while: each stream ends once and truly, and nothing grows.

The long form is one command, in minutes by the environment: `SOAK_MINUTES=30 pytest -m long tests/test_soak.py -s`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.sharing.redis_server import RedisServer, binaries
from tests.soak.gauges import HELD, Sample, growth, table
from tests.soak.raising import counting_faults
from tests.soak.soak import KEEP, LEASE, Soak

WARM_UP = 0.5  # seconds: until what is loaded and kept once is there
FORGOTTEN = 10 * (KEEP + LEASE)  # by then Redis has nothing any more; only a hang is longer


async def soaked(seed: int, seconds: float, every: float, folder: Path) -> Soak:
    """Runs it; returns it closed, when it has found all as it was before."""
    kind = sorted(binaries())[seed % len(binaries())]
    with RedisServer(binaries()[kind], folder) as server:
        async with counting_faults() as faults:
            async with Soak(seed, server) as first:
                await first.run(WARM_UP, WARM_UP)
            before = await settled(first)
            async with Soak(seed, server) as soak:
                try:
                    await soak.run(seconds, every)
                except BaseException:
                    report(soak, [before, *soak.samples])
                    raise
            after = await settled(soak, before)
    report(soak, [before, *soak.samples, after])
    assert faults == []
    assert not soak.dropped
    held = {name: (asdict(before)[name], asdict(after)[name]) for name in HELD}
    assert all(was >= now for was, now in held.values()), f"not as before: {held}"
    return soak


async def settled(soak: Soak, like: Sample | None = None) -> Sample:
    """The numbers when all is closed, and Redis has forgotten."""
    began = time.monotonic()
    while True:
        await asyncio.sleep(0.1)
        gc.collect()
        sample = soak.sample(began)
        rest = [name for name in HELD if like and asdict(sample)[name] > asdict(like)[name]]
        # The session of a dropped client is closed in a task.
        if not (sample.keys or rest or sample.tasks > 1) or sample.seconds > FORGOTTEN:
            return sample


def report(soak: Soak, samples: list[Sample]) -> None:
    """What was sampled and done; `-s` shows it."""
    print(f"\n{table(samples)}\n")  # noqa: T201
    for name, count in sorted(soak.done.items()):
        print(f"  {name:44s} {count:8d}")  # noqa: T201


async def test_a_short_soak_ends_every_stream_once_and_leaves_nothing(tmp_path: Path) -> None:
    soak = await soaked(7, 3.0, 0.25, tmp_path)

    assert soak.done["generations"] > 0


@pytest.mark.long
def test_a_long_soak_ends_every_stream_once_and_nothing_grows(tmp_path: Path) -> None:
    seconds = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
    seed = int(os.environ.get("SOAK_SEED", time.time()))
    print(f"\nSOAK_SEED={seed}")  # noqa: T201

    soak = asyncio.run(soaked(seed, seconds, seconds / 240, tmp_path))

    found = growth(soak.samples)
    for name, (third, last, flat) in found.items():
        print(f"  {name:12s} median of the third quarter {third:10.1f}, of the last {last:10.1f}, {'flat' * flat}")  # noqa: T201
    assert all(flat for _, _, flat in found.values()), found
