"""Every diagram is played, every operator has what it owes, and no docstring draws anything else."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from rxrouter import operators
from rxrouter.testing import MarbleSpec
from rxrouter.testing.marbles import marks

MARBLES = Path(__file__).parent.parent / "marbles"
OPERATORS = [name for name in operators.__all__ if name.islower()]
SPECS = [(path.stem, spec) for path in sorted(MARBLES.glob("*.marble")) for spec in MarbleSpec.load(path)]


@pytest.mark.parametrize("spec", [spec for _, spec in SPECS], ids=[spec.title for _, spec in SPECS])
def test_diagram_is_true(spec: MarbleSpec) -> None:
    spec.check()


@pytest.mark.parametrize("name", OPERATORS)
def test_operator_has_its_diagrams(name: str) -> None:
    own = [spec for stem, spec in SPECS if stem == name]

    assert any(mark.kind == "value" for mark in marks(own[0].out))
    assert any(
        all(mark.kind == "complete" for mark in marks(row)) for spec in own for row in spec.sources.values()
    ) or any(len(marks(spec.out)) == 1 for spec in own)
    assert any(mark.kind == "error" for spec in own for row in spec.sources.values() for mark in marks(row))
    assert any(spec.leave for spec in own)


@pytest.mark.parametrize("name", OPERATORS)
def test_docstring_draws_the_first_diagram(name: str) -> None:
    drawn = re.search(r"Marble:\n(.*?)\n\n", inspect.getdoc(getattr(operators, name)) or "", re.DOTALL)
    assert drawn is not None
    rows = [line.split() for line in drawn.group(1).splitlines()]
    first = next(spec for stem, spec in SPECS if stem == name)

    assert rows == [["source", *first.sources.values()], [f"{name}()", first.out]]


@pytest.mark.parametrize(
    ("row", "wrong"),
    [("out", "-----H-|"), ("out", "---H---|"), ("out", "-----L-|"), ("subs", "^-----!"), ("subs", "-^-----!")],
    ids=["value missing", "tick", "value", "unsubscribed too soon", "subscribed late"],
)
def test_a_wrong_diagram_says_what_was_played(tmp_path: Path, row: str, wrong: str) -> None:
    rows = {"subs": "^------!", "out": "---H-L-|"} | {row: wrong}
    (tmp_path / "x.marble").write_text(
        "% wrong\n"
        'values: {"a": chunk(content="Hel"), "b": chunk(content="lo"), "H": "Hel", "L": "lo"}\n'
        f"cold src: ---a-b-|\nsubs src: {rows['subs']}\n> src.pipe(text())\nout: {rows['out']}\n"
    )

    with pytest.raises(AssertionError) as wrongly:
        MarbleSpec.load(tmp_path / "x.marble")[0].check()

    assert wrong in str(wrongly.value)
    assert "played" in str(wrongly.value)


def test_a_row_reads_as_in_rxjs() -> None:
    assert [(mark.tick, mark.kind, mark.name) for mark in marks("-a-(bc|) ^")] == [
        (1, "value", "a"),
        (3, "value", "b"),
        (3, "value", "c"),
        (3, "complete", ""),
        (8, "value", "^"),
    ]
    assert [(mark.tick, mark.name) for mark in marks("--#(x)")] == [(2, "x")]


def test_a_line_that_is_none_is_refused_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "x.marble").write_text("% title\nwarm src: --a\n")

    with pytest.raises(ValueError, match=r"x\.marble, line 2: 'warm src: --a'"):
        MarbleSpec.load(tmp_path / "x.marble")
