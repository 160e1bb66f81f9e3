from __future__ import annotations

from typing import Any

import pytest

from rxrouter import Citation
from rxrouter.operators import citations
from tests.operators.support import chunk, play, subscribed_scheduler

A = {"url": "https://a.example", "title": "A", "content": "…", "start_index": 0, "end_index": 9}
B = {"url": "https://b.example"}


def cites(*citations: dict[str, Any]) -> dict[str, Any]:
    return {"annotations": [{"type": "url_citation", "url_citation": citation} for citation in citations]}


FIRST = Citation("https://a.example", "A", "…", 0, 9)


def test_citations_emits_each_source_when_it_is_named() -> None:
    heard, subscription = play(citations(), (1, chunk(cites(A, B))), (2, chunk({"content": "x"})), (3, None))

    assert heard == [(1, FIRST), (1, Citation("https://b.example")), (3, None)]
    assert subscription == (0, 3)


def test_citations_of_nothing_is_nothing() -> None:
    assert play(citations(), (1, None))[0] == [(1, None)]


def test_citations_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(citations(), (1, chunk(cites(A))), (2, error))[0] == [(1, FIRST), (2, error)]


def test_citations_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(citations(), (1, chunk(cites(A))), (9, chunk(cites(A))), disposed=5)

    assert (heard, subscription) == ([(1, FIRST)], (0, 5))


def test_citations_is_of_one_choice() -> None:
    both = chunk(cites(A), cites(B))

    assert play(citations(choice=1), (1, both), (2, None))[0] == [(1, Citation("https://b.example")), (2, None)]


def test_citations_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(citations())

    assert reached is given


@pytest.mark.parametrize(
    "annotation",
    [
        {"type": "file", "file": {"hash": "x", "content": []}},
        {"type": "url_citation"},
        {"type": "url_citation", "url_citation": None},
        {"type": "url_citation", "url_citation": {"url": ""}},
        {"type": "url_citation", "url_citation": {"url": 7}},
    ],
)
def test_what_has_no_url_is_no_citation(annotation: dict[str, Any]) -> None:
    assert play(citations(), (1, chunk({"annotations": [annotation]})), (2, None))[0] == [(2, None)]


def test_a_field_of_another_type_is_as_if_it_were_not_there() -> None:
    odd = chunk(cites({"url": "https://a.example", "title": 5, "start_index": "x"}))

    assert play(citations(), (1, odd))[0] == [(1, Citation("https://a.example"))]
