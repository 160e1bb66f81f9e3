"""Which sources prove the answer of a chain: those whose values it gets, and no others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import Observable, abc, operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxrouter import (
    ChatChunk,
    ChatCompletion,
    Choice,
    Delta,
    FunctionDelta,
    IncompleteToolCallError,
    Limiter,
    RetryPolicy,
    StreamError,
    ToolCallDelta,
)
from rxrouter._chain import SourceProof
from rxrouter.operators import completion, fallback, limit, retry_transient, share_generation, snapshots, tool_calls
from rxrouter.sharing import Hub
from rxrouter.testing import Act, Exchange, Reply, answer, chunk, event
from tests.support import Observed, observe, served, until

WORDS = "one two three"


def from_elsewhere(*words: str, finish: str | None = "stop") -> list[ChatChunk]:
    """Chunks of an answer that no client of this library has received."""
    said = [ChatChunk(choices=[Choice(delta=Delta(content=word))]) for word in words]
    return [*said, ChatChunk(choices=[Choice(finish_reason=finish)])]


def hanging_beside(asked: Exchange) -> Reply:
    """An answer to the question "hi"; any other is still open when that answer ends."""
    whole = answer(WORDS)
    return Reply(whole) if b'"hi"' in asked.body else Reply([*whole[:3], Act.HANG])


@pytest.mark.parametrize("place", ["subscriber", "operator"])
async def test_completion_is_complete_when_a_callback_has_begun_another_request(place: str) -> None:
    async with served(hanging_beside) as (client, simulator):
        others: list[abc.DisposableBase] = []

        def ask_another(_: object) -> None:
            if not others:
                others.append(client.chat("another", model="m").subscribe(lambda _: None, lambda _: None))

        chat = client.chat("hi", model="m")
        if place == "operator":
            seen = await observe(chat.pipe(ops.do_action(ask_another), completion()))
        else:
            seen = await observe(chat.pipe(snapshots(), ops.do_action(ask_another)))

        assert seen.endings == [None]
        assert (seen.values[-1].state, seen.values[-1].text) == ("complete", WORDS)
        await until(lambda: len(simulator.exchanges) == 2)
        others[0].dispose()


async def test_generation_is_complete_when_a_callback_has_begun_another_request() -> None:
    async with served(hanging_beside) as (client, _), Hub() as hub:
        others: list[abc.DisposableBase] = []

        def ask_another(_: object) -> None:
            if not others:
                others.append(client.chat("another", model="m").subscribe(lambda _: None, lambda _: None))

        seen = await observe(hub.start("key", client.chat("hi", model="m").pipe(ops.do_action(ask_another))))

        assert seen.endings == [None]
        others[0].dispose()


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets, for each source, the number of ledgers in which it is registered."""
    counts: list[int] = []
    register = SourceProof.__init__

    def counting(self: SourceProof) -> None:
        register(self)
        counts.append(len(self._ledgers))  # pyright: ignore[reportPrivateUsage] - has no public name

    monkeypatch.setattr(SourceProof, "__init__", counting)
    return counts


async def test_source_is_in_one_ledger_when_a_completion_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = counted(monkeypatch)
    async with served() as (client, _):
        await observe(client.chat("hi", model="m").pipe(completion(), ops.repeat(5)))

    assert counts == [1] * 5


async def test_source_is_in_one_ledger_when_each_answer_asks_the_next_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counts = counted(monkeypatch)
    async with served() as (client, _):
        over = asyncio.Event()

        def ask(left: int) -> None:
            if not left:
                over.set()
                return
            client.chat("hi", model="m").pipe(completion()).subscribe(on_completed=lambda: ask(left - 1))

        ask(5)
        await over.wait()

    assert counts == [1] * 5


