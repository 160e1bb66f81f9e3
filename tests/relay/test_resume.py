"""Readers that come back: ids, what is missing, the end; stopping, which is not leaving. Each on each server."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import reactivex
from reactivex import operators as ops

from rxrouter import ChatChunk, Comment, Restarted, ServerSentEvent, SSEParser, StreamError
from rxrouter._errors import GenerationStopped
from rxrouter.relay import AGUI, NDJSON, Events, OpenAIChunks, UIMessages
from rxrouter.sharing import Hub
from rxrouter.testing import Reply, answer
from tests.operators.support import chunk, finished
from tests.relay.support import ALL_SERVERS, SERVERS, Front, Live, all_events, asked, events, relay_of, relayed, said
from tests.support import proven, until

on_each_server = pytest.mark.parametrize("server", SERVERS)
on_all_servers = pytest.mark.parametrize("server", ALL_SERVERS)

WORD = finished({"content": "word "})
CALL = {"index": 0, "id": "call", "function": {"name": "go", "arguments": '{"to":'}}
STORY = (
    chunk({"role": "assistant"}),
    chunk({"reasoning": "Hm. "}),
    chunk({"content": "Once "}),
    chunk({"content": "upon "}),
    Restarted(attempt=2, cause=StreamError(502)),
    chunk({"reasoning": "Well. "}),
    chunk({"content": "a ", "annotations": [{"type": "url_citation", "url_citation": {"url": "https://a.b/"}}]}),
    chunk({"content": "time."}),
    chunk({"tool_calls": [CALL]}),
    chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]}),
    finished({}, usage={"total_tokens": 5}),
)


class Forgiving(OpenAIChunks):
    """One that can say it when an answer begins anew, and goes on."""

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        return (b"anew",) if isinstance(chunk, Restarted) else super().chunk(chunk)


DIALECTS: list[Callable[[], Any]] = [
    OpenAIChunks,
    Forgiving,
    UIMessages,
    lambda: AGUI("thread", "run", messages=[]),
]


@asynccontextmanager
async def resumable(server: str, *chunks: Any, **options: Any) -> AsyncGenerator[tuple[Front, aiohttp.ClientSession]]:
    """A relay of a generation that has ended, and somebody who reads it."""
    async with Hub() as hub, aiohttp.ClientSession() as browser:
        hub.start("key", proven(reactivex.of(*chunks)))
        await hub.follow("key").pipe(ops.default_if_empty())  # to its end
        async with relayed(server, lambda: None, hub=hub, **options) as front:
            yield front, browser


@on_all_servers
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_after_any_frame_come_the_others_and_none_of_them_twice(server: str, dialect: Callable[[], Any]) -> None:
    async with resumable(server, *STORY, dialect=dialect) as (front, browser):
        async with browser.get(front.keyed_url) as response:
            whole = await all_events(response)
        ids = [event.id for event in whole]
        assert len(set(ids)) == len(ids)
        for place, event in enumerate(whole[:-1]):
            async with browser.get(front.keyed_url, headers={"Last-Event-ID": event.id}) as response:
                assert await all_events(response) == whole[place + 1 :]
        async with browser.get(front.keyed_url, headers={"Last-Event-ID": ids[-1]}) as response:
            assert response.status == 204


@on_each_server
async def test_lines_have_no_ids_and_come_again_from_the_first(server: str) -> None:
    async with resumable(server, WORD, dialect=NDJSON) as (front, browser):
        for headers in ({}, {"Last-Event-ID": "1"}):
            async with browser.get(front.keyed_url, headers=headers) as response:
                assert await response.read() == WORD.raw + b"\n"


@on_each_server
@pytest.mark.parametrize("event_id", ["x", "-1", "1.", "1e9", "7", "1.9", "1;2", "9" * 40])
async def test_an_id_that_names_nothing_here_is_refused(server: str, event_id: str) -> None:
    headers = {"Last-Event-ID": event_id}
    async with resumable(server, WORD) as (front, browser), browser.get(front.keyed_url, headers=headers) as response:
        assert response.status == 400
        assert (await response.json())["error"]["type"] == "bad_event_id"


@on_each_server
@pytest.mark.parametrize("event_id", ["2", "2.1", "2.2", "3"])
async def test_an_id_behind_an_answer_that_began_anew_is_no_good_end(server: str, event_id: str) -> None:
    """In this dialect the answer ends there; nobody was given such an id, and what is behind it is no end of it."""
    told = WORD, Restarted(attempt=2, cause=StreamError(502)), Restarted(attempt=3, cause=StreamError(502)), WORD
    headers = {"Last-Event-ID": event_id}
    async with resumable(server, *told) as (front, browser), browser.get(front.keyed_url, headers=headers) as response:
        assert response.status == 502
        assert (await response.json())["error"]["code"] == 502


class Counted:
    """A dialect of somebody's own, that says how many there were, and is written as a generator."""

    framing = Events()

    def __init__(self) -> None:
        self._count = 0

    def begin(self) -> tuple[bytes, ...]:
        return ()

    def chunk(self, _: ChatChunk) -> Iterator[bytes]:
        self._count += 1
        yield b"%d" % self._count

    def end(self) -> tuple[bytes, ...]:
        return (b"over",)

    def error(self, _: Any) -> None:
        return None


