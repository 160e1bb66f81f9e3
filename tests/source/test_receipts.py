"""Receipts: one for each generation, however it ended; exact, or unavailable and why; and nothing while nobody asks."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest
from reactivex import Observable, abc, operators as ops

from rxrouter import OpenRouter, Receipt, SlowReaderError, Subscription, Timeouts
from rxrouter._source import receipts as receipts_module
from rxrouter.operators import completion
from rxrouter.testing import DONE, FAULTS, Act, Exchange, Reply, Simulator, answer, chunk
from tests.loops import tasks_are_eager
from tests.support import Observed, observe, until

KEY = "sk-or-v1-verysecret"
PROMPT = "my very private question"
SSE = {"Content-Type": "text/event-stream"}
WORDS = "one two three"
PAID_EVENTS = answer(WORDS, cost=0.25)
PAID = Reply.of(PAID_EVENTS)
UNBILLED = Reply((*answer(WORDS)[:-2], DONE))  # complete, without usage
SILENT = Reply((chunk({"content": "one "}), Act.HANG))
HANG = Reply(before=(Act.HANG,))
BARE = chunk({"content": "one "}).replace(b'"id":"gen-1763820000-simulatedsimulated01",', b"")

Listener = Observed[Receipt]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pauses between the look-ups; and more of them, for they are now faster than the server sees a reader leave."""
    monkeypatch.setattr(receipts_module, "_PAUSES", [0.0] * 50)


def numbered(reply: Reply | Callable[[Exchange], Reply]) -> Callable[[Exchange], Reply]:
    """The reply, with a generation id of its own for each request."""
    numbers = count(1)

    def answered(exchange: Exchange) -> Reply:
        said = reply(exchange) if callable(reply) else reply
        return msgspec.structs.replace(said, headers={**said.headers, "X-Generation-Id": f"gen-{next(numbers)}"})

    return answered


@asynccontextmanager
async def listening(
    reply: Reply | Callable[[Exchange], Reply], *, silence: float = 45.0, **options: Any
) -> AsyncGenerator[tuple[OpenRouter, Simulator, Listener]]:
    """A client of a simulator, and somebody who listens to its receipts until it is closed."""
    async with (
        Simulator(reply, **options) as simulator,
        OpenRouter(KEY, base_url=simulator.base_url, timeouts=Timeouts(silence=silence)) as client,
    ):
        yield client, simulator, listen(client)


def listen(client: OpenRouter) -> Listener:
    heard = Listener()
    client.receipts.subscribe(heard.on_next, heard.on_error, heard.on_completed)
    return heard


async def quiet(client: OpenRouter) -> None:
    """Returns when the client does nothing any more, and has had a few turns to begin something."""
    await until(lambda: not client._home.tasks and not client._receipts._pending)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not client._home.tasks
    assert not client._receipts._pending


async def started(client: OpenRouter) -> Subscription:
    """A stream whose first chunk has come."""
    first = asyncio.Event()
    subscription = client.chat(PROMPT).subscribe(lambda _: first.set(), lambda _: None)
    await first.wait()
    return subscription


def looks(simulator: Simulator) -> list[str]:
    return [exchange.query["id"] for exchange in simulator.exchanges if exchange.method == "GET"]


# Each ending has one receipt


async def test_the_usage_chunk_is_the_receipt_and_nothing_is_looked_up() -> None:
    async with listening(PAID) as (client, simulator, heard):
        await client.chat(PROMPT).pipe(completion())
        await quiet(client)

        (receipt,) = heard.values
        assert (receipt.status, receipt.ended, receipt.cost, receipt.error) == ("exact", "completed", 0.25, None)
        assert (receipt.model, receipt.provider) == ("simulated/storyteller", "Simulator")
        assert receipt.usage is not None
        assert receipt.usage.completion_tokens == 3
        assert receipt.generation is None
        assert looks(simulator) == []


