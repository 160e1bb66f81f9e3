"""The relay, read by what browsers have: each dialect by `fetch`, byte for byte; those of events by EventSource."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import ANY

import aiohttp
import msgspec
import reactivex as rx
from aiohttp import web
from reactivex import Subject

from rxrouter import ChatChunk, ServerSentEvent, SSEParser
from rxrouter.relay import AGUI, NDJSON, Encoder, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.aiohttp import respond, shutdown
from rxrouter.sharing import Hub
from rxrouter.sharing._entries import decode
from tests.chat_app.browser import Browser, Tab
from tests.chat_app.support import line_to
from tests.support import proven, until

EVENTS: dict[str, Callable[[], Encoder]] = {
    "openai": OpenAIChunks,
    "ui-messages": UIMessages,
    "ag-ui": lambda: AGUI("thread", "run"),
}
DIALECTS: dict[str, Callable[[], Encoder]] = {**EVENTS, "ndjson": NDJSON, "plain": PlainText}


def sent(delta: dict[str, str], finish: str | None = None) -> ChatChunk:
    """A chunk as a model's server sends it."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    raw = msgspec.json.encode(
        {"id": "gen-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    )
    return decode(raw)


BEGIN = (sent({"role": "assistant"}), sent({"reasoning": "Grüße, 世界.\n"}), sent({"content": "</p><b>one 🐚\r\n"}))
REST = (sent({"content": "\u2028two"}), sent({"content": " três"}, finish="stop"))


class Relayed:
    """An answer that is told in all dialects, to a browser and to others."""

    def __init__(self, url: str, answer: Subject[ChatChunk], session: aiohttp.ClientSession) -> None:
        self.url = url
        self.answer = answer
        self.came_back: dict[str, list[str]] = {name: [] for name in DIALECTS}
        self._session = session

    def say(self, *chunks: ChatChunk) -> None:
        """More of it."""
        for each in chunks:
            self.answer.on_next(each)

    async def body(self, dialect: str) -> bytes:
        """All of it, as another client reads it."""
        async with self._session.get(self.url + dialect) as response:
            return await response.read()


@asynccontextmanager
async def relayed() -> AsyncGenerator[Relayed]:
    async with Hub() as hub, aiohttp.ClientSession() as session:

        async def page(_: web.Request) -> web.Response:
            return web.Response(text="<!doctype html><link rel=icon href=data:,>", content_type="text/html")

        async def tell(request: web.Request) -> web.StreamResponse:
            name = request.match_info["dialect"]
            served.came_back[name] += request.headers.getall("Last-Event-ID", [])
            key = "over" if request.path.startswith("/over/") else "key"
            return await respond(request, None, dialect=DIALECTS[name], hub=hub, key=key, prime=0.0)

        app = web.Application()
        app.router.add_get("/", page)
        app.router.add_get("/{dialect}", tell)
        app.router.add_get("/over/{dialect}", tell)
        app.on_shutdown.append(shutdown)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        answer = Subject[ChatChunk]()
        hub.start("key", proven(answer))
        hub.start("over", proven(rx.of(*BEGIN)))
        await until(lambda: bool(answer.observers))
        served = Relayed(f"http://127.0.0.1:{runner.addresses[0][1]}/", answer, session)
        try:
            yield served
        finally:
            await runner.cleanup()


async def test_fetch_reads_each_dialect_byte_for_byte_and_as_it_comes(browser: Browser) -> None:
    async with relayed() as relay, browser.window() as window:
        tab = await window.tab(relay.url)
        await tab.run(_FETCH.replace("NAMES", json.dumps([*DIALECTS])))
        relay.say(*BEGIN)
        for name in DIALECTS:  # nobody on the way waits for more
            await tab.until(f"decode('{name}').includes('one 🐚')")
        relay.say(*REST)
        for name in DIALECTS:
            await tab.until(f"decode('{name}').includes('três')")
        relay.answer.on_completed()
        await tab.until("over.size === 5")

        for name in DIALECTS:
            assert await _fetched(tab, name) == await relay.body(name)
        raws = [each.raw for each in BEGIN + REST]
        numbered = [b"id: %d\ndata: %b\n\n" % (number, raw) for number, raw in enumerate(raws, 1)]
        assert await _fetched(tab, "openai") == b"".join([*numbered, b"id: 5.1\ndata: [DONE]\n\n"])
        assert await _fetched(tab, "ndjson") == b"".join(raw + b"\n" for raw in raws)
        assert (await _fetched(tab, "plain")).decode() == "</p><b>one 🐚\r\n\u2028two três"


async def test_an_event_source_that_has_everything_rests_and_one_that_was_cut_off_gets_the_rest_once(
    browser: Browser,
) -> None:
    async with relayed() as relay, line_to(relay.url) as (url, line), browser.window() as window:
        tab = await window.tab(url)
        await tab.run(_FOLLOW.replace("NAMES", json.dumps([*EVENTS, "over/openai"])))
        relay.say(*BEGIN)
        for name in EVENTS:
            await tab.until(f"said['{name}'].some(([, data]) => data.includes('one 🐚'))")
        await tab.until("said['over/openai'].length === 4")
        last = dict(await tab.run("Object.entries(said).map(([name, events]) => [name, events.at(-1)[0]])"))
        line.cut()
        relay.say(*REST)  # while nobody reads
        relay.answer.on_completed()

        await tab.until("sources['over/openai'].readyState === EventSource.CLOSED")
        assert last["over/openai"] == "3.1"
        assert await tab.run("said['over/openai'].length") == 4  # it did not begin anew
        for name in EVENTS:
            whole = SSEParser().feed(await relay.body(name))
            expected = [[event.id, event.data] for event in whole if isinstance(event, ServerSentEvent)]
            await tab.until(f"said['{name}'].length >= {len(expected)}")
            assert await tab.run(f"said['{name}']") == expected
        assert relay.came_back == {name: [last[name]] for name in EVENTS} | {"openai": ANY, "ndjson": [], "plain": []}
        assert sorted(relay.came_back["openai"]) == sorted([last["openai"], "3.1"])


async def _fetched(tab: Tab, name: str) -> bytes:
    encoded: Any = await tab.run(f"btoa(got['{name}'].map((byte) => String.fromCharCode(byte)).join(''))")
    return base64.b64decode(encoded)


_FETCH = """
  window.got = {};
  window.over = new Set();
  window.decode = (name) => new TextDecoder().decode(new Uint8Array(got[name]));
  for (const name of NAMES) {
    got[name] = [];
    void fetch(`/${name}`).then(async ({body}) => {
      for await (const bytes of body) got[name].push(...bytes);
      over.add(name);
    });
  }
"""

_FOLLOW = """
  window.said = {};
  window.sources = {};
  for (const name of NAMES) {
    said[name] = [];
    sources[name] = new EventSource(`/${name}`);
    sources[name].onmessage = ({lastEventId, data}) => said[name].push([lastEventId, data]);
  }
"""
