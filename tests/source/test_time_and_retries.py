"""Time limits and retries against a server that misbehaves, watched from the server's side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import reactivex as rx
from reactivex import operators as ops

from rxrouter import (
    ChatChunk,
    ChatCompletion,
    ClientClosedError,
    ContentTimeoutError,
    ContinuationRefusedError,
    EmptyAnswerError,
    OpenRouter,
    Restarted,
    RetryPolicy,
    StatusError,
    StreamError,
    Timeouts,
    TransportError,
    TruncatedStreamError,
    UserMessage,
)
from rxrouter._attempt import Attempt, watching
from rxrouter._gate import current_gates
from rxrouter.operators import completion, continue_from_partial, retry_transient, text, timeouts
from rxrouter.testing import COMMENT, DONE, Act, Exchange, Reply, Simulator, Step, VirtualLoop, answer, chunk
from tests.support import Observed, observe, served, until

WORDS = "one two three four five six"
WHOLE = answer(WORDS, comments=0)
HALF = WHOLE[:3]  # one two three
FOR_EVER: list[Step] = [COMMENT, 0.02] * 5_000
SOON = RetryPolicy(first_delay=0.01, jitter=0)
RESTART = RetryPolicy(first_delay=0.01, jitter=0, after_content="restart")
CONTINUE = RetryPolicy(first_delay=0.01, jitter=0, after_content="continue")


def in_turn(*replies: Reply) -> Callable[[Exchange], Reply]:
    """A server that answers the first request so, the next so; the last one to all that follow."""
    left = list(replies)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def prefilled(*cut: Step, echo: int = 0) -> Callable[[Exchange], Reply]:
    """A server that is cut at the first request, and goes on from where the assistant's last message ends."""

    def reply(exchange: Exchange) -> Reply:
        last = exchange.json["messages"][-1]
        if last["role"] != "assistant":
            return Reply(cut)
        assert WORDS.startswith(last["content"])
        return Reply(answer(WORDS[len(last["content"]) - echo :], comments=0))

    return reply


@pytest.mark.parametrize("before", [[], [chunk({"content": ""})]], ids=["comments", "a role"])
async def test_the_first_content_has_a_clock_that_comments_and_roles_do_not_hold_off(before: list[bytes]) -> None:
    async with served(Reply([*before, *FOR_EVER])) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(timeouts(first_content=0.3)))
        await simulator.exchanges[0].over.wait()

    error = seen.endings[0]
    assert isinstance(error, ContentTimeoutError)
    assert (error.clock, error.limit, error.chunks_seen) == ("first", 0.3, len(before))
    assert error.elapsed is not None
    # The clock of uvloop has milliseconds.
    assert error.elapsed >= 0.3 - 0.001
    assert error.last_comment_age is not None
    assert 0 <= error.last_comment_age < error.elapsed
    assert error.generation_id == "gen-1763820000-simulatedsimulated01"
    assert simulator.exchanges[0].left_at is not None


async def test_a_gap_in_the_content_has_a_clock_that_comments_do_not_hold_off() -> None:
    async with served(Reply([*HALF, *FOR_EVER])) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(timeouts(content=0.3), completion()))
        await simulator.exchanges[0].over.wait()

    error = seen.endings[0]
    assert isinstance(error, ContentTimeoutError)
    assert (error.clock, error.chunks_seen, error.provider) == ("gap", 3, "Simulator")
    assert error.partial.text == "one two three"
    assert simulator.exchanges[0].left_at is not None


@pytest.mark.virtual
async def test_the_whole_has_one_deadline_over_all_attempts() -> None:
    async with served(Reply([*HALF, *FOR_EVER])) as (client, simulator):
        seen = await observe(
            client.chat("hi").pipe(
                timeouts(content=0.1), retry_transient(RESTART), timeouts(total=0.15), ops.filter(bool)
            )
        )
        await simulator.exchanges[-1].over.wait()

    error = seen.endings[0]
    assert isinstance(error, ContentTimeoutError)
    assert (error.clock, error.limit) == ("total", 0.15)
    assert len(simulator.exchanges) == 2
    assert all(exchange.left_at is not None for exchange in simulator.exchanges)


@pytest.mark.virtual
async def test_before_a_retry_each_attempt_has_clocks_of_its_own() -> None:
    async with served(in_turn(Reply(FOR_EVER), Reply([Act.HANG]), Reply(WHOLE))) as (client, simulator):
        whole = await client.chat("hi").pipe(timeouts(first_content=0.2), retry_transient(SOON), completion())

    assert whole.text == WORDS
    assert [exchange.left_at is not None for exchange in simulator.exchanges] == [True, True, False]


