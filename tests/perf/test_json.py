"""What a delta of a JSON document costs, beside reading it once at its end, and beside reading it anew each time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import reactivex as rx
from msgspec import Struct
from reactivex import Observable, operators as ops

from rxrouter.operators import Operator, json_items, partial_json
from tests.perf.support import Run, compare, table

pytestmark = pytest.mark.perf

DELTAS = 4_000  # of 24 kB, as in PEERS P19


class Filters(Struct):
    fresh: bool
    ratio: float
    tags: list[str]
    site: str | None = None


class Call(Struct):
    id: int
    tool: str
    query: str
    filters: Filters
    note: str = ""


class Plan(Struct):
    title: str
    calls: list[Call]


class Edit(Struct):
    path: str
    content: str


NESTED = json.dumps(
    {
        "title": "Find out",
        "calls": [
            {
                "id": at,
                "tool": "search",
                "query": f"how long does dough rest at {at} °C",
                "filters": {"fresh": at % 2 == 0, "ratio": at / 8, "tags": ["bread", "yeast"], "site": None},
                "note": 'the second, "slow" way\nif there is time',
            }
            for at in range(110)
        ],
    },
    ensure_ascii=False,
)
SOURCE = json.dumps({"path": "a.py", "content": 'def f(x):\n    """Twice."""\n    return {"x": 2 * x}\n\n\n' * 390})
DOCUMENTS: dict[str, tuple[str, type[Struct]]] = {"nested arguments": (NESTED, Plan), "one long string": (SOURCE, Edit)}


def cut(document: str, count: int) -> list[str]:
    return [document[at * len(document) // count : (at + 1) * len(document) // count] for at in range(count)]


def through(pieces: Sequence[str], operator: Operator[str, Any], count: int = 0) -> Run:
    """The work of a reader who keeps nothing."""
    source: Observable[str] = rx.from_iterable(pieces)

    async def run() -> int:
        ended: list[Exception | None] = []
        source.pipe(operator).subscribe(lambda _: None, ended.append, lambda: ended.append(None))
        assert ended == [None]
        return count or len(pieces)

    return run


def at_the_end() -> Operator[str, Any]:
    """One linear pass: what everybody does who shows nothing before the end."""
    return lambda source: source.pipe(ops.to_list(), ops.map(loads))


def loads(pieces: list[str]) -> Any:
    return json.loads("".join(pieces))


def anew(document: str) -> Run:
    """`json.loads` of each prefix, which somebody has repaired for nothing."""
    prefixes: list[str] = []
    rx.from_iterable(cut(document, DELTAS)).pipe(partial_json()).subscribe(lambda v: prefixes.append(json.dumps(v)))

    async def run() -> int:
        for prefix in prefixes:
            json.loads(prefix)
        return DELTAS

    return run


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_cost_of_a_delta(name: str) -> None:
    document, kind = DOCUMENTS[name]
    deltas = cut(document, DELTAS)

    results = await compare(
        {
            "joined, json.loads at the end": through(deltas, at_the_end()),
            "RxPY's map, of itself": through(deltas, ops.map(lambda piece: piece)),
            "partial_json(), all in one piece": through([document], partial_json(), DELTAS),
            "partial_json()": through(deltas, partial_json()),
            "partial_json(type)": through(deltas, partial_json(kind)),
            "json_items()": through([f"[{deltas[0]}", *deltas[1:], "]"], json_items()),
            "json.loads of each repaired prefix": anew(document),
        },
        5,
    )

    table(f"{name}, {len(document)} characters in {DELTAS} deltas", results, "delta")
    (at_once, _), (in_deltas, _) = results["partial_json(), all in one piece"], results["partial_json()"]
    print(f"  {'partial_json(), deltas to one piece':42s} {in_deltas / at_once:18.2f}")


async def test_a_delta_costs_the_same_at_the_end_of_a_large_document() -> None:
    def of(begin: str, delta: str, end: str, count: int, type: Any = None) -> Run:  # noqa: A002
        return through([begin, *[delta] * count, end], partial_json(type))

    for what, begin, delta, end, kind in [
        ("a string", '{"path":"","content":"', " token", '"}', None),
        ("a string far inside", '[{"a":[{"b":[{"c":"', " token", '"}]}]}]', None),
        ("a typed string", '{"path":"","content":"', " token", '"}', Edit),
        ("an array", "[", '"ab",', '""]', None),
        ("a typed array", "[", '"ab",', '""]', list[str]),
        ("a number", "0.", "123456", "", None),
        ("a key", '{"', " token", '":1}', None),
    ]:
        results = await compare(
            {
                "1,000 deltas": of(begin, delta, end, 1_000, kind),
                "100,000 deltas": of(begin, delta, end, 100_000, kind),
            },
            3,
        )

        table(what, results, "delta")
        assert results["100,000 deltas"][1] < 2, what  # quadratic would be 100
