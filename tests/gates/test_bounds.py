from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
LOWEST = ROOT / "tests" / "lowest.txt"


def test_lower_bounds_are_the_versions_that_the_core_of_the_suite_runs_with() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *project["optional-dependencies"]["redis"]]
    bounds = dict(re.findall(r"^(\w+)(?:\[\w+\])?>=([\d.]+)", "\n".join(declared), re.MULTILINE))
    run_with = dict(re.findall(r"^(\w+)==([\d.]+)$", LOWEST.read_text(), re.MULTILINE))

    assert {name: version.removesuffix(".0") for name, version in run_with.items()} == bounds
    assert len(bounds) == len(declared)
