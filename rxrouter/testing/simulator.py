"""Simulator: a real HTTP server on loopback that speaks OpenRouter's protocol, well or badly."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from rxrouter._source.loop import Home
from rxrouter.testing.account import bill, page
from rxrouter.testing.answer import STORY, answer
from rxrouter.testing.recording import Recording
from rxrouter.testing.reply import FAULTS, Act, Reply, Step

# Of the loop, from the acceptance of a connection until the server has its protocol.
_ACCEPT_TURNS = 3


class Exchange:
    """One request as the server saw it; what of the answer went out, and whether the client stayed."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        self.method = request.method
        self.path = request.path
        self.query = request.query
        self.headers = request.headers
        self.body = body
        self.peer: tuple[str, int] = (request.transport.get_extra_info("peername") if request.transport else None) or (
            "",
            0,
        )
        self.sent_bytes = 0  # of the answer's body, handed to the socket
        self.left_at: float | None = None  # when the client closed before the end, by the server's loop.time()
        self.over = asyncio.Event()  # the answer is sent, or the client has left

    @property
    def json(self) -> Any:
        """The body's value."""
        return json.loads(self.body)


Answer = Reply | Callable[[Exchange], Reply]


class Simulator:
    """Answers every request below `base_url`; `with` runs it on a thread of its own, `async with` on the running loop.

    A POST gets the answer, a GET what an account has to say: the models, the key, the credits, and by its id what each
    generation has cost that is over: a millionth of a credit for each byte that went out.

    Args:
        answer: The reply, or what chooses it by the request; made up from `text` when None.
        text: What the made-up answer says.
        recording: A recorded body to play instead.
        rate: Blocks a second; 0 for as fast as they go (or as recorded).
        fault: The name of something to go wrong with a POST; see `rxrouter.testing.FAULTS`.
        account: Chooses the reply to a GET; None from it is for the usual one.
        late: How often a generation that is over is still 404.
        port: Where to listen on 127.0.0.1; 0 for any free port.

    Raises:
        ValueError: there is no fault of that name.
    """

    def __init__(  # noqa: PLR0913 - the settings of a server
        self,
        answer: Answer | None = None,
        *,
        text: str = STORY,
        recording: Recording | None = None,
        rate: float = 0.0,
        fault: str | None = None,
        account: Callable[[Exchange], Reply | None] | None = None,
        late: int = 0,
        port: int = 0,
    ) -> None:
        if fault is not None and fault not in FAULTS:
            raise ValueError(f"no fault is called {fault!r}; there are: {', '.join(FAULTS)}")
        self.exchanges: list[Exchange] = []
        self._answer = answer or _made_up(text, recording, rate, fault)
        self._account = account
        self._late = late
        self._generations: dict[str, Exchange] = {}
        self._asked = Counter[str]()  # of each generation, when it was over
        self._port = port
        self._home = Home("simulator", "with Simulator() as simulator: …", moves=False)
        self._runner: web.ServerRunner | None = None
        self._listening: asyncio.Server | None = None

    @property
    def base_url(self) -> str:
        """What an `OpenRouter(base_url=…)` takes."""
        return f"http://127.0.0.1:{self._port}/api/v1"

    @property
    def connections(self) -> int:
        """How many sockets the requests so far came by."""
        return len({exchange.peer for exchange in self.exchanges})

    async def start(self) -> None:
        """Begins to listen."""
        server = web.Server(self._handle, handler_cancellation=True)
        self._runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(server, "127.0.0.1", self._port, backlog=4096)
        self._port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stops listening, and closes what is open."""
        if self._runner is None or self._listening is None:
            return
        loop = asyncio.get_running_loop()
        for listening in self._listening.sockets:
            # Accept no more, but keep the server open: asyncio drops an accepted connection whose server is closed
            # before it has a protocol, and leaves its socket to the garbage collector. Virtual sockets have no number.
            with suppress(NotImplementedError, ValueError):
                loop.remove_reader(listening)
        for _ in range(_ACCEPT_TURNS):
            await asyncio.sleep(0)
        self._listening.close()
        await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        asyncio.run_coroutine_threadsafe(self.start(), self._home.bind(own_thread=True)).result()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._home.running:
            asyncio.run_coroutine_threadsafe(self.stop(), self._home.bind()).result()
        self._home.end()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = Exchange(request, await request.content.read())  # read() has a limit, images have none
        self.exchanges.append(exchange)
        try:
            return await self._reply(request, exchange)
        except (asyncio.CancelledError, ConnectionError):
            exchange.left_at = asyncio.get_running_loop().time()
            raise
        finally:
            exchange.over.set()

    def _said(self, exchange: Exchange) -> Reply:
        reply = self._answer(exchange) if callable(self._answer) else self._answer
        if generation_id := reply.headers.get("X-Generation-Id"):
            self._generations[generation_id] = exchange
        return reply

    def _said_of_the_account(self, exchange: Exchange) -> Reply:
        if self._account is not None and (reply := self._account(exchange)):
            return reply
        if not exchange.path.endswith("/generation"):
            return page(exchange.path)
        generation_id = exchange.query.get("id", "")
        generation = self._generations.get(generation_id)
        if generation is not None and generation.over.is_set():
            self._asked[generation_id] += 1
            if self._asked[generation_id] > self._late:
                return bill(generation_id, generation.sent_bytes, cancelled=generation.left_at is not None)
        return Reply.error(404, f"Generation {generation_id} not found")

    async def _reply(self, request: web.BaseRequest, exchange: Exchange) -> web.StreamResponse:
        reply = self._said_of_the_account(exchange) if exchange.method == "GET" else self._said(exchange)
        response = web.StreamResponse(status=reply.status, headers=reply.headers)
        for step in reply.before:
            if not await _step(step, request, None, exchange):
                return response
        await response.prepare(request)
        for step in reply.steps:
            if not await _step(step, request, response, exchange):
                return response
        await response.write_eof()
        return response


async def _step(step: Step, request: web.BaseRequest, response: web.StreamResponse | None, exchange: Exchange) -> bool:
    """Does one step; False if the connection is gone."""
    if isinstance(step, bytes):
        if response is not None:
            await response.write(step)
            exchange.sent_bytes += len(step)
    elif step is Act.HANG:
        await asyncio.Event().wait()
    elif isinstance(step, Act):
        await asyncio.sleep(0)  # what was written goes out first
        transport = request.transport
        if transport is not None:
            if step is Act.RESET:
                linger = struct.pack("ii", 1, 0)
                transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                transport.abort()
            else:
                transport.close()
        return False
    elif step:
        await asyncio.sleep(step)
    return True


def _made_up(text: str, recording: Recording | None, rate: float, fault: str | None) -> Reply:
    if fault is not None:
        return FAULTS[fault](text)
    events: Recording | Sequence[bytes] = recording if recording is not None else answer(text)
    return Reply.of(events, rate=rate)
