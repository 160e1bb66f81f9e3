"""What relay tests share: a relay on each of the servers, and readers of what it sends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import uvicorn
from aiohttp import web
from fastapi import FastAPI
from reactivex import Observable, Subject, abc
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.routing import Route

from rxrouter import ChatChunk, OpenRouter, ServerSentEvent, SSEParser
from rxrouter.relay import aiohttp as on_aiohttp, asgi as on_asgi
from rxrouter.testing import Simulator
from tests.support import proven, until

SERVERS = ("aiohttp", "starlette")
ALL_SERVERS = (*SERVERS, "fastapi")  # which gives its responses to Starlette; so a look at each kind will do
MIDDLEWARE = "starlette behind middleware"

Chunks = Callable[[], Observable[ChatChunk] | None]


class Front:
    """A relay that listens, and how to close it as its owner would."""

    def __init__(self, port: int, close: Callable[[], Any]) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self.keyed_url = f"{self.url}?key=key"
        self.stop_url = f"http://127.0.0.1:{port}/stop"
        self.close = close


@asynccontextmanager
async def relayed(server: str, chunks: Chunks, **options: Any) -> AsyncGenerator[Front]:
    """A server whose one address answers with a stream; `options` are the relay's, but a key is better in the query."""
    async with (_on_aiohttp if server == "aiohttp" else partial(_on_uvicorn, server))(chunks, options) as front:
        yield front


@asynccontextmanager
async def _on_aiohttp(chunks: Chunks, options: dict[str, Any]) -> AsyncGenerator[Front]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await on_aiohttp.respond(request, chunks(), **options, key=request.query.get("key"))

    async def stop(request: web.Request) -> web.StreamResponse:
        return await on_aiohttp.stop(options["hub"], request.query["key"])

    app = web.Application()
    app.router.add_route("*", "/v1/chat/completions", handle)
    app.router.add_delete("/stop", stop)
    app.on_shutdown.append(on_aiohttp.shutdown)
    runner = web.AppRunner(app, shutdown_timeout=5.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    try:
        yield Front(runner.addresses[0][1], runner.cleanup)
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _on_uvicorn(server: str, chunks: Chunks, options: dict[str, Any]) -> AsyncGenerator[Front]:
    async def handle(request: Request) -> Any:
        await request.body()
        return on_asgi.Relay(chunks(), **options, key=request.query_params.get("key"))

    async def stop(request: Request) -> Any:
        return await on_asgi.stop(options["hub"], request.query_params["key"])

    methods = ["GET", "POST", "HEAD"]
    app: Any
    if server == "fastapi":
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", handle, methods=methods)
        app.add_api_route("/stop", stop, methods=["DELETE"])
    else:
        app = Starlette(
            routes=[
                Route("/v1/chat/completions", handle, methods=methods),
                Route("/stop", stop, methods=["DELETE"]),
            ]
        )
    if server == MIDDLEWARE:  # two, of which the outer one sees how the inner one ends
        app = BaseHTTPMiddleware(BaseHTTPMiddleware(app, _pass_on), _pass_on)
    config = uvicorn.Config(app, port=0, backlog=4096, lifespan="off", log_level="critical")
    uvicorn_server = uvicorn.Server(config)
    serving = asyncio.create_task(uvicorn_server.serve())
    await until(lambda: uvicorn_server.started or serving.done())

    async def close() -> None:
        uvicorn_server.should_exit = True
        on_asgi.shutdown()
        await serving

    try:
        yield Front(uvicorn_server.servers[0].sockets[0].getsockname()[1], close)
    finally:
        await close()


async def _pass_on(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
    return await call_next(request)


@asynccontextmanager
async def relay_of(
    server: str, answer: Any = None, *, fault: str | None = None, chain: Any = None, **options: Any
) -> AsyncGenerator[tuple[aiohttp.ClientSession, Front, Simulator]]:
    """A browser, the relay it asks, and the model's server behind that."""
    async with (
        Simulator(answer, fault=fault) as simulator,
        OpenRouter("sk-secret-key", base_url=simulator.base_url) as client,
    ):

        def chunks() -> Observable[ChatChunk]:
            chat = client.chat("hello", model="m")
            return chat if chain is None else chain(chat)

        async with relayed(server, chunks, **options) as front, aiohttp.ClientSession() as browser:
            yield browser, front, simulator


@asynccontextmanager
async def asked(server: str, chunks: Observable[ChatChunk], **options: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
    """What a browser gets that asks a relay for these."""
    async with (
        relayed(server, lambda: chunks, **options) as front,
        aiohttp.ClientSession() as browser,
        browser.get(front.url) as response,
    ):
        yield response


class Live(Subject[ChatChunk]):
    """A source that a test speaks through."""

    def _subscribe_core(
        self, observer: abc.ObserverBase[ChatChunk], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        def subscribe(inner: abc.ObserverBase[ChatChunk], _: object = None) -> abc.DisposableBase:
            return subscribe_subject(inner, scheduler)

        subscribe_subject = super()._subscribe_core
        # Its end is that of a whole answer, as a client's request proves it.
        return proven(Observable(subscribe)).subscribe(observer, scheduler=scheduler)

    @property
    def watched(self) -> bool:
        """Whether anybody is subscribed."""
        return bool(self.observers)


def reported() -> list[Exception]:
    """What the loop's exception handler is told from now on; in other tests that is a failure."""
    errors: list[Exception] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context["exception"]))
    return errors


async def events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """Events and comments, as they come."""
    parser = SSEParser()
    async for block in response.content.iter_any():
        for item in parser.feed(block):
            yield item


async def all_events(response: aiohttp.ClientResponse) -> list[ServerSentEvent]:
    """The events, to the end."""
    return [item async for item in events(response) if isinstance(item, ServerSentEvent)]


def said(items: list[ServerSentEvent]) -> str:
    """The text of an OpenAI stream."""
    chunks = [json.loads(item.data) for item in items if item.data != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
