"""Limits, fallbacks and races against a real server: what it sees of them, and what is left behind."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable

import pytest
from reactivex import Observable, operators as ops
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, ClientClosedError, Limiter, OpenRouter, Receipt, RouterError, StatusError, iterate
from rxrouter._source import receipts
from rxrouter.operators import Loss, completion, fallback, hedge, limit, text
from rxrouter.testing import FAULTS, Act, Exchange, Reply, Simulator, answer, chunk
from rxrouter.testing.answer import COMMENT, GENERATION_ID
from tests.support import Observed, observe, served, until

ROLE, WORD = chunk({"content": ""}), chunk({"content": "word "})
SILENT = Reply((COMMENT, ROLE, ROLE, Act.HANG))
ENDLESS = Reply((WORD, 0.001) * 100_000)
QUICK = Reply.of(answer("Hi there"))


def by_model(**replies: Reply) -> Callable[[Exchange], Reply]:
    return lambda exchange: replies[exchange.json["model"]]


def open_exchanges(simulator: Simulator) -> int:
    return sum(not exchange.over.is_set() for exchange in simulator.exchanges)


class Crowd:
    """Replies, and how many of them were under way at most."""

    def __init__(self, reply: Callable[[Exchange], Reply]) -> None:
        self.most = 0
        self.simulator: Simulator
        self._reply = reply

    def __call__(self, exchange: Exchange) -> Reply:
        self.most = max(self.most, open_exchanges(self.simulator))
        return self._reply(exchange)


# A server's failures before the first content, each of which looks different on the wire.
EARLY = {name: FAULTS[name]("Hi") for name in ("401", "402", "404", "429", "502", "html", "json", "error-first")} | {
    "nothing": Reply(),
    "roles, then the end": Reply((COMMENT, ROLE, ROLE)),
    "roles, then a cut": Reply((ROLE, Act.CUT)),
    "roles, then a reset": Reply((ROLE, Act.RESET)),
    "bad JSON": Reply((b"data: {\n\n",)),
}


@pytest.mark.parametrize("fault", EARLY)
async def test_fallback_answers_where_the_first_server_fails_before_content(fault: str) -> None:
    async with served(by_model(down=EARLY[fault], up=QUICK)) as (client, simulator):
        chain = client.chat("hi", model="down").pipe(fallback(client.chat("hi", model="up")))

        seen = await observe(chain.pipe(text()))

        assert seen.endings == [None]
        assert "".join(seen.values) == "Hi there"
        assert [exchange.json["model"] for exchange in simulator.exchanges] == ["down", "up"]


@pytest.mark.parametrize("fault", ["cut", "reset", "truncate", "bad-json", "error-late"])
async def test_fallback_does_not_answer_after_content(fault: str) -> None:
    async with served(by_model(down=FAULTS[fault]("Once upon a time"), up=QUICK)) as (client, simulator):
        seen = await observe(client.chat("hi", model="down").pipe(fallback(client.chat("hi", model="up")), text()))

        assert isinstance(seen.endings[0], RouterError)
        assert "".join(seen.values).startswith("Once")
        assert len(simulator.exchanges) == 1


async def test_fallback_ends_with_the_causes_of_all() -> None:
    async with served(by_model(a=EARLY["429"], b=EARLY["502"], c=EARLY["404"])) as (client, _):
        a, b, c = (client.chat("hi", model=model) for model in "abc")

        (error,) = (await observe(a.pipe(fallback(b, c)))).endings

        assert isinstance(error, StatusError)
        assert error.status == 404
        assert [getattr(cause, "status", None) for cause in error.attempts] == [429, 502]


async def test_the_server_sees_that_the_loser_of_a_race_has_left() -> None:
    losses = list[Loss]()
    async with served(by_model(slow=SILENT, quick=QUICK)) as (client, simulator):
        race = client.chat("hi", model="slow").pipe(
            hedge(client.chat("hi", model="quick"), delay=0.05, on_loss=losses.append)
        )

        seen = await observe(race.pipe(text()))
        await simulator.exchanges[0].over.wait()

        assert "".join(seen.values) == "Hi there"
        slow, quick = simulator.exchanges
        assert (slow.left_at is not None, quick.left_at) == (True, None)
        (loss,) = losses
        assert (loss.index, loss.generation_ids, loss.error) == (0, (GENERATION_ID,), None)
        assert loss.elapsed >= 0.05


async def test_who_loses_a_race_has_a_receipt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts, "_PAUSES", [0.0] * 50)
    heard, losses = Observed[Receipt](), list[Loss]()
    slow = Reply(SILENT.steps, headers={**SILENT.headers, "X-Generation-Id": "gen-slow"})
    async with served(by_model(slow=slow, quick=QUICK)) as (client, _):
        client.receipts.subscribe(heard.on_next)
        race = client.chat("hi", model="slow").pipe(
            hedge(client.chat("hi", model="quick"), delay=0.05, on_loss=losses.append)
        )

        await observe(race)
        await until(lambda: len(heard.values) == 2)

        assert [loss.generation_ids for loss in losses] == [("gen-slow",)]
        (lost,) = (receipt for receipt in heard.values if receipt.ended == "cancelled")
        assert (lost.generation_id, lost.status) == ("gen-slow", "exact")


async def test_a_race_that_is_left_leaves_no_socket() -> None:
    async with served(SILENT) as (client, simulator):
        race = client.chat("hi").pipe(hedge(client.chat("hi"), client.chat("hi"), delay=0))
        subscription = race.subscribe()
        await until(lambda: len(simulator.exchanges) == 3)

        await subscription.aclose()
        for exchange in simulator.exchanges:
            await exchange.over.wait()
            assert exchange.left_at is not None


def test_a_race_between_two_loops_has_one_winner() -> None:
    with (
        Simulator(by_model(a=Reply.of(answer("a a a a")), b=Reply.of(answer("b b b b")))) as simulator,
        OpenRouter(base_url=simulator.base_url) as one,
        OpenRouter(base_url=simulator.base_url) as other,
    ):
        for _ in range(50):
            race = one.chat("hi", model="a").pipe(hedge(other.chat("hi", model="b"), delay=0), text())
            words, ended = list[str](), threading.Semaphore(0)
            race.subscribe(words.append, print, ended.release)

            assert ended.acquire(timeout=30)
            assert "".join(words) in {"a a a a", "b b b b"}


async def test_the_loss_of_a_source_that_waited_and_retried_names_its_own_requests() -> None:
    """Watching reaches through a queue, and over the end of the stream that lets it in."""
    losses, limiter = list[Loss](), Limiter(1)
    async with served(by_model(first=ENDLESS, down=EARLY["error-first"], up=QUICK)) as (client, simulator):
        first = client.chat("hi", model="first").pipe(limit(limiter)).subscribe()
        down = client.chat("hi", model="down").pipe(limit(limiter), ops.retry(2))
        over = Observed[ChatChunk]()
        down.pipe(hedge(client.chat("hi", model="up"), delay=60, on_loss=losses.append)).subscribe(
            over.on_next, over.on_error, over.on_completed
        )
        await until(lambda: len(simulator.exchanges) == 1)
        first.dispose()
        await over.over.wait()

        assert over.endings == [None]
        assert [(loss.index, loss.generation_ids, type(loss.error).__name__) for loss in losses] == [
            (0, (GENERATION_ID, GENERATION_ID), "StreamError")
        ]


async def test_never_more_streams_at_the_server_than_the_limiter_allows() -> None:
    chance, limiter = random.Random(4), Limiter(5)
    replies = [QUICK, QUICK, EARLY["502"], FAULTS["cut"]("Once upon a time"), SILENT, ENDLESS]
    crowd = Crowd(lambda _: chance.choice(replies))
    async with served(crowd, limiter=limiter) as (client, simulator):
        crowd.simulator = simulator
        readers = [Observed[ChatChunk]() for _ in range(50)]
        subscriptions = [
            client.chat("hi").subscribe(reader.on_next, reader.on_error, reader.on_completed) for reader in readers
        ]
        assert (limiter.running, limiter.waiting) == (5, 45)
        left = set[int]()
        while len(left) < 50:
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.003]))
            number = chance.randrange(50)
            left.add(number)
            subscriptions[number].dispose()
            assert limiter.running <= 5

        await asyncio.gather(*(subscription.aclose() for subscription in subscriptions))
        assert (limiter.running, limiter.waiting) == (0, 0)
        await until(lambda: not open_exchanges(simulator))
    assert crowd.most <= 5
    assert any(reader.endings for reader in readers)
    assert all(len(reader.endings) <= 1 for reader in readers)


async def test_who_leaves_the_queue_sends_nothing() -> None:
    limiter = Limiter(1)
    async with served(QUICK, limiter=limiter) as (client, simulator):
        first, third = Observed[ChatChunk](), Observed[ChatChunk]()
        client.chat("hi", model="first").subscribe(first.on_next, first.on_error, first.on_completed)
        second = client.chat("hi", model="second").subscribe()
        client.chat("hi", model="third").subscribe(third.on_next, third.on_error, third.on_completed)
        await second.aclose()
        assert limiter.waiting == 1
        await third.over.wait()

        assert [exchange.json["model"] for exchange in simulator.exchanges] == ["first", "third"]


async def test_who_leaves_the_queue_on_another_thread_sends_nothing() -> None:
    limiter = Limiter(1)
    async with served(by_model(first=ENDLESS, second=QUICK, third=QUICK), limiter=limiter) as (client, simulator):
        first, second = (client.chat("hi", model=model).subscribe() for model in ("first", "second"))
        third = Observed[ChatChunk]()
        client.chat("hi", model="third").subscribe(third.on_next, third.on_error, third.on_completed)
        await asyncio.to_thread(second.dispose)
        assert (limiter.running, limiter.waiting) == (1, 1)
        await until(lambda: len(simulator.exchanges) == 1)
        await asyncio.to_thread(first.dispose)
        await third.over.wait()

        assert third.endings == [None]
        assert [exchange.json["model"] for exchange in simulator.exchanges] == ["first", "third"]
        assert (limiter.running, limiter.waiting) == (0, 0)


async def test_each_attempt_has_its_own_permit_and_a_pause_between_them_has_none() -> None:
    limiter, seen = Limiter(1), list[str]()

    def reply(exchange: Exchange) -> Reply:
        seen.append(exchange.json["model"])
        return QUICK if seen.count(seen[-1]) == 2 or seen[-1] == "patient" else EARLY["502"]

    def later(_: Exception, source: Observable[ChatChunk]) -> Observable[ChatChunk]:
        return source.pipe(ops.delay_subscription(0.05))

    async with served(reply, limiter=limiter) as (client, _):
        again = observe(client.chat("hi", model="again").pipe(ops.catch(later)))
        patient = observe(client.chat("hi", model="patient"))
        endings = [one.endings for one in await asyncio.gather(again, patient)]

        assert endings == [[None], [None]]
        assert seen == ["again", "patient", "again"]


async def test_a_429_keeps_those_who_wait_from_the_same_wall() -> None:
    limiter, at = Limiter(1), list[float]()
    refused = Reply.error(429, "Rate limit exceeded: free-models-per-min.", headers={"Retry-After": "0.2"})

    def reply(_: Exchange) -> Reply:
        at.append(asyncio.get_running_loop().time())
        return refused if len(at) == 1 else QUICK

    async with served(reply, limiter=limiter) as (client, _):
        endings = [one.endings[0] for one in await asyncio.gather(*(observe(client.chat("hi")) for _ in range(3)))]

    assert [type(ending).__name__ for ending in endings] == ["StatusError", "NoneType", "NoneType"]
    assert at[1] - at[0] >= 0.199  # and the clock of a loop has its resolution


async def test_one_limiter_serves_the_clients_of_a_loop() -> None:
    limiter = Limiter(2)
    crowd = Crowd(lambda _: Reply.of(answer("Roses are red"), rate=500))
    async with (
        served(crowd, limiter=limiter) as (client, simulator),
        OpenRouter(base_url=simulator.base_url, limiter=limiter) as other,
    ):
        crowd.simulator = simulator
        sources = [one.chat("hi").pipe(completion()) for one in (client, other) * 4]
        answers = await asyncio.gather(*(observe(source) for source in sources))

        assert [one.values[0].text for one in answers] == ["Roses are red"] * 8
        assert crowd.most == 2
        assert (limiter.running, limiter.waiting) == (0, 0)


def test_one_limiter_serves_clients_with_loops_of_their_own() -> None:
    limiter = Limiter(1)
    crowd = Crowd(lambda _: Reply.of(answer("Roses are red"), rate=500))
    with Simulator(crowd) as simulator:
        crowd.simulator = simulator
        ended = threading.Semaphore(0)
        with (
            OpenRouter(base_url=simulator.base_url, limiter=limiter) as one,
            OpenRouter(base_url=simulator.base_url, limiter=limiter) as other,
        ):
            for client in (one, other) * 4:
                client.chat("hi").subscribe(on_error=print, on_completed=ended.release)
            for _ in range(8):
                assert ended.acquire(timeout=30)

    assert crowd.most == 1
    assert (limiter.running, limiter.waiting) == (0, 0)


def test_a_limiter_outlives_its_loops() -> None:
    limiter = Limiter(1)

    async def leave_in_the_middle() -> None:
        async with served(ENDLESS) as (_, simulator):
            client = OpenRouter(base_url=simulator.base_url, limiter=limiter)
            for _ in range(3):
                client.chat("hi").subscribe(on_error=lambda _: None)
            await until(lambda: len(simulator.exchanges) == 1)

    async def ask() -> str:
        async with served(QUICK, limiter=limiter) as (client, _):
            return (await client.chat("hi").pipe(completion())).text

    for _ in range(2):
        asyncio.run(leave_in_the_middle())
        assert asyncio.run(ask()) == "Hi there"


@pytest.mark.parametrize("closed", ["async", "sync"])
async def test_who_waits_is_told_when_the_client_is_closed(closed: str) -> None:
    """Whoever has the permits meanwhile: here a stream of another client."""
    limiter = Limiter(1)
    async with served(ENDLESS, limiter=limiter) as (other, simulator):
        running = other.chat("hi").subscribe()
        client = OpenRouter(base_url=simulator.base_url, limiter=limiter)
        readers = [Observed[ChatChunk]() for _ in range(3)]
        for reader in readers:
            client.chat("hi").subscribe(reader.on_next, reader.on_error, reader.on_completed)
        await until(lambda: len(simulator.exchanges) == 1)
        if closed == "async":
            await client.aclose()
        else:
            client.close()
        for reader in readers:
            await reader.over.wait()
        late = await observe(client.chat("hi"))

        for reader in (*readers, late):
            assert [type(ending) for ending in reader.endings] == [ClientClosedError]
        assert (limiter.running, limiter.waiting) == (1, 0)
        assert len(simulator.exchanges) == 1
        await running.aclose()


async def test_the_time_of_a_limiter_is_the_loop_s_also_for_a_reader_with_a_scheduler_of_its_own() -> None:
    async with served(QUICK, limiter=Limiter(1)) as (client, _):
        ended = [Observed[ChatChunk]() for _ in range(2)]
        for one in ended:
            client.chat("hi").subscribe(one.on_next, one.on_error, one.on_completed, scheduler=TestScheduler())
        for one in ended:
            await one.over.wait()

        assert [one.endings for one in ended] == [[None], [None]]


def test_who_waits_is_told_when_a_client_with_its_own_loop_is_closed() -> None:
    limiter, told = Limiter(1), list[Exception]()
    with Simulator(ENDLESS) as simulator, OpenRouter(base_url=simulator.base_url, limiter=limiter) as client:
        for _ in range(3):
            client.chat("hi").subscribe(on_error=told.append)

    assert [type(error) for error in told] == [ClientClosedError] * 3
    assert (limiter.running, limiter.waiting) == (0, 0)


async def test_a_slow_reader_pauses_a_stream_that_had_to_wait() -> None:
    limiter = Limiter(1)
    async with served(by_model(first=ENDLESS, second=Reply((WORD * 50,) * 2000))) as (client, simulator):
        first = client.chat("hi", model="first").pipe(limit(limiter)).subscribe()
        await until(lambda: len(simulator.exchanges) == 1)
        words = client.chat("hi", model="second").pipe(limit(limiter), ops.buffer_with_time(0.01), ops.filter(bool))
        async with iterate(words, high=4, low=1) as bundles:
            asyncio.get_running_loop().call_later(0.01, first.dispose)
            await anext(bundles)
            sent = -1
            while sent != simulator.exchanges[1].sent_bytes:
                sent = simulator.exchanges[1].sent_bytes
                await asyncio.sleep(0.1)
            assert not simulator.exchanges[1].over.is_set()
