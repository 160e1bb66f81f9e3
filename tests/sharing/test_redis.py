from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from reactivex import from_iterable
from redis.asyncio import Redis

from rxrouter._errors import GenerationStopped, LogLostError, ProducerLostError, UnknownGenerationError
from rxrouter.operators import completion
from rxrouter.sharing import Hub, MemoryLog, Spread
from rxrouter.sharing._redis_line import Command, Line
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import STORY
from tests.sharing.conftest import LEASE, SERVERS, redis_logs
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Reader, Source, started, word, words
from tests.support import proven, served, until

KEEP_MS = 600_000
"""The default of a RedisLog."""

# On a real server: one writer, whatever happens; one ending, whoever dies.


async def test_two_producers_race_and_exactly_one_wins(server: RedisServer) -> None:
    logs = redis_logs(server)
    async with served() as (client, simulator), Hub(logs()) as here, Hub(logs()) as there:
        races = [
            hub.start(str(key), client.chat(f"{key}")).pipe(completion()) for key in range(20) for hub in (here, there)
        ]

        said = await asyncio.gather(*races)

        assert [whole.text for whole in said] == [STORY] * 40
        assert sorted(exchange.json["messages"][0]["content"] for exchange in simulator.exchanges) == sorted(
            str(key) for key in range(20)
        )