@pytest.mark.virtual
@pytest.mark.parametrize("body", [5.0, 100.0])
async def test_a_slow_reader_is_no_silent_server(body: float) -> None:
    """Its pauses are ours: the clocks don't run, and begin anew when the socket is read again."""
    loop = asyncio.get_running_loop()
    events = [chunk({"content": f"{number} "}) for number in range(20)]
    async with served(Reply.of([*events, *WHOLE[-3:]], rate=1)) as (client, _):
        seen: list[ChatChunk] = []
        async for value in client.chat("hi").pipe(timeouts(first_content=2, content=2)).iterate(high=2, low=1):
            seen.append(value)
            await asyncio.sleep(body)

    assert len(seen) == 22
    assert loop.time() >= 22 * body


@pytest.mark.virtual
async def test_a_pause_that_ended_with_its_request_stops_no_clock() -> None:
    async with served(in_turn(Reply(WHOLE), Reply([Act.HANG]))) as (client, _):
        chain = client.chat("first").pipe(ops.take(1), ops.concat(client.chat("second")), timeouts(content=10))
        seen = await observe(chain)

    assert isinstance(seen.endings[0], ContentTimeoutError)
    assert seen.endings[0].elapsed == pytest.approx(10)


@pytest.mark.virtual
async def test_when_a_slow_reader_goes_on_the_server_has_its_time_again() -> None:
    async with served(Reply([*HALF, Act.HANG])) as (client, _):
        values = client.chat("hi").pipe(timeouts(content=10)).iterate(high=2, low=1)
        with pytest.raises(ContentTimeoutError) as ended:  # noqa: PT012
            async for _ in values:
                await asyncio.sleep(60)  # the queue is full until the second value is taken, at 60

    assert ended.value.clock == "gap"
    assert ended.value.elapsed == pytest.approx(70)


@pytest.mark.virtual
async def test_silence_is_no_timeout_when_the_gate_closes_just_after_its_limit() -> None:
    """Silence is over a moment after its limit; a reader that pauses in that moment stops the clock, too."""
    loop = asyncio.get_running_loop()
    seen = Observed[ChatChunk]()

    def on_next(value: ChatChunk) -> None:
        seen.on_next(value)
        if len(seen.values) == 1:
            [gate] = current_gates(set())
            loop.call_later(10.02, gate.hold)
            loop.call_later(15, gate.release)

    async with served(Reply([WHOLE[0], 20.0, *WHOLE[1:]]), timeouts=Timeouts(silence=10)) as (client, _):
        client.chat("hi").subscribe(on_next, seen.on_error, seen.on_completed)
        await seen.over.wait()

    assert seen.endings == [None]
    assert loop.time() >= 20


@pytest.mark.virtual
async def test_a_blocked_loop_is_no_silent_server() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    seen = Observed[ChatChunk]()

    def on_next(value: ChatChunk) -> None:
        seen.on_next(value)
        if len(seen.values) in {2, 4}:
            loop.block(30)

    async with served(Reply.of([*WHOLE], rate=1)) as (client, _):
        chain = client.chat("hi").pipe(timeouts(first_content=3, content=3))
        chain.subscribe(on_next, seen.on_error, seen.on_completed)
        loop.call_later(5.5, loop.block, 60)
        await seen.over.wait()

    assert seen.endings == [None]


async def test_a_429_is_asked_again_after_the_pause_that_it_names() -> None:
    busy = Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "0.2"})
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with served(in_turn(busy, Reply(WHOLE))) as (client, simulator):
        whole = await client.chat("hi").pipe(retry_transient(RetryPolicy(first_delay=0)), completion())

    assert whole.text == WORDS
    assert len(simulator.exchanges) == 2
    assert loop.time() - began >= 0.2


@pytest.mark.virtual
async def test_a_429_waits_for_the_reset_in_milliseconds_that_openrouter_names() -> None:
    loop = asyncio.get_running_loop()
    reset = {"X-RateLimit-Reset": str(int((time.time() + 40) * 1000))}
    busy = Reply.error(429, "Rate limit exceeded", metadata={"headers": reset})
    async with served(in_turn(busy, Reply(WHOLE))) as (client, _):
        whole = await client.chat("hi").pipe(retry_transient(), completion())

    assert whole.text == WORDS
    assert loop.time() == pytest.approx(40, abs=10)  # of the real clock, so long may it be till here