async def test_a_cancelled_stream_is_looked_up_by_its_id_until_the_books_know_it() -> None:
    async with listening(numbered(SILENT), late=2) as (client, simulator, heard):
        (await started(client)).dispose()
        await quiet(client)

        (receipt,) = heard.values
        assert looks(simulator) == ["gen-1"] * len(looks(simulator))
        assert len(looks(simulator)) >= 3  # two that were late, and before them those that came before the books knew
        assert (receipt.status, receipt.ended, receipt.generation_id) == ("exact", "cancelled", "gen-1")
        assert receipt.cost == pytest.approx(simulator.exchanges[0].sent_bytes * 1e-6)
        assert (receipt.model, receipt.provider) == ("simulated/storyteller", "Simulator")
        assert receipt.generation is not None
        assert (receipt.generation.cancelled, receipt.generation.native_tokens_prompt) == (True, 12)


#: What the server says, how that ends, and what the stream itself says of the cost.
ENDINGS: dict[str, tuple[Reply, str, float | None]] = {
    "paid": (PAID, "completed", 0.25),
    "paid, in one block": (Reply((b"".join(PAID_EVENTS),)), "completed", 0.25),
    "paid, no [DONE]": (Reply(PAID_EVENTS[:-1]), "completed", 0.25),
    "no usage": (UNBILLED, "completed", None),
    "a chunk behind the usage": (Reply((b"".join([*PAID_EVENTS[:-1], chunk(), DONE]),)), "completed", 0.25),
    "the usage so far, then a cut": (
        Reply((chunk({"content": "a"}, usage={"cost": 0.5}), Act.CUT)),
        "TransportError",
        None,
    ),
    "the usage so far, then an error": (
        Reply((chunk({"content": "a"}, usage={"cost": 0.5}), chunk(error={"code": 502}), DONE)),
        "StreamError",
        None,
    ),
    "the usage so far, then a finish and a cut": (
        Reply((chunk({"content": "a"}, usage={"cost": 0.5}), chunk(finish="stop"), Act.CUT)),
        "completed",
        None,
    ),
    "the usage with the words, then [DONE]": (
        Reply((chunk({"content": "a"}, usage={"cost": 0.5}), chunk(finish="stop"), DONE)),
        "completed",
        0.5,
    ),
    "all paid, then no JSON": (Reply((*PAID_EVENTS[:-1], b"data: {\n\n")), "ChunkDecodeError", 0.25),
    "an error, then usage": (FAULTS["error-late"](WORDS), "StreamError", 0.0001),
    "an error with usage": (Reply((chunk(error={"code": 502}, usage={"cost": 0.5}), DONE)), "StreamError", 0.5),
    "an error first": (FAULTS["error-first"](WORDS), "StreamError", None),
    "truncated": (FAULTS["truncate"](WORDS), "TruncatedStreamError", None),
    "cut": (FAULTS["cut"](WORDS), "TransportError", None),
    "reset": (FAULTS["reset"](WORDS), "TransportError", None),
    "silent": (FAULTS["stall"](WORDS), "SilenceTimeoutError", None),
    "no JSON": (FAULTS["bad-json"](WORDS), "ChunkDecodeError", None),
    "a status that names a generation": (FAULTS["502"](WORDS), "StatusError", None),
}


@pytest.mark.parametrize(("reply", "ended", "cost"), ENDINGS.values(), ids=ENDINGS)
async def test_each_ending_has_one_exact_receipt(reply: Reply, ended: str, cost: float | None) -> None:
    async with listening(numbered(reply), silence=0.1) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

        (receipt,) = heard.values
        assert (receipt.status, receipt.ended, receipt.generation_id) == ("exact", ended, "gen-1")
        assert receipt.cost == pytest.approx(simulator.exchanges[0].sent_bytes * 1e-6 if cost is None else cost)
        assert bool(looks(simulator)) is (cost is None)


@pytest.mark.parametrize("step", [1, 7, 10_000])
async def test_the_usage_is_found_however_the_body_is_cut_into_blocks(step: int) -> None:
    body = b"".join((chunk({"content": "a"}), chunk(finish="stop", usage={"cost": 0.25}), chunk(), DONE))
    pieces = [part for at in range(0, len(body), step) for part in (body[at : at + step], 0.0)]
    async with listening(numbered(Reply(pieces))) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

        assert [(receipt.status, receipt.cost) for receipt in heard.values] == [("exact", 0.25)]
        assert looks(simulator) == []


