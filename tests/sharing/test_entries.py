from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from rxrouter import (
    BudgetExceededError,
    ChatChunk,
    ChunkDecodeError,
    IncompleteToolCallError,
    Restarted,
    RouterError,
    StatusError,
    StreamError,
    ToolCall,
    TransportError,
    Usage,
    _errors,
)
from rxrouter._wire.chunk import decode_odd
from rxrouter._wire.message import FunctionCall
from rxrouter.sharing._entries import another, decode, decode_ending, encode, encode_ending
from tests.sharing.support import facts, word

# What a log keeps comes back as it was: chunks byte for byte, endings by their facts.

MADE: dict[type[RouterError], Any] = {
    _errors.RouterError: lambda: RouterError("something"),
    _errors.TransportError: lambda: TransportError(phase="read"),
    _errors.ConnectTimeoutError: lambda: _errors.ConnectTimeoutError(10),
    _errors.SilenceTimeoutError: lambda: _errors.SilenceTimeoutError(45.5),
    _errors.ContentTimeoutError: lambda: _errors.ContentTimeoutError("gap", 30, elapsed=31.5, last_comment_age=0.5),
    _errors.ContinuationRefusedError: lambda: _errors.ContinuationRefusedError("a tool call has begun"),
    _errors.APIError: lambda: _errors.APIError(
        "no",
        code="x",
        message="no",
        metadata={"a": [1, None, {"b": 2.5}]},
        error_type="t",
        provider="P",
        retryable=True,
        retry_after=1.5,
    ),
    _errors.StatusError: lambda: StatusError(429, "limited", "slow", {"headers": {"X": "1"}}, 7.0, provider="P"),
    _errors.StreamError: lambda: StreamError(502, "bad", "server", "P", usage=Usage(total_tokens=3, cost=0.25)),
    _errors.ProtocolError: lambda: _errors.ProtocolError("no"),
    _errors.ContentTypeError: lambda: _errors.ContentTypeError("text/html", b"<html>\xff"),
    _errors.EventTooLargeError: lambda: _errors.EventTooLargeError(64),
    _errors.TruncatedStreamError: _errors.TruncatedStreamError,
    _errors.EmptyAnswerError: lambda: _errors.EmptyAnswerError("stop", Usage(total_tokens=3, cost=0.25)),
    _errors.ChunkDecodeError: lambda: ChunkDecodeError("expected an object", b"[\x00]"),
    _errors.AnswerDecodeError: lambda: _errors.AnswerDecodeError("no JSON", 17),
    _errors.IncompleteToolCallError: lambda: IncompleteToolCallError(
        "cut", [ToolCall(id="1", type="function", function=FunctionCall(name="f", arguments="{"))], ["length"]
    ),
    _errors.BudgetExceededError: lambda: BudgetExceededError("cost", 1.5, 1.75, estimated=True),
    _errors.GuardError: lambda: _errors.GuardError("a secret"),
    _errors.ClientClosedError: _errors.ClientClosedError,
    _errors.UnknownGenerationError: lambda: _errors.UnknownGenerationError("k"),
    _errors.GenerationCycleError: lambda: _errors.GenerationCycleError("key"),
    _errors.GenerationStopped: _errors.GenerationStopped,
    _errors.GenerationTooLargeError: lambda: _errors.GenerationTooLargeError(100),
    _errors.ProducerLostError: _errors.ProducerLostError,
    _errors.LogLostError: lambda: _errors.LogLostError("gone"),
    _errors.SlowReaderError: lambda: _errors.SlowReaderError(64),
}


def _ours(kind: type[RouterError] = RouterError) -> set[type[RouterError]]:
    own = {kind} if kind.__module__ == _errors.__name__ else set[type[RouterError]]()
    return own.union(*map(_ours, kind.__subclasses__()))


def test_every_error_is_tried() -> None:
    assert set(MADE) == _ours()


@pytest.mark.parametrize("kind", MADE, ids=lambda kind: kind.__name__)
def test_an_ending_comes_back_by_its_facts(kind: type[RouterError]) -> None:
    error: RouterError = MADE[kind]()
    error.generation_id, error.chunks_seen, error.elapsed = "gen-1", 7, 1.25
    first = StatusError(502)
    first.__cause__ = TransportError("reset", phase="connect")
    error.attempts = (first,)
    error.__cause__ = ConnectionResetError("by peer")

    back = decode_ending(encode_ending(error))

    error.__cause__ = RouterError("ConnectionResetError: by peer")  # not ours, so its text
    assert facts(back) == facts(error)
    assert back is not None
    assert back.transient is error.transient