async def test_a_thousand_readers_of_one_key_are_one_read(server: RedisServer) -> None:
    logs = redis_logs(server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        readers = [Reader(there.follow("k")) for _ in range(1_000)]
        await until(lambda: all(not reader.endings for reader in readers))
        reads, clients = _calls(server, "xread"), server.ask("CLIENT", "LIST").count(b"\nid=")

        for said in range(1, 51):
            source.say()
            await readers[-1].until_read(said)
        source.end()

        assert [await reader.until_over() for reader in readers] == [None] * 1_000
        assert all(reader.read == words(50) for reader in readers)
        assert _calls(server, "xread") - reads <= 2 * (50 + 2) + 2  # each process wakes for an entry, at the most
        assert clients <= 4  # two each


async def test_a_killed_server_that_comes_back_costs_no_reader_anything(own_server: RedisServer) -> None:
    logs = redis_logs(own_server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        readers = [Reader(hub.follow("k")) for hub in (here, there)]
        for _ in range(3):
            source.say(20)
            for reader in readers:
                await reader.until_read(source.said - 20 + 1)
            own_server.kill()
            source.say(20)
            await asyncio.sleep(LEASE * 2)  # as long as a lease may not be missing while the server is there
            own_server.start()
            for reader in readers:
                await reader.until_read(source.said)
        source.end()
        late = Reader(there.follow("k"))

        for reader in (*readers, late):
            assert (await reader.until_over(), reader.read) == (None, words(120))


async def test_a_server_that_has_lost_everything_is_told_to_all(own_server: RedisServer) -> None:
    logs = redis_logs(own_server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        readers = [Reader(hub.follow("k")) for hub in (here, there)]
        source.say(3)
        for reader in readers:
            await reader.until_read(3)

        own_server.kill()
        source.say()
        own_server.recall(None)
        own_server.start()

        for reader in readers:
            ending = await reader.until_over()
            assert isinstance(ending, LogLostError)
            assert (ending.partial.text, reader.read) == ("w1 w2 w3 ", words(3))
        await until(lambda: source.left == 1)
        again = Source()
        await started(there, "k", again)
        again.say()
        again.end()
        assert (await here.follow("k")).raw == word(1).raw


async def test_a_server_that_has_lost_the_last_entries_is_told_to_all(
    own_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Or there would be a gap: the writer goes on from what was acknowledged."""
    copy = tmp_path_factory.mktemp("copy") / "disk"
    logs = redis_logs(own_server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        early = Reader(there.follow("k"))
        source.say(3)
        await early.until_read(3)
        own_server.remember(copy)
        source.say(3)
        await early.until_read(6)
        await here.status("k")  # comes behind what was acknowledged

        own_server.kill()
        source.say()
        own_server.recall(copy)
        own_server.start()

        late = Reader(here.follow("k"))
        for reader, count in ((early, 6), (late, 3)):
            assert isinstance(await reader.until_over(), LogLostError)
            assert reader.read == words(count)
        await until(lambda: source.left == 1)


async def test_a_log_that_was_deleted_is_told_to_all(server: RedisServer) -> None:
    logs = redis_logs(server, namespace="deleted")
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say(1)
        await reader.until_read(1)

        server.ask("DEL", "{deleted}:log:k")
        source.say()

        await until(lambda: source.left == 1)
        assert isinstance(await reader.until_over(), LogLostError)


async def test_a_generation_begun_anew_is_not_taken_for_the_one_that_was_lost(own_server: RedisServer) -> None:
    logs = redis_logs(own_server)
    async with Hub(logs()) as here, Hub(logs()) as there, Hub(logs()) as elsewhere:
        first, second = Source(), Source()
        await started(here, "k", first)
        reader = Reader(there.follow("k"))
        first.say(2)
        await reader.until_read(2)

        own_server.kill()
        own_server.recall(None)
        own_server.start()
        await started(elsewhere, "k", second)
        second.say(5)

        assert isinstance(await reader.until_over(), LogLostError)
        assert reader.read == words(2)
        await until(lambda: first.left == 1)
        second.end()


async def test_a_generation_that_is_started_while_the_server_is_away_begins_when_it_is_back(
    own_server: RedisServer,
) -> None:
    logs = redis_logs(own_server)
    own_server.kill()
    async with Hub(logs()) as hub:
        reader = Reader(hub.start("k", proven(from_iterable([word(1), word(2)]))))
        await asyncio.sleep(0.1)
        own_server.start()

        assert (await reader.until_over(), reader.read) == (None, words(2))


async def test_who_follows_nothing_while_the_server_is_away_is_told_when_it_is_back(own_server: RedisServer) -> None:
    async with Hub(redis_logs(own_server)()) as hub:
        own_server.kill()
        reader = Reader(hub.follow("nobody"))
        await asyncio.sleep(0.05)  # so that it is asked, in vain
        own_server.start()

        assert isinstance(await reader.until_over(), UnknownGenerationError)


async def test_a_server_that_stays_away_is_told_after_the_outage(own_server: RedisServer) -> None:
    logs = redis_logs(own_server, outage=0.5)
    async with Hub(logs()) as here, Hub(logs()) as there:
        running, refused = Source(), Source()
        await started(here, "k", running)
        readers = [Reader(hub.follow("k")) for hub in (here, there)]
        running.say()
        for reader in readers:
            await reader.until_read(1)

        own_server.kill()
        readers += [Reader(there.start("new", refused.chunks)), Reader(there.follow("other"))]

        for reader in readers:
            assert isinstance(await reader.until_over(), LogLostError)
        await until(lambda: running.left == 1)
        assert refused.subscribed == 0
        for question in (here.status("k"), here.stop("k"), there.stop("k")):
            with pytest.raises(LogLostError):
                await question


async def test_a_server_that_hangs_is_left_and_found_again(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection stands, and nothing comes."""
    monkeypatch.setattr("rxrouter.sharing._redis_line._ANSWER_SECONDS", 0.2)
    logs = redis_logs(own_server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say()
        await reader.until_read(1)

        own_server.pause()
        source.say()
        await asyncio.sleep(0.6)
        own_server.resume()
        source.say()
        source.end()

        assert (await reader.until_over(), reader.read) == (None, words(3))


async def test_what_waits_for_the_server_is_bounded(own_server: RedisServer) -> None:
    logs = redis_logs(own_server, buffer_bytes=2_000)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say()
        await reader.until_read(1)

        own_server.kill()
        source.say(100)
        assert source.left == 1
        own_server.start()

        ending = await reader.until_over()
        assert isinstance(ending, LogLostError)
        assert "2000 bytes" in str(ending)


async def test_a_producer_that_was_given_up_while_it_slept_is_fenced(server: RedisServer) -> None:
    """Its lease ran out, its generation was ended for it: nothing that it still says is in the log, and it is told."""
    logs = redis_logs(server, namespace="fenced")
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say(2)
        await reader.until_read(2)
        epoch = int(_first_id(server, "{fenced}:log:k"))

        ending = '{"text":"the generation\'s producer is gone","types":["ProducerLostError","RouterError"]}'
        server.ask("XADD", "{fenced}:log:k", f"{epoch + 1}-0", "end", ending)
        source.say(2)

        assert isinstance(await reader.until_over(), ProducerLostError)
        await until(lambda: source.left == 1)
        late = Reader(here.follow("k"))
        assert isinstance(await late.until_over(), ProducerLostError)
        assert late.read == reader.read == words(2)


async def test_a_missed_ring_is_made_good_by_the_next_beat(server: RedisServer) -> None:
    logs = redis_logs(server, namespace="deaf")
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        server.ask("DEL", "{deaf}:lease:k")  # so nobody knows whom to ring for

        await there.stop("k")

        await until(lambda: source.left == 1)


async def test_a_lease_that_was_missed_once_is_taken_again(server: RedisServer) -> None:
    logs = redis_logs(server, namespace="missed")
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        server.ask("DEL", "{missed}:lease:k")
        await until(lambda: server.ask("EXISTS", "{missed}:lease:k") == b":1\r\n")
        source.say()
        source.end()

        assert (await reader.until_over(), reader.read) == (None, words(1))


async def test_a_generation_that_says_nothing_is_alive_also_after_another_has_ended(server: RedisServer) -> None:
    async with Hub(redis_logs(server, namespace="silent")()) as hub:
        await hub.start("first", proven(from_iterable([word(1)])))
        await until(lambda: server.ask("EXISTS", "{silent}:lease:first") == b":0\r\n")
        await hub.status("first")  # comes behind all that the first had to say
        await started(hub, "second", Source())

        server.ask("DEL", "{silent}:lease:second")

        await until(lambda: server.ask("EXISTS", "{silent}:lease:second") == b":1\r\n")


async def test_a_lease_that_one_look_misses_is_no_death(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis was held up for the time of a lease, and the reader was the first to ask when it went on."""
    looks = 0

    def held_up(command: Command, reply: Any) -> Any:
        nonlocal looks
        if command[0] != "GET":
            return reply
        looks += 1
        return None if looks == 1 else reply

    _overhear(monkeypatch, held_up)
    logs = redis_logs(server)
    async with Hub(logs()) as here, Hub(logs()) as there:
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        await until(lambda: looks >= 3)
        source.say()
        source.end()

        assert (await reader.until_over(), reader.read) == (None, words(1))


async def test_a_log_that_goes_when_it_was_just_found_is_told(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def delete(command: Command, reply: Any) -> Any:
        if command[0] == "XRANGE":
            server.ask("DEL", str(command[1]))
        return reply

    _lay(server, "gone", "k")
    _overhear(monkeypatch, delete)
    async with Hub(redis_logs(server, namespace="gone")()) as hub:
        assert isinstance(await Reader(hub.follow("k")).until_over(), LogLostError)


async def test_what_is_begun_anew_here_is_not_harmed_by_what_was_lost(server: RedisServer) -> None:
    log = redis_logs(server, namespace="anew")()
    lost: list[str] = []
    first = await log.claim("k", lambda: lost.append("first"))
    server.ask("DEL", "{anew}:log:k", "{anew}:lease:k")
    second = await log.claim("k", lambda: lost.append("second"))
    assert first is not None
    assert second is not None

    first.append(word(9))
    await log.status("k")  # comes behind what it said
    assert lost == ["first"]
    second.append(word(1))
    second.end(None)
    await until(lambda: lost == ["first", "second"])
    third = await log.claim("other", lambda: lost.append("third"))
    assert third is not None
    third.end(None)

    await until(lambda: lost[2:] == ["third"])
    assert (await log.status("k")).entries == 1
    await log.aclose()


async def test_a_server_that_hangs_is_borne_for_the_outage_by_all_who_ask(own_server: RedisServer) -> None:
    async with Hub(redis_logs(own_server, outage=0.3)()) as hub:
        source = Source()
        await started(hub, "k", source)
        own_server.pause()
        try:
            async with asyncio.timeout(4):  # one after the other, each for the time of an answer, would take 100
                questions = await asyncio.gather(*(hub.status(str(key)) for key in range(20)), return_exceptions=True)
                await until(lambda: source.left == 1)
        finally:
            own_server.resume()

        assert {type(answer) for answer in questions} == {LogLostError}


async def test_those_who_ask_at_a_time_are_answered_at_a_time(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanges: list[int] = []
    log = redis_logs(server)()
    exchange = Line._exchange  # pyright: ignore[reportPrivateUsage]

    async def count(self: Line, questions: Any, blocks: float) -> None:
        exchanges.append(len(questions))
        await exchange(self, questions, blocks)

    monkeypatch.setattr(Line, "_exchange", count)

    await asyncio.gather(*(log.status(str(key)) for key in range(100)))

    assert exchanges == [1, 99]
    await log.aclose()


@pytest.mark.parametrize("bad", ["followed", "overwritten", "claimed", "ended oddly"])
async def test_a_bad_key_harms_no_other(server: RedisServer, bad: str) -> None:
    namespace = secrets.token_hex(4)
    logs = redis_logs(server, namespace=namespace)
    async with Hub(logs()) as here, Hub(logs()) as there:
        sources = {key: Source() for key in ("good", "bad")}
        for key, source in sources.items():
            await started(here, key, source)
        good, victim = Reader(there.follow("good")), Reader(there.follow("bad"))
        for key, reader in (("good", good), ("bad", victim)):
            sources[key].say()
            await reader.until_read(1)

        name = f"{{{namespace}}}:log:"
        if bad == "ended oddly":
            server.ask("XADD", f"{name}bad", f"{int(_first_id(server, f'{name}bad')) + 1}-0", "end", '{"text":5}')
            sources["bad"].say()
        elif bad == "overwritten":
            server.ask("SET", f"{name}bad", "x")
            sources["bad"].say()
        else:
            server.ask("SET", f"{name}odd", "x")
            victim = Reader(there.follow("odd") if bad == "followed" else there.start("odd", Source().chunks))

        assert isinstance(await victim.until_over(), LogLostError)
        await until(lambda: sources["bad"].left == (bad in {"ended oddly", "overwritten"}))
        sources["good"].say()
        sources["good"].end()
        assert (await good.until_over(), good.read) == (None, words(2))
        if bad == "overwritten":
            for question in (there.status("bad"), there.stop("bad")):
                with pytest.raises(LogLostError, match="WRONGTYPE"):
                    await question


async def test_a_bell_that_is_rung_oddly_is_heard(server: RedisServer) -> None:
    namespace = secrets.token_hex(4)
    async with Hub(redis_logs(server, namespace=namespace)()) as hub:
        source = Source()
        await started(hub, "k", source)
        reader = Reader(hub.follow("k"))
        source.say()
        await reader.until_read(1)
        await until(lambda: any(b":bell:" in key for key in _keys(server, namespace)))
        [bell] = [key.decode() for key in _keys(server, namespace) if b":bell:" in key]
        for fields in (("a", "b"), ("key", ""), ("a", "b", "c", "d")):
            server.ask("XADD", bell, "*", *fields)

        source.say()
        source.end()

        assert (await reader.until_over(), reader.read) == (None, words(2))


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_server_that_refuses_is_told_at_once_and_no_secret_with_it(kind: str, tmp_path: Path) -> None:
    with RedisServer(binaries()[kind], tmp_path, "--rename-command", "EVAL", "") as server:
        async with Hub(redis_logs(server)()) as hub:
            ending = await Reader(hub.start("h4x0r", proven(from_iterable([word(1)])))).until_over()

    assert isinstance(ending, LogLostError)
    assert "EVAL" in str(ending)
    assert all("h4x0r" not in str(error) for error in (ending, ending.__cause__, ending.__context__))


async def test_the_reply_to_one_who_comes_late_to_many_is_bounded(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace, streams, entries = secrets.token_hex(4), 300, 10
    client = Redis.from_url(server.url)  # pyright: ignore[reportUnknownMemberType]
    async with client, client.pipeline(transaction=False) as pipe:
        add: Any = pipe.execute_command  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        for key in range(streams):
            log, lease = f"{{{namespace}}}:log:{key}", f"{{{namespace}}}:lease:{key}"
            add("XADD", log, "1000-0", "by", "node 0")
            for number in range(1, entries + 1):
                add("XADD", log, f"1000-{number}", 0, word(number).raw)
            add("XADD", log, "1001-0", "end", "null")
            add("SET", lease, "node 0")
        await pipe.execute()
    sizes: list[int] = []

    def measure(command: Command, reply: Any) -> Any:
        if command[0] == "XREAD":
            sizes.append(sum(len(entries) for _, entries in reply or ()))
        return reply

    _overhear(monkeypatch, measure)
    async with Hub(redis_logs(server, namespace=namespace)()) as hub:
        readers = [Reader(hub.follow(str(key))) for key in range(streams)]

        for reader in readers:
            assert (await reader.until_over(), reader.read) == (None, words(entries))
    assert max(sizes) <= 512


async def test_who_waits_when_the_log_is_closed_is_told_and_no_connection_is_left(own_server: RedisServer) -> None:
    log = redis_logs(own_server)()
    hub = Hub(log)
    await started(hub, "k", Source())
    own_server.kill()
    stopping = asyncio.ensure_future(hub.stop("k"))
    asking = asyncio.ensure_future(log.status("k"))
    await asyncio.sleep(0.05)

    await hub.aclose()
    own_server.start()

    for waiting in (stopping, asking):
        with pytest.raises(LogLostError):
            await waiting
    with pytest.raises(LogLostError, match="closed"):
        await log.claim("new", lambda: None)
    assert isinstance(log.follow("k").error, LogLostError)
    assert own_server.ask("CLIENT", "LIST").count(b"id=") == 1  # who asks


async def test_a_log_that_is_closed_starts_no_task(server: RedisServer) -> None:
    log = redis_logs(server)()
    await log.aclose()
    before = asyncio.all_tasks()

    tape = log.follow("k")

    assert isinstance(tape.error, LogLostError)
    assert asyncio.all_tasks() == before


async def test_the_loss_of_a_producer_waits_until_it_can_be_written(own_server: RedisServer) -> None:
    """Until then the producer may be there, and not able to renew its lease."""
    _lay(own_server, "full", "k")
    own_server.ask("CONFIG", "SET", "maxmemory", "1")
    logs = redis_logs(own_server, namespace="full")
    async with Hub(logs()) as here, Hub(logs()) as there:
        readers = [Reader(hub.follow("k")) for hub in (here, there)]
        asking = asyncio.ensure_future(here.status("k"))
        await asyncio.sleep(6 * LEASE)
        assert [reader.endings for reader in readers] == [[], []]
        assert not asking.done()

        own_server.ask("CONFIG", "SET", "maxmemory", "0")

        for reader in (*readers, Reader(here.follow("k"))):
            assert isinstance(await reader.until_over(), ProducerLostError)
            assert reader.read == words(1)
        assert isinstance((await asking).error, ProducerLostError)


async def test_a_log_that_could_not_be_written_for_the_outage_is_lost_for_all(own_server: RedisServer) -> None:
    """Also for those who come when it can be written, and find no producer."""
    _lay(own_server, "full", "k")
    own_server.ask("CONFIG", "SET", "maxmemory", "1")
    logs = redis_logs(own_server, namespace="full", outage=4 * LEASE)
    async with Hub(logs()) as here:
        early = Reader(here.follow("k"))
        assert isinstance(await early.until_over(), LogLostError)
        with pytest.raises(LogLostError, match="memory"):
            await here.status("k")

        own_server.ask("CONFIG", "SET", "maxmemory", "0")

        async with Hub(logs()) as there:
            for reader in (Reader(here.follow("k")), Reader(there.follow("k"))):
                assert isinstance(await reader.until_over(), LogLostError)
                assert reader.read == early.read == words(1)
            for hub in (here, there):
                status = await hub.status("k")
                assert (status.state, type(status.error)) == ("failed", LogLostError)


@pytest.mark.parametrize("ask", ["read", "status"])
@pytest.mark.parametrize(("silent", "ending"), [(19.0, ProducerLostError), (20.0, LogLostError)])
async def test_the_ending_without_a_producer_follows_from_its_silence_when_a_newcomer_judges_first(
    server: RedisServer, silent: float, ending: type[Exception], ask: str
) -> None:
    namespace = secrets.token_hex(4)
    _lay(server, namespace, "k")
    server.ask("PEXPIRE", f"{{{namespace}}}:log:k", str(KEEP_MS - round(silent * 1000)))
    # Far more than the time of a judgement on a loaded machine remains until the outage of the other case.
    outage = 20.0 if ending is LogLostError else 60.0
    async with Hub(redis_logs(server, namespace=namespace, outage=outage)()) as newcomer:
        if ask == "read":
            assert isinstance(await Reader(newcomer.follow("k")).until_over(), ending)
        assert isinstance((await newcomer.status("k")).error, ending)


async def test_a_producer_is_silent_by_the_clock_of_redis_when_redis_is_full(own_server: RedisServer) -> None:
    async with Hub(redis_logs(own_server, namespace="full")()) as hub:
        source = Source()
        await started(hub, "k", source)
        name = "{full}:log:k"
        own_server.ask("CONFIG", "SET", "maxmemory", "1")
        source.say()
        source.end()
        refused = _refused(own_server)
        left = _number(own_server.ask("PTTL", name))
        await until(lambda: _refused(own_server) > refused + 8)  # beats, entries and endings
        assert _number(own_server.ask("PTTL", name)) < left


@pytest.fixture
def busy_machine() -> Iterator[None]:
    """Two processes that take as much of the processors' time as they get."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    yield
    for each in busy:
        each.kill()
        each.wait()


@pytest.mark.long
@pytest.mark.usefixtures("busy_machine")
@pytest.mark.parametrize("turn", range(20))
async def test_a_log_that_could_not_be_written_is_lost_for_all_when_the_machine_is_busy(
    own_server: RedisServer, turn: int
) -> None:
    """The two loops of `busy_machine` leave each process here a part of its time."""
    await test_a_log_that_could_not_be_written_for_the_outage_is_lost_for_all(own_server)


async def test_a_claim_that_a_stopped_server_does_late_is_lost_for_all(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rxrouter.sharing._redis_line._ANSWER_SECONDS", LEASE)
    logs = redis_logs(own_server, outage=2 * LEASE)
    async with Hub(logs()) as here, Hub(logs()) as there:
        await here.status("k")
        await there.status("k")
        own_server.pause()
        source = Source()
        starter = Reader(here.start("k", source.chunks))
        assert isinstance(await starter.until_over(), LogLostError)
        own_server.resume()

        late = await Reader(there.follow("k")).until_over()

        assert isinstance(late, LogLostError | UnknownGenerationError)
        assert source.subscribed == 0
        status = await there.status("k")
        assert (status.state, type(status.error)) == (
            ("failed", LogLostError) if isinstance(late, LogLostError) else ("unknown", type(None))
        )


async def test_the_status_of_what_nobody_makes_any_more_is_failed(server: RedisServer) -> None:
    namespace = secrets.token_hex(4)
    _lay(server, namespace, "k")
    async with Hub(redis_logs(server, namespace=namespace)()) as hub:
        status = await hub.status("k")

    assert (status.state, status.entries) == ("failed", 1)
    assert isinstance(status.error, ProducerLostError)


async def test_the_generation_that_waits_with_most_is_given_up(own_server: RedisServer) -> None:
    async with Hub(redis_logs(own_server, buffer_bytes=2_000)()) as hub:
        greedy, modest = Source(), Source()
        await started(hub, "greedy", greedy)
        await started(hub, "modest", modest)

        own_server.kill()
        greedy.say(2_000 // len(word(1).raw) - 2)
        assert greedy.left == 0
        modest.say(2)

        assert (greedy.left, modest.left) == (1, 0)
        own_server.start()


async def test_a_fault_in_reading_ends_all_readers_and_is_told(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told_to_the_loop()
    async with Hub(redis_logs(server)()) as hub:
        await started(hub, "k", Source())
        reader = Reader(hub.follow("k"))

        monkeypatch.setattr("rxrouter.sharing._redis_read.Followed.look", _fail)

        ending = await reader.until_over()
        assert isinstance(ending, LogLostError)
        assert isinstance(ending.__cause__, ZeroDivisionError)
        assert told[:1] == [ending.__cause__]


async def test_a_fault_in_writing_ends_all_that_is_made_and_is_told(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _told_to_the_loop()
    async with Hub(redis_logs(server)()) as hub:
        source, again = Source(), Source()
        await started(hub, "k", source)
        with monkeypatch.context() as broken:
            broken.setattr("rxrouter.sharing._redis_write.RedisWriter.beat", _fail)
            await until(lambda: source.left == 1)
        assert isinstance(told[0], ZeroDivisionError)

        await started(hub, "again", again)
        again.say()
        again.end()
        assert (await hub.follow("again")).raw == word(1).raw


async def test_everything_expires(server: RedisServer) -> None:
    namespace = secrets.token_hex(4)
    logs = redis_logs(server, namespace=namespace, keep=2 * LEASE)
    async with Hub(logs()) as here, Hub(logs()) as there:
        sources = [Source() for _ in range(3)]
        for number, source in enumerate(sources):
            await started(here, str(number), source)
            source.say()
        readers = [Reader(there.follow(str(number))) for number in range(3)]
        for reader in readers:
            await reader.until_read(1)
        assert _immortal(server, namespace) == set()

        await there.stop("0")
        sources[1].end()

        for reader in readers[:2]:
            await reader.until_over()
        assert _immortal(server, namespace) == set()
        await until(lambda: sum(b":log:" in key for key in _keys(server, namespace)) == 1)
        assert [(await there.status(key)).state for key in "012"] == ["unknown", "unknown", "running"]
    await until(lambda: _keys(server, namespace) == set())


async def test_each_namespace_is_a_world_of_its_own(server: RedisServer) -> None:
    async with Hub(redis_logs(server)()) as here, Hub(redis_logs(server)()) as there:
        await here.start("k", proven(from_iterable([word(1)])))

        assert (await there.status("k")).state == "unknown"
        assert isinstance(await Reader(there.follow("k")).until_over(), UnknownGenerationError)


@pytest.mark.parametrize("options", [{}, {"decode_responses": True}, {"protocol": 3}, {"max_connections": 1}], ids=str)
async def test_a_client_lends_its_settings(server: RedisServer, options: dict[str, Any]) -> None:
    namespace = secrets.token_hex(4)
    client = Redis.from_url(server.url, **options)  # pyright: ignore[reportUnknownMemberType]
    async with (
        client,
        Hub(RedisLog(client, namespace=namespace)) as here,
        Hub(RedisLog(client, namespace=namespace)) as there,
    ):
        source = Source()
        await started(here, "k", source)
        reader = Reader(there.follow("k"))
        source.say(2)
        await reader.until_read(2)
        await there.stop("k")

        assert isinstance(await reader.until_over(), GenerationStopped)
        assert reader.read == words(2)


@pytest.mark.parametrize("kind", SERVERS)
async def test_a_wrong_password_is_told_at_once_and_never_said(kind: str, tmp_path: Path) -> None:
    with RedisServer(binaries()[kind], tmp_path) as server:
        server.ask("CONFIG", "SET", "requirepass", "right")
        log = RedisLog(server.url.replace("//", "//:h4x0r@"))
        async with Hub(log) as hub:
            ending = await Reader(hub.start("k", proven(from_iterable([word(1)])))).until_over()

            assert isinstance(ending, LogLostError)
            assert "Authentication" in str(ending)
            chain = (ending, ending.__cause__)
            assert all("h4x0r" not in text for error in chain for text in (str(error), repr(error), repr(log)))


@pytest.mark.parametrize(
    "options", [{"namespace": ""}, {"namespace": "{a}"}, {"lease": 0}, {"keep": 1}, {"outage": 0}], ids=str
)
def test_settings_of_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"namespace|lease"):
        RedisLog("redis://localhost", **options)


def test_a_url_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(ValueError, match="redis://") as refused:
        RedisLog("redis://:h4x0r/s@localhost")

    assert refused.value.__suppress_context__
    assert "h4x0r" not in str(refused.value)


def test_what_is_no_server_is_refused_where_it_is_written() -> None:
    port: Any = 6379
    with pytest.raises(TypeError, match="server is a URL"):
        RedisLog(port)


async def test_the_logs_that_keys_are_spread_over_are_closed_together() -> None:
    both = asyncio.Barrier(2)

    class Slow(MemoryLog):
        async def aclose(self) -> None:
            await both.wait()

    await Spread(Slow(), Slow()).aclose()


async def test_keys_are_spread_over_servers(servers: Any) -> None:
    nodes = [servers(kind) for kind in SERVERS] * (3 - len(SERVERS) // 2)
    namespaces = [secrets.token_hex(4) for _ in nodes]

    def log() -> Spread:
        return Spread(
            *(RedisLog(node.url, namespace=name, lease=LEASE) for node, name in zip(nodes, namespaces, strict=True))
        )

    async with Hub(log()) as here, Hub(log()) as there:
        made = [await here.start(str(key), proven(from_iterable([word(1)]))) for key in range(60)]
        read = [await there.follow(str(key)) for key in range(60)]

        assert [chunk.raw for chunk in made] == [chunk.raw for chunk in read] == words(1) * 60
        shares = [
            sum(b":log:" in key for key in _keys(node, name)) for node, name in zip(nodes, namespaces, strict=True)
        ]
        assert sum(shares) == 60
        assert min(shares) >= 60 / len(nodes) / 3
        await there.stop("7")
        assert (await there.status("7")).state == "completed"
    with pytest.raises(ValueError, match="nothing"):
        Spread()


@pytest.fixture(params=SERVERS)
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[RedisServer]]:
    """Three nodes, each with a third of the slots."""
    nodes: list[RedisServer] = []
    with ExitStack() as stack:
        for number in range(3):
            (tmp_path / str(number)).mkdir()
            options = ("--cluster-enabled", "yes", "--appendonly", "no")
            node = stack.enter_context(RedisServer(binaries()[request.param], tmp_path / str(number), *options))
            nodes.append(node)
            node.ask("CLUSTER", "ADDSLOTS", *map(str, range(number * 5462, min(16384, (number + 1) * 5462))))
            node.ask("CLUSTER", "MEET", "127.0.0.1", str(nodes[0].port))
        yield nodes


async def test_keys_are_spread_over_a_cluster(cluster: list[RedisServer]) -> None:
    """Any node will do to begin with: each namespace is one slot, and finds its node."""
    await until(lambda: all(b"cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in cluster))

    def log() -> Spread:
        return Spread(*(RedisLog(cluster[0].url, namespace=f"n{number}", lease=LEASE) for number in range(6)))

    async with Hub(log()) as here, Hub(log()) as there:
        sources = {str(key): Source() for key in range(30)}
        for key, source in sources.items():
            await started(here, key, source)
        readers = [Reader(there.follow(key)) for key in sources]
        for source in sources.values():
            source.say(3)
            source.end()

        for reader in readers:
            assert (await reader.until_over(), reader.read) == (None, words(3))
        shares = [len(_keys(node, "")) for node in cluster]
        assert min(shares) > 0


def _calls(server: RedisServer, command: str) -> int:
    for line in server.ask("INFO", "commandstats").decode().splitlines():
        if line.startswith(f"cmdstat_{command}:"):
            return int(line.split("calls=")[1].split(",")[0])
    return 0


def _keys(server: RedisServer, namespace: str) -> set[bytes]:
    pattern = f"{{{namespace}}}:*" if namespace else "*"
    return set(server.ask("KEYS", pattern).split(b"\r\n")[2::2])


def _immortal(server: RedisServer, namespace: str) -> set[bytes]:
    return {key for key in _keys(server, namespace) if server.ask("PTTL", key.decode()) == b":-1\r\n"}


def _lay(server: RedisServer, namespace: str, key: str) -> None:
    """A generation with one word, whose producer is gone."""
    name = f"{{{namespace}}}:log:{key}"
    server.ask("XADD", name, "1000-0", "by", "node 0")
    server.ask("XADD", name, "1000-1", "0", word(1).raw.decode())
    server.ask("PEXPIRE", name, str(KEEP_MS))


def _number(reply: bytes) -> int:
    return int(reply[1:])


def _refused(server: RedisServer) -> int:
    """The commands that a full server has refused."""
    found = re.search(rb"errorstat_OOM:count=(\d+)", server.ask("INFO", "errorstats"))
    return int(found[1]) if found else 0


def _overhear(monkeypatch: pytest.MonkeyPatch, hear: Callable[[Command, Any], Any]) -> None:
    """Everything that Redis replies goes through this."""
    ask = Line.ask

    async def overheard(self: Line, commands: Iterable[Command], *, blocks: float = 0.0) -> list[Any]:
        commands = list(commands)
        replies = await ask(self, commands, blocks=blocks)
        return [hear(command, reply) for command, reply in zip(commands, replies, strict=True)]

    monkeypatch.setattr(Line, "ask", overheard)


def _told_to_the_loop() -> list[Any]:
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
    return told


def _fail(*_: Any, **__: Any) -> None:
    raise ZeroDivisionError


def _first_id(server: RedisServer, name: str) -> str:
    return server.ask("XRANGE", name, "-", "+", "COUNT", "1").decode().split("\r\n")[3].partition("-")[0]
