from __future__ import annotations

from itertools import pairwise

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import abc, operators as ops
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, Restarted, StatusError, StreamError, TruncatedStreamError, Usage
from rxrouter._attempt import Attempt
from rxrouter.operators import Meter, completion, hedge, meter, text
from rxrouter.testing import COMMENT, Act, Exchange, Reply, answer, chunk as event
from tests.operators.support import chunk, play, subscribed_scheduler
from tests.support import observe, served

HEL, LO = chunk({"content": "Hel"}), chunk({"content": "lo"})
ROLE, THOUGHT = chunk({"role": "assistant", "content": ""}), chunk({"reasoning": "hmm"})
USAGE = chunk(usage={"completion_tokens": 6, "cost": 0.5})


def metered(*source: tuple[int, object]) -> list[Meter]:
    """The Meters of a source that says this, the last of them at its ending."""
    return [what for _, what in play(meter(), *source)[0] if isinstance(what, Meter)]


def test_meter_tells_with_each_chunk_and_at_the_end() -> None:
    heard, subscription = play(meter(), (1, ROLE), (3, HEL), (6, USAGE), (8, None))

    assert [at for at, _ in heard] == [1, 3, 6, 8, 8]
    assert heard[-1] == (8, None)
    assert [what.elapsed for _, what in heard[:-1]] == [1, 3, 6, 8]
    assert subscription == (0, 8)


def test_a_meter_does_not_change_when_the_stream_goes_on() -> None:
    first, *_, last = metered((1, HEL), (2, LO), (3, None))

    assert (first.chunks, first.text_characters) == (1, 3)
    assert (last.chunks, last.text_characters) == (2, 5)


def test_the_times_are_those_of_the_first_of_each_kind() -> None:
    last = metered((1, ROLE), (2, THOUGHT), (5, HEL), (6, LO), (9, None))[-1]

    assert last.time_to_first_content == 2
    assert last.time_to_first_reasoning == 2
    assert last.time_to_first_text == 5
    assert (last.longest_gap, last.content_seconds, last.elapsed) == (3, 4, 9)


def test_what_has_not_happened_is_none() -> None:
    only = metered((1, None))[0]

    assert only == Meter(elapsed=1.0)
    assert (only.tokens_per_second, only.characters_per_second) == (None, None)


def test_content_of_any_kind_is_content() -> None:
    call = chunk({"tool_calls": [{"index": 0, "function": {"name": "weather"}}]})

    last = metered((1, ROLE), (2, call), (3, None))[-1]

    assert (last.time_to_first_content, last.time_to_first_text) == (2, None)


def test_text_that_comes_with_reasoning_counts_as_both() -> None:
    last = metered((1, chunk({"content": "Hello", "reasoning": "hmm"})), (2, None))[-1]

    assert (last.text_characters, last.reasoning_characters) == (5, 3)


def test_the_rate_is_known_when_the_usage_is() -> None:
    *running, _, last = metered((1, HEL), (4, LO), (5, USAGE), (6, None))

    assert [one.tokens_per_second for one in running] == [None, None]
    assert running[-1].characters_per_second == pytest.approx(5 / 3)
    assert last.tokens_per_second == 2


@pytest.mark.parametrize(("thought", "rate"), [(ROLE, 0.5), (THOUGHT, 2.0)], ids=["hidden", "shown"])
def test_tokens_that_nobody_saw_don_t_make_it_faster(thought: ChatChunk, rate: float) -> None:
    usage = chunk(usage={"completion_tokens": 8, "completion_tokens_details": {"reasoning_tokens": 6}})

    last = metered((1, thought), (1, HEL), (5, LO), (6, usage), (7, None))[-1]

    assert last.tokens_per_second == rate


def test_who_answered_and_why_it_ended_is_told() -> None:
    said = chunk({"content": "Hi"}, model="a/b", provider="Novita")
    end = chunk({"content": ""})
    end.choices[0].finish_reason = "stop"

    last = metered((1, said), (2, end), (3, None))[-1]

    assert (last.generation_id, last.model, last.provider, last.finish_reason) == ("gen-1", "a/b", "Novita", "stop")


