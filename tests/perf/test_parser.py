"""What an event costs in the parser, and that nothing grows with the length of a stream."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from rxrouter import ChatChunk, Choice, Delta, SSEParser
from rxrouter._wire.fold import CompletionFold
from tests.perf.blaster import reply
from tests.perf.support import compare, table

pytestmark = pytest.mark.perf


def blocks(count: int, size: int) -> list[bytes]:
    return [step for step in reply(f"{count} {size}").steps if isinstance(step, bytes)]


async def test_cost_of_an_event() -> None:
    whole, events = blocks(20_000, 1 << 16), blocks(20_000, 0)

    async def split(parts: Iterable[bytes]) -> int:
        parser = SSEParser()
        return sum(len(parser.split(part)) for part in parts)

    async def feed() -> int:
        parser = SSEParser()
        return sum(len(parser.feed(part)) for part in whole)

    table(
        "parser",
        await compare(
            {
                "split, 64 KiB blocks": lambda: split(whole),
                "feed, 64 KiB blocks": feed,
                "split, an event a block": lambda: split(events),
            }
        ),
        "event",
    )


async def test_bytewise_parsing_is_linear() -> None:
    async def bytewise(count: int) -> int:
        parser = SSEParser()
        parser.feed(b"data: ")
        for _ in range(count):
            parser.feed(b"x")
        return count

    results = await compare({"100 kB": lambda: bytewise(100_000), "1.6 MB": lambda: bytewise(1_600_000)}, 3)

    table("1-byte blocks", results, "byte")
    assert results["1.6 MB"][1] < 2  # quadratic would be 16


async def test_fold_costs_the_same_at_the_end_of_a_long_answer() -> None:
    text = ChatChunk(model="a/b", choices=[Choice(delta=Delta(role="assistant", content=" token"))])

    async def fold(count: int) -> int:
        into = CompletionFold()
        for _ in range(count):
            into.add(text)
        return count

    results = await compare({"1,000 chunks": lambda: fold(1_000), "200,000 chunks": lambda: fold(200_000)}, 5)

    table("completion", results)
    assert results["200,000 chunks"][1] < 2
