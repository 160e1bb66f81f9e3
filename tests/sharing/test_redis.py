from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from reactivex import from_iterable
from redis.asyncio import Redis

from rxrouter._errors import GenerationStopped, LogLostError, ProducerLostError, UnknownGenerationError
from rxrouter.operators import completion
from rxrouter.sharing import Hub, Spread
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import STORY
from tests.sharing.conftest import LEASE, SERVERS, redis_logs
from tests.sharing.redis_server import RedisServer, binaries
from tests.sharing.support import Reader, Source, started, word, words
from tests.support import served, until

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
        reader = Reader(hub.start("k", from_iterable([word(1), word(2)])))
        await asyncio.sleep(0.1)
        own_server.start()

        assert (await reader.until_over(), reader.read) == (None, words(2))


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
        await here.start("k", from_iterable([word(1)]))

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
            ending = await Reader(hub.start("k", from_iterable([word(1)]))).until_over()

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


async def test_keys_are_spread_over_servers(servers: Any) -> None:
    nodes = [servers(kind) for kind in SERVERS] * (3 - len(SERVERS) // 2)
    namespaces = [secrets.token_hex(4) for _ in nodes]

    def log() -> Spread:
        return Spread(
            *(RedisLog(node.url, namespace=name, lease=LEASE) for node, name in zip(nodes, namespaces, strict=True))
        )

    async with Hub(log()) as here, Hub(log()) as there:
        made = [await here.start(str(key), from_iterable([word(1)])) for key in range(60)]
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


def _first_id(server: RedisServer, name: str) -> str:
    return server.ask("XRANGE", name, "-", "+", "COUNT", "1").decode().split("\r\n")[3].partition("-")[0]