async def test_generation_is_complete_when_its_chunks_come_from_another_thread() -> None:
    def subscribe(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        def emit() -> None:
            for each in from_elsewhere(*WORDS.split()):
                observer.on_next(each)
            observer.on_completed()

        threading.Thread(target=emit).start()
        return Disposable()

    async with Hub() as hub:
        for key in map(str, range(20)):
            seen = await observe(hub.start(key, reactivex.create(subscribe)))
            assert seen.endings == [None]


@pytest.mark.parametrize("operator", [ops.as_observable(), share_generation()], ids=["alone", "shared"])
@pytest.mark.parametrize(("finish", "state"), [("stop", "complete"), (None, "truncated")])
async def test_chunks_from_elsewhere_prove_themselves_when_they_replace_a_failed_answer(
    operator: Callable[[Observable[ChatChunk]], Observable[ChatChunk]], finish: str | None, state: str
) -> None:
    other: Observable[ChatChunk] = reactivex.from_iterable(from_elsewhere("a", "b", finish=finish))
    # The first source has said its role, and nothing else.
    refusal = Reply([chunk(), event({"error": {"code": 502, "message": "no"}})])
    async with served(refusal) as (client, _), Hub() as hub:
        replaced: Observable[ChatChunk] = client.chat("hi", model="m").pipe(operator, fallback(other))
        folded = await observe(replaced.pipe(completion()))
        seen = await observe(hub.start("key", replaced))

    (whole,) = folded.values
    assert (whole.state, whole.text) == (state, "ab")
    assert (seen.endings == [None]) is (state == "complete")


async def test_completion_is_not_complete_when_a_handler_takes_the_error_of_a_cut_answer() -> None:
    async with served(Reply(answer(WORDS)[:4])) as (client, _):
        whole = await client.chat("hi", model="m").pipe(
            ops.catch(reactivex.from_iterable(from_elsewhere(" Sorry."))), completion()
        )

    assert isinstance(whole, ChatCompletion)
    assert whole.state == "stopped"


async def test_chunks_from_elsewhere_are_complete_when_two_of_them_have_content_and_a_finish_reason() -> None:
    # Gemini sends parallel calls so, and OpenRouter passes them on.
    calls = [FunctionDelta("add", '{"a":1}'), FunctionDelta("multiply", '{"a":2}')]
    chunks = [
        ChatChunk(choices=[Choice(delta=Delta(tool_calls=[ToolCallDelta(at, f"call-{at}", "function", call)]))])
        for at, call in enumerate(calls)
    ]
    for each in chunks:
        each.choices[0].finish_reason = "tool_calls"
    async with Hub() as hub:
        folded = await observe(reactivex.from_iterable(chunks).pipe(completion()))
        seen = await observe(hub.start("key", reactivex.from_iterable(chunks)))

    (whole,) = folded.values
    assert whole.state == "complete"
    assert [call.name for call in whole.tool_calls] == ["add", "multiply"]
    assert seen.endings == [None]


@pytest.mark.parametrize("waits", ["pause", "queue"])
async def test_answer_is_stopped_when_it_is_cut_while_an_empty_attempt_is_tried_again(waits: str) -> None:
    cut = Subject[None]()
    limiter = Limiter(1)
    async with served(Reply(answer(""))) as (client, simulator):
        policy = RetryPolicy(first_delay=3600 if waits == "pause" else 0.001, max_delay=3600, jitter=0)
        chat = client.chat("hi", model="m").pipe(limit(limiter), retry_transient(policy))
        seen = Observed[ChatCompletion]()
        chat.pipe(ops.take_until(cut), completion()).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        begun: list[bool] = []

        def hold(_: abc.SchedulerBase) -> Observable[None]:
            begun.append(True)
            return reactivex.never()

        if waits == "queue":
            # The only permit goes to another chain before the second attempt.
            reactivex.defer(hold).pipe(limit(limiter)).subscribe()
            await until(lambda: bool(begun) and limiter.waiting == 1)
        else:
            await until(lambda: len(simulator.exchanges) == 1 and not limiter.running)

        cut.on_next(None)

        assert seen.endings == [None]
        assert seen.values[0].state != "complete"


def in_turn(*replies: Reply) -> Callable[[Exchange], Reply]:
    """A server that answers one request after the other so."""
    left = list(replies)

    def reply(_: Exchange) -> Reply:
        return left.pop(0)

    return reply


async def test_completion_is_stopped_and_releases_no_call_when_a_retry_of_rxpy_adds_another_answer() -> None:
    """The call of the attempt that was cut is whole, but the answer that has finished did not ask for it."""
    called = answer("", tool_calls=[("delete", "{}")], comments=0)
    replies = in_turn(Reply(called[:-3]), Reply(answer(WORDS)), Reply(called[:-3]), Reply(answer(WORDS)))
    async with served(replies) as (client, _):
        folded = await observe(client.chat("hi", model="m").pipe(ops.retry(2), completion()))
        calls = await observe(client.chat("hi", model="m").pipe(ops.retry(2), tool_calls()))

    assert (folded.values[0].state, folded.values[0].tool_calls) == ("stopped", [])
    assert calls.values == []
    assert isinstance(calls.endings[0], IncompleteToolCallError)


@pytest.mark.parametrize("after_content", ["restart", "continue"])
async def test_completion_is_complete_when_a_retry_of_this_library_begins_anew_or_goes_on(after_content: Any) -> None:
    replies = in_turn(Reply(answer(WORDS)[:4]), Reply(answer(WORDS)))
    policy = RetryPolicy(first_delay=0.001, after_content=after_content)
    async with served(replies) as (client, _), Hub() as hub:
        chunks = client.chat("hi", model="m").pipe(retry_transient(policy))
        whole = await hub.start("k", chunks).pipe(completion())
        assert (await hub.status("k")).state == "completed"

    assert whole.state == "complete"


async def test_generation_fails_when_a_chunk_from_elsewhere_finishes_by_an_error() -> None:
    async with Hub() as hub:
        seen = await observe(hub.start("k", reactivex.from_iterable(from_elsewhere("one", finish="error"))))
        assert isinstance(seen.endings[0], StreamError)
        assert (await hub.status("k")).state == "failed"