async def test_a_pause_longer_than_the_policys_ends_it_at_once() -> None:
    async with served(fault="429") as (client, simulator):
        seen = await observe(client.chat("hi").pipe(retry_transient(RetryPolicy(max_retry_after=6))))

    assert isinstance(seen.endings[0], StatusError)
    assert seen.endings[0].retry_after == 7
    assert len(simulator.exchanges) == 1


async def test_a_502_at_first_is_not_seen() -> None:
    async with served(in_turn(Reply.error(502, "Provider returned error"), Reply(WHOLE))) as (client, simulator):
        chunks = [chunk async for chunk in client.chat("hi").pipe(retry_transient(SOON))]

    assert len(simulator.exchanges) == 2
    assert len(chunks) == len(WHOLE) - 1
    assert not any(isinstance(chunk, Restarted) for chunk in chunks)


@pytest.mark.parametrize(
    "empty",
    [Reply(), Reply([COMMENT] * 3), Reply([chunk({"content": ""})]), Reply.json({"error": {"code": 502}})],
    ids=["empty body", "comments", "a role", "a JSON error"],
)
async def test_a_200_without_content_is_tried_again(empty: Reply) -> None:
    async with served(in_turn(empty, empty, Reply(WHOLE))) as (client, simulator):
        chunks = [chunk async for chunk in client.chat("hi").pipe(retry_transient(SOON))]

    assert len(simulator.exchanges) == 3
    assert len(chunks) == len(WHOLE) - 1


async def test_what_does_not_pass_by_itself_is_asked_once() -> None:
    for fault in ("401", "402", "404", "bad-json"):
        async with served(fault=fault) as (client, simulator):
            seen = await observe(client.chat("hi").pipe(retry_transient(SOON)))

        assert seen.endings[0] is not None
        assert len(simulator.exchanges) == 1


async def test_the_last_error_has_those_before_it() -> None:
    replies = Reply.error(502, "first"), Reply(HALF[:0]), Reply.error(503, "last")
    async with served(in_turn(*replies)) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(retry_transient(SOON), completion()))

    error = seen.endings[0]
    assert isinstance(error, StatusError)
    assert error.status == 503
    assert [type(before) for before in error.attempts] == [StatusError, TruncatedStreamError]
    assert error.partial.text == ""
    assert len(simulator.exchanges) == 3


@pytest.mark.parametrize("act", [Act.CUT, Act.RESET])
async def test_a_cut_after_content_fails_if_nothing_else_is_said(act: Act) -> None:
    async with served(Reply([*HALF, 0.02, act])) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(retry_transient(SOON), completion()))

    error = seen.endings[0]
    assert isinstance(error, TransportError)
    assert error.partial.text == "one two three"
    assert len(simulator.exchanges) == 1


async def test_a_cut_after_content_restarts_behind_a_mark_that_folds_understand() -> None:
    async with served(in_turn(Reply([*HALF, 0.02, Act.CUT]), Reply.error(502, "x"), Reply(WHOLE))) as (
        client,
        simulator,
    ):
        chunks = client.chat("hi").pipe(retry_transient(RESTART), ops.share())
        marks, folded = Observed[ChatChunk](), Observed[ChatCompletion]()
        chunks.pipe(ops.filter(lambda chunk: isinstance(chunk, Restarted))).subscribe(
            marks.on_next, marks.on_error, marks.on_completed
        )
        chunks.pipe(completion()).subscribe(folded.on_next, folded.on_error, folded.on_completed)
        await folded.over.wait()

    (mark,) = marks.values
    assert isinstance(mark, Restarted)
    assert mark.attempt == 3
    assert isinstance(mark.cause, StatusError)
    assert folded.values[0].text == WORDS
    assert len(simulator.exchanges) == 3


@pytest.mark.parametrize("echo", [0, 5, 13], ids=["no echo", "a word", "all of it"])
async def test_a_cut_after_content_goes_on_from_there_without_an_echo(echo: int) -> None:
    async with served(prefilled(*HALF, 0.02, Act.CUT, echo=echo)) as (client, simulator):
        chain = client.chat("hi", model="a/b", temperature=0.5).pipe(
            timeouts(content=5), retry_transient(CONTINUE), text()
        )
        words = [word async for word in chain]

    first, second = (exchange.json for exchange in simulator.exchanges)
    assert "".join(words) == WORDS
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": "one two three"}]
    assert {**second, "messages": []} == {**first, "messages": []}


