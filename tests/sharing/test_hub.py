from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from reactivex import Observable, abc, from_iterable, operators as ops

from rxrouter import (
    ChatChunk,
    GenerationCycleError,
    Overflow,
    RouterError,
    StatusError,
    StreamError,
    Usage,
    iterate,
)
from rxrouter._errors import (
    ClientClosedError,
    GenerationStopped,
    GenerationTooLargeError,
    ProducerLostError,
    UnknownGenerationError,
)
from rxrouter.operators import completion, share_generation, text
from rxrouter.sharing import Hub, MemoryLog, Status, Writer
from rxrouter.sharing._entries import decode
from rxrouter.testing import STORY, Reply, answer
from tests.operators.support import NoLoop
from tests.sharing.support import Logs, Reader, Source, facts, started, word, words
from tests.support import proven, served, until

# Each test has two hubs, as two processes would, on one log.


async def test_many_consumers_of_one_generation_on_many_nodes_are_one_post(logs: Logs) -> None:
    async with served() as (client, simulator), Hub(logs()) as here, Hub(logs()) as there:
        mine = here.start("k", client.chat("hi"))
        theirs = there.start("k", client.chat("hi"))

        said = await asyncio.gather(*(chunks.pipe(completion()) for chunks in (mine, theirs, there.follow("k"))))

        assert [whole.text for whole in said] == [STORY] * 3
        assert len(simulator.exchanges) == 1


