"""The command, as a program in a terminal: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from rxrouter.testing import STORY, Act, Exchange, Reply, Simulator, answer, chunk

COMMAND = [sys.executable, "-X", "dev", "-W", "error", "-m", "rxrouter"]


def rxrouter(*arguments: str, url: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"OPENROUTER_BASE_URL": url} if url else {})
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment, **more
    )


def one_line(stderr: str) -> str:
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr
    return stderr


def test_offline_answers_and_says_that_it_is_simulated() -> None:
    run = rxrouter("chat", "--offline", "Tell me a story about AI")

    assert (run.returncode, run.stdout) == (0, STORY + "\n")
    assert "simulated" in one_line(run.stderr)


def test_raw_prints_each_chunk_as_received() -> None:
    with Simulator(text="Hi there") as server:
        run = rxrouter("chat", "hi", "--raw", url=server.base_url)

    events = [event[6:-2].decode() for event in answer("Hi there") if event.startswith(b"data: {")]
    assert run.stdout.splitlines() == events


def test_json_prints_the_completion() -> None:
    with Simulator(text="Hi there") as server:
        run = rxrouter("chat", "hi", "--json", url=server.base_url)

    completion = json.loads(run.stdout)
    assert completion["choices"][0]["text"] == "Hi there"
    assert completion["usage"]["total_tokens"] == 14


def test_stats_name_first_content_rate_and_cost() -> None:
    with Simulator(Reply.of(answer("Hi there", cost=0.00042))) as server:
        run = rxrouter("chat", "hi", "--stats", url=server.base_url)

    stats = one_line(run.stderr)
    assert "first content after" in stats
    assert "2 tokens at" in stats
    assert "cost 0.00042 credits" in stats


def test_model_and_system_prompt_are_sent() -> None:
    with Simulator(text="Hi") as server:
        rxrouter("chat", "hello", "--model", "a/b", "--system", "be brief", url=server.base_url)
        body = server.exchanges[0].json

    assert body["model"] == "a/b"
    assert [m["content"] for m in body["messages"]] == ["be brief", "hello"]


def test_no_key_says_in_one_line_what_to_set_and_where() -> None:
    run = rxrouter("chat", "hi")

    assert (run.returncode, run.stdout) == (1, "")
    assert "OPENROUTER_API_KEY" in one_line(run.stderr)
    assert "https://openrouter.ai/keys" in run.stderr


@pytest.mark.parametrize(
    ("fault", "said", "advice"),
    [
        ("401", "Missing Authentication", "OPENROUTER_API_KEY"),
        ("402", "more credits", "settings/credits"),
        ("404", "No endpoints found", "openrouter.ai/models"),
        ("429", "Rate limit", "try again in 7 s"),
        ("502", "Provider returned error", "try again"),
        ("html", "502 Bad Gateway", "try again"),
        ("cut", "cut in the middle", "try again"),
        ("truncate", "neither a finish reason nor", "try again"),
        ("error-late", "overloaded", "try again"),
    ],
)
def test_failure_is_one_helpful_line(fault: str, said: str, advice: str) -> None:
    with Simulator(fault=fault) as server:
        run = rxrouter("chat", "hi", url=server.base_url)

    assert run.returncode == 1
    assert said in one_line(run.stderr)
    assert advice in run.stderr


def test_nobody_listening_is_one_helpful_line() -> None:
    run = rxrouter("chat", "hi", url="http://127.0.0.1:9/api/v1")

    assert run.returncode == 1
    assert "OPENROUTER_BASE_URL" in one_line(run.stderr)


@pytest.mark.parametrize("arguments", [[], ["chat"], ["chat", "hi", "--raw", "--json"], ["simulate", "--fault", "x"]])
def test_wrong_usage_exits_with_2(arguments: Sequence[str]) -> None:
    run = rxrouter(*arguments)

    assert run.returncode == 2
    assert "usage:" in run.stderr


def test_ctrl_c_closes_the_stream_and_keeps_what_was_received() -> None:
    def half_a_story(_: Exchange) -> Reply:
        return Reply((*answer("Once upon")[:-3], Act.HANG))

    with Simulator(half_a_story) as server:
        run = subprocess.Popen(
            [*COMMAND, "chat", "hi"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"OPENROUTER_BASE_URL": server.base_url},
        )
        assert run.stdout is not None
        heard = b""
        while b"upon" not in heard:
            heard += os.read(run.stdout.fileno(), 100)
        run.send_signal(signal.SIGINT)
        rest, said = run.communicate(timeout=30)

        assert (run.returncode, heard + rest) == (130, b"Once upon\n")
        assert one_line(said.decode()) == "rxrouter: interrupted\n"
        assert server.exchanges[0].left_at is not None


def test_a_terminal_gets_thoughts_dimmed_and_no_control_characters() -> None:
    events = [chunk({"reasoning": "Hm."}), chunk({"content": "\x1b]0;owned\x07Hi\x9b2J"}), *answer("")[-3:]]
    with Simulator(Reply(events)) as server:
        primary, terminal = pty.openpty()
        run = subprocess.Popen(
            [*COMMAND, "chat", "hi"],
            stdout=terminal,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENROUTER_BASE_URL": server.base_url},
        )
        assert run.wait(30) == 0
        os.close(terminal)
        screen = os.read(primary, 10_000)
        os.close(primary)

    assert screen == b"\x1b[2mHm.\x1b[0m\r\n\r\n]0;ownedHi2J\r\n"


def test_a_closed_pipe_ends_it_quietly() -> None:
    with Simulator() as server:
        run = subprocess.run(
            f"{' '.join(COMMAND)} chat hi --raw | head -1",
            shell=True,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=os.environ | {"OPENROUTER_BASE_URL": server.base_url},
        )

    assert run.stdout.count("\n") == 1
    assert run.stderr == ""


def test_simulate_serves_until_interrupted() -> None:
    server = subprocess.Popen([*COMMAND, "simulate", "--port", "0", "--rate", "0"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().split(" at ")[1].split(";")[0]

    run = rxrouter("chat", "hi", url=url)
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=30)

    assert run.stdout == STORY + "\n"
    assert server.returncode == 130


def test_offline_asks_no_proxy_and_shows_nobody_the_key() -> None:
    environment = os.environ | {"http_proxy": "http://127.0.0.1:9", "OPENROUTER_API_KEY": "sk-or-secret"}
    run = subprocess.run(
        [*COMMAND, "chat", "--offline", "hi"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )

    assert (run.returncode, run.stdout) == (0, STORY + "\n")


def test_an_error_can_do_nothing_to_a_terminal() -> None:
    with Simulator(Reply.error(400, "bad \x1b]0;owned\x07 model")) as server:
        run = rxrouter("chat", "hi", url=server.base_url)

    assert "\x1b" not in one_line(run.stderr)
