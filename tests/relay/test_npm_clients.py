"""The readers that pages have, and nobody here wrote: `ai` and `@ag-ui/client` of npm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import reactivex

from rxrouter import Restarted, StreamError
from rxrouter._errors import GenerationStopped
from rxrouter.relay import AGUI, UIMessages
from rxrouter.sharing import Hub
from rxrouter.testing import Reply, answer
from tests.operators.support import chunk, finished
from tests.relay.npm_support import installed, told
from tests.relay.support import relay_of, relayed

CALLS = [("go", '{"to": "Oslo"}'), ("now", "")]
WHOLE = Reply.of(answer("Hello, world.", reasoning="Let me think.", tool_calls=CALLS, cost=0.01))
TWICE = (
    chunk({"reasoning": "Hm."}),
    chunk({"content": "bad "}),
    Restarted(attempt=2, cause=StreamError(502)),
    finished({"content": "good"}),
)
QUESTION = {"id": "question", "role": "user", "content": "hello"}


@pytest.fixture(scope="session")
def npm() -> Path:
    return installed()


def agent() -> AGUI:
    return AGUI("thread", "run", messages=[QUESTION])


def parts_of(chat: Any) -> list[Any]:
    (_, message) = chat["messages"]
    return [part for part in message["parts"] if part["type"] != "step-start"]


@pytest.mark.parametrize("server", ["aiohttp", "starlette"])
async def test_a_chat_of_ai_shows_all_and_runs_the_calls(npm: Path, server: str) -> None:
    async with relay_of(server, WHOLE, dialect=UIMessages) as (_, front, _):
        chat = await told(npm, "chat.mjs", front.url)
    assert chat["status"] == "ready"
    assert chat["errors"] == []
    assert chat["finish"]["finishReason"] == "tool-calls"
    assert chat["calls"] == [{"name": "go", "input": {"to": "Oslo"}}, {"name": "now", "input": {}}]
    thought, text, go, now, usage = parts_of(chat)
    assert (thought["type"], thought["text"], thought["state"]) == ("reasoning", "Let me think.", "done")
    assert (text["type"], text["text"], text["state"]) == ("text", "Hello, world.", "done")
    assert (go["type"], go["state"]) == ("tool-go", "input-available")
    assert (now["type"], now["state"]) == ("tool-now", "input-available")
    assert usage["data"]["cost"] == 0.01


async def test_a_chat_of_ai_shows_sources_and_pictures(npm: Path) -> None:
    source = {"type": "url_citation", "url_citation": {"url": "https://example.com/", "title": "An example"}}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, "index": 0}
    chunks = reactivex.of(finished({"content": "See:", "annotations": [source], "images": [picture]}))
    async with relayed("aiohttp", lambda: chunks, dialect=UIMessages) as front:
        _, url, file = parts_of(await told(npm, "chat.mjs", front.url))
    assert (url["type"], url["url"], url["title"]) == ("source-url", "https://example.com/", "An example")
    assert (file["type"], file["mediaType"]) == ("file", "image/png")


async def test_a_chat_of_ai_runs_no_call_that_was_cut(npm: Path) -> None:
    async with relay_of("aiohttp", fault="cut-tool-call", dialect=UIMessages) as (_, front, _):
        chat = await told(npm, "chat.mjs", front.url)
    assert chat["calls"] == []
    (call,) = parts_of(chat)
    assert call["state"] == "output-error"
    assert chat["errors"] == [call["errorText"]] == ["The answer was cut in a tool call."]


CALLED = chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "go", "arguments": '{"to":'}}]})
LENGTH = chunk({})
LENGTH.choices[0].finish_reason = "length"


@pytest.mark.parametrize(
    "chunks",
    [
        reactivex.of(CALLED, LENGTH),
        reactivex.of(CALLED),
        reactivex.concat(reactivex.of(CALLED), reactivex.throw(GenerationStopped())),
        reactivex.concat(reactivex.of(CALLED), reactivex.throw(StreamError(502))),
    ],
    ids=["length", "no reason", "stop", "failure"],
)
async def test_a_chat_of_ai_that_sends_results_by_itself_does_not_send_a_cut_call(npm: Path, chunks: Any) -> None:
    async with relayed("aiohttp", lambda: chunks, dialect=UIMessages) as front:
        chat = await told(npm, "chat.mjs", front.url, "agent")
    assert chat["posts"] == 1
    assert chat["calls"] == []


async def test_a_chat_of_ai_is_told_no_reason_that_nobody_gave(npm: Path) -> None:
    # The answer is proven by [DONE] alone.
    reply = Reply.of([event for event in answer("x") if b'"finish_reason":"stop"' not in event])
    async with relay_of("aiohttp", reply, dialect=UIMessages) as (_, front, _):
        chat = await told(npm, "chat.mjs", front.url)
    assert chat["status"] == "ready"
    assert "finishReason" not in chat["finish"]


@pytest.mark.parametrize(
    ("fault", "said"), [("cut", True), ("error-late", True), ("429", False), ("error-first", False)]
)
async def test_a_chat_of_ai_hears_of_every_failure(npm: Path, fault: str, said: bool) -> None:  # noqa: FBT001
    async with relay_of("aiohttp", fault=fault, dialect=UIMessages) as (_, front, _):
        chat = await told(npm, "chat.mjs", front.url)
    assert chat["status"] == "error"
    assert len(chat["errors"]) == 1
    assert chat["finish"]["isError"]
    assert len(chat["messages"]) == 1 + said


async def test_a_chat_of_ai_takes_back_what_is_void(npm: Path) -> None:
    async with relayed("aiohttp", lambda: reactivex.of(*TWICE), dialect=UIMessages) as front:
        chat = await told(npm, "chat.mjs", front.url)
    assert [(part["type"], part["text"]) for part in parts_of(chat)] == [("text", "good")]


async def test_a_chat_of_ai_knows_a_stop_from_a_failure(npm: Path) -> None:
    chunks = reactivex.concat(reactivex.of(chunk({"content": "half"})), reactivex.throw(GenerationStopped()))
    async with relayed("aiohttp", lambda: chunks, dialect=UIMessages) as front:
        chat = await told(npm, "chat.mjs", front.url)
    assert chat["errors"] == []
    assert not chat["finish"]["isError"]
    assert parts_of(chat)[0]["text"] == "half"


async def test_a_chat_of_ai_that_comes_back_gets_all_of_it(npm: Path) -> None:
    async with Hub() as hub:
        hub.start("key", reactivex.of(*TWICE))
        options = {"dialect": lambda: UIMessages("answer"), "hub": hub}
        async with relayed("aiohttp", lambda: None, **options) as front:
            chat = await told(npm, "chat.mjs", front.keyed_url, "resume")
    (message,) = chat["messages"]
    assert message["id"] == "answer"
    assert message["parts"][-1]["text"] == "good"


@pytest.mark.parametrize("server", ["aiohttp", "starlette"])
async def test_an_agent_of_ag_ui_shows_all_and_leaves_the_calls_pending(npm: Path, server: str) -> None:
    async with relay_of(server, WHOLE, dialect=agent) as (_, front, _):
        run = await told(npm, "agent.mjs", front.url)
    assert run["thrown"] is None
    assert run["errors"] == []
    assert run["finish"]["outcome"] == "success"
    assert run["finish"]["pendingToolCallIds"] == ["call_0", "call_1"]
    assert run["finish"]["usage"][0]["outputTokens"] == 5
    assert run["usage"]["cost"] == 0.01
    question, thought, answered = run["messages"]
    assert question == QUESTION
    assert thought["content"] == "Let me think."
    assert answered["content"] == "Hello, world."
    assert [call["function"]["arguments"] for call in answered["toolCalls"]] == ['{"to": "Oslo"}', "{}"]


@pytest.mark.parametrize("fault", ["cut", "error-late", "cut-tool-call"])
async def test_an_agent_of_ag_ui_hears_of_every_failure_in_the_middle(npm: Path, fault: str) -> None:
    async with relay_of("aiohttp", fault=fault, dialect=agent) as (_, front, _):
        run = await told(npm, "agent.mjs", front.url)
    assert run["events"][-1] == "RUN_ERROR"
    assert len(run["errors"]) == 1
    assert "TOOL_CALL_END" not in run["events"]


async def test_an_agent_of_ag_ui_hears_of_a_failure_before_the_first_content(npm: Path) -> None:
    async with relay_of("aiohttp", fault="429", dialect=agent) as (_, front, _):
        run = await told(npm, "agent.mjs", front.url)
    assert "HTTP 429" in run["thrown"]


async def test_an_agent_of_ag_ui_takes_back_what_is_void(npm: Path) -> None:
    async with relayed("aiohttp", lambda: reactivex.of(*TWICE), dialect=agent) as front:
        run = await told(npm, "agent.mjs", front.url)
    assert run["finish"]["outcome"] == "success"
    assert [message["content"] for message in run["messages"]] == ["hello", "", "good"]


async def test_an_agent_of_ag_ui_knows_a_stop_from_a_failure(npm: Path) -> None:
    chunks = reactivex.concat(reactivex.of(chunk({"content": "half"})), reactivex.throw(GenerationStopped()))
    async with relayed("aiohttp", lambda: chunks, dialect=agent) as front:
        run = await told(npm, "agent.mjs", front.url)
    assert run["finish"]["outcome"] == "cancelled"
    assert run["errors"] == []
