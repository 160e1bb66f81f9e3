"""A forked child begins anew, and neither uses nor closes what is its parent's; the server watches both."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rxrouter.testing import STORY, Exchange, Reply, Simulator, answer, chunk
from rxrouter.testing.reply import Step
from tests.tls import authority, behind_tls

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

PROGRAM = Path(__file__).parent / "forking.py"
ROOT = PROGRAM.parent.parent.parent
SECONDS = 30.0  # a program that is not over by then hangs


class Held:
    """Answers that begin, and go on when a request asks for it."""

    def __init__(self) -> None:
        self._go_on = threading.Event()

    def __call__(self, exchange: Exchange) -> Reply:
        prompt = exchange.json["messages"][0]["content"]
        if prompt == "held":
            return Reply(_Steps(self._go_on))
        if prompt == "go on":
            self._go_on.set()
        return Reply.of(answer("word " * 20_000 if prompt == "long" else STORY))


class _Steps(Sequence[Step]):
    """A word; pauses until the event is set; the rest of the answer."""

    def __init__(self, go_on: threading.Event) -> None:
        self._go_on = go_on

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        raise IndexError

    def __iter__(self) -> Iterator[Step]:
        yield chunk({"content": "Once "})
        while not self._go_on.is_set():
            yield 0.005
        yield from answer("upon a time.", comments=0)


def run(name: str, base_url: str, *options: str, **environment: str) -> str:
    """Run a part of the program; its output, which has nothing on stderr."""
    with subprocess.Popen(
        [sys.executable, *options, str(PROGRAM), name, base_url],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        try:
            out, err = program.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            out, err = program.communicate()
            pytest.fail(f"hangs: {out}{err}")
    assert program.returncode == 0, err
    # Python 3.12 warns of a fork beside threads, which is what this is about.
    assert not [line for line in err.splitlines() if "fork" not in line.lower()], err
    return out


PARTS = {
    "with_an_idle_connection": 3,
    "with_a_stream": 3,
    "with_a_stream_that_the_child_drops": 3,
    "with_a_paused_stream": 4,
    "on_the_clients_own_thread": 3,
    "in_a_loop_of_the_child": 5,
    "inside_a_loop": 2,
    "between_two_loops": 3,
    "beside_a_loop_that_stands_still": 2,
    "with_a_given_session": 2,
    "with_a_hub": 3,
    "with_a_limiter": 3,
    "with_locks_held": 3,
    "with_a_shared_generation": 4,
    "with_receipts": 2,
    "twice": 5,
    "by_multiprocessing": 5,
}
"""How many answers each part gets."""


@pytest.mark.parametrize(("name", "answers"), PARTS.items(), ids=PARTS)
def test_forked_child_begins_anew_and_leaves_the_parent_alone(name: str, answers: int) -> None:
    with Simulator(Held()) as simulator:
        out = run(name, simulator.base_url)

        assert "child is done" in out
        assert "parent is done" in out
        posts = [exchange for exchange in simulator.exchanges if exchange.method == "POST"]
        assert len(posts) == answers
        # Nothing was cut, by a child that closed a socket of its parent.
        assert [exchange.left_at for exchange in posts if exchange.sent_bytes] == [None] * answers


@pytest.mark.parametrize("name", ["with_an_idle_connection", "with_a_stream", "with_a_stream_that_the_child_drops"])
async def test_forked_child_sends_nothing_on_the_parents_tls_connection(name: str, tmp_path: Path) -> None:
    trusted = tmp_path / "authority.pem"
    authority().cert_pem.write_to_path(str(trusted))
    with Simulator(Held()) as simulator:
        async with behind_tls(simulator.base_url) as address:
            out = await asyncio.to_thread(run, name, address, SSL_CERT_FILE=str(trusted))

        assert "child is done" in out
        assert "parent is done" in out


def test_parent_goes_on_with_its_idle_connection_when_a_child_has_exited() -> None:
    with Simulator(Held()) as simulator:
        run("with_an_idle_connection", simulator.base_url)

        peers = [exchange.peer for exchange in simulator.exchanges]
        assert peers[0] == peers[2] != peers[1]


def test_child_that_leaves_the_block_of_a_simulator_leaves_it_to_the_parent() -> None:
    with Simulator(Held()) as simulator:
        out = run("with_a_simulator", simulator.base_url)

    assert sorted(out.split("\n")) == ["", "child is done", "parent is done"]


def test_forked_child_collects_nothing_of_its_parent_in_development_mode() -> None:
    with Simulator(Held()) as simulator:
        run("with_a_stream_that_the_child_drops", simulator.base_url, "-X", "dev", "-W", "error")