async def test_a_generation_needs_no_reader_and_none_that_stays(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say(2)
        await reader.until_read(2)
        reader.leave()

        source.say(2)
        source.end()
        late = Reader(there.follow("k"))

        assert await late.until_over() is None
        assert late.read == words(4)
        assert (source.left, reader.read) == (1, words(2))


async def test_a_late_reader_gets_all_that_was_and_then_the_tail(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        source.say(3)
        readers = [Reader(hub.follow("k")) for hub in (here, there)]
        for reader in readers:
            await reader.until_read(3)

        source.say(2)
        source.end()

        assert [await reader.until_over() for reader in readers] == [None, None]
        assert [reader.read for reader in readers] == [words(5)] * 2


@pytest.mark.parametrize("after", [0, 2, 5, 9])
async def test_ids_resume_after_the_last_that_was_read(logs: Logs, after: int) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        source.say(5)
        early = Reader(there.follow("k", after=after))
        numbered: list[tuple[int, bytes]] = []
        over = asyncio.Event()
        there.entries("k", after=after).subscribe(
            lambda entry: numbered.append((entry.number, entry.chunk.raw)), on_completed=over.set
        )
        await Reader(there.follow("k")).until_read(5)

        source.say(7)
        source.end()

        assert await early.until_over() is None
        await over.wait()
        assert early.read == words(12)[after:]
        assert numbered == list(enumerate(words(12), 1))[after:]


async def test_ids_resume_also_after_the_end(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        await here.start("k", proven(from_iterable([word(1), word(2), word(3)])))

        readers = [Reader(there.follow("k", after=after)) for after in (1, 3, 4)]

        assert [await reader.until_over() for reader in readers] == [None] * 3
        assert [reader.read for reader in readers] == [words(3)[1:], [], []]


ENDINGS = [
    StatusError(429, "rate_limited", "slow down", {"headers": {"X": "1"}}, 7.5, provider="Venice"),
    StreamError(503, "overloaded", "provider_overloaded", "Venice", usage=Usage(completion_tokens=3, cost=0.1)),
    ProducerLostError(),
]


@pytest.mark.parametrize("error", ENDINGS, ids=lambda error: type(error).__name__)
async def test_a_late_reader_of_a_failed_generation_gets_the_same_error(logs: Logs, error: RouterError) -> None:
    error.generation_id, error.chunks_seen, error.elapsed = "gen-1", 2, 1.5
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        early = [Reader(hub.follow("k")) for hub in (here, there)]
        source.say(2)
        source.end(error)
        endings = [await reader.until_over() for reader in early]
        late = [Reader(hub.follow("k", after=1)) for hub in (here, there)]

        endings += [await reader.until_over() for reader in late]

        whole = error
        whole.partial = await from_iterable([word(1), word(2)]).pipe(completion())
        whole.partial.state = "failed"
        assert [facts(ending) for ending in endings] == [facts(whole)] * 4
        assert len({id(ending) for ending in endings}) == 4
        whole.partial = None
        status = await there.status("k")
        assert (status.state, status.entries, facts(status.error)) == ("failed", 2, facts(whole))


async def test_stopping_is_not_leaving_and_keeps_what_was_said(logs: Logs) -> None:
    """Explicit stop, distinct from disconnect, from any node; the partial answer is not lost."""
    async with (
        served(Reply.of(answer(STORY), rate=50)) as (client, simulator),
        Hub(logs()) as here,
        Hub(logs()) as there,
    ):
        left = Reader(here.start("k", client.chat("hi")))
        await left.until_read(2)
        stays = Reader(there.follow("k"))
        left.leave()
        await stays.until_read(5)
        assert not simulator.exchanges[0].over.is_set()

        await there.stop("k")

        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        ending = await stays.until_over()
        assert isinstance(ending, GenerationStopped)
        assert ending.partial.text == "".join(_text(raw) for raw in stays.read)
        late = Reader(here.follow("k"))
        assert isinstance(await late.until_over(), GenerationStopped)
        assert late.read == stays.read
        assert (await here.status("k")).state == "stopped"


async def test_a_silent_generation_is_stopped_from_afar_at_once(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)

        await there.stop("k")
        await until(lambda: source.left == 1)
        await there.stop("k")  # what has ended is left as it is

        assert (await here.status("k")).state == "stopped"


async def test_the_status_of_a_generation_is_known_everywhere(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        assert await there.status("k") == Status("unknown")
        source = Source()
        await started(here, "k", source)
        assert await there.status("k") == Status("running")
        reader = Reader(there.follow("k"))
        source.say(3)
        await reader.until_read(3)
        assert await there.status("k") == Status("running", 3)

        source.end()
        await reader.until_over()

        assert await there.status("k") == await here.status("k") == Status("completed", 3)


async def test_an_unknown_generation_is_told_at_once(logs: Logs) -> None:
    async with Hub(logs()) as hub:
        ending = await Reader(hub.follow("nobody's")).until_over()
        assert isinstance(ending, UnknownGenerationError)
        assert (ending.key, "nobody's" in str(ending)) == ("nobody's", False)

        with pytest.raises(UnknownGenerationError):
            await hub.stop("nobody's")


async def test_a_key_that_has_ended_is_not_begun_again(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        await here.start("k", proven(from_iterable([word(1)])))
        again = Source()

        for hub in (here, there):
            reader = Reader(hub.start("k", again.chunks))
            assert (await reader.until_over(), reader.read) == (None, words(1))

        assert again.subscribed == 0


async def test_who_starts_a_running_key_joins_it(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        first, others = Source(), Source()
        await started(here, "k", first)

        readers = [Reader(hub.start("k", others.chunks)) for hub in (here, there)]
        first.say(2)
        first.end()

        for reader in readers:
            assert (await reader.until_over(), reader.read) == (None, words(2))
        assert (first.subscribed, others.subscribed) == (1, 0)


async def test_an_observer_that_raises_is_told_alone(logs: Logs) -> None:
    def clumsy(chunk: ChatChunk) -> None:
        if chunk.raw == word(2).raw:
            raise ZeroDivisionError

    async with Hub(logs()) as hub:
        source = Source()
        await started(hub, "k", source)
        before, bad, behind = (
            Reader(hub.follow("k")),
            Reader(hub.follow("k"), clumsy),
            Reader(hub.follow("k").pipe(ops.do_action(clumsy))),
        )
        after = Reader(hub.follow("k"))

        source.say(3)
        source.end()

        for reader in (before, after):
            assert (await reader.until_over(), reader.read) == (None, words(3))
        for reader in (bad, behind):
            assert isinstance(await reader.until_over(), ZeroDivisionError)
        assert source.left == 1


async def test_a_reader_that_sleeps_for_ever_holds_its_place_and_nothing_else(logs: Logs) -> None:
    async with Hub(logs()) as hub:
        source = Source()
        await started(hub, "k", source)
        asleep = iterate(hub.follow("k"), high=4, low=1, overflow=Overflow.PAUSE)
        awake = Reader(hub.follow("k"))
        source.say()
        first = await anext(asleep)

        source.say(9_999)
        source.end()

        assert (await awake.until_over(), awake.read) == (None, words(10_000))
        assert [first.raw, *[chunk.raw async for chunk in asleep]] == words(10_000)


async def test_readers_come_and_go_in_the_middle_of_a_delivery() -> None:
    """Inside on_next: a reader joins, one leaves, and the source says the next."""
    async with Hub() as hub:
        source = Source()
        await started(hub, "k", source)
        joined: list[Reader] = []

        def meddle(chunk: ChatChunk) -> None:
            if chunk.raw == word(2).raw:
                source.say()
                joined.append(Reader(hub.follow("k")))
                leaving.leave()
                source.say()
                source.end()
                joined.append(Reader(hub.follow("k")))

        meddler = Reader(hub.follow("k"), meddle)
        leaving = Reader(hub.follow("k"))
        source.say(2)

        for reader in (meddler, *joined):
            assert (await reader.until_over(), reader.read) == (None, words(4))
        assert (leaving.read, leaving.endings) == (words(1), [])


@pytest.mark.parametrize("source", [[1], ["text"], [None]], ids=repr)
async def test_what_is_no_chunk_ends_the_generation(logs: Logs, source: Any) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        early = Reader(here.start("k", proven(from_iterable(source))))

        assert type(await early.until_over()) is RouterError
        assert type(await Reader(there.follow("k")).until_over()) is RouterError


async def test_an_error_that_is_not_ours_comes_back_as_its_text(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        early = Reader(here.start("k", proven(from_iterable([word(1)])).pipe(ops.map(_divide))))
        await early.until_over()

        for reader in (early, Reader(here.follow("k")), Reader(there.follow("k"))):
            ending = await reader.until_over()
            assert (type(ending), str(ending)) == (RouterError, "ZeroDivisionError: division by zero")


async def test_a_source_that_can_not_be_subscribed_is_an_ending(logs: Logs) -> None:
    def refuse(*_: Any) -> Any:
        raise StatusError(402, message="no credits")

    async with Hub(logs()) as hub:
        ending = await Reader(hub.start("k", Observable(refuse))).until_over()

        assert isinstance(ending, StatusError)
        assert ending.status == 402


async def test_readers_get_the_error_when_the_subscribe_of_a_source_raises(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        reader = Reader(here.start("k", NoLoop(StatusError(402, message="no credits"))))
        await here.status("k")
        for other in (reader, Reader(there.follow("k"))):
            ending = await other.until_over()
            assert isinstance(ending, StatusError)
            assert ending.status == 402
        assert (await there.status("k")).state == "failed"


@pytest.mark.parametrize("key", ["", "half a surrogate pair: \ud83d"], ids=["empty", "no text"])
async def test_start_subscribes_nothing_when_its_key_is_refused(key: str) -> None:
    source = Source()
    async with Hub() as hub:
        with pytest.raises(ValueError, match="key"):
            hub.start(key, source.chunks)
        for _ in range(10):
            await asyncio.sleep(0)

    assert source.subscribed == 0


async def test_a_source_that_raises_when_it_is_left_harms_nobody(logs: Logs) -> None:
    async with Hub(logs()) as here, Hub(logs()) as there:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        stopped, failing, sibling = Clumsy(), Clumsy(), Source()
        for key, source in (("stopped", stopped), ("failing", failing), ("sibling", sibling)):
            await started(here, key, source)
        readers = [Reader(there.follow(key)) for key in ("stopped", "failing", "sibling")]

        await there.stop("stopped")
        failing.observer.on_error(StatusError(502))
        sibling.say(3)
        sibling.end()

        endings = [await reader.until_over() for reader in readers]
        assert [type(ending) for ending in endings] == [GenerationStopped, StatusError, type(None)]
        assert readers[2].read == words(3)
        await until(lambda: (stopped.left, failing.left) == (1, 1))
        assert [type(error) for error in told] == [ZeroDivisionError, ZeroDivisionError]


async def test_a_hub_closes_all_its_sources_though_one_raises(logs: Logs) -> None:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    bad, good = Clumsy(), Source()
    hub = Hub(logs())
    await started(hub, "bad", bad)
    await started(hub, "good", good)

    await hub.aclose()

    assert (bad.left, good.left) == (1, 1)
    assert [type(error) for error in told] == [ZeroDivisionError]


async def test_nothing_begins_in_a_hub_that_is_being_closed(logs: Logs) -> None:
    hub = Hub(logs())
    source, late = Source(), Source()
    await started(hub, "k", source)

    closing = asyncio.create_task(hub.aclose(grace=60))
    await asyncio.sleep(0)
    with pytest.raises(ClientClosedError, match="being closed"):
        hub.start("late", late.chunks)
    reader = Reader(hub.follow("k"))  # what runs can be read
    source.say(2)
    await reader.until_read(2)
    source.end()
    await closing

    assert (reader.read, late.subscribed) == (words(2), 0)


async def test_a_key_that_is_claimed_while_the_hub_closes_gets_its_ending() -> None:
    class Slow(MemoryLog):
        async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
            claimed.set()
            await closing.wait()
            return await super().claim(key, on_lost)

        async def aclose(self) -> None:
            """Kept, to look at it."""

    claimed, closing = asyncio.Event(), asyncio.Event()
    log, source = Slow(), Source()
    hub = Hub(log)
    hub.start("k", source.chunks)
    await claimed.wait()

    closed = asyncio.create_task(hub.aclose())
    await asyncio.sleep(0)
    closing.set()
    await closed

    async with Hub(log) as other:
        status = await other.status("k")
    assert (status.state, type(status.error), source.subscribed) == ("failed", ProducerLostError, 0)


async def test_who_stops_waiting_for_a_status_stops_nobody_else() -> None:
    class Slow(MemoryLog):
        async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:
            claimed.set()
            await going_on.wait()
            return await super().claim(key, on_lost)

    claimed, going_on = asyncio.Event(), asyncio.Event()
    source = Source()
    async with Hub(Slow()) as hub:
        reader = Reader(hub.start("k", source.chunks))
        asking = asyncio.create_task(hub.status("k"))
        await claimed.wait()
        asking.cancel()
        going_on.set()
        await until(lambda: source.subscribed == 1)
        source.say()
        source.end()

        assert await reader.until_over() is None


async def test_a_claim_that_fails_in_any_way_is_told() -> None:
    class Broken(MemoryLog):
        async def claim(self, key: str, on_lost: Callable[[], None]) -> Writer | None:  # noqa: ARG002 - it does not come to it
            raise ZeroDivisionError

    async with Hub(Broken()) as hub:
        assert isinstance(await Reader(hub.start("k", Source().chunks)).until_over(), ZeroDivisionError)


async def test_the_result_of_what_was_cancelled_is_a_readers_own_mistake(logs: Logs) -> None:
    def wrong(_: ChatChunk) -> None:
        raise asyncio.CancelledError

    async with Hub(logs()) as hub:
        source = Source()
        await started(hub, "k", source)
        bad, good = Reader(hub.follow("k"), wrong), Reader(hub.follow("k"))
        source.say(2)
        source.end()

        assert (await good.until_over(), good.read) == (None, words(2))
        assert "CancelledError" in str(await bad.until_over())


async def test_a_reader_that_begins_in_the_midst_of_a_replay_is_a_reader_like_any() -> None:
    hub = Hub()
    source = Source()
    await started(hub, "k", source)
    source.say()
    inner: list[Reader] = []
    Reader(hub.follow("k"), lambda _: inner.append(Reader(hub.follow("k"))))

    await hub.aclose()

    assert isinstance(await inner[0].until_over(), ClientClosedError)


async def test_a_long_replay_leaves_the_loop_to_others() -> None:
    async with Hub() as hub:
        source = Source()
        await started(hub, "k", source)
        source.say(5_000)

        late = Reader(hub.follow("k"))
        at_once = len(late.read)
        source.say()
        source.end()

        assert at_once <= 1_000
        assert (await late.until_over(), late.read) == (None, words(5_001))


async def test_a_generation_that_grows_too_large_is_cut_and_told(logs: Logs) -> None:
    limit = sum(map(len, words(10)))
    async with Hub(logs(), max_bytes=limit) as hub:
        source = Source()
        await started(hub, "k", source)
        reader = Reader(hub.follow("k"))

        source.say(12)

        ending = await reader.until_over()
        assert isinstance(ending, GenerationTooLargeError)
        assert (ending.limit_bytes, reader.read, source.left) == (limit, words(10), 1)


async def test_a_hub_that_closes_tells_everybody_and_closes_its_sources(logs: Logs) -> None:
    async with served(Reply.of(answer(STORY), rate=50)) as (client, simulator), Hub(logs()) as there:
        here = Hub(logs())
        theirs = Source()
        await started(there, "theirs", theirs)
        mine = [Reader(here.start("k", client.chat("hi"))), Reader(here.follow("theirs"))]
        await mine[0].until_read(1)
        away = Reader(there.follow("k"))
        await away.until_read(1)

        await here.aclose()

        await simulator.exchanges[0].over.wait()
        for reader in mine:
            assert isinstance(await reader.until_over(), ClientClosedError)
        assert isinstance(await away.until_over(), ProducerLostError)
        with pytest.raises(ClientClosedError):
            here.start("new", theirs.chunks)
        await here.aclose()


async def test_a_hub_that_closes_gracefully_waits_for_what_it_makes(logs: Logs) -> None:
    here, source = Hub(logs()), Source()
    await started(here, "k", source)
    reader = Reader(here.follow("k"))

    closing = asyncio.create_task(here.aclose(grace=60))
    await asyncio.sleep(0)
    source.say(2)
    await reader.until_read(2)
    source.end()
    await closing

    assert reader.read == words(2)


async def test_a_hub_works_from_any_thread(logs: Logs) -> None:
    async with Hub(logs()) as hub:
        source = Source()
        await started(hub, "k", source)
        told: list[Any] = []
        loop = asyncio.get_running_loop()

        def note(_: object) -> None:
            told.append(threading.current_thread())

        def elsewhere() -> None:
            hub.follow("k").subscribe(note, note, lambda: note(None))
            loop.call_soon_threadsafe(source.say)
            loop.call_soon_threadsafe(source.end)

        await asyncio.to_thread(elsewhere)
        await until(lambda: len(told) == 2)

        assert told == [threading.current_thread()] * 2


def test_a_hub_without_a_loop_has_one_of_its_own() -> None:
    hub = Hub()

    whole = hub.start("k", proven(from_iterable([word(1), word(2)]))).pipe(completion()).run()

    assert whole.text == "w1 w2 "
    asyncio.run(hub.aclose())


async def test_the_starter_can_not_pause_a_generation(logs: Logs) -> None:
    """A chain that starts one, and has a slow reader of its own, is nothing to it."""
    async with served() as (client, _), Hub(logs()) as hub:

        def start(chunk: ChatChunk) -> Observable[str]:
            return hub.start("k", client.chat("hi")).pipe(text())

        slow = iterate(
            proven(from_iterable([word(1)])).pipe(ops.flat_map(start)), high=2, low=1, overflow=Overflow.PAUSE
        )
        await anext(slow)

        assert (await hub.follow("k").pipe(completion())).text == STORY
        await slow.aclose()


def test_arguments_of_no_sense_are_refused_where_they_are_written() -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        Hub(max_bytes=0)
    hub = Hub()
    with pytest.raises(ValueError, match="key"):
        hub.follow("")
    text: Any = "text"
    with pytest.raises(TypeError, match="chunks is an Observable, not str"):
        hub.start("k", text)
    with pytest.raises(ValueError, match="Unicode"):
        hub.start("half of one: \ud83d", Source().chunks)
    with pytest.raises(ValueError, match="after"):
        hub.follow("k", after=-1)


@settings(max_examples=30)
@given(count=st.integers(0, 30), joins=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=5))
def test_whoever_comes_when_and_after_what_reads_each_entry_once(count: int, joins: list[tuple[int, int]]) -> None:
    asyncio.run(_come_and_read(count, joins))


async def _come_and_read(count: int, joins: list[tuple[int, int]]) -> None:
    async with Hub() as hub:
        source = Source()
        await started(hub, "k", source)
        readers: list[tuple[int, Reader]] = []
        for said in range(count + 1):
            readers += [(after, Reader(hub.follow("k", after=after))) for at, after in joins if at == said]
            if said < count:
                source.say()
        source.end()

        for after, reader in readers:
            assert (await reader.until_over(), reader.read) == (None, words(count)[after:])


class Clumsy(Source):
    """A source that raises when it is left."""

    def _leave(self) -> None:
        super()._leave()
        raise ZeroDivisionError


def _divide(_: ChatChunk) -> ChatChunk:
    raise ZeroDivisionError("division by zero")


def _text(raw: bytes) -> str:
    return decode(raw).choices[0].delta.content or ""


async def test_generation_ends_with_an_error_when_it_follows_itself() -> None:
    async with Hub() as hub:
        ending = await Reader(hub.start("k", hub.follow("k"))).until_over()
        assert isinstance(ending, GenerationCycleError)
        assert (await hub.status("k")).state == "failed"


@pytest.mark.parametrize("size", [2, 3, 5])
async def test_generations_end_with_an_error_when_they_follow_each_other_in_a_ring(size: int) -> None:
    async with Hub() as hub:
        readers = [
            Reader(hub.start(f"{number}", hub.follow(f"{(number + 1) % size}").pipe(ops.map(lambda chunk: chunk))))
            for number in range(size)
        ]
        for reader in readers:
            assert isinstance(await reader.until_over(), GenerationCycleError)


async def test_generation_may_follow_another_that_follows_a_third() -> None:
    source = Source()
    async with Hub() as hub:
        await started(hub, "first", source)
        hub.start("second", hub.follow("first"))
        reader = Reader(hub.start("third", hub.follow("second").pipe(ops.merge(hub.follow("first")))))
        await hub.status("third")
        source.say(2)
        source.end()
        assert await reader.until_over() is None
        assert len(reader.read) == 4


_TENANT: ContextVar[str] = ContextVar("tenant", default="no tenant")


@pytest.mark.parametrize("shared", ["hub", "share_generation"])
async def test_each_reader_runs_in_the_context_in_which_it_subscribed(shared: str) -> None:
    """For values that come, values that it catches up on, and the ending."""
    source = Source()
    seen: dict[str, list[str]] = {}
    async with Hub() as hub:
        answer: Observable[ChatChunk] = (
            hub.start("k", source.chunks) if shared == "hub" else source.chunks.pipe(share_generation())
        )

        def read(tenant: str) -> None:
            notes = seen.setdefault(tenant, [])
            _TENANT.set(tenant)
            answer.subscribe(lambda _: notes.append(_TENANT.get()), lambda _: None, lambda: notes.append(_TENANT.get()))

        for number in range(3):
            copy_context().run(read, f"tenant {number}")
            await until(lambda: source.subscribed == 1)
            source.say()
        late = threading.Thread(target=copy_context().run, args=(read, "thread"))
        late.start()
        late.join()
        await until(lambda: shared != "hub" or len(seen["thread"]) == 3)
        source.end()
        await until(lambda: all(len(notes) == 4 for notes in seen.values()))

    assert {tenant: set(notes) for tenant, notes in seen.items()} == {tenant: {tenant} for tenant in seen}
    assert len(seen) == 4


@pytest.mark.parametrize("kind", [ZeroDivisionError, pytest.fail.Exception, asyncio.CancelledError])
async def test_generation_fails_when_the_subscribe_of_its_source_raises(kind: type[BaseException]) -> None:
    def subscribe(_: object, __: object = None) -> abc.DisposableBase:
        raise kind

    async with Hub() as hub:
        ending = await Reader(hub.start("k", Observable(subscribe))).until_over()
        assert ending is not None
        assert (await hub.status("k")).state == "failed"
