"""The client: what it sends, when it sends it, by which connection, and what it never tells."""

from __future__ import annotations

import asyncio
import logging
import traceback
from typing import Any

import aiohttp
import pytest

from rxrouter import (
    ChatRequest,
    Comment,
    OpenRouter,
    RouterError,
    ServerSentEvent,
    StatusError,
    Timeouts,
    TransportError,
    UserMessage,
)
from rxrouter.operators import completion, text
from rxrouter.testing import COMMENT, DONE, FAULTS, Act, Reply, Simulator, answer, chunk
from tests.support import observe, served

KEY = "sk-or-v1-verysecret"
PROMPT = "my very private question"
WORDS = "one two three"
CALM = Reply.of(answer(WORDS))
FAILURES = sorted(set(FAULTS) - {"no-done", "cut-after-finish", "split", "cut-tool-call", "comments"})

# Cold


async def test_nothing_is_sent_before_somebody_subscribes() -> None:
    async with served(CALM) as (client, simulator):
        waiting = client.chat("never asked").pipe(text())
        await client.chat("asked").pipe(completion())

        assert [exchange.json["messages"][0]["content"] for exchange in simulator.exchanges] == ["asked"]
    assert waiting is not None


async def test_two_subscriptions_are_two_requests() -> None:
    async with served(CALM) as (client, simulator):
        chunks = client.chat("hi")

        first, second = await observe(chunks), await observe(chunks)

    assert len(simulator.exchanges) == 2
    assert simulator.exchanges[0].body == simulator.exchanges[1].body
    assert [c.raw for c in first.values] == [c.raw for c in second.values]


async def test_two_subscriptions_at_once_are_two_requests() -> None:
    async with served(CALM) as (client, simulator):
        chunks = client.chat("hi")

        first, second = await asyncio.gather(observe(chunks), observe(chunks))

    assert first.endings == second.endings == [None]
    assert len(simulator.exchanges) == simulator.connections == 2


# What is sent


async def test_a_request_is_a_post_with_the_key_and_the_app() -> None:
    options = {"app_url": "https://app.example", "app_title": "Café", "headers": {"X-Mine": "yes"}}
    async with served(CALM, **options) as (client, simulator):
        await client.chat("hi").pipe(completion())

    (exchange,) = simulator.exchanges
    assert (exchange.method, exchange.path) == ("POST", "/api/v1/chat/completions")
    assert exchange.headers["Authorization"] == "Bearer sk-test"
    assert exchange.headers["HTTP-Referer"] == "https://app.example"
    assert exchange.headers["X-OpenRouter-Title"] == "Café"
    assert exchange.headers["X-Mine"] == "yes"
    assert exchange.headers["Content-Type"] == "application/json"
    assert exchange.headers["Accept"] == "text/event-stream"
    assert exchange.headers["Content-Length"] == str(len(exchange.body))


async def test_headers_that_were_not_asked_for_are_not_sent() -> None:
    async with Simulator(CALM) as simulator, OpenRouter(base_url=simulator.base_url) as client:
        await client.chat("hi").pipe(completion())

    headers = simulator.exchanges[0].headers
    assert not {"Authorization", "HTTP-Referer", "X-OpenRouter-Title", "Cookie"} & set(headers)


@pytest.mark.parametrize("name", ["Authorization", "authorization"])
async def test_an_own_authorization_header_replaces_the_keys(name: str) -> None:
    async with served(CALM, headers={name: "Bearer other"}) as (client, simulator):
        await client.chat("hi").pipe(completion())

    assert simulator.exchanges[0].headers.getall("Authorization") == ["Bearer other"]


async def test_the_body_is_the_request() -> None:
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    async with served(CALM) as (client, simulator):
        chunks = client.chat(
            messages=[{"role": "system", "content": "Be brief."}, UserMessage(content="Où ? 🚀")],
            model="simulated/storyteller",
            temperature=0.5,
            tools=[tool],
            extra={"experimental": {"depth": 3}},
        )
        await chunks.pipe(completion())

    assert simulator.exchanges[0].json == {
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Où ? 🚀"}],
        "model": "simulated/storyteller",
        "temperature": 0.5,
        "tools": [tool],
        "experimental": {"depth": 3},
        "stream": True,
    }