def test_the_cost_of_several_generations_adds_up_and_that_of_one_does_not() -> None:
    def said(cost: float, generation: str) -> ChatChunk:
        return chunk(usage={"cost": cost}, id=generation)

    meters = metered((1, said(0.25, "gen-1")), (2, said(0.5, "gen-1")), (3, said(1.0, "gen-2")), (4, None))

    assert [one.cost for one in meters] == [0.25, 0.5, 1.5, 1.5]


def test_a_cost_that_nobody_said_is_none() -> None:
    last = metered((1, HEL), (2, chunk(usage={"completion_tokens": 3})), (3, None))[-1]

    assert (last.usage, last.cost) == (Usage(completion_tokens=3), None)


def test_a_new_attempt_counts_its_text_anew_and_pays_for_both() -> None:
    failed = StreamError(502, "Upstream error", usage=Usage(cost=0.25))

    _, void, again, _, last = metered((1, HEL), (2, Restarted(attempt=2, cause=failed)), (5, LO), (6, USAGE), (7, None))

    assert (void.text_characters, void.chunks, void.cost, void.usage) == (0, 1, 0.25, None)
    assert (again.text_characters, again.content_seconds) == (2, 0)
    assert (last.text_characters, last.chunks, last.cost) == (2, 3, 0.75)
    assert (last.time_to_first_text, last.longest_gap) == (1, 4)


def test_an_error_comes_behind_the_last_meter_and_the_meter_knows_its_cost() -> None:
    error = StreamError(502, "Upstream error", usage=Usage(cost=0.25))

    heard, _ = play(meter(), (1, HEL), (3, error))

    assert heard[-1] == (3, error)
    assert (heard[-2][1].elapsed, heard[-2][1].cost) == (3, 0.25)


def test_the_watcher_sees_the_meters_and_the_reader_the_chunks() -> None:
    seen: list[Meter] = []

    heard, _ = play(meter(seen.append), (1, HEL), (2, LO), (3, None))

    assert heard == [(1, HEL), (2, LO), (3, None)]
    assert [one.text_characters for one in seen] == [3, 5, 5]


