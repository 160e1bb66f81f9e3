"""The tools that read the code, each as one test; none of them writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOOLS = {
    "ruff": ["ruff", "check", "."],
    "ruff format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "pyright": ["pyright", "--pythonpath", sys.executable],
    "import-linter": ["lint-imports", "--no-cache"],
}


@pytest.mark.parametrize("tool", TOOLS)
def test_tool_finds_nothing(tool: str) -> None:
    name, *arguments = TOOLS[tool]
    command = Path(sys.executable).with_name(name)

    found = subprocess.run([command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    assert found.returncode == 0, f"{' '.join(TOOLS[tool])}\n{found.stdout}{found.stderr}"