async def test_a_continuation_that_is_cut_again_goes_on_again() -> None:
    def reply(exchange: Exchange) -> Reply:
        last = exchange.json["messages"][-1]
        said = len(last["content"]) if last["role"] == "assistant" else 0
        rest = answer(WORDS[said:], comments=0)
        return Reply([*rest[:2], 0.02, Act.CUT] if len(rest) > 5 else rest)

    async with served(reply) as (client, simulator):
        policy = RetryPolicy(attempts=2, first_delay=0.01, after_content="continue", count_anew=True)
        whole = await client.chat("hi").pipe(retry_transient(policy), completion())

    assert whole.text == WORDS
    assert len(simulator.exchanges) == 3


async def test_usage_and_cost_are_those_of_all_attempts_that_have_said_theirs() -> None:
    spent = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15, "cost": 0.5, "is_byok": False}
    late = chunk(error={"code": 503, "message": "overloaded"}, usage=spent)
    async with served(prefilled(*HALF, late, DONE)) as (client, _):
        whole = await client.chat("hi").pipe(retry_transient(CONTINUE), completion())

    assert whole.text == WORDS
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens, whole.usage.cost) == (24, 6, 0.5)
    assert whole.usage.is_byok is False


async def test_an_error_late_in_the_stream_keeps_its_usage_when_it_is_the_end() -> None:
    async with served(fault="error-late") as (client, simulator):
        seen = await observe(client.chat("hi").pipe(retry_transient(SOON)))

    assert isinstance(seen.endings[0], StreamError)
    assert seen.endings[0].usage.cost == 0.0001
    assert len(simulator.exchanges) == 1


@pytest.mark.parametrize(
    ("fields", "cut", "reason"),
    [
        ({"response_format": {"type": "json_object"}}, HALF, "it is JSON"),
        ({"extra": {"response_format": {"type": "json_schema"}}}, HALF, "it is JSON"),
        ({}, answer("one", tool_calls=[("rm", "{}")], comments=0)[:-3], "a tool call had begun"),
        (
            {},
            [chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]})],
            "its reasoning is encrypted",
        ),
        ({}, [chunk({"refusal": "I won't"})], "it is a refusal"),
        ({}, [chunk({"images": [{"type": "image_url"}]})], "it has images or audio"),
        ({}, [*HALF, chunk(choices=[{"index": 1, "delta": {"content": "x"}}])], "it is several answers"),
        ({"prompt": "hi"}, HALF, "its source is not one chat request with messages"),
    ],
    ids=["JSON", "JSON in extra", "tool call", "encrypted", "refusal", "image", "two answers", "no messages"],
)
async def test_what_is_more_than_its_text_is_not_continued(
    fields: dict[str, Any], cut: Sequence[bytes], reason: str
) -> None:
    async with served(Reply([*cut, 0.02, Act.CUT])) as (client, simulator):
        fields = fields if "prompt" in fields else {"messages": [{"role": "user", "content": "hi"}], **fields}
        seen = await observe(client.chat(**fields).pipe(retry_transient(CONTINUE)))

    error = seen.endings[0]
    assert isinstance(error, ContinuationRefusedError)
    assert error.reason == reason
    assert isinstance(error.__cause__, TransportError)
    assert error.attempts == (error.__cause__,)
    assert error.chunks_seen == len(cut)
    assert len(simulator.exchanges) == 1


async def test_two_requests_in_one_source_are_not_continued() -> None:
    async with served(Reply([*HALF, 0.02, Act.CUT])) as (client, simulator):
        chain = client.chat("first").pipe(ops.catch(lambda _, __: client.chat("second")), retry_transient(CONTINUE))
        seen = await observe(chain)

    assert isinstance(seen.endings[0], ContinuationRefusedError)
    assert len(simulator.exchanges) == 2


async def test_a_source_that_does_not_go_on_is_left_before_it_is_heard() -> None:
    other = Reply([*answer("another answer", comments=0)[:2], Act.HANG])
    async with served(in_turn(Reply([*HALF, 0.02, Act.CUT]), other)) as (client, simulator):
        questions = iter(["first", "second"])
        chain = rx.defer(lambda _: client.chat(next(questions))).pipe(retry_transient(CONTINUE))
        seen = await observe(chain)
        await simulator.exchanges[1].over.wait()

    assert isinstance(seen.endings[0], ContinuationRefusedError)
    assert len(seen.values) == 3
    assert simulator.exchanges[1].left_at is not None


