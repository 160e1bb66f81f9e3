"""What the tests of the chat share: the application beside the model's server, and people at it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler

from examples.chat_app.app import application
from rxrouter import OpenRouter, ServerSentEvent, SSEParser
from rxrouter.sharing import Hub, Log
from rxrouter.testing import Act, Exchange, Simulator, Step
from tests.chat_app.browser import Browser, Tab, Window

RUNNING, COMPLETE, STOPPED, FAILED = (
    "[aria-busy=true]",
    *(f"[data-state={end}]" for end in ("complete", "stopped", "failed")),
)


@dataclass
class Served:
    """The application, running, and the model that it asks."""

    app: web.Application
    hub: Hub
    url: str
    simulator: Simulator
    session: aiohttp.ClientSession
    came_back: list[str]  # where they were, who had lost the connection

    @property
    def asked(self) -> list[Exchange]:
        """What the model was asked."""
        return self.simulator.exchanges

    async def ask(self, text: str, after: str | None = None, *, key: str | None = None) -> str:
        """Asks as the page does; gives the answer's key."""
        key = key or secrets.token_urlsafe()
        async with self.session.put(f"{self.url}answers/{key}", json={"text": text, "after": after}) as response:
            assert response.status == 204, await response.text()
        return key

    async def told(self, key: str, last_event_id: str | None = None) -> list[dict[str, Any]]:
        """All that a page is told of an answer."""
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        async with self.session.get(f"{self.url}answers/{key}", headers=headers) as response:
            assert response.status == 200
            events = SSEParser().feed(await response.read())
        return [json.loads(event.data) for event in events if isinstance(event, ServerSentEvent)]

    async def stop(self, key: str) -> None:
        """Asks for the end."""
        async with self.session.post(f"{self.url}answers/{key}/stop") as response:
            assert response.status == 204


def text_of(told: list[dict[str, Any]], kind: str = "text") -> str:
    """What was said, of this kind, since the last restart."""
    last = max((number for number, news in enumerate(told) if "restarted" in news), default=0)
    return "".join(news.get(kind, "") for news in told[last:])


@asynccontextmanager
async def served(answer: Any, log: Log | None = None, port: int = 0) -> AsyncGenerator[Served]:
    """The application, whose model answers so, and whose hub has this log."""
    async with (
        Simulator(answer) as simulator,
        OpenRouter("sk-secret-key", base_url=simulator.base_url) as client,
        Hub(log) as hub,
        aiohttp.ClientSession() as session,
    ):
        app = application(client, hub, "simulated/<model>")
        came_back: list[str] = []

        @web.middleware
        async def note(request: web.Request, handler: Handler) -> web.StreamResponse:
            came_back.extend(request.headers.getall("Last-Event-ID", []))
            return await handler(request)

        app.middlewares.append(note)
        runner = web.AppRunner(app, shutdown_timeout=5.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, reuse_address=True).start()
        try:
            yield Served(app, hub, f"http://127.0.0.1:{runner.addresses[0][1]}/", simulator, session, came_back)
        finally:
            await runner.cleanup()


class Held(list[Step]):
    """A reply's steps, which wait at a HANG until they are let go."""

    let_go = False

    def __iter__(self) -> Iterator[Step]:
        for step in super().__iter__():
            if step is Act.HANG:
                while not self.let_go:
                    yield 0.01
            else:
                yield step


class Line:
    """What is between a browser and a server, and may be cut."""

    def __init__(self, to: int) -> None:
        self.refusing = ""  # paths that begin so, as a proxy does whose server is away
        self._to = to
        self._cut = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A connection; it carries one request."""
        server: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.refusing and head.split()[1].decode().startswith(self.refusing):
                writer.write(b"HTTP/1.1 503 Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            answers, server = await asyncio.open_connection("127.0.0.1", self._to)
            server.write(head.replace(b"Connection: keep-alive", b"Connection: close"))
            passing = asyncio.create_task(_pass(answers, writer))
            cut = asyncio.create_task(self._cut.wait())
            await asyncio.wait([passing, cut], return_when=asyncio.FIRST_COMPLETED)
            for task in (passing, cut):
                task.cancel()
        except asyncio.IncompleteReadError:  # the browser opened it in case that it needs one
            pass
        finally:
            for end in (writer, server):
                if end is not None:
                    end.close()

    def cut(self) -> None:
        """Ends all connections that are there, in the middle of whatever they carry."""
        self._cut.set()
        self._cut = asyncio.Event()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def line_to(url: str) -> AsyncGenerator[tuple[str, Line]]:
    """Another address of a server, and what is between."""
    line = Line(urlsplit(url).port or 80)
    async with await asyncio.start_server(line, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/", line
        line.cut()


@asynccontextmanager
async def chat(browser: Browser, answer: Any) -> AsyncGenerator[tuple[Window, Tab, Served]]:
    """A window with the page in a tab; whatever is done there, no tab's console has anything to say."""
    async with served(answer) as server, browser.window() as window:
        yield window, await window.tab(server.url), server
        for tab in window.tabs:
            assert not tab.console, tab.console


async def ask(tab: Tab, text: str) -> None:
    """Writes into the question's field, and sends it."""
    await tab.run("document.querySelector('#question').focus()")
    await tab.write(text)
    await tab.press("Enter")


async def answered(tab: Tab, state: str = COMPLETE, number: int = 1) -> str:
    """The text of the last answer, when so many have ended so, and it is painted."""
    await tab.until(f"document.querySelectorAll('{state}').length === {number} && !document.querySelector('{RUNNING}')")
    await tab.run("new Promise(requestAnimationFrame)")
    return str(await tab.run("[...document.querySelectorAll('.text')].at(-1).textContent"))


async def has_said(tab: Tab, characters: int) -> None:
    """Returns when the last answer has so many characters, at least."""
    await tab.until(f"[...document.querySelectorAll('.text')].at(-1)?.textContent.length >= {characters}")