async def test_the_usage_so_far_of_a_cancelled_stream_is_not_its_cost() -> None:
    words = chunk({"content": "one "}, usage={"cost": 0.5})
    async with listening(numbered(Reply((words, Act.HANG)))) as (client, simulator, heard):
        (await started(client)).dispose()
        await quiet(client)

        (receipt,) = heard.values
        assert receipt.cost == pytest.approx(simulator.exchanges[0].sent_bytes * 1e-6)


async def test_who_comes_when_the_last_has_left_is_not_told_of_what_that_one_waited_for() -> None:
    async with (
        Simulator(numbered(UNBILLED), late=1_000) as simulator,
        OpenRouter(KEY, base_url=simulator.base_url) as client,
    ):
        left = client.receipts.subscribe(lambda _: None)
        await observe(client.chat(PROMPT))
        left.dispose()
        late = listen(client)
        await quiet(client)

        assert late.values == []


async def test_a_stream_that_is_closed_with_its_client_has_its_receipt_before_the_end() -> None:
    async with listening(numbered(SILENT)) as (client, _, heard):
        await started(client)
        await client.aclose()

        (receipt,) = heard.values
        assert (receipt.status, receipt.ended, receipt.generation_id) == ("unavailable", "ClientClosedError", "gen-1")
        assert receipt.cost is None
        assert "closed" in (receipt.error or "")
        assert heard.endings == [None]


async def test_a_reader_that_raises_has_left() -> None:
    def explode(_: object) -> None:
        raise LookupError

    async with listening(numbered(SILENT)) as (client, _, heard):
        client.chat(PROMPT).subscribe(explode, lambda _: None)
        await until(lambda: bool(heard.values))

    assert (heard.values[0].status, heard.values[0].ended) == ("exact", "cancelled")


async def test_each_attempt_of_a_retry_has_its_own() -> None:
    replies = iter([FAULTS["cut"](WORDS), PAID])
    async with listening(numbered(lambda _: next(replies))) as (client, _, heard):
        await client.chat(PROMPT).pipe(ops.retry(2), completion())
        await quiet(client)

    assert sorted((receipt.generation_id, receipt.ended) for receipt in heard.values) == [
        ("gen-1", "TransportError"),
        ("gen-2", "completed"),
    ]


async def test_those_that_lost_a_race_have_theirs() -> None:
    async with listening(numbered(SILENT)) as (client, _, heard):
        racers = [client.chat(PROMPT) for _ in range(3)]
        await racers[0].pipe(ops.amb(racers[1]), ops.amb(racers[2]), ops.take(1))
        await quiet(client)

    assert [receipt.ended for receipt in heard.values] == ["cancelled"] * 3
    assert sum(receipt.status == "exact" for receipt in heard.values) >= 1  # of those that the server had named


async def test_events_have_receipts_too() -> None:
    async with listening(numbered(PAID)) as (client, _, heard):
        await observe(client.events("/responses", {}))
        await quiet(client)

    assert [(receipt.status, receipt.ended) for receipt in heard.values] == [("exact", "completed")]


async def test_the_id_of_the_chunks_is_used_where_there_is_no_header() -> None:
    async with listening(msgspec.structs.replace(UNBILLED, headers=SSE)) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

        assert set(looks(simulator)) == {"gen-1763820000-simulatedsimulated01"}
        assert (heard.values[0].status, heard.values[0].error) == ("unavailable", _not_found(simulator))


def _not_found(simulator: Simulator) -> str:
    return f"HTTP 404: Generation {looks(simulator)[0]} not found"


