"""Never run; read by mypy and pyright: the types that users see, and the calls that must not type-check."""

from __future__ import annotations

from typing import Any, assert_type

from aiohttp import web
from reactivex import Observable, operators as ops

from rxrouter import (
    Audio,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Citation,
    Comment,
    Credits,
    Generation,
    Image,
    Iteration,
    Key,
    Limiter,
    LoopObservable,
    Model,
    OpenRouter,
    Overflow,
    Receipt,
    RetryPolicy,
    ServerSentEvent,
    SSEParser,
    Subscription,
    Timeouts,
    ToolCall,
    ToolCallDelta,
    Usage,
    UserMessage,
    for_each,
    is_transient,
    iterate,
)
from rxrouter.operators import (
    INTERACTIVE,
    Health,
    Loss,
    Meter,
    Operator,
    Spent,
    audio,
    budget,
    citations,
    coalesce,
    completion,
    continue_from_partial,
    fallback,
    guard,
    hedge,
    images,
    json_items,
    limit,
    meter,
    partial_json,
    reasoning,
    record_marbles,
    refusal,
    retry_transient,
    sentences,
    share_generation,
    smooth,
    snapshots,
    text,
    timeouts,
    tool_call_deltas,
    tool_calls,
    usage,
)
from rxrouter.relay import AGUI, NDJSON, UIMessages
from rxrouter.relay.aiohttp import respond, stop
from rxrouter.relay.asgi import Relay
from rxrouter.sharing import Entry, Hub, MemoryLog, Spread, Status
from rxrouter.sharing.redis import RedisLog


