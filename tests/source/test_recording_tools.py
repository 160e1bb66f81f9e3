"""Tools of others that stand between aiohttp and this library: vcrpy records a stream, and replays it."""

# vcrpy has no types.
# pyright: reportUnknownMemberType=false, reportMissingTypeStubs=false, reportUnknownVariableType=false

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import vcr  # type: ignore[import-untyped] # it has no types

from rxrouter import ChatChunk, OpenRouter, StatusError, StreamError
from rxrouter.operators import completion, retry_transient
from rxrouter.testing import Reply, Simulator, answer
from tests.support import Observed, observe

KEY = "sk-or-secret"
ANSWERS = {
    "a whole answer": Reply.of(answer("One two three", reasoning="hm", tool_calls=[("f", '{"a": 1}')])),
    "an error in the stream": Reply(
        (*answer("One two", comments=0)[:2], b'data: {"error":{"code":502,"message":"no"}}\n\n')
    ),
    "a large answer": Reply.of(answer("word " * 3_000)),
}


def cassette(path: Path, mode: str) -> Any:
    return vcr.use_cassette(str(path), filter_headers=["authorization"], record_mode=mode, match_on=["uri", "body"])


def facts(seen: Observed[ChatChunk]) -> Any:
    (ending,) = seen.endings
    return [chunk.raw for chunk in seen.values], type(ending), str(ending)


@pytest.mark.parametrize("reply", ANSWERS.values(), ids=ANSWERS)
async def test_vcrpy_replays_the_stream_that_it_recorded_when_the_server_is_gone(reply: Reply, tmp_path: Path) -> None:
    path = tmp_path / "cassette.yaml"
    async with Simulator(reply) as simulator:
        base_url = simulator.base_url
        async with OpenRouter(KEY, base_url=base_url) as client:
            live = facts(await observe(client.chat("hi")))
            with cassette(path, "once"):
                recorded = facts(await observe(client.chat("hi")))
    async with OpenRouter(KEY, base_url=base_url) as client:
        with cassette(path, "none") as played:
            replayed = facts(await observe(client.chat("hi")))

    assert recorded == replayed == live
    assert played.all_played
    assert KEY not in path.read_text()
    assert '"content":"hi"' in path.read_text()


async def test_vcrpy_replays_each_attempt_when_a_retry_was_recorded(tmp_path: Path) -> None:
    path, left = tmp_path / "cassette.yaml", [Reply.error(503, "busy"), Reply.of(answer("One two"))]
    async with Simulator(lambda _: left.pop(0)) as simulator:
        base_url = simulator.base_url
        async with OpenRouter(KEY, base_url=base_url) as client:
            with cassette(path, "once"):
                recorded = await client.chat("hi").pipe(retry_transient(), completion())
    async with OpenRouter(KEY, base_url=base_url) as client:
        with cassette(path, "none"):
            replayed = await client.chat("hi").pipe(retry_transient(), completion())

    assert (replayed, replayed.text, replayed.state) == (recorded, "One two", "complete")


async def test_vcrpy_replays_a_refusal_with_its_facts(tmp_path: Path) -> None:
    path = tmp_path / "cassette.yaml"
    async with (
        Simulator(Reply.error(429, "slow down")) as simulator,
        OpenRouter(KEY, base_url=simulator.base_url) as client,
    ):
        with cassette(path, "once"):
            (recorded,) = (await observe(client.chat("hi"))).endings
        await simulator.stop()
        with cassette(path, "none"):
            (replayed,) = (await observe(client.chat("hi"))).endings

    assert isinstance(recorded, StatusError)
    assert isinstance(replayed, StatusError)
    assert not isinstance(replayed, StreamError)
    assert (replayed.status, replayed.message) == (recorded.status, recorded.message) == (429, "slow down")