async def test_usage_without_cost_is_kept_and_the_cost_looked_up() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    async with listening(numbered(Reply((chunk(finish="stop", usage=usage), DONE)))) as (client, _, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

    (receipt,) = heard.values
    assert receipt.status == "exact"
    assert receipt.usage is not None
    assert receipt.usage.completion_tokens == 4
    assert receipt.generation is not None


async def test_the_receipt_comes_after_the_streams_own_ending() -> None:
    told: list[str] = []
    async with listening(PAID) as (client, _, heard):
        client.receipts.subscribe(lambda _: told.append("receipt"))
        client.chat(PROMPT).subscribe(on_completed=lambda: told.append("ending"))
        await until(lambda: bool(heard.values))

    assert told == ["ending", "receipt"]


# No receipt, or one that says what is not known


async def test_what_never_reached_the_server_has_none() -> None:
    async with Simulator() as simulator:
        url = simulator.base_url
    async with OpenRouter(KEY, base_url=url) as client:
        heard = listen(client)
        await observe(client.chat(PROMPT))
        client.chat(PROMPT).subscribe().dispose()
        await quiet(client)

    assert heard.values == []


@pytest.mark.parametrize("fault", ["401", "429", "502", "html", "json"])
async def test_what_was_refused_has_none(fault: str) -> None:
    async with listening(FAULTS[fault](WORDS)) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

        assert heard.values == []
        assert looks(simulator) == []


async def test_what_was_left_before_the_server_named_it_is_unavailable() -> None:
    async with listening(HANG) as (client, simulator, heard):
        subscription = client.chat(PROMPT).subscribe()
        await until(lambda: bool(simulator.exchanges))
        subscription.dispose()
        await quiet(client)

        (receipt,) = heard.values
        assert (receipt.status, receipt.ended, receipt.generation_id) == ("unavailable", "cancelled", None)
        assert "which generation" in (receipt.error or "")
        assert looks(simulator) == []


async def test_a_stream_without_any_id_is_unavailable() -> None:
    async with listening(Reply((BARE, DONE), headers=SSE)) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)

        assert [(receipt.status, receipt.ended) for receipt in heard.values] == [("unavailable", "completed")]
        assert looks(simulator) == []


async def test_what_the_books_never_know_is_unavailable_after_a_few_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts_module, "_PAUSES", [0.0] * 6)
    async with listening(numbered(SILENT), late=1_000) as (client, simulator, heard):
        (await started(client)).dispose()
        await quiet(client)

        (receipt,) = heard.values
        assert (receipt.status, receipt.cost, receipt.generation) == ("unavailable", None, None)
        assert receipt.error == "HTTP 404: Generation gen-1 not found"
        assert len(looks(simulator)) == 6


# How it is looked up


def first(*replies: Reply) -> Callable[[Exchange], Reply | None]:
    """These to the first GETs, and then what the books say."""
    left = iter(replies)
    return lambda _: next(left, None)


async def looked_up(*replies: Reply) -> tuple[Receipt, Simulator]:
    """The receipt of a stream that ended well, but without usage; the first look-ups are answered so."""
    async with listening(numbered(UNBILLED), account=first(*replies), silence=0.1) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await quiet(client)
        (receipt,) = heard.values
        return receipt, simulator


@pytest.mark.parametrize(
    "reply",
    [
        Reply.error(404, "Not yet."),
        Reply.error(429, "Slower.", headers={"Retry-After": "0"}),
        Reply.error(500, "Oh."),
        Reply.error(524, "Late."),
        Reply.json({"error": {"code": 502, "message": "Upstream error"}}),
        Reply.json({"data": {"id": "gen-1", "total_cost": None}}),
        Reply(before=(Act.CUT,)),
        HANG,
    ],
)
async def test_what_may_pass_is_tried_again(reply: Reply) -> None:
    receipt, simulator = await looked_up(reply, reply)

    assert receipt.status == "exact"
    assert len(looks(simulator)) == 3


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply.error(401, "No auth."), "HTTP 401: No auth."),
        (Reply.error(402, "No money."), "HTTP 402: No money."),
        (Reply.error(429, "Slower.", headers={"Retry-After": "3600"}), "HTTP 429: Slower."),
        (Reply.json({"more": 1}), "no Generation"),
        (Reply((b"<html>",), headers={"Content-Type": "text/html"}), "expected application/json, got text/html"),
    ],
)
async def test_what_will_not_pass_is_not_tried_again(reply: Reply, why: str) -> None:
    receipt, simulator = await looked_up(reply)

    assert receipt.status == "unavailable"
    assert why in (receipt.error or "")
    assert len(looks(simulator)) == 1