@pytest.mark.parametrize("ending", [None, TruncatedStreamError()], ids=["completed", "failed"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_watcher_that_raises_ends_the_stream(nth: int, ending: Exception | None) -> None:
    raised = LookupError("of the watcher")
    seen: list[Meter] = []

    def watch(one: Meter) -> None:
        seen.append(one)
        if len(seen) == nth:
            raise raised

    heard, subscription = play(meter(watch), (1, HEL), (2, ending))

    assert heard == [*[(1, HEL)][: nth - 1], (nth, raised)]
    assert subscription == (0, nth)


def test_meter_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(meter(), (1, HEL), (9, LO), disposed=5)

    assert ([at for at, _ in heard], subscription) == ([1], (0, 5))


def test_meter_starts_anew_with_each_subscription() -> None:
    operator = meter()

    for _ in range(2):
        assert play(operator, (1, HEL), (2, None))[0][-2][1].chunks == 1


def test_meter_hands_the_scheduler_up() -> None:
    given_one, reached = subscribed_scheduler(meter())

    assert reached is given_one


def test_marks_of_attempts_are_the_first_of_their_kind() -> None:
    scheduler = TestScheduler(100)

    def two_posts(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        for headers, comment in ((105.0, None), (103.0, 104.0)):
            attempt = Attempt()
            attempt.began, attempt.headers, attempt.first_comment = 101.0, headers, comment
            attempt.generation_id = f"gen-{headers:g}"
            attempt.tell()
        return rx.of(chunk({"content": "Hi"}, id=None)).subscribe(observer)

    seen: list[Meter] = []
    rx.create(two_posts).pipe(meter()).subscribe(seen.append, scheduler=scheduler)

    assert (seen[0].attempts, seen[0].time_to_headers, seen[0].time_to_first_comment) == (2, 3, 4)
    assert seen[0].generation_id == "gen-103"


deltas = st.fixed_dictionaries(
    {}, optional={"content": st.text(max_size=5), "reasoning": st.text(max_size=5), "role": st.just("assistant")}
)


@given(st.lists(st.tuples(st.integers(1, 9), deltas, st.none() | st.floats(0, 9)), max_size=20))
def test_the_sums_are_those_of_an_independent_fold(said: list[tuple[int, dict[str, str], float | None]]) -> None:
    at, source, contents = 0, list[tuple[int, ChatChunk | None]](), list[int]()
    for pause, delta, cost in said:
        at += pause
        source.append((at, chunk(delta, usage=None if cost is None else {"cost": cost})))
        if delta.get("content") or delta.get("reasoning"):
            contents.append(at)

    last = metered(*source, (at + 1, None))[-1]

    assert last.chunks == len(said)
    assert last.text_characters == sum(len(delta.get("content", "")) for _, delta, _ in said)
    assert last.reasoning_characters == sum(len(delta.get("reasoning", "")) for _, delta, _ in said)
    assert last.cost == next((cost for _, _, cost in reversed(said) if cost is not None), None)
    assert last.time_to_first_content == (contents[0] if contents else None)
    assert last.content_seconds == (contents[-1] - contents[0] if contents else 0)
    assert last.longest_gap == max((b - a for a, b in pairwise(contents)), default=None)
    assert last.elapsed == at + 1


async def test_the_marks_of_a_real_stream_are_there_and_in_order() -> None:
    events = [event({"reasoning": "Hm"}), *answer("Hello there", comments=0, cost=0.25)]
    reply = Reply((0.01, COMMENT, 0.01, *[step for one in events for step in (one, 0.005)]))
    async with served(reply) as (client, _):
        last = await client.chat("hi").pipe(meter())

    marks = [
        last.time_to_headers,
        last.time_to_first_comment,
        last.time_to_first_content,
        last.time_to_first_text,
        last.elapsed,
    ]
    times = [mark for mark in marks if mark is not None]
    assert len(times) == len(marks)
    assert times == sorted(times)
    assert last.time_to_first_reasoning == last.time_to_first_content
    assert (last.attempts, last.cost, last.finish_reason) == (1, 0.25, "stop")
    assert last.tokens_per_second is not None


async def test_attempts_that_a_retry_hides_are_counted() -> None:
    def third_time_lucky(exchange: Exchange) -> Reply:
        tries.append(exchange)
        return Reply.error(502, "Provider returned error") if len(tries) < 3 else Reply(answer("Hi"))

    tries: list[Exchange] = []
    seen: list[Meter] = []
    async with served(third_time_lucky) as (client, _):
        whole = await client.chat("hi").pipe(ops.retry(3), meter(seen.append), completion())

    assert whole.text == "Hi"
    assert seen[-1].attempts == 3
    assert seen[-1].time_to_headers is not None


async def test_lost_hedges_are_counted() -> None:
    def the_second_answers(_: Exchange) -> Reply:
        return Reply((Act.HANG,)) if len(simulator.exchanges) == 1 else Reply(answer("Hi"))

    async with served(the_second_answers) as (client, simulator):
        chunks = client.chat("hi")
        last = await chunks.pipe(hedge(chunks, delay=0.01), meter())

    assert (last.attempts, last.text_characters) == (2, 2)


async def test_a_stream_that_fails_before_its_first_chunk_has_a_meter() -> None:
    async with served(Reply.error(402, "Insufficient credits")) as (client, _):
        seen = await observe(client.chat("hi").pipe(meter()))

    assert [one.attempts for one in seen.values] == [1]
    assert seen.values[0].time_to_headers is not None
    assert isinstance(seen.endings[0], StatusError)


async def test_leaving_a_metered_stream_closes_its_socket() -> None:
    async with served(Reply((*answer("Hello")[:3], Act.HANG))) as (client, simulator):
        async for _ in client.chat("hi").pipe(meter(lambda _: None), text()):
            break
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None
