"""Every Python block of the README runs as it stands, against a simulated OpenRouter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rxrouter
from rxrouter.testing import Simulator
from tests.support import told

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block: str) -> None:
    promised = re.findall(r"print\(.*\)  # (.*)$", block, re.MULTILINE)

    with Simulator() as offline:
        run = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", block],
            env=os.environ | {"OPENROUTER_BASE_URL": offline.base_url, "OPENROUTER_API_KEY": "sk-readme"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert (run.returncode, told(run.stderr)) == (0, "")
    for line in promised:
        assert line in run.stdout


def test_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]*)\)", README) if "://" not in link]

    assert links
    assert [link for link in links if not (Path(__file__).parent.parent / link).exists()] == []


def test_every_error_that_is_raised_is_public_and_told() -> None:
    def below(kind: type[rxrouter.RouterError]) -> list[type[rxrouter.RouterError]]:
        children = [child for child in kind.__subclasses__() if child.__module__ == "rxrouter._errors"]
        return [leaf for child in children for leaf in below(child)] or [kind]

    names = {error.__name__ for error in below(rxrouter.RouterError)}

    assert names <= set(rxrouter.__all__)
    assert [name for name in names if f"`{name}`" not in README and f"`{name}(" not in README] == []
