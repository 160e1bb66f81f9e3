"""Every diagram is played, every operator has what it owes, and no picture or docstring shows anything else."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from rxrouter import RouterError, operators
from rxrouter.testing import Gallery, Heard, MarbleSpec, Played
from rxrouter.testing.rows import marks

MARBLES = Path(__file__).parent.parent / "marbles"
OPERATORS = [name for name in operators.__all__ if name.islower()]
SPECS = [(path.stem, spec) for path in sorted(MARBLES.glob("*.marble")) for spec in MarbleSpec.load(path)]


@pytest.mark.parametrize("spec", [spec for _, spec in SPECS], ids=[spec.title for _, spec in SPECS])
def test_diagram_is_true(spec: MarbleSpec) -> None:
    spec.check()


def test_pictures_and_gallery_are_what_was_played() -> None:
    stale = [path.name for path in Gallery.play(MARBLES).stale()]

    assert not stale, f"{', '.join(stale)}: not what was played; run: rxrouter marbles"


@cache
def played(name: str) -> list[tuple[MarbleSpec, Played]]:
    return [(spec, spec.play()) for stem, spec in SPECS if stem == name]


def heard_from(played: Played) -> Iterator[Heard]:
    for subscriptions in played.sources.values():
        yield from subscriptions


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_a_diagram_of_values_first(name: str) -> None:
    _, first = played(name)[0]

    assert any(told.kind == "value" for told in first.readers[""].told)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_a_diagram_of_an_empty_source(name: str) -> None:
    assert any(
        [told.kind for told in heard.told] == ["complete"] for _, play in played(name) for heard in heard_from(play)
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_a_diagram_of_an_error_of_the_source(name: str) -> None:
    assert any(told.kind == "error" for _, play in played(name) for heard in heard_from(play) for told in heard.told)


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_a_diagram_of_an_endless_source_that_is_left(name: str) -> None:
    assert any(
        all(mark.kind == "value" for mark in marks(row)) and heard.until == left
        for spec, play in played(name)
        for left in [max(until if until is not None else 0 for _, until in spec.readers.values())]
        for source, row in spec.cold.items()
        for heard in play.sources[source]
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_a_diagram_of_a_callback_that_raises_by_which_the_sources_are_left(name: str) -> None:
    assert any(
        all(heard.until is not None and heard.until <= ending.tick for heard in heard_from(play))
        for _, play in played(name)
        for ending in play.readers[""].told[-1:]
        if ending.kind == "error" and not isinstance(ending.what, RouterError)
        if not any(told.what is ending.what for heard in heard_from(play) for told in heard.told)
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring_draws_the_first_diagram(name: str) -> None:
    drawn = re.search(r"Marble:\n(.*?)\n\n", inspect.getdoc(getattr(operators, name)) or "", re.DOTALL)
    assert drawn is not None
    rows = [line.split() for line in drawn.group(1).splitlines()]
    first, _ = played(name)[0]

    sources = first.cold | first.hot
    assert [word for row in rows[:-1] for word in row if word not in {"source", *sources}] == [*sources.values()]
    assert rows[-1] == [f"{name}()", first.outs[""]]