def test_an_error_of_somebody_else_comes_back_where_it_is_known() -> None:
    class TheirError(StatusError):
        pass

    error = TheirError(418)
    assert facts(decode_ending(encode_ending(error))) == facts(error)

    told = msgspec.json.decode(encode_ending(error))
    told["types"][0] = "UnheardOfError"
    back = decode_ending(msgspec.json.encode(told))
    assert (type(back), str(back)) == (StatusError, "HTTP 418")


def test_facts_that_are_no_json_or_too_much_are_left_out() -> None:
    error = ChunkDecodeError("expected", b"x" * 1_000_000)
    error.partial = object()
    error.secret = object()  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]
    error.large = "x" * 1_000_000  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]

    back: Any = decode_ending(encode_ending(error))

    assert len(encode_ending(error)) < 200_000
    assert (back.partial, back.secret, back.large, len(back.data)) == (None, None, None, 1 << 15)


def test_an_error_that_can_not_say_itself_comes_back_as_its_kind() -> None:
    class Mute(Exception):  # noqa: N818 - somebody else's
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert str(decode_ending(encode_ending(Mute()))) == "Mute: it can't say more"


@pytest.mark.parametrize("text", ["half of one: \ud83d", "x" * 1_000_000], ids=["a surrogate", "a megabyte"])
def test_a_text_comes_back_as_far_as_it_can(text: str) -> None:
    encoded = encode_ending(RouterError(text))

    assert str(decode_ending(encoded)).startswith(text[:12])
    assert len(encoded) < 20_000


def test_attempts_that_name_one_another_are_told_once() -> None:
    errors = [RouterError(str(number)) for number in range(5)]
    for error in errors:
        error.attempts = tuple(errors)

    back = decode_ending(encode_ending(errors[0]))

    assert len(encode_ending(errors[0])) < 20_000
    assert back is not None
    assert [str(attempt) for attempt in back.attempts] == ["0", "1", "2", "3", "4"]


def test_causes_without_end_are_told_to_a_depth() -> None:
    error = RouterError("round")
    error.__cause__ = error

    assert len(encode_ending(error)) < 1_000


def test_a_good_ending_comes_back() -> None:
    assert decode_ending(encode_ending(None)) is None


def test_a_copy_of_an_error_has_all_and_is_another() -> None:
    error = StatusError(429, retry_after=3)
    error.__cause__ = ValueError("x")

    copy = another(error)
    copy.partial = "mine"

    assert (type(copy), copy.args, vars(copy) | {"partial": None}) == (
        StatusError,
        error.args,
        vars(error) | {"partial": None},
    )
    assert copy.__cause__ is error.__cause__
    assert error.partial is None


def test_a_chunk_comes_back_byte_for_byte() -> None:
    chunk = word(1)

    back = decode(encode(chunk))

    assert back == chunk
    assert back.raw == chunk.raw == encode(chunk)


@pytest.mark.parametrize(
    "raw",
    [
        b' {"id":"x","choices":[{"delta":{"content":null,"tool_calls":null}}]}',
        b'{"id":"x","choices":[{"delta":{"content":"cut \xf0\x9f"}}]}',
        b'{"id":"x","choices":[{"delta":{"content":[{"type":"text","text":"parts"}]}}]}',
    ],
)
def test_an_odd_chunk_comes_back_byte_for_byte(raw: bytes) -> None:
    chunk = decode_odd(raw)

    back = decode(encode(chunk))

    assert (back, back.raw) == (chunk, raw)


@pytest.mark.parametrize("cause", [None, StatusError(502), ValueError("no")], ids=repr)
def test_a_restart_comes_back(cause: Exception | None) -> None:
    back = decode(encode(Restarted(attempt=3, cause=cause)))

    assert isinstance(back, Restarted)
    assert back.attempt == 3
    expected = RouterError("ValueError: no") if isinstance(cause, ValueError) else cause
    assert facts(back.cause) == facts(expected)


@given(st.binary())
def test_any_bytes_are_a_chunk_or_a_decode_error(entry: bytes) -> None:
    for raw in (entry, b"R" + entry):
        with suppress(ChunkDecodeError):
            assert isinstance(decode(raw), ChatChunk)