class _Pauses:
    """asyncio, but for its sleep, which takes no time and is remembered."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


async def test_the_pauses_grow_and_are_as_long_as_the_server_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real ones
    pauses = _Pauses()
    monkeypatch.setattr(receipts_module, "asyncio", pauses)
    late, busy = Reply.error(404, "Not yet."), Reply.error(429, "Slower.", headers={"Retry-After": "30"})

    receipt, _ = await looked_up(late, late, busy, late, late)

    assert receipt.status == "exact"
    assert pauses.seconds == [0.5, 1.0, 2.0, 30.0, 8.0, 16.0]


async def test_a_few_are_looked_up_at_once() -> None:
    most = 0

    def slow(exchange: Exchange) -> Reply:
        nonlocal most
        most = max(most, sum(other.method == "GET" and not other.over.is_set() for other in simulator.exchanges))
        return msgspec.structs.replace(Reply.json({"data": {"total_cost": 1}}), before=(0.05,))

    async with listening(numbered(UNBILLED), account=slow) as (client, simulator, heard):
        await asyncio.gather(*(observe(client.chat(PROMPT)) for _ in range(40)))
        await quiet(client)

    assert len(heard.values) == 40
    assert 1 < most <= receipts_module._AT_ONCE == 8


async def test_more_than_can_wait_are_told_at_once_that_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts_module, "_WAITING", 2)
    monkeypatch.setattr(receipts_module, "_PAUSES", [3600.0])
    async with listening(numbered(UNBILLED)) as (client, simulator, heard):
        for _ in range(3):
            await observe(client.chat(PROMPT))
        await until(lambda: bool(heard.values))
        (receipt,) = heard.values
        assert (receipt.status, receipt.generation_id) == ("unavailable", "gen-3")
        assert "2 others" in (receipt.error or "")
        assert looks(simulator) == []

    assert {receipt.generation_id for receipt in heard.values[1:]} == {"gen-1", "gen-2"}


# While nobody listens


async def test_while_nobody_listens_nothing_is_asked_and_nothing_kept() -> None:
    async with Simulator(numbered(SILENT)) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        for _ in range(3):
            (await started(client)).dispose()
        await quiet(client)
        heard = listen(client)
        await quiet(client)

        assert heard.values == []
        assert looks(simulator) == []
        (await started(client)).dispose()
        await quiet(client)

    assert [receipt.generation_id for receipt in heard.values] == ["gen-4"]


async def test_the_last_one_to_leave_ends_the_look_ups() -> None:
    async with (
        Simulator(numbered(UNBILLED), account=first(HANG)) as simulator,
        OpenRouter(KEY, base_url=simulator.base_url) as client,
    ):
        first_one, second_one = client.receipts.subscribe(), client.receipts.subscribe()
        await observe(client.chat(PROMPT))
        await until(lambda: len(simulator.exchanges) == 2)
        await first_one.aclose()
        assert client._receipts._pending

        await second_one.aclose()

        assert not client._receipts._pending
        assert not client._home.tasks
        await simulator.exchanges[1].over.wait()
        assert simulator.exchanges[1].left_at is not None


async def test_taking_one_receipt_leaves() -> None:
    async with Simulator(numbered(UNBILLED)) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        chats = asyncio.gather(*(observe(client.chat(PROMPT)) for _ in range(3)))
        receipt = await client.receipts.pipe(ops.take(1))
        await chats
        await quiet(client)

    assert receipt.status == "exact"


# Those who listen


async def test_all_who_listen_are_told_and_one_that_raises_harms_nobody() -> None:
    async with listening(numbered(PAID)) as (client, _, heard):
        own: list[Exception] = []

        def explode(_: Receipt) -> None:
            raise LookupError

        client.receipts.subscribe(explode, own.append)
        after = listen(client)
        for _ in range(2):
            await observe(client.chat(PROMPT))
        await until(lambda: len(after.values) == 2)

    assert [type(error) for error in own] == [LookupError]
    assert heard.values == after.values
    assert heard.endings == after.endings == [None]


async def test_a_receipt_comes_in_nobodys_context_and_pauses_no_stream() -> None:
    whose = ContextVar("whose", default="nobody's")
    seen: list[str] = []
    async with listening(numbered(PAID)) as (client, _, heard):
        slow = client.receipts.iterate(high=1, low=0)
        waiting = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)
        client.receipts.subscribe(lambda _: seen.append(whose.get()))
        whose.set("a stream's")
        for _ in range(4):
            await observe(client.chat(PROMPT))
        await until(lambda: len(heard.values) == 4)
        await waiting
        with pytest.raises(SlowReaderError):  # it alone is behind, and nothing could have been paused for it
            async for _ in slow:
                pass

    assert seen == ["nobody's"] * 4


async def test_an_operator_that_raises_harms_nobody() -> None:
    reported: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))

    def broken(source: Observable[Receipt]) -> Observable[Receipt]:
        def raise_on_next(_: Receipt) -> None:
            raise LookupError

        def subscribe(
            observer: abc.ObserverBase[Receipt], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return source.subscribe(raise_on_next, observer.on_error, observer.on_completed, scheduler=scheduler)

        return Observable(subscribe)

    async with Simulator(PAID) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        client.receipts.pipe(broken).subscribe()
        heard = listen(client)
        await observe(client.chat(PROMPT))
        await until(lambda: bool(heard.values))

    assert [type(error) for error in reported] == [LookupError]


async def test_a_look_up_is_no_part_of_the_stream_that_it_is_about() -> None:
    async with listening(numbered(UNBILLED)) as (client, _, heard):
        words = client.chat(PROMPT).iterate()
        async for _ in words:
            pass
        await until(lambda: bool(heard.values))

        assert len(words._queue.gates) == 1  # its own: what reads slowly pauses what it reads


async def test_a_receipt_of_a_stream_that_is_left_on_another_thread_comes_on_the_loop() -> None:
    threads: list[int] = []
    async with listening(numbered(SILENT)) as (client, _, heard):
        client.receipts.subscribe(lambda _: threads.append(threading.get_ident()))
        subscription = await started(client)
        thread = threading.Thread(target=subscription.dispose)
        thread.start()
        await until(lambda: bool(heard.values))
        thread.join()

    assert threads == [threading.get_ident()]
    assert heard.values[0].status == "exact"


def test_a_script_without_a_loop_gets_receipts() -> None:
    heard: list[Receipt] = []
    over = threading.Event()

    def hear(receipt: Receipt) -> None:
        heard.append(receipt)
        over.set()

    with Simulator(numbered(UNBILLED)) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        client.receipts.subscribe(hear)
        client.chat(PROMPT).run()
        assert over.wait(60)

    assert [receipt.status for receipt in heard] == ["exact"]


# The client's end


async def test_closing_gives_each_look_up_under_way_its_receipt_and_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts_module, "_PAUSES", [3600.0])
    async with listening(numbered(UNBILLED)) as (client, _, heard):
        for _ in range(5):
            await observe(client.chat(PROMPT))
        await started(client)
        assert heard.values == []

        await client.aclose()

        assert {receipt.generation_id for receipt in heard.values} == {f"gen-{n}" for n in range(1, 7)}
        assert {receipt.status for receipt in heard.values} == {"unavailable"}
        assert heard.endings == [None]
        assert not client._receipts._pending
        late = listen(client)
        await late.over.wait()
        assert (late.values, late.endings) == ([], [None])


async def test_closing_while_a_look_up_is_on_its_way_closes_its_socket() -> None:
    async with listening(numbered(UNBILLED), account=first(HANG)) as (client, simulator, heard):
        await observe(client.chat(PROMPT))
        await until(lambda: len(simulator.exchanges) == 2)
        await client.aclose()
        await simulator.exchanges[1].over.wait()

        assert simulator.exchanges[1].left_at is not None
        assert [receipt.status for receipt in heard.values] == ["unavailable"]


def test_closing_a_client_with_its_own_thread_completes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipts_module, "_PAUSES", [3600.0])
    told: list[object] = []
    with Simulator(numbered(UNBILLED)) as simulator, OpenRouter(KEY, base_url=simulator.base_url) as client:
        client.receipts.subscribe(told.append, told.append, lambda: told.append("completed"))
        client.chat(PROMPT).run()

    assert [getattr(what, "status", what) for what in told] == ["unavailable", "completed"]


@pytest.mark.parametrize("leave", [True, False], ids=["left", "running"])
def test_a_loop_that_ends_under_an_open_client_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, *, leave: bool
) -> None:
    monkeypatch.setattr(receipts_module, "_PAUSES", [3600.0])
    told: list[Any] = []

    async def main(url: str) -> None:
        client = OpenRouter(KEY, base_url=url)
        client.receipts.subscribe(told.append, told.append, lambda: told.append("completed"))
        subscription = await started(client)
        if leave:
            subscription.dispose()

    with Simulator(numbered(SILENT)) as simulator:
        asyncio.run(main(simulator.base_url))

    assert [getattr(what, "status", what) for what in told] == ["unavailable", "completed"]
    assert caplog.text == ""


# Discretion


async def test_no_receipt_tells_the_key_or_the_prompt() -> None:
    async with listening(numbered(PAID)) as (client, _, heard):
        await observe(client.chat(PROMPT))
        (await started(client)).dispose()
        await quiet(client)

    told = repr(heard.values) + msgspec.json.encode(heard.values).decode()
    assert KEY not in told
    assert PROMPT not in told


# All at once

KINDS: dict[str, Reply] = {
    "paid": PAID,
    "unbilled": UNBILLED,
    "cut": FAULTS["cut"](WORDS),
    "truncate": FAULTS["truncate"](WORDS),
    "error-late": FAULTS["error-late"](WORDS),
    "error-first": FAULTS["error-first"](WORDS),
    "left": SILENT,
    "left without headers": HANG,
    "401": FAULTS["401"](WORDS),
    "never sent": PAID,
}


def expected(kind: str) -> str | None:
    if kind in {"401", "never sent"}:
        return None
    return "unavailable" if kind == "left without headers" else "exact"


async def test_a_thousand_endings_have_each_one_receipt_or_none_by_the_rule() -> None:
    chance = random.Random(20)
    # An eager task has sent its request by a connection that was kept, before it can be disposed of.
    kinds = chance.choices([kind for kind in KINDS if kind != "never sent" or not tasks_are_eager()], k=1000)
    asked = [asyncio.Event() for _ in kinds]

    def reply(exchange: Exchange) -> Reply:
        number = int(exchange.json["messages"][0]["content"])
        asked[number].set()
        said = KINDS[kinds[number]]
        if said.status != 200:
            return said
        return msgspec.structs.replace(said, headers={**SSE, "X-Generation-Id": f"gen-{number}"})

    async def one(number: int) -> None:
        kind, begun, over = kinds[number], asyncio.Event(), asyncio.Event()
        subscription = client.chat(str(number)).subscribe(lambda _: begun.set(), lambda _: over.set(), over.set)
        if kind == "never sent":
            subscription.dispose()
        elif kind == "left":
            await begun.wait()
            await subscription.aclose()
        elif kind == "left without headers":
            await asked[number].wait()
            subscription.dispose()
        else:
            await over.wait()

    sockets = open_sockets()
    async with listening(reply, late=1) as (client, _, heard):
        for at in range(0, len(kinds), 50):
            await asyncio.gather(*(one(number) for number in range(at, at + 50)))
        await quiet(client)
        assert heard.endings == []

    due = Counter(expected(kind) for kind in kinds)
    assert Counter(receipt.status for receipt in heard.values) == {kind: due[kind] for kind in ("exact", "unavailable")}
    told = sorted(receipt.generation_id for receipt in heard.values if receipt.generation_id)
    assert told == sorted(f"gen-{number}" for number, kind in enumerate(kinds) if expected(kind) == "exact")
    assert heard.endings == [None]
    await until(lambda: open_sockets() <= sockets)


def open_sockets() -> int:
    """Those of this process; none where there is no /proc to ask."""
    found = 0
    for file in Path("/proc/self").glob("fd/*"):
        with suppress(OSError):  # the directory's own
            found += "socket:" in str(file.readlink())
    return found
