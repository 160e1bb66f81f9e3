"""What a chunk costs in the folds: as much at the end of a long answer as in a short one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable, operators as ops
from reactivex.subject import Subject

from rxrouter import ChatChunk, ChatCompletion, Choice, Delta, FunctionDelta, ToolCallDelta
from rxrouter.operators import Operator, completion, snapshots, text, tool_calls
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

SHORT, LONG = 1_000, 100_000
ARGUMENTS, DELTAS = 24_000, 4_000  # the answer of PEERS P19, which took others seconds

Source = Callable[[Observable[ChatChunk]], Observable[Any]]


def words(count: int) -> list[ChatChunk]:
    """An answer of `count` chunks, the last of which ends it."""
    return [ChatChunk(id="g", model="m", choices=[Choice(0, Delta(content="hello "))])] * (count - 1) + [
        ChatChunk(choices=[Choice(0, finish_reason="stop")])
    ]


def arguments(count: int, characters: int = 6) -> list[ChatChunk]:
    """A tool call, its arguments in `count` chunks."""
    pieces = ['{"a":"', *("x" * characters for _ in range(count - 2)), '"}']
    return [
        ChatChunk(id="g", model="m", choices=[Choice(0, Delta(tool_calls=[ToolCallDelta(0, "c", "function", one)]))])
        for one in (FunctionDelta("f" if not at else None, piece) for at, piece in enumerate(pieces))
    ] + [ChatChunk(choices=[Choice(0, finish_reason="tool_calls")])]


def through(operator: Source, chunks: list[ChatChunk]) -> Run:
    async def run() -> int:
        source = Subject[ChatChunk]()
        operator(source).subscribe(lambda _: None)
        for chunk in chunks:
            source.on_next(chunk)
        source.on_completed()
        return len(chunks)

    return run


def looked_at(look: Callable[[ChatCompletion], object]) -> Source:
    return lambda source: source.pipe(snapshots(), ops.map(look))


def last_of_all(source: Observable[ChatChunk]) -> Observable[ChatCompletion]:
    return source.pipe(snapshots(), ops.last())


@pytest.mark.parametrize(
    ("name", "operator", "answer"),
    [
        ("text()", text(), words),
        ("completion()", completion(), words),
        ("snapshots()", snapshots(), words),
        ("snapshots(), the last kept", last_of_all, words),
        ("tool_calls()", tool_calls(), arguments),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_cost_of_a_chunk_does_not_grow(
    name: str, operator: Operator[ChatChunk, Any], answer: Callable[[int], list[ChatChunk]]
) -> None:
    results = await compare({f"{count:,} chunks": through(operator, answer(count)) for count in (SHORT, LONG)})

    table(name, results)
    assert results[f"{LONG:,} chunks"][1] < 2


async def test_cost_of_snapshots_of_long_arguments() -> None:
    chunks = arguments(DELTAS, ARGUMENTS // DELTAS)

    results = await compare(
        {
            "completion(): a single pass": through(completion(), chunks),
            "snapshots()": through(snapshots(), chunks),
            "snapshots(), each read": through(looked_at(lambda answer: answer.partial_tool_calls[0].arguments), chunks),
        }
    )

    table("24 kB of arguments in 4,000 deltas", results)
    assert results["snapshots()"][1] < 3
