"""What it costs to send one generation to a thousand HTTP readers, beside aiohttp writing directly."""

from __future__ import annotations

import asyncio
import gc
import resource
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from reactivex import Subject, operators as ops
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from rxrouter import ChatChunk, OpenRouter
from rxrouter.operators import share_generation
from rxrouter.relay.aiohttp import respond
from rxrouter.relay.asgi import Relay
from rxrouter.sharing import Hub
from tests.operators.support import chunk
from tests.perf.support import Run, compare, table
from tests.support import until

pytestmark = pytest.mark.perf

HERE = Path(__file__).parent
READERS = 1_000
CHUNKS = 200
EVENTS = 10  # a round; one a turn of the loop, as a model types them
WORD = chunk(
    {"role": "assistant", "content": " word"},
    provider="OpenAI",
    model="openai/gpt-5-mini",
    object="chat.completion.chunk",
    created=1763820000,
    system_fingerprint="fp_44709d6fcb",
)
WORD.received = WORD.raw.replace(
    b'"choices":[{', b'"choices":[{"index":0,"finish_reason":null,'
)  # as a server sends it


class Station:
    """A server with a thousand readers, and how to send something to all of them."""

    def __init__(self) -> None:
        self.port = 0
        self.readers = 0
        self.left = asyncio.Event()
        self.send: Callable[[ChatChunk], None] = lambda _: None
        self.end: Callable[[], None] = lambda: None

    def run(self, events: int, a_turn: int = 1) -> Run:
        async def run() -> int:
            for _ in range(events):
                for _ in range(a_turn):
                    self.send(WORD)
                for _ in range(4):  # turns that the slowest of them needs
                    await asyncio.sleep(0)
            return events * a_turn * READERS

        return run


@asynccontextmanager
async def counted(station: Station) -> AsyncGenerator[None]:
    station.readers += 1
    try:
        yield
    finally:
        station.readers -= 1
        if not station.readers:
            station.left.set()


@asynccontextmanager
async def on_aiohttp(station: Station, handler: Callable[[web.Request], Any]) -> AsyncGenerator[Station]:
    async def handle(request: web.Request) -> web.StreamResponse:
        async with counted(station):
            response: web.StreamResponse = await handler(request)
            return response

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    station.port = runner.addresses[0][1]
    yield station
    station.end()
    await until(lambda: not station.readers)
    await runner.cleanup()


@asynccontextmanager
async def on_uvicorn(station: Station, handler: Callable[[Request], Any]) -> AsyncGenerator[Station]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with counted(station):
            await Starlette(routes=[Route("/", handler)])(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, port=0, backlog=4096, lifespan="off", log_level="critical"))
    serving = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    station.port = server.servers[0].sockets[0].getsockname()[1]
    yield station
    station.end()
    await until(lambda: not station.readers)
    server.should_exit = True
    await serving


def writing_directly() -> Any:
    """One loop over the transports, with a frame that is encoded once."""
    station, transports = Station(), dict[asyncio.Transport, asyncio.Future[None]]()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        assert request.transport is not None
        over = transports[request.transport] = asyncio.get_running_loop().create_future()
        await over
        await response.write_eof()
        return response

    def send(chunk: ChatChunk) -> None:
        frame = b"%x\r\ndata: %b\n\n\r\n" % (len(chunk.raw) + 8, chunk.raw)
        for transport in transports:
            transport.write(frame)

    station.send = send

    def end() -> None:
        while transports:
            transports.popitem()[1].set_result(None)

    station.end = end
    return on_aiohttp(station, handler)


def by_sse_starlette() -> Any:
    """What one writes who has it, a queue for each reader; None where it is not installed."""
    if find_spec("sse_starlette") is None:
        return None
    event_source: Any = import_module("sse_starlette.sse").EventSourceResponse
    station, queues, over = Station(), set[asyncio.Queue[str | None]](), asyncio.Event()

    async def body() -> AsyncGenerator[dict[str, str]]:
        queue = asyncio.Queue[str | None]()
        queues.add(queue)
        if over.is_set():  # it began behind the end
            return
        while (data := await queue.get()) is not None:
            yield {"data": data}

    async def handler(_: Request) -> Any:
        return event_source(body())

    def send(data: str | None) -> None:
        for queue in queues:
            queue.put_nowait(data)

    station.send = lambda chunk: send(chunk.raw.decode())

    def end() -> None:
        over.set()
        send(None)

    station.end = end
    return on_uvicorn(station, handler)


