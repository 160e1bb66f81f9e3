"""The endpoints beside the streams: what is asked, what it becomes, how it fails, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import threading
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from reactivex import operators as ops

from rxrouter import (
    ClientClosedError,
    ContentTypeError,
    Credits,
    EventTooLargeError,
    Generation,
    Key,
    LoopObservable,
    Model,
    OpenRouter,
    ProtocolError,
    RouterError,
    SilenceTimeoutError,
    StatusError,
    StreamError,
    Timeouts,
    TransportError,
    is_transient,
)
from rxrouter.operators import completion
from rxrouter.testing import Act, Exchange, Reply, Simulator
from tests.support import Observed, observe, served, until

JSON = {"Content-Type": "application/json"}
MODELS = ["simulated/storyteller", "simulated/storyteller:free", "simulated/thinker", "simulated/auto"]
KEY = "sk-or-v1-verysecret"

Ask = Callable[[OpenRouter], LoopObservable[Any]]
ENDPOINTS: dict[str, Ask] = {
    "models": lambda client: client.models(),
    "generation": lambda client: client.generation("gen-1"),
    "key": lambda client: client.key(),
    "credits": lambda client: client.credits(),
}
each_endpoint = pytest.mark.parametrize("ask", ENDPOINTS.values(), ids=ENDPOINTS)


@asynccontextmanager
async def asking(reply: Reply, **options: Any) -> AsyncGenerator[tuple[OpenRouter, Simulator]]:
    """A client, and a server that replies so to every GET."""
    async with (
        Simulator(account=lambda _: reply) as simulator,
        OpenRouter(KEY, base_url=simulator.base_url, **options) as client,
    ):
        yield client, simulator


async def ending(reply: Reply, ask: Ask = ENDPOINTS["models"], **options: Any) -> Exception | None:
    async with asking(reply, **options) as (client, _):
        return (await observe(ask(client))).endings[0]


# What comes


async def test_models_come_one_by_one_in_the_servers_order() -> None:
    async with served() as (client, _):
        seen = await observe(client.models())

    assert [model.id for model in seen.values] == MODELS
    model = seen.values[0]
    assert (model.name, model.context_length) == ("Simulated: Storyteller", 32_768)
    assert (model.pricing.prompt, model.pricing.completion) == (0.00000015, 0.0000006)
    assert model.top_provider.max_completion_tokens == 4096
    assert model.architecture.output_modalities == ["text"]
    assert "tools" in model.supported_parameters


def _is_free(model: Model) -> bool:
    return model.free


async def test_models_go_through_operators() -> None:
    async with served() as (client, _):
        free = await client.models().pipe(ops.filter(_is_free), ops.to_list())

    assert [model.id for model in free] == ["simulated/storyteller:free"]


async def test_a_slow_reader_of_more_models_than_may_wait_gets_them_all() -> None:
    names = [str(number) for number in range(5_000)]
    async with asking(Reply.json({"data": [{"id": name} for name in names]})) as (client, _):
        seen = [model.id async for model in client.models().iterate(high=64, low=0)]

    assert seen == names


async def test_a_generation_tells_its_cost_and_native_tokens() -> None:
    async with served() as (client, simulator):
        whole = await client.chat("hi").pipe(completion())
        assert whole.id is not None
        generation = await client.generation(whole.id)

    assert isinstance(generation, Generation)
    assert generation.id == whole.id
    assert generation.total_cost == pytest.approx(simulator.exchanges[0].sent_bytes * 1e-6)
    assert generation.native_tokens_prompt == 12
    assert generation.cancelled is False
    assert generation.provider_name == "Simulator"


async def test_a_key_tells_limit_and_usage() -> None:
    async with served() as (client, _):
        key = await client.key()

    assert isinstance(key, Key)
    assert (key.limit, key.limit_remaining, key.usage, key.is_free_tier) == (10, 7.5, 2.5, False)
    assert key.rate_limit == {"requests": -1, "interval": "10s"}


async def test_credits_tell_what_was_bought_and_spent() -> None:
    async with served() as (client, _):
        account = await client.credits()

    assert isinstance(account, Credits)
    assert (account.total_credits, account.total_usage) == (25, 2.5)


async def test_unknown_fields_are_in_raw_byte_for_byte() -> None:
    first, second = b'{"id":"a/b", "benchmarks": {"elo":1200}}', b'{ "id" : "c/d"}'
    async with asking(Reply.json(b'{"data":[' + first + b"," + second + b'],"more":1}')) as (client, _):
        models = (await observe(client.models())).values

    assert [model.raw for model in models] == [first, second]


async def test_nulls_missing_and_wrong_fields_are_as_not_there() -> None:
    odd = {"id": "a/b", "name": None, "context_length": "many", "pricing": {"prompt": "free", "completion": 1e-6}}
    async with asking(Reply.json({"data": [odd, {}]})) as (client, _):
        first, second = (await observe(client.models())).values

    assert (first.id, first.name, first.context_length) == ("a/b", None, None)
    assert (first.pricing.prompt, first.pricing.completion) == (None, 1e-6)
    assert second == Model()


@pytest.mark.parametrize(
    ("prompt", "completion", "free"), [("0", "0", True), ("0", "1e-6", False), ("-1", "-1", False), (None, None, False)]
)
async def test_a_model_is_free_if_both_prices_are_known_to_be_nothing(
    *, prompt: str | None, completion: str | None, free: bool
) -> None:
    async with asking(Reply.json({"data": [{"pricing": {"prompt": prompt, "completion": completion}}]})) as (client, _):
        assert (await client.models()).free is free


# What is sent


@pytest.mark.parametrize(
    ("ask", "path"),
    list(zip(ENDPOINTS.values(), ["/models", "/generation?id=gen-1", "/key", "/credits"], strict=True)),
    ids=ENDPOINTS,
)
async def test_a_question_is_a_get_with_the_key_and_no_body(ask: Ask, path: str) -> None:
    options: dict[str, Any] = {"app_title": "Café", "headers": {"X-Mine": "yes"}}
    async with asking(Reply.json({"data": {}}), **options) as (client, simulator):
        await observe(ask(client))

    (exchange,) = simulator.exchanges
    query = "?" + "&".join(f"{name}={value}" for name, value in exchange.query.items()) if exchange.query else ""
    assert (exchange.method, exchange.path + query, exchange.body) == ("GET", "/api/v1" + path, b"")
    assert exchange.headers["Authorization"] == f"Bearer {KEY}"
    assert exchange.headers["Accept"] == "application/json"
    assert exchange.headers["X-OpenRouter-Title"] == "Café"
    assert exchange.headers["X-Mine"] == "yes"
    assert "gzip" in exchange.headers["Accept-Encoding"]  # a catalogue is megabytes


async def test_an_id_is_sent_as_it_is_whatever_is_in_it() -> None:
    async with served() as (client, simulator):
        await observe(client.generation("gen-1&x=2 #ü/%41"))

    assert dict(simulator.exchanges[0].query) == {"id": "gen-1&x=2 #ü/%41"}


@each_endpoint
async def test_nothing_is_asked_before_somebody_subscribes_and_each_who_does_asks(ask: Ask) -> None:
    async with asking(Reply.json({"data": {}})) as (client, simulator):
        question = ask(client)
        await asyncio.sleep(0)
        assert simulator.exchanges == []

        await observe(question)
        await observe(question)
        assert len(simulator.exchanges) == 2
        assert simulator.connections == 1  # which was free again when the first had ended


def test_the_models_need_no_key_the_rest_does() -> None:
    client = OpenRouter()

    assert client.models() is not None
    for ask in (lambda: client.generation("gen-1"), client.key, client.credits):
        with pytest.raises(ValueError, match="OPENROUTER_API_KEY"):
            ask()


def test_no_id_is_refused_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="id"):
        OpenRouter("sk-test").generation("")


def test_a_script_without_a_loop_can_ask() -> None:
    with Simulator() as simulator, OpenRouter(base_url=simulator.base_url) as client:
        assert client.models().run().id == MODELS[-1]
        assert client.credits().run().total_usage == 2.5


# How it fails


async def test_an_unknown_generation_is_a_404() -> None:
    async with served() as (client, _):
        seen = await observe(client.generation("gen-nobody"))

    error = seen.endings[0]
    assert isinstance(error, StatusError)
    assert (error.status, is_transient(error)) == (404, False)
    assert error.elapsed is not None


@each_endpoint
@pytest.mark.parametrize(("status", "transient"), [(401, False), (429, True), (500, True)])
async def test_a_status_is_a_status_error(ask: Ask, *, status: int, transient: bool) -> None:
    error = await ending(Reply.error(status, "No.", headers={"Retry-After": "7"}), ask)

    assert isinstance(error, StatusError)
    assert (error.status, error.message, error.retry_after, error.transient) == (status, "No.", 7.0, transient)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.json({"error": {"code": 502, "message": "Upstream error"}}), StreamError),
        (Reply((b"<html>Log in</html>",), headers={"Content-Type": "text/html"}), ContentTypeError),
        (Reply(headers={"Content-Type": "text/event-stream"}), ContentTypeError),
        (Reply.json(b'{"data": ['), ProtocolError),
        (Reply.json({"models": []}), ProtocolError),
        (Reply.json({"data": [1]}), ProtocolError),
        (Reply.json({"data": None}), ProtocolError),
        (Reply.json([]), ProtocolError),
        (Reply.json(b""), ProtocolError),
        (Reply.json(b'{"data": {"id": "\xff"}}'), ProtocolError),
        (Reply.json(b'{"data": ' + b"[" * 100_000), ProtocolError),
        (Reply((b'{"data"', Act.CUT), headers={**JSON, "Content-Length": "100"}), TransportError),
        (Reply((b'{"data"', 0.02, Act.RESET), headers=JSON), TransportError),
        (Reply(before=(Act.CUT,), headers=JSON), TransportError),
    ],
)
async def test_what_is_no_answer_is_its_typed_error(reply: Reply, kind: type[Exception]) -> None:
    error = await ending(reply)

    assert type(error) is kind
    assert isinstance(error, RouterError)
    assert isinstance(error.elapsed, float)
    if isinstance(error, TransportError):
        assert error.phase == "read"
    if isinstance(error, ContentTypeError):
        assert "expected application/json" in str(error)


async def test_a_message_with_a_broken_character_is_still_told() -> None:
    error = await ending(Reply((b'{"error": {"code": 502, "message": "caf\xe9 closed"}}',), 502, JSON))

    assert isinstance(error, StatusError)
    assert error.message == "caf\ufffd closed"


async def test_an_answer_above_the_bound_is_not_read_to_its_end() -> None:
    endless = Reply((b'{"data": "', *[b"x" * 1000] * 100_000), headers=JSON)

    error = await ending(endless, max_event_bytes=5_000)

    assert type(error) is EventTooLargeError
    assert error.limit_bytes == 5_000


async def test_an_answer_at_the_bound_is_read() -> None:
    body = b'{"data": {"total_usage": 1}}'

    assert await ending(Reply.json(body), ENDPOINTS["credits"], max_event_bytes=len(body)) is None
    error = await ending(Reply.json(body), ENDPOINTS["credits"], max_event_bytes=len(body) - 1)
    assert type(error) is EventTooLargeError


@pytest.mark.parametrize(
    "reply",
    [Reply(before=(Act.HANG,)), Reply((Act.HANG,), headers=JSON), Reply((b"{", Act.HANG), headers=JSON)],
    ids=["before the headers", "before the body", "in the body"],
)
async def test_silence_is_a_silence_timeout(reply: Reply) -> None:
    error = await ending(reply, timeouts=Timeouts(silence=0.1))

    assert type(error) is SilenceTimeoutError
    assert error.seconds == 0.1


async def test_nobody_there_is_a_transport_error_of_the_connection() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    async with OpenRouter(base_url=f"http://127.0.0.1:{port}/v1") as client:
        error = (await observe(client.models())).endings[0]

    assert type(error) is TransportError
    assert error.phase == "connect"


@pytest.mark.parametrize("status", [301, 302, 307])
async def test_a_redirect_is_not_followed_with_the_key(status: int) -> None:
    error = await ending(Reply(status=status, headers={"Location": "http://elsewhere.example/"}))

    assert isinstance(error, StatusError)
    assert error.status == status


async def test_a_reader_that_raises_gets_its_own_error() -> None:
    def explode(model: Model) -> None:
        raise LookupError(model.id)

    async with served() as (client, _):
        seen = Observed[Model]()
        client.models().subscribe(explode, seen.on_error, seen.on_completed)
        await seen.over.wait()

    assert [type(error) for error in seen.endings] == [LookupError]


@pytest.mark.parametrize("reply", [Reply.error(401, "No."), Reply.json(b"{"), Reply((b"{", Act.CUT), headers=JSON)])
async def test_no_failure_tells_the_key(reply: Reply) -> None:
    error = await ending(reply)

    assert error is not None
    told = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert KEY not in told


# How it is left


@each_endpoint
@pytest.mark.parametrize(
    "reply", [Reply(before=(Act.HANG,)), Reply((b"{", Act.HANG), headers=JSON)], ids=["no headers", "in the body"]
)
async def test_dispose_closes_the_socket(ask: Ask, reply: Reply) -> None:
    async with asking(reply) as (client, simulator):
        seen = Observed[Any]()
        subscription = ask(client).subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: bool(simulator.exchanges) and simulator.exchanges[0].sent_bytes == len(reply.steps[:1]))

        await subscription.aclose()
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None
        assert seen.endings == []
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]


async def test_dispose_before_the_start_asks_nothing() -> None:
    async with served() as (client, simulator):
        await client.models()
        thread = threading.Thread(target=lambda: client.models().subscribe().dispose())
        thread.start()
        thread.join()  # the loop has had no chance to start anything
        await client.models()

    assert len(simulator.exchanges) == 2


async def test_nothing_comes_after_dispose_in_on_next() -> None:
    async with served() as (client, _):
        seen = await observe(client.models().pipe(ops.take(2)))

    assert [model.id for model in seen.values] == MODELS[:2]


async def test_closing_the_client_ends_a_question() -> None:
    async with asking(Reply(before=(Act.HANG,))) as (client, simulator):
        seen = Observed[Model]()
        client.models().subscribe(seen.on_next, seen.on_error, seen.on_completed)
        await until(lambda: bool(simulator.exchanges))
        await client.aclose()
        late = await observe(client.models())

    assert [type(error) for error in seen.endings + late.endings] == [ClientClosedError] * 2


async def test_the_simulators_books_know_a_generation_when_it_is_over_and_not_before() -> None:
    def hang(exchange: Exchange) -> Reply:
        return Reply((b": hello\n\n", Act.HANG), headers={**Reply().headers, "X-Generation-Id": "gen-7"})

    async with Simulator(hang, late=1) as simulator, OpenRouter(base_url=simulator.base_url) as client:
        subscription = client.chat("hi").subscribe()
        await until(lambda: bool(simulator.exchanges) and simulator.exchanges[0].sent_bytes > 0)
        running = (await observe(client.generation("gen-7"))).endings[0]
        subscription.dispose()
        await simulator.exchanges[0].over.wait()
        late = (await observe(client.generation("gen-7"))).endings[0]
        generation = await client.generation("gen-7")

    assert [type(error) for error in (running, late)] == [StatusError] * 2
    assert (generation.cancelled, generation.finish_reason) == (True, None)
    assert generation.total_cost == pytest.approx(9e-6)