@on_each_server
async def test_a_dialect_of_generators_hears_of_what_the_reader_has(server: str) -> None:
    async with (
        resumable(server, WORD, WORD, WORD, dialect=Counted) as (front, browser),
        browser.get(front.keyed_url, headers={"Last-Event-ID": "2"}) as response,
    ):
        assert [event.data for event in await all_events(response)] == ["3", "over"]


@on_all_servers
async def test_an_unknown_key_is_not_found(server: str) -> None:
    async with resumable(server, WORD) as (front, browser), browser.get(f"{front.url}?key=other") as response:
        assert response.status == 404


@on_each_server
async def test_a_generation_that_failed_before_its_first_content_is_a_status_for_all_who_come(server: str) -> None:
    async with Hub() as hub, aiohttp.ClientSession() as browser:
        hub.start("key", reactivex.throw(StreamError(429, retry_after=3.2)))
        async with relayed(server, lambda: None, hub=hub) as front:
            for _ in range(2):
                async with browser.get(front.keyed_url) as response:
                    assert response.status == 429
                    assert response.headers["Retry-After"] == "4"


@on_each_server
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_failure_that_was_told_in_the_stream_is_told_again_there(server: str, dialect: Any) -> None:
    live = Live()
    async with Hub() as hub, aiohttp.ClientSession() as browser:
        relay = relayed(server, lambda: live, hub=hub, dialect=dialect, prime=0.0)
        async with relay as front, browser.get(front.keyed_url) as response:
            live.on_error(StreamError(502))
            whole = await all_events(response)
            for place, event in enumerate(whole):
                async with browser.get(front.keyed_url, headers={"Last-Event-ID": event.id}) as again:
                    assert again.status == (200 if whole[place + 1 :] else 204)
                    assert await all_events(again) == whole[place + 1 :]


@on_each_server
async def test_who_comes_back_for_what_is_forgotten_is_told_so(server: str) -> None:
    async with resumable(server, WORD) as (front, browser):
        response = await browser.get(f"{front.url}?key=other", headers={"Last-Event-ID": "1"})
        assert response.status == 404


@on_each_server
@pytest.mark.parametrize("place", ["0.1", "5"])
async def test_who_comes_back_for_what_is_forgotten_begins_no_other(server: str, place: str) -> None:
    async with Hub() as hub, relay_of(server, hub=hub, dialect=UIMessages) as (browser, front, simulator):
        async with browser.get(front.keyed_url, headers={"Last-Event-ID": place}) as response:
            assert response.status == 404
            assert (await response.json())["error"]["type"] == "unknown_generation"
        assert simulator.exchanges == []


@on_each_server
async def test_leaving_ends_the_reading_and_not_the_generation(server: str) -> None:
    live = Live()
    async with (
        Hub() as hub,
        relayed(server, lambda: live, hub=hub) as front,
        aiohttp.ClientSession() as browser,
    ):
        asking = asyncio.create_task(browser.get(front.keyed_url))
        await until(lambda: live.watched)
        live.on_next(WORD)
        (await asking).close()
        live.on_next(WORD)
        async with browser.get(front.keyed_url) as response:
            live.on_completed()
            assert said(await all_events(response)) == "word word "


@on_each_server
async def test_a_second_tab_sees_the_same_and_it_is_paid_once(server: str) -> None:
    async with Hub() as hub, relay_of(server, hub=hub) as (browser, front, simulator):
        answers = await asyncio.gather(*(_read(browser, front) for _ in range(5)))
    assert len(set(answers)) == 1
    assert len(simulator.exchanges) == 1


async def _read(browser: aiohttp.ClientSession, front: Front) -> str:
    async with browser.get(front.keyed_url) as response:
        return said(await all_events(response))


# Row 52: a stop is a request of its own.


@on_all_servers
async def test_a_stop_ends_the_generation_and_its_readers_hear_of_it(server: str) -> None:
    async with Hub() as hub, relay_of(server, fault="stall", hub=hub) as (browser, front, simulator):
        async with browser.get(front.keyed_url) as response:
            items = events(response)
            await anext(items)
            async with browser.delete(f"{front.stop_url}?key=key") as stopped:
                assert stopped.status == 204
            rest = [item async for item in items if not isinstance(item, Comment)]
        assert json.loads(rest[-2].data)["error"]["type"] == "stopped"
        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None
        async with browser.delete(f"{front.stop_url}?key=key") as again:
            assert again.status == 204