async def test_a_string_a_request_and_keywords_ask_the_same() -> None:
    messages = [{"role": "user", "content": "hi"}]
    async with served(CALM) as (client, simulator):
        for chunks in (
            client.chat("hi", model="m"),
            client.chat(messages=messages, model="m"),
            client.chat(ChatRequest(messages=messages, model="m")),
            client.chat(ChatRequest(messages=messages, model="other"), model="m"),
        ):
            await chunks.pipe(completion())

    assert [e.json for e in simulator.exchanges] == [{"messages": messages, "model": "m", "stream": True}] * 4


@pytest.mark.parametrize(
    ("positional", "fields", "kind", "word"),
    [
        ((), {}, TypeError, "prompt"),
        (("",), {}, ValueError, "empty"),
        ((" \n",), {}, ValueError, "empty"),
        (([{"role": "user", "content": "hi"}],), {}, TypeError, "messages="),
        ((7,), {}, TypeError, "int"),
        (("hi",), {"messages": [{"role": "user", "content": "hi"}]}, TypeError, "not both"),
        ((), {"messages": []}, ValueError, "messages"),
        ((), {"messages": "hi"}, TypeError, "messages"),
        ((), {"messages": [{"role": "user"}]}, (TypeError, ValueError), "messages"),
        ((), {"messages": [{"role": "nobody", "content": "hi"}]}, ValueError, "messages"),
        (("hi",), {"temperature": 3}, ValueError, "temperature"),
        (("hi",), {"temperature": "hot"}, TypeError, "temperature"),
        (("hi",), {"temprature": 1}, TypeError, "temprature"),
        (("hi",), {"max_tokens": 0}, ValueError, "max_tokens"),
        (("hi",), {"stream": False}, (TypeError, ValueError), "stream"),
        (("hi",), {"tools": [{"type": "function"}]}, ValueError, "tools"),
        (("hi",), {"tools": [{"type": "function", "function": {"name": ""}}]}, ValueError, "tools"),
        (("hi",), {"user": object()}, TypeError, "user"),
    ],
)
async def test_bad_input_raises_where_it_is_written_and_nothing_is_sent(
    positional: tuple[Any, ...], fields: dict[str, Any], kind: type[Exception], word: str
) -> None:
    async with served(CALM) as (client, simulator):
        with pytest.raises(kind, match=word):
            client.chat(*positional, **fields)

        await client.chat("asked").pipe(completion())

    assert len(simulator.exchanges) == 1


async def test_bad_input_on_a_finished_request_raises_where_it_is_written() -> None:
    async with served(CALM) as (client, _):
        with pytest.raises(ValueError, match="temperature"):
            client.chat(ChatRequest(messages=[{"role": "user", "content": "hi"}]), temperature=3)


@pytest.mark.parametrize("megabytes", [1, 3])
async def test_a_big_prompt_is_sent_without_a_warning(megabytes: int) -> None:
    prompt = "é" * (megabytes * 500_000)
    async with served(CALM) as (client, simulator):
        whole = await client.chat(prompt).pipe(completion())

    assert whole.text == WORDS
    assert simulator.exchanges[0].json["messages"][0]["content"] == prompt


# Key and URL


def test_a_missing_key_is_an_error_of_chat_when_the_url_is_openrouters() -> None:
    client = OpenRouter()

    with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
        client.chat("hi")
    with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
        client.events("/responses", {})


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": "sk-test"},
        {"base_url": "http://localhost:11434/v1"},
        {"base_url": "https://gateway.example/api/v1"},
        {"headers": {"Authorization": "Bearer other"}},
    ],
)
def test_a_key_is_not_asked_for_where_there_is_one_or_none_is_needed(options: dict[str, Any]) -> None:
    assert OpenRouter(**options).chat("hi") is not None


async def test_key_and_url_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(CALM) as simulator:
        monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
        monkeypatch.setenv("OPENROUTER_BASE_URL", simulator.base_url + "/")
        async with OpenRouter() as client:
            await client.chat("hi").pipe(completion())

    (exchange,) = simulator.exchanges
    assert exchange.path == "/api/v1/chat/completions"
    assert exchange.headers["Authorization"] == "Bearer sk-of-the-environment"


