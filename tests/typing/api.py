"""Never run; read by mypy and pyright: the types that users see, and the calls that must not type-check."""

from __future__ import annotations

from typing import assert_type

from reactivex import Observable, operators as ops

from rxrouter import (
    Audio,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Citation,
    Comment,
    Image,
    Iteration,
    LoopObservable,
    OpenRouter,
    Overflow,
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
    Operator,
    audio,
    citations,
    completion,
    images,
    reasoning,
    refusal,
    snapshots,
    text,
    tool_call_deltas,
    tool_calls,
    usage,
)


def operators(chunks: Observable[ChatChunk]) -> None:
    assert_type(text(), Operator[ChatChunk, str])
    assert_type(reasoning(choice=1), Operator[ChatChunk, str])
    assert_type(refusal(choice=1), Operator[ChatChunk, str])
    assert_type(tool_call_deltas(), Operator[ChatChunk, ToolCallDelta])
    assert_type(tool_calls(), Operator[ChatChunk, ToolCall])
    assert_type(citations(), Operator[ChatChunk, Citation])
    assert_type(images(), Operator[ChatChunk, Image])
    assert_type(audio(), Operator[ChatChunk, Audio])
    assert_type(usage(), Operator[ChatChunk, Usage])
    assert_type(completion(), Operator[ChatChunk, ChatCompletion])
    assert_type(snapshots(), Operator[ChatChunk, ChatCompletion])
    assert_type(chunks.pipe(text()), Observable[str])
    text(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]


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
