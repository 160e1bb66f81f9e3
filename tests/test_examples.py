"""Examples are programs: each runs offline, and prints what its docstring says."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.support import told

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))
LINES = 45  # of code and comments; an example that needs more is two


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_prints_what_it_says(example: Path) -> None:
    said = ast.get_docstring(ast.parse(example.read_text()), clean=True) or ""
    _, _, expected = said.partition("Prints:\n")

    run = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(example)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (run.returncode, told(run.stderr)) == (0, "")
    assert run.stdout.strip() == dedent(expected).strip()


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_is_short(example: Path) -> None:
    docstring = ast.parse(example.read_text()).body[0]
    code = [line for line in example.read_text().splitlines()[docstring.end_lineno :] if line.strip()]

    assert len(code) <= LINES
