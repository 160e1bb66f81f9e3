"""The seven failures that every measured client gets wrong somewhere, each as a promise kept."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from reactivex import operators as ops

from rxrouter import ChatChunk, StreamError, Timeouts, TransportError, TruncatedStreamError
from rxrouter.operators import completion, text
from rxrouter.testing import COMMENT, DONE, Act, Reply, Step, answer, chunk
from tests.support import Observed, observe, served

WORDS = "one two three"
SPOKEN = answer(WORDS, comments=0)[:-3]
ARGUMENTS = '{"path": "/tmp/old", "recursive": true}'
CALLED = answer("", tool_calls=[("delete_files", ARGUMENTS)], comments=0)[:-3]  # the whole call, and no finish
FOR_EVER: list[Step] = [COMMENT, 0.02] * 5_000


async def test_a_clean_end_of_the_body_without_a_finish_is_never_a_success() -> None:
    async with served(Reply(SPOKEN)) as (client, _):
        seen = await observe(client.chat("hi").pipe(completion()))

    error = seen.endings[0]
    assert type(error) is TruncatedStreamError
    assert seen.values == []
    assert error.partial.text == WORDS
    assert error.partial.finish_reason is None


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
async def test_a_cut_socket_is_a_typed_error_that_says_how_far_it_got(act: Act) -> None:
    async with served(Reply([*SPOKEN, 0.02, act])) as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert type(error) is TransportError
    assert error.phase == "read"
    assert error.__cause__ is not None
    assert error.chunks_seen == len(seen.values) == len(SPOKEN)


async def test_an_error_chunk_in_the_stream_is_raised_with_its_code() -> None:
    async with served(fault="error-late") as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert type(error) is StreamError
    assert (error.code, error.error_type) == (503, "provider_overloaded")
    assert error.usage.cost == 0.0001


@pytest.mark.parametrize(
    "reply",
    [Reply(FOR_EVER), Reply([*SPOKEN, *FOR_EVER]), Reply([Act.HANG]), Reply(before=[Act.HANG])],
    ids=["comments", "comments-after-content", "silence", "no-headers"],
)
async def test_a_stock_timeout_ends_a_stream_without_progress_and_starts_no_thread(reply: Reply) -> None:
    threads = set(threading.enumerate())
    started: list[threading.Thread] = []
    words = Observed[str]()

    def look(word: str) -> None:
        started.extend(set(threading.enumerate()) - threads)
        words.on_next(word)

    async with served(reply, timeouts=Timeouts(silence=None)) as (client, simulator):
        chain = client.chat("hi").pipe(text(), ops.timeout(0.3))
        chain.subscribe(look, words.on_error, words.on_completed)
        started.extend(set(threading.enumerate()) - threads)
        await words.over.wait()
        started.extend(set(threading.enumerate()) - threads)
        await simulator.exchanges[0].over.wait()

    assert len(words.endings) == 1
    assert words.endings[0] is not None
    assert "".join(words.values) in {"", WORDS}
    assert simulator.exchanges[0].left_at is not None
    assert started == []


async def test_tool_arguments_cut_by_the_token_limit_stay_as_received() -> None:
    cut = CALLED[:-2]  # the last pieces of the arguments never come
    tail = [chunk(finish="tool_calls", native="length"), chunk(finish="tool_calls", native="length", usage={}), DONE]
    async with served(Reply([*cut, *tail])) as (client, _):
        whole = await client.chat("hi").pipe(completion())

    assert whole.finish_reason == "tool_calls"
    assert whole.native_finish_reason == "length"
    assert (whole.state, whole.tool_calls) == ("incomplete", [])
    (call,) = whole.partial_tool_calls
    assert call.function.name == "delete_files"
    assert call.function.arguments
    assert ARGUMENTS.startswith(call.function.arguments)
    assert call.function.arguments != ARGUMENTS
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.function.arguments)
    assert whole.message.tool_calls is None


@pytest.mark.parametrize("pieces", [CALLED, CALLED[:-2]], ids=["whole-call", "half-a-call"])
async def test_a_tool_call_cut_by_the_end_of_the_body_is_truncated(pieces: list[bytes]) -> None:
    async with served(Reply(pieces)) as (client, _):
        seen = await observe(client.chat("hi").pipe(completion()))

    error = seen.endings[0]
    assert type(error) is TruncatedStreamError
    assert seen.values == []
    assert error.partial.tool_calls == []
    (call,) = error.partial.partial_tool_calls
    assert ARGUMENTS.startswith(call.function.arguments)


async def test_leaving_async_for_closes_the_request_though_the_observable_is_kept() -> None:
    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        chunks = client.chat("hi")

        async for _ in chunks:
            break
        await simulator.exchanges[0].over.wait()

    assert simulator.exchanges[0].left_at is not None
    assert chunks is not None


async def test_leaving_async_for_over_a_chain_closes_the_request() -> None:
    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        words = client.chat("hi").pipe(text())

        async for word in words:
            if word:
                break
        await simulator.exchanges[0].over.wait()

    assert simulator.exchanges[0].left_at is not None
    assert words is not None


async def test_an_exception_in_the_body_of_async_for_closes_the_request() -> None:
    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        chunks = client.chat("hi")

        async def read() -> None:
            async for _ in chunks:
                raise ValueError("boom")

        with pytest.raises(ValueError, match="boom"):
            await read()
        await simulator.exchanges[0].over.wait()

    assert simulator.exchanges[0].left_at is not None


async def test_cancelling_the_task_that_iterates_closes_the_request() -> None:
    async with served(Reply([*SPOKEN, Act.HANG])) as (client, simulator):
        chunks = client.chat("hi")
        heard = asyncio.Event()

        async def read() -> None:
            async for _ in chunks:
                heard.set()

        task = asyncio.create_task(read())
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await simulator.exchanges[0].over.wait()

    assert simulator.exchanges[0].left_at is not None


async def test_four_thousand_chunks_arrive_all_and_in_order() -> None:
    events = [chunk({"content": f"{number} "}) for number in range(4_000)]
    async with served(Reply([*events, *answer("")[-3:]])) as (client, _):
        pushed: Observed[ChatChunk] = await observe(client.chat("hi"))
        pulled = [chunk async for chunk in client.chat("hi")]

    expected = [f"{number} " for number in range(4_000)] + ["", ""]
    assert [c.choices[0].delta.content for c in pushed.values] == expected
    assert [c.choices[0].delta.content for c in pulled] == expected
    assert pushed.endings == [None]