@on_each_server
async def test_what_nobody_began_cannot_be_stopped(server: str) -> None:
    async with (
        Hub() as hub,
        relay_of(server, hub=hub) as (browser, front, _),
        browser.delete(f"{front.stop_url}?key=other") as response,
    ):
        assert response.status == 404
        assert (await response.json())["error"]["type"] == "unknown_generation"


@on_each_server
@pytest.mark.parametrize(
    ("dialect", "last"),
    [(UIMessages, "abort"), (lambda: AGUI("thread", "run"), "RUN_FINISHED")],
)
async def test_a_stop_before_the_first_content_is_no_failure(server: str, dialect: Any, last: str) -> None:
    async with asked(server, reactivex.throw(GenerationStopped()), dialect=dialect) as response:
        assert response.status == 200
        told = [json.loads(event.data) for event in await all_events(response) if event.data != "[DONE]"]
    assert told[-1]["type"] == last


@pytest.mark.parametrize("server", SERVERS)
async def test_a_key_that_nobody_named_is_made_and_nobody_guesses_it(server: str) -> None:
    async with Hub() as hub, relay_of(server, Reply(answer("one two")), hub=hub) as (browser, front, simulator):
        keys: list[str] = []
        answers: list[bytes] = []
        for _ in range(2):
            async with browser.get(front.url) as response:
                keys.append(response.headers["X-Generation-Key"])
                answers.append(await response.read())
        async with browser.get(front.url, params={"key": keys[1]}) as response:
            assert "X-Generation-Key" not in response.headers
            assert await response.read() == answers[1]
        async with browser.get(front.url, headers={"Last-Event-ID": "3"}) as response:
            assert response.status == 404  # there was none to come back to

    assert len(simulator.exchanges) == len({*keys}) == 2
    assert min(map(len, keys)) > 40


# Row 54, with a hub: a reader can go on at the next server.


@on_each_server
async def test_a_server_that_closes_cuts_off_those_who_can_come_back_and_they_get_the_rest_elsewhere(
    server: str,
) -> None:
    live = Live()
    async with Hub() as hub, aiohttp.ClientSession() as browser:
        async with relayed(server, lambda: live, hub=hub) as front:
            asking = asyncio.create_task(browser.get(front.keyed_url))
            await until(lambda: live.watched)
            live.on_next(WORD)
            async with await asking as response:
                items = events(response)
                first = await anext(items)
                assert isinstance(first, ServerSentEvent)
                await front.close()
                with pytest.raises(aiohttp.ClientPayloadError):  # no client takes it for the end
                    await anext(items)
        live.on_next(WORD)
        live.on_completed()
        headers = {"Last-Event-ID": first.id}
        relay = relayed(server, lambda: None, hub=hub)
        async with relay as front, browser.get(front.keyed_url, headers=headers) as response:
            assert [event.id for event in await all_events(response)] == ["2", "2.1"]


# Row 51, at any moment.


class Page:
    """Reads as an EventSource does, which comes back with the id of the last event that it had whole."""

    def __init__(self, browser: aiohttp.ClientSession, url: str) -> None:
        self.events: list[ServerSentEvent] = []
        self._browser = browser
        self._url = url
        self.last = ""

    async def read(self, most: float) -> bool:
        """Reads so many bytes, if there are as many; whether that was the end."""
        parser = SSEParser()
        headers = {"Last-Event-ID": self.last} if self.last else {}
        async with self._browser.get(self._url, headers=headers) as response:
            if response.status == 204:
                return True
            assert response.status == 200
            while most > 0 and (block := await response.content.read(int(min(most, 1 << 16)))):
                most -= len(block)
                for item in parser.feed(block):
                    if isinstance(item, ServerSentEvent):
                        self.events.append(item)
                        self.last = item.id
            ended = most > 0
            response.close()
        return ended


@on_each_server
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_a_reload_at_any_moment_loses_nothing_and_repeats_nothing(server: str, dialect: Any) -> None:
    async with (
        Hub() as hub,
        relayed(server, lambda: None, hub=hub, dialect=dialect) as front,
        aiohttp.ClientSession() as browser,
    ):
        for seed in range(200):
            await _reload(hub, Page(browser, f"{front.url}?key={seed}"), random.Random(seed), str(seed))


async def _reload(hub: Hub, page: Page, chance: random.Random, key: str) -> None:
    """Reads a generation that is spoken meanwhile, cutting the connection again and again; then reads it at once."""
    live = Live()
    hub.start(key, live)
    await until(lambda: live.watched)

    async def speak() -> None:
        for number in range(12):
            kind = chance.choice(["content", "content", "reasoning"])
            live.on_next(chunk({kind: f"w{number} "}))
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
        live.on_completed()

    speaking = asyncio.create_task(speak())
    while not await page.read(chance.randrange(1, 900)):
        pass
    await speaking
    seen, page.events, page.last = page.events, [], ""
    assert await page.read(float("inf"))
    assert page.events == seen
