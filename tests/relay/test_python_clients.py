"""The SDKs of others, and our own client, reading what a relay says to them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import openai
import openrouter
import openrouter.errors
import pytest

from rxrouter import OpenRouter, StatusError, StreamError
from rxrouter.operators import completion
from rxrouter.testing import STORY, Reply, answer
from tests.relay.support import relay_of

both = pytest.mark.parametrize("server", ["aiohttp", "starlette"])
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}


@asynccontextmanager
async def by_openai(port: int) -> AsyncGenerator[Any]:
    """The chunks that the client of OpenAI gives."""
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x", max_retries=0) as client:
        create: Any = client.chat.completions.create
        yield await create(**ASKED)


@asynccontextmanager
async def by_openrouter(port: int) -> AsyncGenerator[Any]:
    """The chunks that the SDK of OpenRouter gives."""
    async with openrouter.OpenRouter(server_url=f"http://127.0.0.1:{port}/v1", api_key="x") as client:
        send: Any = client.chat.send_async
        async with await send(**ASKED, retries=None) as chunks:
            yield chunks


async def text_of(chunks: Any) -> str:
    return "".join([choice.delta.content or "" async for chunk in chunks for choice in chunk.choices])


@both
async def test_openai_reads_the_answer(server: str) -> None:
    async with relay_of(server) as (_, front, _), by_openai(front.port) as chunks:
        assert await text_of(chunks) == STORY


@both
@pytest.mark.parametrize("fault", ["cut", "truncate", "error-late"])
async def test_openai_raises_on_a_failure_in_the_middle(server: str, fault: str) -> None:
    async with relay_of(server, fault=fault) as (_, front, _), by_openai(front.port) as chunks:
        with pytest.raises(openai.APIError, match=r"failed|overloaded"):
            await text_of(chunks)


@both
@pytest.mark.parametrize(("fault", "kind"), [("429", openai.RateLimitError), ("404", openai.NotFoundError)])
async def test_openai_raises_its_own_error_for_a_status(server: str, fault: str, kind: type[Exception]) -> None:
    async with relay_of(server, fault=fault) as (_, front, _):
        with pytest.raises(kind):
            await by_openai(front.port).__aenter__()


async def test_openai_folds_the_tool_calls() -> None:
    reply = Reply.of(answer("", tool_calls=[("go", '{"to": "Oslo"}')]))
    async with relay_of("aiohttp", reply) as (_, front, _), by_openai(front.port) as chunks:
        calls: list[Any] = [call async for chunk in chunks for call in chunk.choices[0].delta.tool_calls or ()]
    assert "".join(call.function.arguments for call in calls) == '{"to": "Oslo"}'


@both
async def test_openai_reads_the_finish_reason_length_when_a_tool_call_is_cut(server: str) -> None:
    whole = answer("", tool_calls=[("go", '{"to": "Oslo"}')])
    pieces = [event for event in whole if b"Oslo" not in event and b'"}' not in event.partition(b'"arguments":')[2][:6]]
    async with relay_of(server, Reply.of(pieces)) as (_, front, _), by_openai(front.port) as chunks:
        finishes = {choice.finish_reason async for chunk in chunks for choice in chunk.choices}
    assert finishes == {None, "length"}


@both
async def test_openai_s_helper_folds_what_was_coalesced(server: str) -> None:
    reply = Reply.of(answer("Hello, world.", reasoning="Hm.", tool_calls=[("go", '{"to": "Oslo"}')]))
    async with (
        relay_of(server, reply, coalesce=0.05) as (_, front, _),
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="x", max_retries=0) as client,
        client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "hello"}]) as stream,
    ):
        message = (await stream.get_final_completion()).choices[0].message
    assert message.content == "Hello, world."
    assert [call.function.arguments for call in message.tool_calls or ()] == ['{"to": "Oslo"}']


@both
async def test_openrouter_s_sdk_reads_the_answer(server: str) -> None:
    async with relay_of(server) as (_, front, _), by_openrouter(front.port) as chunks:
        assert await text_of(chunks) == STORY


@both
async def test_openrouter_s_sdk_finds_the_failure_in_the_last_chunk_as_of_openrouter(server: str) -> None:
    async with relay_of(server, fault="error-late") as (_, front, _), by_openrouter(front.port) as chunks:
        (*_, last) = [chunk async for chunk in chunks]
    assert last.error.code == 503
    assert last.choices[0].finish_reason == "error"


async def test_openrouter_s_sdk_raises_its_own_error_for_a_status() -> None:
    async with relay_of("aiohttp", fault="429") as (_, front, _):
        with pytest.raises(openrouter.errors.TooManyRequestsResponseError):
            await by_openrouter(front.port).__aenter__()


@both
async def test_a_relay_can_be_relayed(server: str) -> None:
    async with relay_of(server) as (_, front, _), OpenRouter(base_url=f"http://127.0.0.1:{front.port}/v1") as client:
        assert (await client.chat("hello", model="m").pipe(completion())).text == STORY


async def test_our_own_client_gets_our_own_errors() -> None:
    for fault, kind in (("cut", StreamError), ("429", StatusError)):
        async with (
            relay_of("aiohttp", fault=fault) as (_, front, _),
            OpenRouter(base_url=f"http://127.0.0.1:{front.port}/v1") as client,
        ):
            with pytest.raises(kind) as caught:
                await client.chat("hello", model="m")
            assert getattr(caught.value, "retry_after", None) == (7 if fault == "429" else None)
