from __future__ import annotations

import asyncio
import gc
import tracemalloc

import pytest
from reactivex import Observable, abc, from_iterable
from reactivex.disposable import Disposable

from rxrouter import ChatChunk, Overflow, iterate
from rxrouter._errors import UnknownGenerationError
from rxrouter.sharing import Hub, MemoryLog
from tests.sharing.support import Reader, Source, started, word, words
from tests.support import proven

# What has ended is kept for a while, in time, number and bytes.


async def make(hub: Hub, *keys: str, count: int = 1) -> None:
    for key in keys:
        await hub.start(key, proven(from_iterable([word(number + 1) for number in range(count)])))


async def known(hub: Hub, *keys: str) -> str:
    return "".join([key for key in keys if (await hub.status(key)).state != "unknown"])


@pytest.mark.virtual
async def test_what_has_ended_is_forgotten_when_its_time_is_over() -> None:
    async with Hub(MemoryLog(keep_seconds=60)) as hub:
        await make(hub, "a")
        await asyncio.sleep(30)
        await make(hub, "b")
        await asyncio.sleep(29)
        assert await known(hub, "a", "b") == "ab"

        await asyncio.sleep(2)
        assert await known(hub, "a", "b") == "b"
        assert isinstance(await Reader(hub.follow("a")).until_over(), UnknownGenerationError)

        await asyncio.sleep(30)
        assert await known(hub, "a", "b") == ""


@pytest.mark.virtual
async def test_what_runs_is_never_forgotten() -> None:
    async with Hub(MemoryLog(keep_seconds=0, keep_count=0, keep_bytes=0)) as hub:
        source = Source()
        await started(hub, "k", source)
        source.say()
        await asyncio.sleep(1e5)
        reader = Reader(hub.follow("k"))
        source.say()
        source.end()

        assert (await reader.until_over(), reader.read) == (None, words(2))
        assert await known(hub, "k") == ""


async def test_the_oldest_is_forgotten_when_there_are_too_many() -> None:
    async with Hub(MemoryLog(keep_count=2)) as hub:
        await make(hub, "a", "b", "c")

        assert await known(hub, "a", "b", "c") == "bc"


async def test_the_oldest_is_forgotten_when_they_are_too_large() -> None:
    size = sum(map(len, words(10)))
    async with Hub(MemoryLog(keep_bytes=2 * size + 1)) as hub:
        await make(hub, "a", "b", count=10)
        assert await known(hub, "a", "b") == "ab"

        await make(hub, "c")

        assert await known(hub, "a", "b", "c") == "bc"


async def test_a_key_that_was_forgotten_is_free() -> None:
    async with Hub(MemoryLog(keep_count=0)) as hub:
        await make(hub, "k")
        await make(hub, "k", count=2)

        assert await known(hub, "k") == ""


async def test_who_still_reads_what_is_forgotten_reads_on() -> None:
    async with Hub(MemoryLog(keep_count=0)) as hub:
        source = Source()
        await started(hub, "k", source)
        slow = iterate(hub.follow("k"), high=2, low=1, overflow=Overflow.PAUSE)
        source.say()
        first = await anext(slow)
        source.say(50)
        source.end()
        assert await known(hub, "k") == ""

        assert [first.raw, *[chunk.raw async for chunk in slow]] == words(51)


async def test_nothing_is_left_of_generations_that_are_forgotten() -> None:
    async with Hub(MemoryLog(keep_count=0)) as hub:
        await make(hub, "warm", count=1_000)
        tracemalloc.start()
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(20):
            await make(hub, str(number), count=1_000)
        gc.collect()
        left = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()

    assert left < 50_000  # of two megabytes


async def test_what_is_made_by_hand_and_odd_chunks_are_kept_too() -> None:
    """No `raw`, or one that the strict decoder refuses."""
    by_hand = word(1)
    del by_hand.received
    async with Hub() as hub:
        await hub.start("k", proven(from_iterable([by_hand])))

        assert (await hub.follow("k")) == by_hand


def test_bounds_below_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing"):
        MemoryLog(keep_seconds=-1)


async def test_the_starter_gets_all_of_a_synchronous_source_when_nothing_is_kept() -> None:
    def subscribe(observer: abc.ObserverBase[ChatChunk], _: object = None) -> abc.DisposableBase:
        for number in (1, 2, 3):
            observer.on_next(word(number))
        observer.on_completed()
        return Disposable()

    async with Hub(MemoryLog(keep_count=0)) as hub:
        starter = Reader(hub.start("k", proven(Observable(subscribe))))

        assert (await starter.until_over(), starter.read) == (None, words(3))