def relayed(server: str, hub: Hub | None = None, **options: Any) -> Any:
    station, source = Station(), Subject[ChatChunk]()
    shared = source.pipe(share_generation())
    options |= {"prime": 0.0, "hub": hub, "key": "key" if hub else None}
    station.send = source.on_next
    station.end = source.on_completed
    if server == "uvicorn":

        async def endpoint(_: Request) -> Relay:
            return Relay(shared, **options)

        return on_uvicorn(station, endpoint)

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, shared, **options)

    return on_aiohttp(station, handler)


@asynccontextmanager
async def stations(hub: Hub) -> AsyncGenerator[dict[str, Station]]:
    """All of them, without readers."""
    made = {
        "aiohttp, writing directly": writing_directly(),
        "respond": relayed("aiohttp"),
        "respond, hub": relayed("aiohttp", hub),
        "Relay on uvicorn": relayed("uvicorn"),
        "sse-starlette on uvicorn": by_sse_starlette(),
    }
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(one) for name, one in made.items() if one is not None}
    watching = [
        task for task in asyncio.all_tasks() if "sse_starlette" in repr(getattr(task.get_coro(), "cr_code", ""))
    ]
    for task in watching:  # for the end of its server, and for ever
        task.cancel()
    await asyncio.gather(*watching, return_exceptions=True)


async def read(*read_from: Station) -> asyncio.subprocess.Process:
    """A thousand readers for each, in a process of their own."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    ports = [str(number) for station in read_from for number in (station.port, READERS)]
    readers = await asyncio.create_subprocess_exec(sys.executable, str(HERE / "readers.py"), *ports)
    await until(lambda: all(station.readers == READERS for station in read_from))
    return readers


async def test_cost_of_a_delivery_to_a_thousand_readers() -> None:
    async with Hub() as hub:
        async with stations(hub) as all_of_them:
            readers = await read(*all_of_them.values())
            trickle = {name: station.run(EVENTS) for name, station in all_of_them.items()}
            burst = {name: station.run(1, a_turn=20) for name, station in all_of_them.items()}
            table("an event a turn", await compare(trickle, rounds=4), "delivery")
            table("twenty events a turn", await compare(burst, rounds=4), "delivery")
        await readers.wait()


@asynccontextmanager
async def blasting() -> AsyncGenerator[str]:
    """The address of a model in a process of its own that answers as fast as it goes."""
    blaster = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "blaster.py"), stdout=asyncio.subprocess.PIPE
    )
    assert blaster.stdout is not None
    try:
        yield (await blaster.stdout.readline()).decode().strip()
    finally:
        blaster.kill()
        await blaster.wait()


async def test_a_generation_at_full_speed_to_a_thousand_readers() -> None:
    """From the model's socket to the last byte written: what the loop has no time for waits, and is sent at once."""
    print(f"\n{f'{CHUNKS} chunks to each of {READERS:,} readers':44s} {'a second':>10s} {'µs CPU':>7s}")
    async with (
        blasting() as url,
        OpenRouter("sk-perf", base_url=url) as client,
        Hub() as hub,
        stations(hub) as all_of_them,
    ):
        for name, station in all_of_them.items():
            readers = await read(station)
            began, cpu = time.perf_counter(), time.process_time()
            await client.chat(f"{CHUNKS} 0", model="m").pipe(ops.do_action(station.send))
            station.end()
            await station.left.wait()
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            print(f"  {name:42s} {CHUNKS * READERS / wall:10,.0f} {1e6 * cpu / CHUNKS / READERS:7.2f}")
            await readers.wait()


async def test_memory_of_a_connection() -> None:
    print(f"\n{'memory of a connection that waits':44s} {'bytes':>10s}")
    async with Hub() as hub, stations(hub) as all_of_them:
        for name, station in all_of_them.items():
            gc.collect()
            tracemalloc.start()
            readers = await read(station)
            gc.collect()
            print(f"  {name:42s} {tracemalloc.get_traced_memory()[0] / READERS:10,.0f}")
            tracemalloc.stop()
            station.end()
            await readers.wait()