def operators(chunks: Observable[ChatChunk]) -> None:
    assert_type(text(), Operator[ChatChunk, str])
    assert_type(text(think="reasoning"), Operator[ChatChunk, str])
    assert_type(reasoning(choice=1), Operator[ChatChunk, str])
    assert_type(reasoning(think=True), Operator[ChatChunk, str])
    assert_type(refusal(choice=1), Operator[ChatChunk, str])
    assert_type(tool_call_deltas(), Operator[ChatChunk, ToolCallDelta])
    assert_type(tool_calls(), Operator[ChatChunk, ToolCall])
    assert_type(citations(), Operator[ChatChunk, Citation])
    assert_type(images(), Operator[ChatChunk, Image])
    assert_type(audio(), Operator[ChatChunk, Audio])
    assert_type(usage(), Operator[ChatChunk, Usage])
    assert_type(completion(), Operator[ChatChunk, ChatCompletion])
    assert_type(snapshots(), Operator[ChatChunk, ChatCompletion])
    assert_type(chunks.pipe(record_marbles("run.svg")), Observable[ChatChunk])
    assert_type(chunks.pipe(text(), record_marbles(print)), Observable[str])
    assert_type(chunks.pipe(partial_json(Usage)), Observable[Usage])
    assert_type(chunks.pipe(text(), partial_json(list[Usage])), Observable[list[Usage]])
    assert_type(chunks.pipe(partial_json(tool_call=0)), Observable[Any])
    assert_type(chunks.pipe(partial_json(Usage, find=True)), Observable[Usage])
    assert_type(chunks.pipe(text(), partial_json(Usage | None)), Observable[Any])
    assert_type(chunks.pipe(json_items("/steps", type=Usage)), Observable[Usage])
    assert_type(chunks.pipe(text(), json_items()), Observable[Any])
    citations_as_json = chunks.pipe(citations())
    citations_as_json.pipe(partial_json())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    json_items(type=Usage, path=5)  # type: ignore[call-overload] # pyright: ignore[reportCallIssue, reportArgumentType]
    record_marbles(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    assert_type(chunks.pipe(text()), Observable[str])
    text(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def display(chunks: LoopObservable[ChatChunk], words: Observable[str], numbers: Observable[int]) -> None:
    assert_type(chunks.pipe(coalesce()), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(text(), coalesce(0.033, 4096)), LoopObservable[str])
    assert_type(chunks.pipe(smooth(lag=0.5, frame=1 / 60), completion()), LoopObservable[ChatCompletion])
    assert_type(chunks.pipe(text(), smooth()), LoopObservable[str])
    assert_type(words.pipe(coalesce(), smooth()), Observable[str])
    assert_type(chunks.pipe(sentences()), LoopObservable[str])
    assert_type(words.pipe(smooth(), sentences()), Observable[str])
    numbers.pipe(smooth())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    numbers.pipe(sentences())  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    smooth(0.5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


def time_and_retries(client: OpenRouter, chunks: LoopObservable[ChatChunk], words: Observable[str]) -> None:
    assert_type(chunks.pipe(timeouts(first_content=30, content=10.5, total=300)), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(timeouts(**INTERACTIVE | {"total": 60}), retry_transient()), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(retry_transient(RetryPolicy(attempts=5)), timeouts(total=9), text()), LoopObservable[str])
    assert_type(words.pipe(timeouts(content=1), retry_transient()), Observable[str])
    timeouts(30)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    RetryPolicy(after_content="ignore")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]

    def go_on(partial: ChatCompletion) -> Observable[ChatChunk]:
        return client.chat(messages=[UserMessage("hi"), partial.message])

    assert_type(continue_from_partial(go_on), Operator[ChatChunk, ChatChunk])
    assert_type(chunks.pipe(continue_from_partial(policy=RetryPolicy()), text()), LoopObservable[str])
    continue_from_partial(text)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def measuring(chunks: LoopObservable[ChatChunk], words: Observable[str]) -> None:
    assert_type(meter(), Operator[ChatChunk, Meter])
    assert_type(meter(print), Operator[ChatChunk, ChatChunk])
    assert_type(chunks.pipe(meter()), LoopObservable[Meter])
    assert_type(chunks.pipe(meter(print), text()), LoopObservable[str])
    assert_type(budget(cost=0.5, tokens=1_000, price=2e-6, count=len, spent=Spent()), Operator[ChatChunk, ChatChunk])
    budget(0.5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]

    def check(seen: str) -> str | None:
        return "***" if "secret" in seen else None

    assert_type(chunks.pipe(guard(check, hold_back=5)), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(guard(check, hold_back=5), text()), LoopObservable[str])
    assert_type(words.pipe(guard(str.upper, hold_back=5)), Observable[str])
    guard(len, hold_back=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def routes_and_load(chunks: LoopObservable[ChatChunk], plain: Observable[ChatChunk], words: Observable[str]) -> None:
    def lost(loss: Loss) -> None:
        assert_type(loss.generation_ids, tuple[str, ...])

    assert_type(chunks.pipe(fallback(plain, chunks, cooldown=30)), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(fallback(plain, on=is_transient, health=Health())), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(text(), fallback(words)), LoopObservable[str])
    assert_type(chunks.pipe(hedge(plain, chunks, delay=2, on_loss=lost)), LoopObservable[ChatChunk])
    assert_type(words.pipe(hedge(words, delay=2)), Observable[str])
    assert_type(chunks.pipe(limit(Limiter(streams=4), tokens=500)), LoopObservable[ChatChunk])
    assert_type(plain.pipe(limit(Limiter(4)), fallback(plain), text(), limit(Limiter(4))), Observable[str])
    OpenRouter(limiter=Limiter(4, requests_per_minute=20, tokens_per_minute=100_000, tokens_per_request=500))
    hedge(plain)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    fallback("a/b")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    limit(4)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    Limiter(requests_per_minute=0.5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def sharing(chunks: LoopObservable[ChatChunk], words: Observable[str]) -> None:
    assert_type(chunks.pipe(share_generation()), LoopObservable[ChatChunk])
    assert_type(chunks.pipe(text(), share_generation("all", grace=5)), LoopObservable[str])
    share_generation("some")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    hub = Hub(MemoryLog(keep_seconds=60), max_bytes=1_000_000)
    assert_type(hub.start("k", chunks), LoopObservable[ChatChunk])
    assert_type(hub.follow("k", after=3).pipe(text()), LoopObservable[str])
    assert_type(hub.entries("k").pipe(ops.take(1)), LoopObservable[Entry])
    Hub(Spread(RedisLog("redis://a"), RedisLog("redis://b", namespace="b", lease=2.0)))
    hub.start("k", words)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def relaying(request: web.Request, chunks: LoopObservable[ChatChunk], words: Observable[str], hub: Hub) -> None:
    assert_type(await respond(request, chunks, dialect=NDJSON, prime=2.0, coalesce=0.05), web.StreamResponse)
    await respond(request, None, dialect=lambda: AGUI("thread", "run"), hub=hub, key="k")
    assert_type(await stop(hub, "k"), web.Response)
    Relay(chunks, dialect=UIMessages, keep_alive=5.0, send_timeout=10.0, explain=str)
    Relay(words)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    await respond(request, chunks, dialect="openai")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def from_afar(hub: Hub) -> None:
    assert_type(await hub.status("k"), Status)
    await hub.stop("k")
    await hub.aclose(grace=5.0)


async def leaving_rx(client: OpenRouter) -> None:
    chunks = client.chat("hi", model="a/b")
    assert_type(chunks, LoopObservable[ChatChunk])
    assert_type(chunks.pipe(text()), LoopObservable[str])
    assert_type(chunks.pipe(text(), ops.take(1)), LoopObservable[str])
    assert_type(await chunks.pipe(completion()), ChatCompletion)
    assert_type(chunks.pipe(completion()).run(), ChatCompletion)
    assert_type(chunks.subscribe(print), Subscription)
    assert_type(iterate(chunks, high=8, low=2, overflow=Overflow.COALESCE), Iteration[ChatChunk])
    assert_type(chunks.pipe(text()).iterate(), Iteration[str])
    async for word in chunks.pipe(text()):
        assert_type(word, str)
    async for event in client.events("/responses", {"stream": True}):
        assert_type(event, ServerSentEvent | Comment)

    async def show(word: str) -> None: ...

    await for_each(chunks.pipe(text()), show)
    await for_each(chunks, show)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


async def account(client: OpenRouter) -> None:
    assert_type(client.models(), LoopObservable[Model])
    assert_type(await client.generation("gen-1"), Generation)
    assert_type(await client.key(), Key)
    assert_type(client.credits().run(), Credits)
    async for receipt in client.receipts:
        assert_type(receipt, Receipt)
        assert_type(receipt.cost, float | None)


def values(answer: ChatCompletion, chunk: ChatChunk) -> None:
    assert_type(answer.text, str)
    assert_type(answer.tool_calls, list[ToolCall])
    assert_type(answer.usage, Usage | None)
    assert_type(answer.tool_calls[0].arguments, str)
    assert_type(chunk.raw, bytes)
    assert_type(chunk.choices[0].delta.content, str | None)
    assert_type(SSEParser().feed(b""), list[ServerSentEvent | Comment])
    assert_type(is_transient(ValueError()), bool)
    ChatRequest(messages=[UserMessage("hi"), answer.message, {"role": "user", "content": "and?"}])
    ChatRequest(messages=[1])  # type: ignore[list-item] # pyright: ignore[reportArgumentType]
    OpenRouter(timeouts=Timeouts(connect=5, silence=None))
    OpenRouter(timeouts=5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
