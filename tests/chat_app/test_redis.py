"""The chat's answers in Redis: several servers, one conversation."""

from __future__ import annotations

from pathlib import Path

from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import STORY, Act, Reply, answer
from tests.chat_app.support import served, text_of
from tests.sharing.redis_server import RedisServer, binaries
from tests.support import until


async def test_with_redis_any_server_tells_an_answer_remembers_it_and_stops_it(tmp_path: Path) -> None:
    whole = Reply.of(answer(STORY), rate=500)
    with RedisServer(binaries()["redis"], tmp_path) as redis:
        async with (
            served(whole, RedisLog(redis.url)) as one,
            served(Reply((*answer(STORY)[:20], Act.HANG)), RedisLog(redis.url)) as other,
        ):
            first = await one.ask("A story?")
            assert await other.told(first) == await one.told(first)

            second = await other.ask("Another?", first)
            await until(lambda: bool(other.asked))
            assert [message["content"] for message in other.asked[0].json["messages"]] == [
                "A story?",
                STORY,
                "Another?",
            ]
            await one.stop(second)
            await other.asked[0].over.wait()
            assert (await other.told(second))[-1]["end"] == "stopped"


async def test_a_server_that_closes_in_mid_answer_leaves_what_was_said_and_no_good_end(tmp_path: Path) -> None:
    half = Reply((*answer(STORY)[:20], Act.HANG))
    with RedisServer(binaries()["redis"], tmp_path) as redis:
        async with served(half, RedisLog(redis.url)) as one:
            key = await one.ask("A story?")
            async with one.session.get(f"{one.url}answers/{key}") as response:
                while b'"text":' not in await response.content.readline():
                    pass
        async with served(Reply.of(answer(STORY)), RedisLog(redis.url)) as other:
            told = await other.told(key)
            assert told[-1]["end"] == "unavailable"
            assert STORY.startswith(text_of(told))
            assert text_of(told)
            assert text_of(await other.told(await other.ask("Go on?", key))) == STORY


async def test_a_server_that_has_lost_its_memory_says_so_in_words(tmp_path: Path) -> None:
    with RedisServer(binaries()["redis"], tmp_path) as redis:
        async with served(Reply.of(answer("Yes.")), RedisLog(redis.url, outage=0.2)) as server:
            key = await server.ask("One?")
            await server.told(key)
            redis.kill()
            async with server.session.put(
                f"{server.url}answers/{'k' * 43}", json={"text": "Two?", "after": key}
            ) as response:
                assert response.status == 503
                assert await response.text() == "The server can't reach its memory. Try again a little later."
