"""The command, as a program in a terminal: what it prints, where, and how it exits."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rxrouter.testing import STORY, Act, Exchange, Reply, Simulator, answer, chunk
from tests.support import told

COMMAND = [sys.executable, "-X", "dev", "-W", "error", "-m", "rxrouter"]


def rxrouter(*arguments: str, url: str = "", **more: Any) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"OPENROUTER_BASE_URL": url} if url else {})
    run = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environment, **more
    )
    run.stderr = told(run.stderr)
    return run


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


def on_terminal(url: str, *arguments: str) -> bytes:
    """The bytes that a terminal receives of a run that succeeds."""
    primary, terminal = pty.openpty()
    run = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OPENROUTER_BASE_URL": url},
    )
    assert run.wait(30) == 0
    os.close(terminal)
    screen = os.read(primary, 10_000)
    os.close(primary)
    return screen


def test_a_terminal_gets_thoughts_dimmed_and_no_control_characters() -> None:
    events = [chunk({"reasoning": "Hm."}), chunk({"content": "\x1b]0;owned\x07Hi\x9b2J"}), *answer("")[-3:]]
    with Simulator(Reply(events)) as server:
        screen = on_terminal(server.base_url, "chat", "hi")

    assert screen == b"\x1b[2mHm.\x1b[0m\r\n\r\n]0;ownedHi2J\r\n"


HOSTILE = "".join(map(chr, (*range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))))
"""DEL, the C1 controls, and the characters that reorder the text around them."""


@pytest.mark.parametrize("form", [(), ("--json",), ("--raw",)], ids=str)
def test_a_terminal_gets_no_character_that_acts_on_it_when_an_answer_has_some(form: tuple[str, ...]) -> None:
    with Simulator(Reply([chunk({"content": f"a{HOSTILE}b"}), *answer("")[-3:]])) as server:
        screen = on_terminal(server.base_url, "chat", "hi", *form).decode()
        piped = rxrouter("chat", "hi", *form, url=server.base_url).stdout

    assert not set(screen) & set(HOSTILE)
    assert HOSTILE in piped
    if form:
        printed = json.loads(screen.splitlines()[0])
        [choice] = printed["choices"]
        assert (choice["text"] if form == ("--json",) else choice["delta"]["content"]) == f"a{HOSTILE}b"
    else:
        assert screen == "ab\r\n"


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


def test_marbles_of_a_chat_are_drawn_while_the_answer_is_printed(tmp_path: Path) -> None:
    with Simulator(text="Hi there") as server:
        run = rxrouter("chat", "hi", "--marbles", str(tmp_path / "run.svg"), url=server.base_url)

    assert (run.returncode, run.stdout, run.stderr) == (0, "Hi there\n", "")
    assert "values, complete" in (tmp_path / "run.svg").read_text()


def test_marbles_of_a_chat_that_is_interrupted_are_drawn(tmp_path: Path) -> None:
    with Simulator(lambda _: Reply((*answer("Once upon")[:-3], Act.HANG))) as server:
        run = subprocess.Popen(
            [*COMMAND, "chat", "hi", "--marbles", str(tmp_path / "run.svg")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"OPENROUTER_BASE_URL": server.base_url},
        )
        assert run.stdout is not None
        heard = b""
        while b"upon" not in heard:
            heard += os.read(run.stdout.fileno(), 100)
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=30)

    assert "values, left" in (tmp_path / "run.svg").read_text()


def test_marbles_that_can_not_be_written_are_told_before_anything_is_asked(tmp_path: Path) -> None:
    with Simulator() as server:
        run = rxrouter("chat", "hi", "--marbles", str(tmp_path / "no" / "run.svg"), url=server.base_url)

        assert run.returncode == 1
        assert "No such file or directory" in one_line(run.stderr)
        assert server.exchanges == []


MARBLE = "% words\ncold src: -a-b-|\nsubs src: ^----!\n> src\nout: -a-b-|\n"


def test_marbles_are_played_and_painted_and_then_there_is_nothing_to_do(tmp_path: Path) -> None:
    (tmp_path / "words.marble").write_text(MARBLE)

    runs = [rxrouter("marbles", *more, str(tmp_path)) for more in ([], [], ["--check"])]

    assert [run.returncode for run in runs] == [0, 0, 0]
    assert "1 diagrams are true; words.svg, README.md painted" in runs[0].stdout
    assert "nothing to paint" in runs[1].stdout
    assert {path.name for path in tmp_path.iterdir()} == {"words.marble", "words.svg", "README.md"}


def test_check_changes_nothing_and_names_what_is_not_up_to_date(tmp_path: Path) -> None:
    (tmp_path / "words.marble").write_text(MARBLE)

    run = rxrouter("marbles", "--check", str(tmp_path))

    assert (run.returncode, run.stdout) == (1, "")
    assert f"run: rxrouter marbles {tmp_path}" in one_line(run.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["words.marble"]


def test_wrong_marbles_show_both_rows_and_paint_nothing(tmp_path: Path) -> None:
    (tmp_path / "words.marble").write_text(MARBLE.replace("out: -a-b-|", "out: -a--b|"))

    for arguments in ([], ["--check"]):
        run = rxrouter("marbles", *arguments, str(tmp_path))

        assert (run.returncode, run.stdout) == (1, "")
        assert "out        expected  -a--b|\n           played    -a-b-|\n" in run.stderr
        assert "Traceback" not in run.stderr
        assert not (tmp_path / "words.svg").exists()


def test_marbles_know_the_names_of_your_module(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from reactivex import operators as ops\n\nfirst = ops.take(1)\n")
    (tmp_path / "words.marble").write_text("% mine\ncold src: -a-b-|\n> src.pipe(first)\nout: -(a|)\n")

    run = rxrouter("marbles", ".", "--names", "mine", cwd=tmp_path)
    unknown = rxrouter("marbles", ".", "--names", "yours", cwd=tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    assert unknown.returncode == 1
    assert "--names yours: No module named 'yours'" in one_line(unknown.stderr)


def test_a_folder_without_marbles_is_told(tmp_path: Path) -> None:
    run = rxrouter("marbles", str(tmp_path))

    assert run.returncode == 1
    assert "no .marble file" in one_line(run.stderr)


def account(reply: Reply) -> Simulator:
    return Simulator(account=lambda _: reply)


def test_models_are_a_table_with_prices_for_a_million() -> None:
    with Simulator() as server:
        run = rxrouter("models", url=server.base_url)

    head, *rows = (line.split() for line in run.stdout.splitlines())
    assert head == ["model", "context", "$/M", "in", "$/M", "out"]
    assert rows == [
        ["simulated/storyteller", "32,768", "0.15", "0.6"],
        ["simulated/storyteller:free", "8,192", "0", "0"],
        ["simulated/thinker", "1,000,000", "1.25", "10"],
        ["simulated/auto", "1,000,000", "varies", "varies"],
    ]
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--search", "STORY"], ["simulated/storyteller", "simulated/storyteller:free"]),
        (["--free"], ["simulated/storyteller:free"]),
        (["--search", "thinker", "--json"], ["simulated/thinker"]),
    ],
)
def test_models_can_be_searched(arguments: Sequence[str], names: Sequence[str]) -> None:
    run = rxrouter("models", "--offline", *arguments)

    if "--json" in arguments:
        found = [model["id"] for model in json.loads(run.stdout)]
    else:
        found = [line.split()[0] for line in run.stdout.splitlines()[1:]]
    assert (run.returncode, found) == (0, names)
    assert "simulated" in one_line(run.stderr)


def test_models_as_json_are_as_received() -> None:
    model = b'{"id":"a/b", "unknown": [1, 2.50]}'
    with account(Reply.json(b'{"data":[' + model + b"]}")) as server:
        run = rxrouter("models", "--json", url=server.base_url)

    assert run.stdout == f"[{model.decode()}]\n"


def test_no_such_model_is_said() -> None:
    run = rxrouter("models", "--offline", "--search", "nothing like it")

    assert (run.returncode, run.stdout) == (0, "")
    assert "no such model" in run.stderr


def test_a_model_of_which_little_is_known_can_do_nothing_to_a_terminal() -> None:
    with account(Reply.json({"data": [{"id": "a/\x1b]0;owned\x07b"}, {}]})) as server:
        run = rxrouter("models", url=server.base_url)

    assert [line.split() for line in run.stdout.splitlines()[1:]] == [["a/]0;ownedb", "?", "?", "?"], ["?"] * 4]


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply.error(404, "Not Found"), "OPENROUTER_BASE_URL"),
        (Reply.error(429, "Slower.", headers={"Retry-After": "7"}), "try again in 7 s"),
        (Reply.json({}), "no Model"),
    ],
)
def test_models_that_fail_are_one_helpful_line(reply: Reply, said: str) -> None:
    with account(reply) as server:
        run = rxrouter("models", url=server.base_url)

    assert (run.returncode, run.stdout) == (1, "")
    assert said in one_line(run.stderr)
