"""How far one process goes: 10,000 open streams; 1,000 generations with 10 readers each; and where that breaks."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from reactivex.abc import DisposableBase

from rxrouter import ChatChunk, OpenRouter
from rxrouter.operators import timeouts
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from tests.perf.support import table
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Source
from tests.soak.gauges import rss

pytestmark = pytest.mark.perf

STREAMS = 10_000
SPARE = 200  # files that are open besides
GENERATIONS, READERS = 1_000, 10
SECONDS = 5.0  # of each step
SETTLE = 2.0  # seconds before it: what a change of pace brings is over
TICK = 0.005
TOO_LATE = 1.0  # seconds, for one chunk of a hundred: nobody takes that for a stream
TOO_FEW = 0.9  # of the chunks that were asked for


class Step(NamedTuple):
    """What one pace came to."""

    asked: float  # chunks a second, to all together
    carried: float
    cpu: float  # µs a chunk, in this process
    busy: float  # of one core
    server: float  # of another, in the server's process
    middle: float  # latency in seconds
    late: float  # of one in a hundred

    @property
    def broken(self) -> bool:
        return self.late > TOO_LATE or self.carried < TOO_FEW * self.asked


class Latencies:
    """Chunks as they arrive, and how long each that is looked at was under way by its `created`."""

    def __init__(self) -> None:
        self.count = 0
        self._all: list[float] = []

    def pass_by(self, _: ChatChunk) -> None:
        self.count += 1

    def note(self, chunk: ChatChunk) -> None:
        self.count += 1
        if chunk.created:
            self._all.append(time.monotonic() - chunk.created)

    def clear(self) -> None:
        self.count = 0
        self._all.clear()

    def at(self, part: float) -> float:
        ordered = sorted(self._all) or [float("inf")]
        return ordered[int(part * (len(ordered) - 1))]

    async def reach(self, count: int) -> None:
        while self.count < count:  # noqa: ASYNC110 - it may take a while, and an event would cost each chunk
            await asyncio.sleep(0.01)


async def measured(seen: Latencies, asked: float, server: int | None = None) -> Step:
    """One step, when its pace is set."""
    await asyncio.sleep(SETTLE)
    seen.clear()
    began, cpu, theirs = time.monotonic(), time.process_time(), cpu_of(server)
    await asyncio.sleep(SECONDS)
    passed, cpu, theirs = time.monotonic() - began, time.process_time() - cpu, cpu_of(server) - theirs
    each = 1e6 * cpu / max(1, seen.count)
    return Step(asked, seen.count / passed, each, cpu / passed, theirs / passed, seen.at(0.5), seen.at(0.99))


def cpu_of(process: int | None) -> float:
    """Seconds that it has used; 0 where nobody tells."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return 0.0
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def show(title: str, steps: Sequence[Step]) -> None:
    """Each step, until one breaks; a note of the costs for the table."""
    print(f"\n{title}")
    names = ("carried", "µs each", "core", "server", "p50 ms", "p99 ms")
    print(f"  {'chunks/s asked':>16s} {names[0]:>10s}" + "".join(f" {name:>8s}" for name in names[1:]))
    for step in steps:
        line = f"  {step.asked:16,.0f} {step.carried:10,.0f} {step.cpu:8.1f} {step.busy:8.0%} {step.server:8.0%}"
        print(f"{line} {1e3 * step.middle:8.1f} {1e3 * step.late:8.1f}{' breaks' if step.broken else ''}")
    best = max(steps, key=lambda step: step.carried)
    bound = "before it broke" if steps[-1].broken else "and never broke: this machine carries more than was asked"
    print(f"  reached {best.carried:,.0f} chunks/s, {bound}")
    table(title, {f"{step.asked:,.0f} a second": (step.cpu, step.cpu / steps[0].cpu) for step in steps})


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many as are allowed, if they are enough."""
    resource = pytest.importorskip("resource", reason="there are no limits to raise here")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < STREAMS + SPARE:
        pytest.skip(f"{STREAMS:,} sockets are more than the {hard:,} files that are allowed here (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a child inherits it
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def dripper(many_files: None) -> Iterator[subprocess.Popen[str]]:
    """The server; a line to its stdin says how many seconds are between two chunks of a stream."""
    command = [sys.executable, str(Path(__file__).with_name("dripper.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


async def test_ten_thousand_open_streams(dripper: subprocess.Popen[str]) -> None:
    stdin, stdout = dripper.stdin, dripper.stdout
    assert stdin is not None
    assert stdout is not None
    seen = Latencies()
    failed: list[Exception] = []
    steps: list[Step] = []
    async with OpenRouter("k", base_url=stdout.readline().strip()) as client:
        chunks = client.chat("hi").pipe(timeouts(content=60))
        gc.collect()
        before, began, cpu = rss(), time.monotonic(), time.process_time()
        subscriptions: list[DisposableBase] = []
        while len(subscriptions) < STREAMS:
            subscriptions += [chunks.subscribe(seen.note, failed.append) for _ in range(500)]
            await seen.reach(len(subscriptions))
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        before_it = time.monotonic()
        gc.collect()
        pause = time.monotonic() - before_it
        print(f"\n{STREAMS:,} streams were open after {took:.1f} s, {1e6 * cpu / STREAMS:.0f} µs each;", end=" ")
        print(f"{(rss() - before) / STREAMS / 1024:.1f} KiB each; a full collection of garbage takes {pause:.2f} s")
        for interval in (10.0, 5.0, 2.0, 1.0, 0.7, 0.5, 0.4, 0.33, 0.25):
            print(interval, file=stdin, flush=True)
            steps.append(await measured(seen, STREAMS / interval, dripper.pid))
            if steps[-1].broken:
                break
        show(f"{STREAMS:,} open streams", steps)
        print(0.0, file=stdin, flush=True)
        began = time.monotonic()
        for subscription in subscriptions:
            subscription.dispose()
        print(f"  all were left in {time.monotonic() - began:.1f} s")
    assert failed == []


@pytest.mark.parametrize("kind", ["memory", *sorted(binaries())])
async def test_a_thousand_generations_with_ten_readers_each(kind: str, tmp_path: Path) -> None:
    """One hub makes; the same, or on Redis another of this process, reads. A chunk's time runs from when it was due."""
    seen = Latencies()
    failed: list[Exception] = []
    steps: list[Step] = []
    ended = asyncio.Semaphore(0)
    async with hubs(kind, tmp_path) as (here, there, server):
        sources = [Source() for _ in range(GENERATIONS)]
        for number, source in enumerate(sources):
            here.start(f"{number}", source.chunks)
            await here.status(f"{number}")
            there.follow(f"{number}").subscribe(seen.note, failed.append, ended.release)
            for _ in range(READERS - 1):
                there.follow(f"{number}").subscribe(seen.pass_by, failed.append)
        for rate in (1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 120, 160, 240, 320):
            talking = asyncio.ensure_future(talk(sources, rate))
            steps.append(await measured(seen, rate * GENERATIONS * READERS, server))
            talking.cancel()
            if steps[-1].broken:
                break
            await asyncio.sleep(SETTLE)
        show(f"{GENERATIONS:,} generations × {READERS} readers, {kind}", steps)
        for source in sources:
            source.end()
            await ended.acquire()
    assert failed == []


