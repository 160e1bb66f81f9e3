"""Where requests go: the base URL with its query, the headers of a caller, and which server gets which key."""

from __future__ import annotations

from typing import Any

import pytest

from rxrouter import OpenRouter
from rxrouter._source.request import Outgoing
from rxrouter.testing import Reply, Simulator, answer
from tests.support import observe

CALM = Reply(answer("one two three"))
FRAMING = [
    *("Content-Length", "content-length", "Host", "Transfer-Encoding", "Content-Encoding", "Connection", "Keep-Alive"),
    *("Upgrade", "TE", "Trailer", "Expect", "Proxy-Connection"),
]


async def test_path_goes_before_the_query_when_the_base_url_has_one() -> None:
    async with (
        Simulator(CALM) as simulator,
        OpenRouter("k", base_url=f"{simulator.base_url}/deployments/gpt/?api-version=2024-10-21&x=a%2Fb") as client,
    ):
        await observe(client.chat("hi"))
        await observe(client.events("/responses", {"stream": True}))
        await observe(client.events("/responses?after=3", {"stream": True}))
        await observe(client.models())
        await observe(client.generation("gen 1"))
        await observe(client.key())

    assert [(exchange.path.removeprefix("/api/v1"), dict(exchange.query)) for exchange in simulator.exchanges] == [
        ("/deployments/gpt/chat/completions", {"api-version": "2024-10-21", "x": "a/b"}),
        ("/deployments/gpt/responses", {"api-version": "2024-10-21", "x": "a/b"}),
        ("/deployments/gpt/responses", {"api-version": "2024-10-21", "x": "a/b", "after": "3"}),
        ("/deployments/gpt/models", {"api-version": "2024-10-21", "x": "a/b"}),
        ("/deployments/gpt/generation", {"api-version": "2024-10-21", "x": "a/b", "id": "gen 1"}),
        ("/deployments/gpt/key", {"api-version": "2024-10-21", "x": "a/b"}),
    ]


@pytest.mark.parametrize("url", ["https://model.example/v1#part", "https://model.example/v1#", "http://h/v1?a=1#b"])
def test_base_url_is_refused_when_it_has_a_fragment(url: str) -> None:
    with pytest.raises(ValueError, match=r"^base_url must be a URL without a fragment"):
        OpenRouter("k", base_url=url)


def test_path_is_refused_when_it_has_a_fragment() -> None:
    with pytest.raises(ValueError, match=r"^path must have no fragment, got '/responses#3'$"):
        OpenRouter("k").events("/responses#3", {})


def test_repr_leaves_out_the_query_when_the_base_url_has_one() -> None:
    client = OpenRouter(base_url="https://user@model.example/v1?key=sk-secret")

    assert repr(client) == "OpenRouter(base_url='https://model.example/v1')"


@pytest.mark.parametrize("name", ["", "X Name", "X-Näme", "X:", "X\r\nY", "(x)", "X-\x00", "X-Name "])
def test_headers_are_refused_when_a_name_is_no_token(name: str) -> None:
    with pytest.raises(ValueError, match=r"^headers must have names of letters, digits and .*, got "):
        OpenRouter("k", headers={name: "value"})


@pytest.mark.parametrize("name", FRAMING)
def test_headers_are_refused_when_they_belong_to_the_connection(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^headers must leave the connection .* to the client, got '{name}'"):
        OpenRouter("k", headers={name: "5"})


def test_headers_are_refused_when_one_is_given_twice() -> None:
    with pytest.raises(ValueError, match=r"^headers must have each name once, got 'x-one' and 'X-One'$"):
        OpenRouter("k", headers={"x-one": "1", "X-One": "2"})


@pytest.mark.parametrize("options", [{"headers": {"X-One": "sk-secret\n"}}, {"app_title": "sk-secret\n"}])
def test_header_is_refused_without_its_value_when_that_is_not_printable(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must have printable values") as caught:
        OpenRouter("k", **options)

    assert "sk-secret" not in str(caught.value)


async def _key_sent(simulator: Simulator, **options: Any) -> str | None:
    async with OpenRouter(**options) as client:
        await observe(client.chat("hi"))
        await observe(client.models())
    sent = {exchange.headers.get("Authorization") for exchange in simulator.exchanges}
    assert len(sent) == 1
    return sent.pop()


async def test_key_of_the_environment_is_not_sent_when_code_names_another_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    async with Simulator(CALM) as simulator:
        assert await _key_sent(simulator, base_url=simulator.base_url) is None


async def test_key_of_the_environment_is_not_sent_when_code_overrules_the_environments_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    monkeypatch.setenv("OPENROUTER_BASE_URL", "https://model.example/v1")
    async with Simulator(CALM) as simulator:
        assert await _key_sent(simulator, base_url=simulator.base_url) is None


async def test_key_of_the_environment_is_sent_when_the_server_comes_from_there_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    async with Simulator(CALM) as simulator:
        monkeypatch.setenv("OPENROUTER_BASE_URL", simulator.base_url)
        assert await _key_sent(simulator) == "Bearer sk-of-the-environment"


async def test_key_given_in_code_is_sent_when_code_names_another_server() -> None:
    async with Simulator(CALM) as simulator:
        assert await _key_sent(simulator, api_key="sk-mine", base_url=simulator.base_url) == "Bearer sk-mine"


def _sends_the_environments_key(url: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-of-the-environment")
    outgoing: list[Outgoing] = []
    client = OpenRouter(base_url=url)

    def note(url: str, headers: dict[str, str]) -> Outgoing:
        outgoing.append(Outgoing(url, headers))
        return outgoing[-1]

    monkeypatch.setattr("rxrouter._source.client.Outgoing", note)
    client.models()
    return "Authorization" in outgoing[0].headers


@pytest.mark.parametrize("host", ["openrouter.ai", "OpenRouter.ai:443", "eu.openrouter.ai"])
def test_key_of_the_environment_is_sent_when_code_names_openrouters_own_host(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _sends_the_environments_key(f"https://{host}/api/v1", monkeypatch)


@pytest.mark.parametrize(
    "origin", ["https://openrouter.ai.model.example", "https://notopenrouter.ai", "http://openrouter.ai"]
)
def test_key_of_the_environment_is_not_sent_when_a_host_only_looks_like_openrouters(
    origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not _sends_the_environments_key(f"{origin}/api/v1", monkeypatch)