async def test_arguments_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENROUTER_BASE_URL", "http://nowhere.example")
    async with served(CALM) as (client, simulator):
        await client.chat("hi").pipe(completion())

    assert simulator.exchanges[0].headers["Authorization"] == "Bearer sk-test"


@pytest.mark.parametrize("url", ["openrouter.ai/api/v1", "ftp://openrouter.ai", "http://", "/api/v1", "localhost:8080"])
def test_a_base_url_that_is_none_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        OpenRouter("sk-test", base_url=url)


@pytest.mark.parametrize("key", [f"{KEY}\n", f" {KEY}", f"{KEY} x", f"{KEY}\r\nX-Other: 1", f"{KEY}é", " "])
def test_a_key_with_foreign_characters_is_a_value_error_that_does_not_tell_it(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as caught:
        OpenRouter(key)

    assert KEY not in str(caught.value)


def test_a_bad_key_of_the_environment_is_a_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", f"{KEY}\n")

    with pytest.raises(ValueError, match="API key"):
        OpenRouter()


@pytest.mark.parametrize("clocks", [{"connect": 0}, {"connect": -1}, {"silence": 0}, {"silence": float("nan")}])
def test_a_clock_that_is_no_time_is_a_value_error(clocks: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(clocks))):
        Timeouts(**clocks)


@pytest.mark.parametrize("options", [{"max_event_bytes": 0}, {"max_event_bytes": -1}])
def test_a_bound_that_is_none_is_a_value_error(options: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_event_bytes"):
        OpenRouter("sk-test", **options)  # type: ignore[arg-type]


def test_timeouts_in_seconds_alone_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="Timeouts"):
        OpenRouter("sk-test", timeouts=30)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


# The connection


async def test_streams_one_after_the_other_use_one_connection() -> None:
    async with served(CALM) as (client, simulator):
        for _ in range(5):
            await client.chat("hi").pipe(completion())

    assert len(simulator.exchanges) == 5
    assert simulator.connections == 1


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(CALM) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/api/v1"))
        async with OpenRouter("sk-test", base_url="http://model.example/deep/v1") as client:
            whole = await client.chat("hi").pipe(completion())

    assert whole.text == WORDS
    assert proxy.exchanges[0].headers["Host"] == "model.example"
    assert proxy.exchanges[0].path == "/deep/v1/chat/completions"


async def test_a_proxy_is_used_for_an_address_unless_no_proxy_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(CALM) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/api/v1"))
        async with OpenRouter("sk-test", base_url="http://model.example/v1") as client:
            await client.chat("by proxy").pipe(completion())
        monkeypatch.setenv("no_proxy", "model.example")
        async with OpenRouter("sk-test", base_url="http://model.example/v1") as client:
            seen = await observe(client.chat("direct"))

    assert [e.json["messages"][0]["content"] for e in proxy.exchanges] == ["by proxy"]
    assert type(seen.endings[0]) is TransportError  # there is no such host


async def test_no_proxy_ever_sees_what_goes_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(CALM) as proxy, Simulator(CALM) as server:
        monkeypatch.setenv("http_proxy", proxy.base_url.removesuffix("/api/v1"))
        async with OpenRouter("sk-test", base_url=server.base_url) as client:
            await client.chat("direct").pipe(completion())

    assert (len(proxy.exchanges), len(server.exchanges)) == (0, 1)


async def test_a_proxys_password_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(Reply(status=407)) as proxy:
        url = proxy.base_url.removesuffix("/api/v1").replace("http://", "http://bob:proxypass@")
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", url)
            async with OpenRouter("sk-secret", base_url=f"{scheme}://model.example/v1") as client:
                error = (await observe(client.chat("hi"))).endings[0]

            assert isinstance(error, RouterError)
            told = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)
            assert "proxypass" not in told
            assert "sk-secret" not in told


@pytest.mark.parametrize("name", ["authorization", "AUTHORIZATION"])
async def test_a_header_of_yours_replaces_ours_however_it_is_written(name: str) -> None:
    async with served(CALM, headers={name: "Bearer mine"}) as (client, simulator):
        await client.chat("hi").pipe(completion())

    assert simulator.exchanges[0].headers.getall("Authorization") == ["Bearer mine"]


def test_headers_are_strings() -> None:
    with pytest.raises(TypeError, match="headers are strings"):
        OpenRouter("k", headers={"X-Number": 1})  # type: ignore[dict-item] # pyright: ignore[reportArgumentType]