@asynccontextmanager
async def hubs(kind: str, folder: Path) -> AsyncGenerator[tuple[Hub, Hub, int | None]]:
    if kind == "memory":
        async with Hub() as hub:
            yield hub, hub, None
    else:
        with RedisServer(binaries()[kind], folder, "--appendonly", "no") as server:
            async with Hub(RedisLog(server.url)) as here, Hub(RedisLog(server.url)) as there:
                process = re.search(rb"process_id:(\d+)", server.ask("INFO", "server"))
                yield here, there, process and int(process[1])


async def talk(sources: Sequence[Source], rate: float) -> None:
    """Each source says so many chunks a second, evenly spread; what is late is said at once."""
    a_second = rate * len(sources)
    began, said = time.monotonic(), 0
    while True:
        await asyncio.sleep(TICK)
        due = int((time.monotonic() - began) * a_second)
        chunk = stamped(began + said / a_second)
        for number in range(said, due):
            sources[number % len(sources)].observer.on_next(chunk)
        said = due


def stamped(due: float) -> ChatChunk:
    raw = b'{"id":"gen-1","created":%.6f,"choices":[{"index":0,"delta":{"content":" word"}}]}' % due
    chunk = msgspec.json.decode(raw, type=ChatChunk)
    chunk.received = raw
    return chunk
