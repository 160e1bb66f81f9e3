"""The chat's server: what it asks the model, keeps, tells and refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rxrouter.sharing import MemoryLog
from rxrouter.testing import STORY, Act, Exchange, Reply, answer
from tests.chat_app.support import served, text_of
from tests.support import until

THOUGHT = "They want a story."


async def test_a_page_is_told_the_question_the_thoughts_the_text_the_bill_and_the_end() -> None:
    async with served(Reply.of(answer(STORY, reasoning=THOUGHT, cost=0.5))) as server:
        told = await server.told(await server.ask("A story?"))

    assert told[0] == {"question": {"text": "A story?", "after": None}}
    assert text_of(told, "reasoning") == THOUGHT
    assert text_of(told) == STORY
    assert {"cost": 0.5, "finish": "stop"}.items() <= told[-2].items()
    assert told[-1] == {"end": "complete"}


async def test_each_news_says_when_it_came_and_of_which_attempt_it_is() -> None:
    async with served(Reply.of(answer(STORY), rate=500)) as server:
        told = await server.told(await server.ask("A story?"))

    times = [news["at"] for news in told[1:-1]]
    assert times == sorted(times)
    assert times[-1] > 0
    assert {news["attempt"] for news in told[1:-1]} == {1}


async def test_what_is_asked_twice_under_one_key_is_paid_once() -> None:
    async with served(Reply.of(answer("Yes."))) as server:
        key = await server.ask("Once?")
        assert await server.ask("Once?", key=key) == key
        assert text_of(await server.told(key)) == "Yes."
        assert await server.ask("Once?", key=key) == key
        assert len(server.asked) == 1


async def test_a_question_is_sent_with_the_conversation_before_it() -> None:
    async with served(Reply.of(answer("Paris.", reasoning="Easy."))) as server:
        first = await server.ask("The capital of France?")
        await server.told(first)
        second = await server.ask("And its river?", first)
        await server.told(second)
        await server.told(await server.ask("And its tower?", second))

        said = [(message["role"], message["content"]) for message in server.asked[-1].json["messages"]]
        assert said == [
            ("user", "The capital of France?"),
            ("assistant", "Paris."),
            ("user", "And its river?"),
            ("assistant", "Paris."),
            ("user", "And its tower?"),
        ]
        assert server.asked[-1].json["messages"][1]["reasoning_details"][0]["text"] == "Easy."


async def test_a_stopped_answer_is_closed_at_the_model_and_is_remembered_as_far_as_it_got() -> None:
    async with served(Reply((*answer("One two three")[2:4], Act.HANG))) as server:
        key = await server.ask("Count")
        await until(lambda: bool(server.asked))
        async with server.session.get(f"{server.url}answers/{key}") as response:
            while b'"text":' not in await response.content.readline():
                pass
            await server.stop(key)
            assert b'"end":"stopped"' in await response.read()
        await server.asked[0].over.wait()
        assert server.asked[0].left_at is not None

        await server.ask("Go on", key)
        await until(lambda: len(server.asked) == 2)
        said = [message["content"] for message in server.asked[1].json["messages"]]
        assert said[0] == "Count"
        assert "One two".startswith(said[1])
        assert said[2] == "Go on"


async def test_a_reader_who_leaves_ends_nothing() -> None:
    async with served(Reply.of(answer(STORY), rate=500)) as server:
        key = await server.ask("A story?")
        async with server.session.get(f"{server.url}answers/{key}") as response:
            await response.content.readline()
        assert text_of(await server.told(key)) == STORY
        assert server.asked[0].left_at is None


async def test_a_reader_who_comes_back_is_told_the_rest() -> None:
    async with served(Reply.of(answer(STORY))) as server:
        key = await server.ask("A story?")
        told = await server.told(key)
        assert await server.told(key, last_event_id="2") == told[2:]
        async with server.session.get(f"{server.url}answers/{key}", headers={"last-event-id": "2"}) as response:
            assert (await response.read()).startswith(b"id: 3\n")  # proxies write names small


async def test_an_answer_that_is_cut_begins_anew() -> None:
    async with served(_failing(1, Reply((*answer(STORY)[:30], Act.CUT)), Reply.of(answer(STORY)))) as server:
        told = await server.told(await server.ask("A story?"))

    assert [news["restarted"] for news in told if "restarted" in news] == [2]
    assert text_of(told) == STORY
    assert told[-2]["attempt"] == 2


async def test_a_refusal_that_passes_is_seen_by_nobody() -> None:
    busy = Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "0.05"})
    async with served(_failing(1, busy, Reply.of(answer(STORY)))) as server:
        told = await server.told(await server.ask("A story?"))

    assert not [news for news in told if "restarted" in news]
    assert text_of(told) == STORY


async def test_a_failure_is_told_in_words_of_ours_with_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    refusal = Reply.error(401, "No cookie auth credentials found for sk-secret-key")
    async with served(refusal) as server:
        told = await server.told(await server.ask("A story?"))

    assert told[-2]["attempt"] == 1
    assert told[-1]["end"] == "upstream_failed"
    assert told[-1]["message"] == "The model's answer failed."
    assert "HTTP 401" in caplog.text  # for who runs the server
    assert "sk-secret-key" not in caplog.text


async def test_a_failure_that_is_long_over_is_told_as_it_was_with_the_question() -> None:
    async with served(Reply.error(402, "No money.")) as server:
        key = await server.ask("A story?")
        told = await server.told(key)
        assert await server.told(key) == told
    assert told[0]["question"]["text"] == "A story?"
    assert told[-1]["end"] == "upstream_failed"


async def test_a_question_below_an_answer_that_is_still_written_is_refused() -> None:
    async with served(Reply((*answer("One two three")[2:4], Act.HANG))) as server:
        key = await server.ask("Count")
        below = f"{server.url}answers/{'k' * 43}"
        async with server.session.put(below, json={"text": "And?", "after": key}) as response:
            assert response.status == 409
            assert "still being written" in await response.text()
        await server.stop(key)
        await server.ask("And?", key)


async def test_what_the_log_has_forgotten_of_a_conversation_is_not_told_the_model() -> None:
    async with served(Reply.of(answer("Yes.")), MemoryLog(keep_count=1)) as server:
        first = await server.ask("One?")
        await server.told(first)
        second = await server.ask("Two?", first)
        await server.told(second)
        await server.told(await server.ask("Three?", second))

        said = [message["content"] for message in server.asked[-1].json["messages"]]
        assert said == ["Two?", "Yes.", "Three?"]


async def test_a_pause_that_the_model_s_side_asks_for_is_told() -> None:
    async with served(Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "3600"})) as server:
        told = await server.told(await server.ask("A story?"))
    assert told[-1]["end"] == "rate_limited"
    assert told[-1]["retry_after"] == 3600


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b'{"text": ""}', 400),
        (b'{"text": 1}', 400),
        (b'{"text": "' + b"a" * 8_001 + b'"}', 400),
        (b'{"text": " \\n "}', 400),
        (b'{"text": "\\ud800"}', 400),
        (b'{"text": "a", "after": "too-short"}', 400),
        (b'{"text": "a", "after": "%b"}' % (b"n" * 43), 410),
        (b'{"text": "' + b"a" * 1_000_000 + b'"}', 413),
    ],
)
async def test_what_is_no_question_is_refused_and_costs_nothing(body: bytes, status: int) -> None:
    async with served(Reply.of(answer("Yes."))) as server:
        async with server.session.put(f"{server.url}answers/{'k' * 43}", data=body) as response:
            assert response.status == status
            assert response.content_type == "text/plain"
        assert [news["end"] for news in await server.told("k" * 43)] == ["unknown_generation"]
        assert server.asked == []


@pytest.mark.parametrize("key", ["short", "k" * 44, "k" * 42 + "."])
async def test_a_key_that_could_be_guessed_is_none(key: str) -> None:
    async with (
        served(Reply.of(answer("Yes."))) as server,
        server.session.put(f"{server.url}answers/{key}", json={"text": "Hi"}) as response,
    ):
        assert response.status == 404


@pytest.mark.parametrize("path", ["", "static/chat.js", "nothing", f"answers/{'k' * 43}"])
async def test_every_response_says_that_nothing_of_elsewhere_belongs_to_the_page(path: str) -> None:
    async with served(Reply.of(answer("Yes."))) as server, server.session.get(server.url + path) as response:
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert "no-cache" in response.headers["Cache-Control"]


async def test_the_page_shows_the_model_as_text() -> None:
    async with served(Reply.of(answer("Yes."))) as server, server.session.get(server.url) as response:
        page = await response.text()
    assert "simulated/&lt;model&gt;" in page
    assert "<model>" not in page


def test_it_starts_with_one_command_and_ends_with_ctrl_c() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "examples.chat_app"]
    environment = {**os.environ, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert f"http://127.0.0.1:{port}" in server.stdout.readline().decode()
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
    assert (server.returncode, said) == (0, b"")


def _failing(times: int, failure: Reply, success: Reply) -> Any:
    asked: list[Exchange] = []

    def reply(exchange: Exchange) -> Reply:
        asked.append(exchange)
        return failure if len(asked) <= times else success

    return reply
