"""Fixtures of the benchmarks, and what they say in the end: one table, which can be kept, and compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.perf.support import RESULTS


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a process of its own."""
    blaster = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("blaster.py")], stdout=subprocess.PIPE, text=True
    )
    assert blaster.stdout is not None
    yield blaster.stdout.readline().strip()
    blaster.kill()
    blaster.communicate()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table; a ratio to the first of its group is what counts, for a machine's speed drifts."""
    if not RESULTS:
        return
    before: dict[str, tuple[float, float]] = {}
    if (file := config.getoption("--perf-compare")) is not None:
        before = json.loads(Path(file).read_text())
    terminalreporter.section("benchmarks")
    terminalreporter.line(f"{'':76s} {'cost':>10s} {'ratio':>8s}" + f" {'before':>8s} {'change':>7s}" * bool(before))
    for name, (cost, ratio) in RESULTS.items():
        line = f"{name:76s} {cost:10.3f} {ratio:8.2f}"
        if name in before:
            was = before[name][1]
            line += f" {was:8.2f} {ratio / was - 1:+7.0%}"
        terminalreporter.line(line)
    if (file := config.getoption("--perf-save")) is not None:
        Path(file).write_text(json.dumps(RESULTS, indent=1))
