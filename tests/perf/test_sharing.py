"""What a generation costs with many readers: in this process, and on a server."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from pathlib import Path

import pytest
from reactivex import Observable, Subject

from rxrouter import ChatChunk
from rxrouter.operators import share_generation
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from tests.perf.support import Run, compare, table
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Source, started, word
from tests.support import until

pytestmark = pytest.mark.perf

READERS = (1, 100, 1_000, 10_000)
DELIVERIES = 500_000
WORD = word(1)


def _nothing(_: object) -> None:
    pass


def _subscribe(chunks: Observable[ChatChunk], readers: int) -> None:
    for _ in range(readers):
        chunks.subscribe(_nothing, _nothing)


async def test_cost_of_a_chunk_and_reader_in_one_process() -> None:
    def through_a_hub(readers: int) -> Run:
        async def run() -> int:
            async with Hub() as hub:
                source = Source()
                await started(hub, "k", source)
                _subscribe(hub.follow("k"), readers)
                chunks = DELIVERIES // readers
                say = source.observer.on_next
                for _ in range(chunks):
                    say(WORD)
                source.end()
                return chunks * readers

        return run

    def through(readers: int, *, shared: bool) -> Run:
        async def run() -> int:
            source = Subject[ChatChunk]()
            _subscribe(source.pipe(share_generation(None)) if shared else source, readers)
            chunks = DELIVERIES // readers
            for _ in range(chunks):
                source.on_next(WORD)
            return chunks * readers

        return run

    for readers in READERS:
        contenders = {
            "Subject": through(readers, shared=False),
            "share_generation": through(readers, shared=True),
            "Hub": through_a_hub(readers),
        }
        table(f"a chunk to each of {readers:,} readers", await compare(contenders, rounds=5), "delivery")


async def test_memory_of_a_reader() -> None:
    print(f"\n{'memory of a reader of 1,000 chunks':44s} {'bytes':>10s}")
    async with Hub() as hub:
        source = Source()
        await started(hub, "k", source)
        for _ in range(1_000):
            source.say()
        for name, chunks in (("that keeps up", hub.follow("k", after=1_000)), ("that has read all", hub.follow("k"))):
            gc.collect()
            tracemalloc.start()
            _subscribe(chunks, 1_000)
            gc.collect()
            print(f"  {name:42s} {tracemalloc.get_traced_memory()[0] / 1_000:10.0f}")
            tracemalloc.stop()


@pytest.mark.parametrize("kind", sorted(binaries()))
@pytest.mark.parametrize(("generations", "rate"), [(1, 50), (100, 50), (1_000, 10)])
async def test_what_a_chunk_is_to_a_server(kind: str, generations: int, rate: int, tmp_path: Path) -> None:
    """One process makes, another (here: another hub) reads, each generation at its rate, for three seconds."""
    with RedisServer(binaries()[kind], tmp_path, "--appendonly", "no") as server:
        async with Hub(RedisLog(server.url)) as here, Hub(RedisLog(server.url)) as there:
            sources = [Source() for _ in range(generations)]
            arrived = 0

            def note(_: ChatChunk) -> None:
                nonlocal arrived
                arrived += 1

            for number, source in enumerate(sources):
                here.start(str(number), source.chunks)
                there.follow(str(number)).subscribe(note, _nothing)
            await until(lambda: all(source.subscribed for source in sources))
            for number in range(generations):
                there.follow(str(number)).subscribe(note, _nothing)
            before, began, cpu = _figures(server), time.monotonic(), time.process_time()
            due, total = 0, 3 * rate * generations
            while due < total:
                last, due = due, min(total, int((time.monotonic() - began) * rate * generations))
                for number in range(last, due):
                    sources[number % generations].observer.on_next(WORD)
                await asyncio.sleep(0.001)
            sent = time.monotonic()
            await until(lambda: arrived >= total)
            late, cpu = time.monotonic() - sent, time.process_time() - cpu
            after = _figures(server)
            spent = {name: (after[name] - before[name]) / total for name in before}
            print(f"\n{generations:,} generations at {rate} chunks/s of {len(WORD.raw)} bytes, {kind}")
            print(f"  a chunk: {spent['xadd']:.2f} XADD, {spent['xread']:.3f} XREAD, {spent['others']:.3f} others")
            print(f"    {spent['in']:.0f} bytes to the server, {spent['out']:.0f} from it, {spent['memory']:.0f} in it")
            print(f"    {1e6 * cpu / total:.0f} µs here, {1e6 * spent['cpu']:.0f} µs there")
            print(f"  the last was {1e3 * late:.0f} ms late")
            print(f"  connections: {after['clients']:.0f}")


def _figures(server: RedisServer) -> dict[str, float]:
    lines = server.ask("INFO", "everything").decode().splitlines()
    told = dict(line.split(":", 1) for line in lines if ":" in line)
    calls = {name[8:]: int(of.split("=")[1].split(",")[0]) for name, of in told.items() if name.startswith("cmdstat_")}
    return {
        "xadd": calls.get("xadd", 0),
        "xread": calls.get("xread", 0),
        "others": sum(calls.values()) - sum(calls.get(name, 0) for name in ("xadd", "xread", "info")),
        "in": int(told["total_net_input_bytes"]),
        "out": int(told["total_net_output_bytes"]),
        "memory": int(told["used_memory_dataset"]),
        "cpu": float(told["used_cpu_user"]) + float(told["used_cpu_sys"]),
        "clients": int(told["connected_clients"]) - 1,
    }