async def test_the_same_question_asked_again_has_an_answer_of_its_own() -> None:
    def reply(exchange: Exchange) -> Reply:
        continues = exchange.json["messages"][-1]["role"] == "assistant"
        return Reply(answer(" four five six", comments=0) if continues else [*HALF, 0.02, Act.CUT])

    async with served(reply) as (client, simulator):
        chain = client.chat("hi").pipe(retry_transient(CONTINUE), ops.repeat(2), text())
        words = [word async for word in chain]

    roles = [exchange.json["messages"][-1]["role"] for exchange in simulator.exchanges]
    assert "".join(words) == WORDS * 2
    assert roles == ["user", "assistant"] * 2


async def test_the_same_question_asked_below_after_a_failure_is_a_new_one() -> None:
    replies = [Reply([*HALF, 0.02, Act.CUT]), Reply.error(401, "No"), Reply(WHOLE)]
    async with served(in_turn(*replies)) as (client, simulator):
        chunks = client.chat("hi")
        words = chunks.pipe(retry_transient(CONTINUE), ops.catch(lambda _, __: chunks), completion())
        await words

    roles = [exchange.json["messages"][-1]["role"] for exchange in simulator.exchanges]
    assert roles == ["user", "assistant", "user"]


async def test_another_model_can_go_on() -> None:
    def reply(exchange: Exchange) -> Reply:
        if exchange.json["model"] == "a/b":
            return Reply([*HALF, 0.02, Act.CUT])
        return Reply(answer("three four five six", comments=0))

    async with served(reply) as (client, simulator):

        def go_on(partial: ChatCompletion) -> Any:
            return client.chat(
                messages=[UserMessage("hi"), partial.message, UserMessage("Go on where you stopped.")], model="c/d"
            )

        chain = client.chat("hi", model="a/b").pipe(continue_from_partial(go_on, policy=SOON), completion())
        whole = await chain

    assert whole.text == WORDS
    assert [exchange.json["model"] for exchange in simulator.exchanges] == ["a/b", "c/d"]
    assert simulator.exchanges[1].json["messages"][1]["content"] == "one two three"


async def test_a_retry_finds_the_socket_released() -> None:
    async with served(in_turn(Reply.error(502, "x"), Reply.error(503, "x"), Reply(WHOLE))) as (client, simulator):
        await client.chat("hi").pipe(retry_transient(SOON), completion())

    assert len(simulator.exchanges) == 3
    assert simulator.connections == 1


async def test_dispose_in_the_pause_sends_nothing_more() -> None:
    failed = asyncio.Event()
    async with served(fault="502") as (client, simulator):
        chain = client.chat("hi").pipe(
            ops.do_action(on_error=lambda _: failed.set()), retry_transient(RetryPolicy(first_delay=0.05, jitter=0))
        )
        seen = Observed[ChatChunk]()
        subscription = chain.subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await failed.wait()
        await subscription.aclose()
        await asyncio.sleep(0.2)

    assert len(simulator.exchanges) == 1
    assert (seen.values, seen.endings) == ([], [])


async def test_aclose_waits_for_the_attempt_that_runs() -> None:
    async with served(in_turn(Reply.error(502, "x"), Reply([*HALF, Act.HANG]))) as (client, simulator):
        seen = Observed[ChatChunk]()
        subscription = (
            client.chat("hi").pipe(retry_transient(SOON)).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        )
        await until(lambda: bool(seen.values))
        await subscription.aclose()
        assert [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"] == []
        await simulator.exchanges[1].over.wait()

    assert simulator.exchanges[1].left_at is not None


async def test_who_watches_the_chain_sees_every_attempt() -> None:
    attempts: list[Attempt] = []
    async with served(in_turn(Reply.error(502, "x"), Reply([*HALF, 0.02, Act.CUT]), Reply(WHOLE))) as (client, _):
        seen = Observed[ChatChunk]()
        with watching(attempts.append):
            client.chat("hi").pipe(timeouts(total=30), retry_transient(RESTART)).subscribe(
                seen.on_next, seen.on_error, seen.on_completed
            )
        await seen.over.wait()

    assert len(attempts) == 3
    assert seen.endings == [None]


async def test_operators_above_see_every_attempt() -> None:
    endings: list[Exception] = []
    async with served(in_turn(Reply.error(502, "x"), Reply(HALF[:0]), Reply(WHOLE))) as (client, _):
        watched = client.chat("hi").pipe(ops.do_action(on_error=endings.append))
        await watched.pipe(retry_transient(SOON), completion())

    assert [type(error) for error in endings] == [StatusError, TruncatedStreamError]


async def test_a_client_that_is_closed_in_the_pause_is_the_end() -> None:
    async with served(fault="502") as (client, simulator):
        seen = Observed[ChatChunk]()
        always = RetryPolicy(attempts=9, first_delay=0.05, jitter=0, retry_on=lambda error: True)
        client.chat("hi").pipe(retry_transient(always)).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: len(simulator.exchanges) == 1)
        await client.aclose()
        await seen.over.wait()

    assert len(seen.endings) == 1
    assert isinstance(seen.endings[0], ClientClosedError)