async def test_a_dead_proxy_is_a_transport_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Simulator(CALM) as proxy:
        url = proxy.base_url.removesuffix("/api/v1")
    monkeypatch.setenv("HTTP_PROXY", url)
    async with OpenRouter("sk-test", base_url="http://model.example/v1") as client:
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert type(error) is TransportError
    assert error.phase == "connect"


async def test_an_own_session_is_used_and_not_closed() -> None:
    async with Simulator(CALM) as simulator, aiohttp.ClientSession(headers={"X-Session": "mine"}) as session:
        async with OpenRouter("sk-test", base_url=simulator.base_url, session=session) as client:
            await client.chat("hi").pipe(completion())

        assert not session.closed
    assert simulator.exchanges[0].headers["X-Session"] == "mine"
    assert simulator.exchanges[0].headers["Authorization"] == "Bearer sk-test"


async def test_an_own_sessions_limits_do_not_cut_a_stream() -> None:
    slow = Reply([step for event in answer(WORDS) for step in (0.05, event)])
    async with (
        Simulator(slow) as simulator,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.1, sock_read=0.01)) as session,
        OpenRouter("sk-test", base_url=simulator.base_url, session=session) as client,
    ):
        whole = await client.chat("hi").pipe(completion())

    assert whole.text == WORDS


@pytest.mark.parametrize(("fault", "status"), [("401", 401), ("429", 429)])
async def test_a_status_is_a_status_error_also_by_a_session_that_raises_for_it(fault: str, status: int) -> None:
    async with (
        Simulator(fault=fault) as simulator,
        aiohttp.ClientSession(raise_for_status=True) as session,
        OpenRouter(KEY, base_url=simulator.base_url, session=session) as client,
    ):
        seen = await observe(client.chat(PROMPT))

    error = seen.endings[0]
    assert type(error) is StatusError
    assert error.status == status
    assert_discreet(everything_of(error))


# Events


async def test_events_are_events_and_comments_as_they_come() -> None:
    body = [COMMENT, b"event: response.created\nid: 7\ndata: {}\n\n", b": keepalive\n\n", b"data: a\ndata: b\n\n", DONE]
    async with served(Reply(body)) as (client, simulator):
        seen = await observe(client.events("/responses", {"input": "hi", "stream": True}))

    assert seen.values == [
        Comment(" OPENROUTER PROCESSING"),
        ServerSentEvent("response.created", "{}", "7"),
        Comment(" keepalive"),
        ServerSentEvent("message", "a\nb", "7"),
        ServerSentEvent("message", "[DONE]", "7"),
    ]
    assert seen.endings == [None]
    (exchange,) = simulator.exchanges
    assert (exchange.method, exchange.path) == ("POST", "/api/v1/responses")
    assert exchange.json == {"input": "hi", "stream": True}
    assert exchange.headers["Authorization"] == "Bearer sk-test"


@pytest.mark.parametrize("body", [[], [DONE], [b"data: {\n\n"], [DONE, b"data: after\n\n"], [b"data: unfinished"]])
async def test_events_complete_at_the_end_of_the_body_whatever_they_say(body: list[bytes]) -> None:
    async with served(Reply(body)) as (client, _):
        seen = await observe(client.events("/x", {}))

    assert seen.endings == [None]
    assert len(seen.values) == b"".join(body).count(b"\n\n")


async def test_events_that_are_cut_are_a_transport_error() -> None:
    async with served(Reply([*answer(WORDS), 0.02, Act.CUT])) as (client, _):
        seen = await observe(client.events("/x", {}))

    error = seen.endings[0]
    assert type(error) is TransportError
    assert error.chunks_seen == len(seen.values) == len(answer(WORDS))


@pytest.mark.parametrize("fault", ["401", "html"])
async def test_events_of_a_status_are_a_status_error(fault: str) -> None:
    async with served(fault=fault) as (client, _):
        seen = await observe(client.events("/x", {}))

    assert type(seen.endings[0]) is StatusError


def test_events_of_no_path_or_no_json_raise_where_they_are_written() -> None:
    client = OpenRouter("sk-test")

    with pytest.raises(ValueError, match="slash"):
        client.events("responses", {})
    with pytest.raises(TypeError):
        client.events("/responses", {"input": object()})


