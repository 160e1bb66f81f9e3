"""Errors and structs survive pickle, copy and deepcopy, and a pool of processes, with all their facts."""

from __future__ import annotations

import copy
import importlib
import inspect
import multiprocessing
import pickle
import pkgutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from reactivex import operators as ops

import rxrouter
from rxrouter import (
    ChatChunk,
    ChatCompletion,
    ConnectTimeoutError,
    RouterError,
    StatusError,
    StreamError,
    ToolCall,
    TransportError,
    TruncatedStreamError,
    Usage,
    is_transient,
)
from rxrouter.operators import completion, snapshots
from rxrouter.testing import Reply, answer
from tests.support import observe, served

WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "older pickle": lambda value: pickle.loads(pickle.dumps(value, 2)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
# Arguments of constructors by their names; all others get a text.
FACTS: dict[str, Any] = {
    "attempts": (StatusError(429, message="slow down", retry_after=2.0),),
    "calls": [ToolCall(id="call-1")],
    "chunks_seen": 7,
    "clock": "gap",
    "code": 502,
    "data": b"{",
    "limit": 2.0,
    "metadata": {"provider_name": "Venice"},
    "phase": "read",
    "usage": Usage(prompt_tokens=3, cost=0.5),
    "which": "cost",
    "finish_reasons": ["tool_calls"],
    **dict.fromkeys(("seconds", "elapsed", "last_comment_age", "retry_after", "spent"), 1.5),
    **dict.fromkeys(("limit_bytes", "position", "status", "capacity"), 503),
    **dict.fromkeys(("retryable", "estimated"), True),
}


class OddError(StreamError):
    """An error of an application, whose constructor takes none of the facts."""

    def __init__(self, tenant: str, *, secret: int) -> None:
        super().__init__(418, "a teapot")
        self.tenant = tenant
        self.secret = secret


class LockedError(Exception):
    """An error of another library that holds what can't be pickled."""

    def __init__(self, lock: object) -> None:
        super().__init__(lock)

    def __str__(self) -> str:
        return "refused by a lock"


def _kinds(kind: type[RouterError]) -> Iterator[type[RouterError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__.startswith("rxrouter."):
            yield from _kinds(child)


def _error(kind: type[RouterError]) -> RouterError:
    if kind.__init__ is RouterError.__init__:
        return kind("what happened")
    parameters = list(inspect.signature(kind).parameters.values())
    given = {parameter.name: FACTS.get(parameter.name, parameter.name) for parameter in parameters}
    positional = [given.pop(p.name) for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    return kind(*positional, **given)


def _facts(error: BaseException | None) -> Any:
    if error is None:
        return None
    known = {name: value for name, value in vars(error).items() if name not in {"attempts", "partial"}}
    partial = getattr(error, "partial", None)
    return (
        type(error),
        str(error),
        repr(error),
        error.args,
        known,
        None if partial is None else (partial.text, partial.state, partial.usage),
        [_facts(attempt) for attempt in getattr(error, "attempts", ())],
        _facts(error.__cause__),
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [*dict.fromkeys(_kinds(RouterError)), OddError], ids=lambda kind: kind.__name__)
def test_an_error_keeps_text_and_facts_when_it_is_copied(kind: type[RouterError], way: str) -> None:
    error = OddError("acme", secret=5) if kind is OddError else _error(kind)
    error.generation_id, error.chunks_seen, error.elapsed = "gen-1", 7, 1.25
    error.attempts = (StatusError(429, message="slow down"), TruncatedStreamError())
    error.__cause__ = StreamError(502, "Upstream error", provider="Venice")
    error.__cause__.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    error.add_note("seen by a test")

    again = WAYS[way](error)

    assert again is not error
    assert _facts(again) == _facts(error)
    assert is_transient(again) is is_transient(error)
    assert again.__notes__ == ["seen by a test"]


@pytest.mark.parametrize("way", WAYS)
def test_an_error_keeps_the_type_and_text_of_its_cause_when_that_can_not_be_pickled(way: str) -> None:
    error = TransportError("cut", phase="read")
    error.__cause__ = LockedError(multiprocessing.Lock())

    again = WAYS[way](error)

    assert "refused by a lock" in str(again.__cause__)
    assert "LockedError" in type(again.__cause__).__name__ + str(again.__cause__)


def test_copies_of_an_error_share_nothing_that_one_of_them_changes() -> None:
    error = StatusError(500, metadata={"a": [1]})
    error.__cause__ = cause = ValueError("no")

    other = copy.copy(error)
    other.attempts = (error,)
    other.generation_id = "gen-2"

    assert (error.attempts, error.generation_id) == ((), None)
    assert other.__cause__ is cause


async def test_the_error_of_a_stream_keeps_its_partial_answer_when_it_is_pickled() -> None:
    async with served(Reply(answer("one two three")[:-3])) as (client, _):
        error = (await observe(client.chat("hi").pipe(completion()))).endings[0]
    assert isinstance(error, TruncatedStreamError)
    assert error.partial.text == "one two three"

    for way in WAYS.values():
        assert _facts(way(error)) == _facts(error)


async def test_a_transport_error_of_a_stream_survives_when_it_is_pickled() -> None:
    async with rxrouter.OpenRouter("sk-test", base_url="http://127.0.0.1:9") as client:
        error = (await observe(client.chat("hi"))).endings[0]
    assert type(error) is TransportError

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.phase, again.elapsed) == (str(error), error.phase, error.elapsed)
    assert str(error.__cause__) in str(again.__cause__)


async def test_chunks_and_completions_keep_their_raw_bytes_when_they_are_copied() -> None:
    async with served(Reply(answer("one two three"))) as (client, _):
        chunks = (await observe(client.chat("hi"))).values
        whole = await client.chat("hi").pipe(completion())
        growing = (await observe(client.chat("hi").pipe(snapshots(), ops.take(3)))).values

    for way in WAYS.values():
        again = [way(chunk) for chunk in chunks]
        assert again == chunks
        assert [chunk.raw for chunk in again] == [chunk.raw for chunk in chunks]
        for made in (whole, *growing):
            copied: ChatCompletion = way(made)
            assert (copied.text, copied.state, copied.usage) == (made.text, made.state, made.usage)
    assert any(b'"object"' in chunk.raw and b" " in chunk.raw for chunk in chunks)


def _structs() -> list[type[Struct]]:
    modules = [rxrouter] + [
        importlib.import_module(module.name)
        for module in pkgutil.walk_packages(rxrouter.__path__, "rxrouter.")
        if not any(part.startswith("_") for part in module.name.split("."))
    ]
    found = [getattr(module, name) for module in modules for name in getattr(module, "__all__", ())]
    kinds = {kind for kind in found if inspect.isclass(kind) and issubclass(kind, Struct)}
    return sorted(kinds, key=lambda kind: kind.__name__)


def _struct(kind: type[Struct]) -> Struct:
    if kind is rxrouter.ChatRequest:
        return rxrouter.ChatRequest(messages=[{"role": "user", "content": "hi"}])
    missing = {f.name: FACTS.get(f.name, f.name) for f in msgspec.structs.fields(kind) if f.required}
    return kind(**missing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", _structs(), ids=lambda kind: kind.__name__)
def test_a_public_struct_is_equal_to_itself_when_it_is_copied(kind: type[Struct], way: str) -> None:
    value: Any = _struct(kind)
    if hasattr(kind, "received"):
        value.received = b' {"as": "it came"} '

    again = WAYS[way](value)

    assert type(again) is kind
    assert again == value
    assert getattr(again, "raw", None) == getattr(value, "raw", None)


def test_a_usage_keeps_what_it_is_the_sum_of_when_it_is_copied() -> None:
    usage = Usage(prompt_tokens=3)
    usage.parts = (("gen-1", Usage(prompt_tokens=1)), ("gen-2", Usage(prompt_tokens=2)))

    for way in WAYS.values():
        assert way(usage).parts == usage.parts


def _fails(kind: type[RouterError]) -> None:
    error = _error(kind)
    error.generation_id = "gen-1"
    raise error from StreamError(502, "Upstream error")


def _returns(raw: bytes) -> ChatChunk:
    chunk = msgspec.json.decode(raw, type=ChatChunk)
    chunk.received = raw
    return chunk


def test_errors_and_chunks_arrive_when_a_process_of_a_pool_gives_them() -> None:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind in (StatusError, ConnectTimeoutError, StreamError):
            error = pool.submit(_fails, kind).exception()
            assert type(error) is kind
            assert (str(error), error.generation_id) == (str(_error(kind)), "gen-1")
        raw = b'{ "id": "gen-1", "choices": [], "unknown": 1 }'
        assert pool.submit(_returns, raw).result().raw == raw