async def test_each_subscription_has_its_own_attempts() -> None:
    async with served(fault="502") as (client, simulator):
        chain = client.chat("hi").pipe(retry_transient(RetryPolicy(attempts=2, first_delay=0.01)))
        await asyncio.gather(observe(chain), observe(chain))

    assert len(simulator.exchanges) == 4


@pytest.mark.virtual
async def test_silence_of_the_connection_is_tried_again() -> None:
    async with served(in_turn(Reply(before=[Act.HANG]), Reply(WHOLE)), timeouts=Timeouts(silence=0.2)) as (client, _):
        assert (await client.chat("hi").pipe(retry_transient(SOON), completion())).text == WORDS


def test_a_retry_works_without_a_loop_of_ones_own() -> None:
    with (
        Simulator(in_turn(Reply.error(502, "x"), Reply(WHOLE))) as offline,
        OpenRouter(base_url=offline.base_url) as client,
    ):
        chain = client.chat("hi").pipe(timeouts(total=30), retry_transient(SOON), completion())
        assert chain.run().text == WORDS


@pytest.mark.virtual
async def test_a_finish_reason_completes_though_comments_and_no_usage_follow_for_ever() -> None:
    for_ever: list[Step] = [5.0, COMMENT] * 1_000
    finished = chunk(finish="stop")
    async with served(Reply([*HALF, finished, *for_ever]), timeouts=Timeouts(silence=20)) as (client, _):
        begun = asyncio.get_running_loop().time()
        seen = await observe(client.chat("hi"))

        assert seen.endings == [None]
        assert asyncio.get_running_loop().time() - begun == pytest.approx(20, abs=1)


@pytest.mark.virtual
async def test_usage_is_waited_for_behind_a_finish_reason_for_as_long_as_silence_may_last() -> None:
    late: list[Step] = [chunk(finish="stop"), 15.0, chunk(), 15.0, chunk(usage={"cost": 0.5}), DONE]
    async with served(Reply([*HALF, *late]), timeouts=Timeouts(silence=20)) as (client, _):
        seen = await observe(client.chat("hi"))

    assert seen.endings == [None]
    assert seen.values[-1].usage is not None


EMPTY = answer("", comments=0)


async def test_an_empty_answer_of_a_server_is_asked_for_again() -> None:
    async with served(in_turn(Reply(EMPTY), Reply(WHOLE))) as (client, simulator):
        whole = await client.chat("hi").pipe(retry_transient(SOON), completion())

    assert whole.text == WORDS
    assert len(simulator.exchanges) == 2


async def test_a_server_that_gives_nothing_ends_with_what_each_attempt_was() -> None:
    async with served(Reply(EMPTY)) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(retry_transient(SOON), completion()))

    (error,) = seen.endings
    assert isinstance(error, EmptyAnswerError)
    assert len(error.attempts) == 2
    assert error.generation_id
    assert error.partial.state != "complete"
    assert len(simulator.exchanges) == 3


async def test_a_reader_that_leaves_in_a_continuation_closes_its_socket() -> None:
    rest: list[Step] = [*answer(WORDS[len("one two three") :], comments=0)[:1], Act.HANG]
    async with served(in_turn(Reply([*HALF, Act.CUT]), Reply(rest))) as (client, simulator):
        heard: list[ChatChunk] = []
        subscription = client.chat("hi").pipe(retry_transient(CONTINUE)).subscribe(heard.append)
        await until(lambda: len(heard) > len(HALF))

        subscription.dispose()
        await asyncio.wait_for(simulator.exchanges[1].over.wait(), 5)

        assert [exchange.left_at is not None for exchange in simulator.exchanges] == [False, True]
        assert simulator.exchanges[1].json["messages"][-1]["role"] == "assistant"
