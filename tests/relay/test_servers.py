"""What servers and their middleware do to a response, or want of it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import ssl
from collections.abc import AsyncGenerator, Callable, MutableMapping
from contextlib import asynccontextmanager
from threading import get_ident
from typing import Any

import aiohttp
import pytest
import reactivex
import uvicorn
from aiohttp import web
from fastapi import BackgroundTasks, FastAPI
from reactivex import Observable, abc, operators as ops
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from rxrouter import ChatChunk, StreamError
from rxrouter.relay import NDJSON, Lines, PlainText, aiohttp as on_aiohttp, asgi as on_asgi
from rxrouter.relay.aiohttp import respond
from rxrouter.relay.asgi import Relay
from rxrouter.relay.desk import Desk, connections
from rxrouter.sharing import Hub
from tests.operators.support import chunk, finished
from tests.relay.support import Live, events, reported
from tests.support import served, until

WORD = finished({"content": "word "})
PLACE: dict[str, Any] = {"type": "http", "method": "GET", "headers": []}


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncGenerator[tuple[str, uvicorn.Server, asyncio.Task[None]]]:
    settings: dict[str, Any] = {"port": 0, "lifespan": "off", "log_level": "critical", "access_log": False, **options}
    server = uvicorn.Server(uvicorn.Config(app, **settings))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/", server, task
    server.should_exit = True
    await task


@asynccontextmanager
async def listening(app: web.Application, tls: ssl.SSLContext | None = None, **options: Any) -> AsyncGenerator[str]:
    runner = web.AppRunner(app, **options)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield f"http{'' if tls is None else 's'}://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_middleware_that_compresses_holds_nothing_back() -> None:
    live = Live()

    async def endpoint(_: Any) -> Relay:
        return Relay(live, dialect=NDJSON)

    app = GZipMiddleware(Starlette(routes=[Route("/", endpoint)]), minimum_size=1)
    async with serving(app) as (url, _, _), aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(url))
        await until(lambda: live.watched)
        live.on_next(WORD)
        async with await asking as response:
            assert await response.content.readline() == WORD.raw + b"\n"
            live.on_completed()


async def test_middleware_that_wraps_what_is_sent_is_no_hindrance() -> None:
    live = Live()

    async def endpoint(_: Any) -> Relay:
        return Relay(live)

    async def dispatch(request: Any, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-seen"] = "yes"
        return response

    app = BaseHTTPMiddleware(Starlette(routes=[Route("/", endpoint)]), dispatch=dispatch)
    async with serving(app) as (url, _, _), aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(url))
        await until(lambda: live.watched)
        live.on_next(WORD)
        response = await asking
        assert response.headers["x-seen"] == "yes"
        await anext(events(response))
        response.close()
        await until(lambda: not live.watched)


async def test_what_fastapi_is_to_do_behind_the_response_is_done() -> None:
    done: list[str] = []
    app = FastAPI()

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> Relay:  # pyright: ignore[reportUnusedFunction]
        tasks.add_task(done.append, "behind")
        return Relay(reactivex.of(WORD))

    async with serving(app) as (url, _, _), aiohttp.ClientSession() as browser, browser.get(url) as response:
        await response.read()
        await until(lambda: done == ["behind"])


async def test_a_relay_takes_headers_and_cookies_as_every_response_of_starlette() -> None:
    async def endpoint(_: Any) -> Any:
        relay: Any = Relay(reactivex.of(WORD))
        relay.set_cookie("a", "b")
        relay.headers["x-mine"] = "yes"
        return relay

    app = Starlette(routes=[Route("/", endpoint)])
    async with serving(app) as (url, _, _), aiohttp.ClientSession() as browser, browser.get(url) as response:
        assert response.headers["x-mine"] == "yes"
        assert response.cookies["a"].value == "b"


async def silence() -> MutableMapping[str, Any]:
    """What a reader says who stays."""
    await asyncio.Event().wait()
    raise AssertionError


async def ignore(_: MutableMapping[str, Any]) -> None:
    """What a server does whose reader has left."""


async def messages_of(app: Any) -> list[MutableMapping[str, Any]]:
    """What an app sends, without a server."""
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(PLACE, silence, send)
    return sent


async def status_of(app: Any) -> int:
    status: int = (await messages_of(app))[0]["status"]
    return status


async def test_a_relay_is_an_app_of_its_own() -> None:
    sent = await messages_of(Relay(reactivex.of(WORD), dialect=NDJSON))
    assert [message["type"] for message in sent] == ["http.response.start", *["http.response.body"] * 2]
    assert sent[1]["body"] == WORD.raw + b"\n"
    assert sent[-1]["more_body"] is False


async def test_a_server_that_says_by_an_error_that_the_reader_has_left_is_understood() -> None:
    live = Live()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.body":
            raise OSError

    answering = asyncio.create_task(Relay(live)(PLACE, silence, send))
    await until(lambda: live.watched)
    live.on_next(WORD)
    await answering
    assert not live.watched


async def test_a_reader_of_whom_receiving_fails_has_left() -> None:
    live = Live()

    async def gone() -> MutableMapping[str, Any]:
        raise OSError

    await Relay(live)(PLACE, gone, ignore)
    assert not live.watched


class Lost(NDJSON):
    """A dialect that wants a file."""

    def begin(self) -> tuple[bytes, ...]:
        raise FileNotFoundError


async def test_a_dialect_that_cannot_begin_begins_nothing_and_is_nobody_s_leave() -> None:
    live = Live()
    async with Hub() as hub:
        with pytest.raises(FileNotFoundError):
            await messages_of(Relay(live, hub=hub, key="key", dialect=Lost))
        assert (await hub.status("key")).state == "unknown"
    assert not live.watched


async def test_what_is_large_is_sent_in_messages_that_show_whether_the_reader_takes_something() -> None:
    large = finished({"content": "w" * 200_000})
    _, *bodies = await messages_of(Relay(reactivex.of(large), dialect=NDJSON))
    assert max(len(message["body"]) for message in bodies) == 1 << 16
    assert b"".join(message["body"] for message in bodies) == large.raw + b"\n"


async def test_a_response_that_is_cancelled_in_the_middle_of_a_message_has_no_last_words() -> None:
    live, sent = Live(), list[MutableMapping[str, Any]]()

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)
        if message.get("body"):
            await asyncio.Event().wait()

    answering = asyncio.create_task(Relay(live)(PLACE, silence, send))
    await until(lambda: live.watched)
    live.on_next(WORD)
    await until(lambda: len(sent) == 2)
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert len(sent) == 2
    assert not live.watched


async def test_what_fails_while_the_head_is_on_its_way_is_told_in_the_body() -> None:
    live = Live()

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            live.on_error(StreamError(502))
        else:
            told.append(message["body"])

    told: list[bytes] = []
    await Relay(live, prime=0.0)(PLACE, silence, send)
    assert b'"code":502' in b"".join(told)


@pytest.mark.parametrize("closing", [False, True])
async def test_what_fails_while_aiohttp_prepares_the_head_is_told_in_the_body(*, closing: bool) -> None:
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live, prime=0.0)

    async def prepare(*_: Any) -> None:
        if closing:
            await on_aiohttp.shutdown(app)
        else:
            live.on_error(StreamError(502))

    app = web.Application()
    app.router.add_get("/", handler)
    app.on_response_prepare.append(prepare)
    async with listening(app) as url, aiohttp.ClientSession() as browser, browser.get(url) as response:
        assert response.status == 200
        assert (b'"code":503' if closing else b'"code":502') in await response.read()


async def test_a_reader_that_leaves_before_the_head_is_no_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live, prime=0.0)

    async def leave(request: web.Request, _: Any) -> None:
        assert request.transport is not None
        request.transport.close()

    app = web.Application()
    app.router.add_get("/", handler)
    app.on_response_prepare.append(leave)
    async with listening(app) as url, aiohttp.ClientSession() as browser:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await browser.get(url)
        await until(lambda: not live.watched)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_source_that_raises_when_it_is_left_keeps_no_other_from_being_left() -> None:
    good, bad, errors = Live(), Live(), reported()
    returned: list[str] = []

    def mistake() -> None:
        raise RuntimeError

    async def handler(request: web.Request) -> web.StreamResponse:
        chunks = good if request.path == "/good" else bad.pipe(ops.finally_action(mistake))
        try:
            return await respond(request, chunks, prime=0.0)
        finally:
            returned.append(request.path)

    app = web.Application()
    app.router.add_get("/{name}", handler)
    async with listening(app) as url, aiohttp.ClientSession() as browser:
        staying = await browser.get(url + "good")
        leaving = await browser.get(url + "bad")
        await until(lambda: good.watched and bad.watched)
        leaving.close()
        await until(lambda: returned == ["/bad"])
        staying.close()
        await until(lambda: returned == ["/bad", "/good"])
    assert not good.watched
    assert list(map(type, errors)) == [RuntimeError]


async def test_a_connection_that_fails_takes_no_other_with_it() -> None:
    told: list[object] = []

    class Faulty:
        lost = True
        answer: Any = None  # has no `leave`

        def flush(self) -> None:
            raise OSError

        def fail(self, error: Exception) -> None:
            told.append(type(error))

    class Sound(Faulty):
        def flush(self) -> None:
            told.append("flushed")

    both: list[Any] = [Faulty(), Sound()]
    desks = [Desk.open(connection) for connection in both]
    for desk, connection in zip(desks, both, strict=True):
        desk.ready(connection)
    await until(lambda: len(told) == 2)
    assert told == [OSError, "flushed"]
    await until(lambda: len(told) == 6)  # two looks, of which the first did not keep the other from coming
    assert told[2:] == [AttributeError] * 4
    for desk, connection in zip(desks, both, strict=True):
        desk.close(connection)


class Mute(Lines):
    """A framing with a mistake."""

    def comment(self) -> bytes:
        raise KeyError("comment")


class Muted(NDJSON):
    framing = Mute("text/plain")


async def test_an_answer_that_cannot_be_made_leaves_no_connection_behind(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, Live(), dialect=Muted)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url, aiohttp.ClientSession() as browser, browser.get(url) as response:
        assert response.status == 500
        assert connections() == []
    assert "KeyError" in caplog.text


async def test_a_response_that_uvicorn_cancels_ends_with_a_word() -> None:
    live = Live()

    async def endpoint(_: Any) -> Relay:
        return Relay(live)

    app = Starlette(routes=[Route("/", endpoint)])
    async with serving(app, timeout_graceful_shutdown=0) as (url, server, _), aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(url))
        await until(lambda: live.watched)
        live.on_next(WORD)
        async with await asking as response:
            server.should_exit = True
            assert b'"code":503' in await response.read()
    assert not live.watched


async def test_aiohttp_may_cancel_handlers_by_itself() -> None:
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app, handler_cancellation=True) as url, aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(url))
        await until(lambda: live.watched)
        asking.cancel()
        await until(lambda: not live.watched)


@pytest.mark.parametrize("header", [b"", b"Connection: keep-alive\r\n"])
async def test_a_reader_of_http_1_0_gets_it_without_chunks_and_sees_its_end(header: bytes) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, reactivex.of(WORD), dialect=NDJSON)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1].rstrip("/")))
        writer.write(b"GET / HTTP/1.0\r\n%b\r\n" % header)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.endswith(b"\r\n\r\n" + WORD.raw + b"\n")
    assert b"chunked" not in answer


async def test_a_reader_of_http_1_0_does_not_take_a_broken_text_for_a_whole_one() -> None:
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live, dialect=PlainText)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1].rstrip("/")))
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await until(lambda: live.watched)
        live.on_next(WORD)
        assert (await reader.readuntil(b"word ")).startswith(b"HTTP/1.0 200 OK")
        live.on_error(StreamError(502))
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()


async def test_a_reader_that_leaves_in_the_middle_of_much_is_no_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app, access_log=None) as url, aiohttp.ClientSession() as browser:
        asking = asyncio.create_task(browser.get(url))
        await until(lambda: live.watched)
        live.on_next(WORD)
        (await asking).close()
        while live.watched:
            live.on_next(WORD)
            await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records if record.name != "asyncio.selector_events"] == []


async def test_the_access_log_has_the_size(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "aiohttp.access")

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, reactivex.of(*[WORD] * 100), dialect=NDJSON)

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url, aiohttp.ClientSession() as browser, browser.get(url) as response:
        size = len(await response.read())
    (line,) = [record.getMessage() for record in caplog.records]
    assert int(line.rsplit('"', 4)[0].split()[-1]) > size


async def test_closing_one_application_ends_its_streams_and_no_others() -> None:
    live = Live()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(request, live)

    apps = [web.Application(), web.Application()]
    for app in apps:
        app.router.add_get("/", handler)
    async with listening(apps[0]) as one, listening(apps[1]) as other, aiohttp.ClientSession() as browser:
        asking = [asyncio.create_task(browser.get(url)) for url in (one, other)]
        await until(lambda: len(live.observers) == 2)
        live.on_next(WORD)
        first, second = [await task for task in asking]
        await on_aiohttp.shutdown(apps[0])
        assert b'"code":503' in await first.read()
        assert len(live.observers) == 1
        live.on_completed()
        assert b"[DONE]" in await second.read()


WRONG: list[tuple[type[Exception], Any, dict[str, Any]]] = [
    (ValueError, None, {}),
    (ValueError, None, {"key": "key"}),
    (ValueError, None, {"hub": Hub()}),
    (ValueError, reactivex.of(WORD), {"key": "key"}),
    (ValueError, None, {"hub": Hub(), "key": ""}),
    (TypeError, None, {"hub": Hub(), "key": 1}),
    (TypeError, None, {"hub": "hub", "key": "key"}),
    (TypeError, [WORD], {}),
    (TypeError, reactivex.of(WORD), {"dialect": NDJSON()}),
    (TypeError, reactivex.of(WORD), {"explain": "yes"}),
    (TypeError, reactivex.of(WORD), {"prime": "10"}),
    (TypeError, reactivex.of(WORD), {"retry": True}),
    (ValueError, reactivex.of(WORD), {"prime": -1}),
    (ValueError, reactivex.of(WORD), {"prime": float("nan")}),
    (ValueError, reactivex.of(WORD), {"keep_alive": 0}),
    (ValueError, reactivex.of(WORD), {"send_timeout": 0}),
    (ValueError, reactivex.of(WORD), {"coalesce": -1}),
    (ValueError, None, {"hub": Hub(), "key": "key", "coalesce": 0.05}),
]


@pytest.mark.parametrize(("kind", "chunks", "options"), WRONG)
async def test_wrong_options_are_refused_where_they_are_written(
    kind: type[Exception], chunks: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(kind):
        Relay(chunks, **options)
    request: Any = object()
    with pytest.raises(kind):
        await respond(request, chunks, **options)


async def test_both_servers_take_the_same_options() -> None:
    def options(function: Callable[..., Any]) -> list[Any]:
        parameters = inspect.signature(function).parameters.values()
        return [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]

    assert options(respond) == options(Relay)


async def test_time_that_never_comes_may_be_asked_for() -> None:
    never = float("inf")
    sent = await messages_of(Relay(reactivex.of(WORD), prime=never, keep_alive=never, send_timeout=never))
    assert sent[0]["status"] == 200


@pytest.mark.parametrize("chunks", [Live(), reactivex.throw(StreamError(429)), reactivex.empty()])
async def test_a_server_whose_reader_has_left_before_the_head_hears_of_no_error(chunks: Any) -> None:
    async def send(_: MutableMapping[str, Any]) -> None:
        raise OSError

    async def leaving() -> MutableMapping[str, Any]:
        return {"type": "http.disconnect"}

    await Relay(chunks)(PLACE, leaving, send)


async def test_a_closed_hub_is_a_status() -> None:
    hub = Hub()
    await hub.status("key")
    await hub.aclose()
    stopped: Any = await on_asgi.stop(hub, "key")
    assert stopped.status_code == 503
    assert await status_of(Relay(None, hub=hub, key="key")) == 503


async def test_fewer_chunks_say_the_same() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await respond(
            request, reactivex.of(*[chunk({"content": "word "})] * 99, WORD), dialect=NDJSON, coalesce=0.05
        )

    app = web.Application()
    app.router.add_get("/", handler)
    async with listening(app) as url, aiohttp.ClientSession() as browser, browser.get(url) as response:
        lines = (await response.read()).splitlines()
    assert len(lines) < 5
    assert b"".join(lines).count(b"word ") == 100


async def test_fewer_chunks_of_another_thread_are_timed_there() -> None:
    threads: list[int] = []

    def here(*_: object) -> None:
        threads.append(get_ident())

    def look(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
        def subscribe(observer: abc.ObserverBase[ChatChunk], scheduler: Any = None) -> abc.DisposableBase:
            scheduler.schedule(here)
            return source.subscribe(observer, scheduler=scheduler)

        return Observable(subscribe)

    async with served() as (client, _):
        await asyncio.to_thread(lambda: client.models().run())  # from now on it belongs to a thread of its own
        sent = await messages_of(Relay(client.chat("hi", model="m").pipe(look), coalesce=0.05))
    assert sent[0]["status"] == 200
    assert len(threads) == 1
    assert threads[0] != get_ident()


async def test_what_a_provider_wrote_may_be_chosen_to_be_told_on_asgi_too() -> None:
    sent = await messages_of(Relay(reactivex.throw(StreamError(429, "per minute")), explain=str))
    assert sent[0]["status"] == 429
    assert b"per minute" in sent[1]["body"]