@pytest.mark.parametrize("megabytes", [1, 5])
async def test_a_big_single_event_arrives(megabytes: int) -> None:
    content = "é" * (megabytes * 500_000)
    async with served(Reply([chunk({"content": content}), *answer("")[-3:]])) as (client, _):
        whole = await client.chat("hi").pipe(completion())

    assert whole.text == content


# Discretion


def everything_of(error: BaseException) -> str:
    """All that a log, a debugger or a crash reporter prints of an error by default."""
    told = ["".join(traceback.format_exception(error))]
    at: BaseException | None = error
    while at is not None:
        told += [repr(at), str(at), repr(at.args), repr(vars(at))]
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return "\n".join(told)


def assert_discreet(told: str) -> None:
    assert KEY not in told
    assert PROMPT not in told


@pytest.mark.parametrize("fault", FAILURES)
async def test_no_failure_tells_the_key_or_the_prompt(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Simulator(fault=fault) as simulator:
        clocks = Timeouts(silence=0.1)
        async with OpenRouter(KEY, base_url=simulator.base_url, timeouts=clocks) as client:
            seen = await observe(client.chat(PROMPT).pipe(completion()))

    error = seen.endings[0]
    assert error is not None
    assert_discreet(everything_of(error))
    assert_discreet(caplog.text)


async def test_no_failure_to_connect_tells_the_key_or_the_prompt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with Simulator() as simulator:
        url = simulator.base_url
    async with OpenRouter(KEY, base_url=url) as client:
        seen = await observe(client.chat(PROMPT))

    error = seen.endings[0]
    assert type(error) is TransportError
    assert_discreet(everything_of(error))
    assert_discreet(caplog.text)


async def test_an_unhandled_failure_does_not_tell_the_key_or_the_prompt() -> None:
    async with Simulator(fault="401") as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        with pytest.raises(StatusError) as caught:
            await client.chat(PROMPT).pipe(completion())

    assert_discreet("".join(repr(at) + str(at) for at in (caught.value, caught.value.__cause__)))


async def test_no_repr_tells_the_key_or_the_prompt() -> None:
    async with Simulator(CALM) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        request = ChatRequest(messages=[{"role": "user", "content": PROMPT}])
        chunks = client.chat(request)
        subscription = chunks.subscribe()
        told = [client, request, UserMessage(content=PROMPT), chunks, chunks.pipe(text()), chunks.iterate()]
        told += [subscription, *asyncio.all_tasks()]
        await subscription.aclose()

    assert_discreet("\n".join(f"{thing!r} {thing!s}" for thing in told))


async def test_bad_input_is_told_without_the_prompt() -> None:
    client = OpenRouter(KEY)

    for fields in ({"temperature": 3}, {"messages": [{"role": "nobody", "content": PROMPT}]}, {"stop": {"a": PROMPT}}):
        with pytest.raises((TypeError, ValueError)) as caught:
            client.chat(**{"messages": [{"role": "user", "content": PROMPT}], **fields})
        assert PROMPT not in str(caught.value)


def test_the_password_of_a_url_is_not_told_by_repr() -> None:
    client = OpenRouter(base_url=f"http://user:{KEY}@model.example/v1")

    assert_discreet(repr(client))


@pytest.mark.parametrize("url", ["http://user:s3cret@127.0.0.1:99999", "http://a..b", f"http://{'x' * 70}.example"])
def test_an_address_that_is_none_is_refused_where_it_is_written(url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url is no http\(s\) URL$"):
        OpenRouter("k", base_url=url)


@pytest.mark.parametrize("name", ["api_key", "base_url", "app_url", "app_title"])
def test_an_argument_that_is_no_text_is_refused_by_name(name: str) -> None:
    arguments: dict[str, Any] = {name: 5}

    with pytest.raises(TypeError, match=f"^{name} is a string, not int$"):
        OpenRouter(**arguments)


async def test_what_extra_says_of_n_is_for_the_server_to_judge() -> None:
    async with served(CALM) as (client, simulator):
        seen = await observe(client.chat("hi", extra={"n": "many"}))

    assert seen.endings == [None]
    assert simulator.exchanges[0].json["n"] == "many"
