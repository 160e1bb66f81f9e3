"""What the library is before it has done anything, and what a stream is that says nothing."""

from __future__ import annotations

import asyncio
import gc
import statistics
import subprocess
import sys
import tracemalloc

import aiohttp
import pytest

from rxrouter import OpenRouter
from tests.perf.support import table
from tests.support import until

pytestmark = pytest.mark.perf

STREAMS = 500


def test_import_time() -> None:
    """Beside that of the three libraries that it needs."""
    named = {"aiohttp, msgspec, reactivex": "aiohttp, msgspec, reactivex", "rxrouter": "rxrouter"}
    seconds: dict[str, list[float]] = {name: [] for name in named}
    for _ in range(9):
        for name, modules in named.items():
            code = f"import time; began = time.perf_counter(); import {modules}; print(time.perf_counter() - began)"
            seconds[name].append(float(subprocess.check_output([sys.executable, "-c", code])))
    first = seconds["aiohttp, msgspec, reactivex"]
    table(
        "import, in ms",
        {
            name: (1e3 * statistics.median(own), statistics.median(a / b for a, b in zip(own, first, strict=True)))
            for name, own in seconds.items()
        },
        "import",
    )


async def test_memory_of_an_open_stream(url: str) -> None:
    """Streams that have said two words and are silent since; what Python has allocated for each."""
    body = {"messages": [{"role": "user", "content": "hang"}]}
    connector = aiohttp.TCPConnector(limit=0)

    async with aiohttp.ClientSession(connector=connector) as session, OpenRouter(base_url=url) as client:
        seen = 0

        def count(_: object) -> None:
            nonlocal seen
            seen += 1

        async def open_bare() -> aiohttp.ClientResponse:
            response = await session.post(f"{url}/chat/completions", json=body)
            await response.content.readany()
            return response

        warm = client.chat("hang").subscribe(count)
        await until(lambda: seen >= 2)
        await warm.aclose()
        tracemalloc.start()  # resident memory would be what other benchmarks have left
        before = _allocated()
        bare = await asyncio.gather(*(open_bare() for _ in range(STREAMS)))
        with_bare = _allocated()
        seen = 0
        ours = [client.chat("hang").subscribe(count) for _ in range(STREAMS)]
        await until(lambda: seen >= 2 * STREAMS)
        with_ours = _allocated()
        tracemalloc.stop()
        for stream in ours:
            await stream.aclose()
        for response in bare:
            response.close()

    own, theirs = (with_ours - with_bare) / STREAMS / 1024, (with_bare - before) / STREAMS / 1024
    table("an open stream, in KiB", {"aiohttp": (theirs, 1.0), "chat().subscribe": (own, own / theirs)}, "stream")


def _allocated() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
