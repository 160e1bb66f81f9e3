"""Quirks of servers around a good answer never cost it, and nothing is called complete without proof."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings, strategies as st

from rxrouter import (
    ChatChunk,
    ChunkDecodeError,
    RouterError,
    SilenceTimeoutError,
    StreamError,
    Timeouts,
    TransportError,
    TruncatedStreamError,
    Usage,
    is_transient,
)
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import completion
from rxrouter.testing import DONE, Act, Reply, Step
from tests.support import observe, served

USAGE: dict[str, Any] = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}


def say(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    """One event: a delta for one choice."""
    choice: dict[str, Any] = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return data({"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more})


def data(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


HEL, LO, STOP = say({"content": "Hel"}), say({"content": "lo"}), say(finish="stop")
LOOP = asyncio.new_event_loop()  # a gate wants one; nothing runs on it
LOOP.close()


class Read:
    """What a reader has made of a body: chunks, their fold, and the ending."""

    def __init__(self, blocks: list[bytes], cut: RouterError | None = None, choices: int = 1) -> None:
        self.chunks: list[ChatChunk] = []
        self.reader = ChunkReader(1 << 20, choices, Gate(LOOP), self.chunks.append)
        for block in blocks:
            self.reader.feed(block)
        self.reader.end(cut)
        self.ending = self.reader.outcome(cut)
        fold = CompletionFold()
        for chunk in self.chunks:
            fold.add(chunk)
        self.whole = fold.completion()

    @property
    def facts(self) -> tuple[Any, ...]:
        return (
            [chunk.raw for chunk in self.chunks],
            repr(self.ending),
            self.reader.passed_over,
            self.whole,
        )


def read(*events: bytes, cut: RouterError | None = None, choices: int = 1) -> Read:
    """The body in one piece, which is the same as byte by byte."""
    body = b"".join(events)
    whole = Read([body], cut, choices)
    assert Read([body[at : at + 1] for at in range(len(body))], cut, choices).facts == whole.facts
    return whole


# Objects that are no chunk, and foreign events


@pytest.mark.parametrize(
    "noise",
    [
        data({"choices": []}),
        data({"choices": None}),
        data({"warning": "no usage"}),
        data({}),
        data(None),
        data([]),
        data({"type": "response.created", "response": {}}),
        data({"choices": [], "x-type": "inference-cost", "cost": "0.00001400"}),
        b'event: ping\ndata: {"type": "ping"}\n\n',
        b"event: gateway.trace\ndata: not JSON at all\n\n",
        b"event: debug\n" + say({"content": "not the answer"}),
        b"event: gateway.error_rate\ndata: {}\n\n",
        b"unheard: of\n\n",
        b"error: {}\n\n",
        b"error:\n\n",
    ],
)
def test_what_is_no_chunk_is_passed_over_wherever_it_stands(noise: bytes) -> None:
    seen = read(noise, HEL, noise, LO, noise, STOP, noise, DONE)

    assert seen.ending is None
    assert seen.whole.text == "Hello"
    assert len(seen.chunks) == 3
    assert seen.reader.passed_over == (0 if b"data" not in noise else 4)


async def test_events_has_what_a_chat_passes_over() -> None:
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'

    async with served(Reply([HEL, ping, STOP, DONE])) as (client, _):
        seen = await observe(client.events("/chat/completions", {}))

    assert [getattr(item, "event", None) for item in seen.values] == ["message", "ping", "message", "message"]


@pytest.mark.parametrize("name", ["message", "data", "chunk", "chat.completion.chunk"])
def test_a_chunk_is_read_under_the_names_that_mean_one(name: str) -> None:
    head = f"event: {name}\n".encode()

    assert read(head + HEL, head + LO, head + STOP, head + DONE).whole.text == "Hello"


@pytest.mark.parametrize(
    "noise", [[], [data({})], [b"event: ping\ndata: {}\n\n"], [data({"type": "x"}), data({"type": "y"})]]
)
@pytest.mark.parametrize("end", [[], [DONE]], ids=["end", "done"])
def test_a_stream_without_any_chunk_is_truncated(noise: list[bytes], end: list[bytes]) -> None:
    assert type(read(*noise, *end).ending) is TruncatedStreamError


@pytest.mark.parametrize(
    "broken", [b"{", b"Internal Server Error", b'{"id": "c"', b"{'id': 1}", b'"text"', b"7", b"[1]"]
)
def test_damaged_json_still_fails(broken: bytes) -> None:
    assert type(read(HEL, b"data: " + broken + b"\n\n", STOP, DONE).ending) is ChunkDecodeError


# Errors in places that no standard has


ERROR = {"error": {"message": "overloaded", "code": 503}}


@pytest.mark.parametrize(
    "error",
    [
        data(ERROR),
        data([ERROR]),
        data({"object": "error", "message": "overloaded", "code": 503}),
        data({"id": "1", "code": 503, "msg": "overloaded"}),
        data({"choices": None, "base_resp": {"status_code": 503, "status_msg": "overloaded"}}),
        data({"code": "503", "error": "overloaded"}),
        b"event: error\n" + data({"code": 503, "details": "overloaded"}),
        b"event: ERROR\n" + data(ERROR),
        b"error: " + json.dumps(ERROR["error"]).encode() + b"\n\n",
        b"error:" + json.dumps(ERROR).encode() + b"\n",
        json.dumps(ERROR).encode() + b"\n",
        json.dumps(ERROR).encode(),
    ],
)
@pytest.mark.parametrize("before", [[], [HEL, LO]], ids=["first", "late"])
@pytest.mark.parametrize("behind", [b"", b"\n\n" + DONE], ids=["last", "done"])
def test_an_error_of_any_form_ends_the_stream_behind_the_text_so_far(
    error: bytes, before: list[bytes], behind: bytes
) -> None:
    seen = read(*before, error, behind)

    assert isinstance(seen.ending, StreamError)
    assert (seen.ending.code, seen.ending.message) == (503, "overloaded")
    assert is_transient(seen.ending)
    assert seen.whole.text == ("Hello" if before else "")


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (json.dumps(ERROR, indent=2).encode(), 503, "overloaded"),
        (b"<html>\n<head><title>502 Bad Gateway</title></head>\n<body>nginx</body>\n</html>\n", 502, "502 Bad Gateway"),
        (b'{"detail": "Not authenticated"}', None, "Not authenticated"),
        (data({"detail": "Not authenticated"}), None, "Not authenticated"),
    ],
)
@pytest.mark.parametrize("behind", [b"", b"\n\n" + DONE], ids=["end", "done"])
def test_a_body_that_is_an_error_in_place_of_events_is_that_error(
    body: bytes, code: int | None, message: str, behind: bytes
) -> None:
    seen = read(body, behind)

    assert isinstance(seen.ending, StreamError)
    assert (seen.ending.code, seen.ending.message) == (code, message)


def test_a_body_that_is_an_answer_without_framing_is_that_answer() -> None:
    answer = {
        "id": "c",
        "object": "chat.completion",
        "choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}],
    }

    for body in (json.dumps(answer).encode(), json.dumps(answer, indent=2).encode()):
        seen = read(body)
        assert (seen.ending, seen.whole.text) == (None, "Hello")


def test_a_raw_error_is_seen_though_the_connection_is_cut_behind_it() -> None:
    seen = Read([json.dumps(ERROR).encode()], TransportError(phase="read"))

    assert isinstance(seen.ending, StreamError)


def test_an_empty_error_on_good_chunks_is_no_error() -> None:
    empties: list[Any] = ["", {}, [], False, None, {"message": "", "code": None}]
    for empty in empties:
        assert read(say({"content": "Hi"}, error=empty), say(finish="stop", error=empty), DONE).ending is None


@pytest.mark.parametrize("reason", ["network_error", "insufficient_system_resource", "abort", "error"])
def test_a_finish_that_speaks_of_failure_ends_with_its_usage(reason: str) -> None:
    for events in ([say(finish=reason, usage=USAGE)], [say(finish=reason), say(usage=USAGE), DONE]):
        seen = read(HEL, *events)
        assert isinstance(seen.ending, StreamError)
        assert is_transient(seen.ending)
        assert seen.ending.usage == Usage(3, 2, 5)
        assert seen.whole.text == "Hel"


# The end of the body


@pytest.mark.parametrize(
    "end",
    [
        b'data: "[DONE]"\n\n',
        b"data: [DONE]\n",
        b"data: [DONE]",
        b"data:[DONE]\r\n",
        b"data: [DONE]\r",
        b"data: '[DONE]'\n\n",
    ],
)
def test_done_in_other_forms_is_done(end: bytes) -> None:
    seen = read(HEL, LO, end)

    assert (seen.ending, seen.whole.text) == (None, "Hello")


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b"\r"])
def test_a_whole_last_event_without_its_blank_line_is_taken(tail: bytes) -> None:
    seen = read(HEL, LO, STOP.rstrip() + tail)

    assert (seen.ending, seen.whole.text, seen.whole.finish_reason) == (None, "Hello", "stop")


def test_half_a_last_event_is_not_taken() -> None:
    for size in range(1, len(STOP) - 3):
        assert type(read(HEL, LO, STOP[:size]).ending) is TruncatedStreamError


def test_a_last_event_without_its_blank_line_is_not_taken_when_the_body_was_cut() -> None:
    cut = TransportError(phase="read")

    assert read(HEL, LO, STOP.rstrip(), cut=cut).ending is cut


# What a finish proves


BOTH = {"content": "lo"}


@pytest.mark.parametrize(
    ("events", "complete"),
    [
        pytest.param([HEL, STOP], True, id="finish"),
        pytest.param([say({"content": "Hel"}, "stop")], True, id="content and finish in one"),
        pytest.param([HEL, STOP, LO], False, id="content behind the finish"),
        pytest.param([HEL, STOP, say({"reasoning_content": "Hm"})], False, id="thoughts behind the finish"),
        pytest.param([HEL, STOP, say({"content": ""}), say()], True, id="nothing behind the finish"),
        pytest.param([HEL, STOP, LO, STOP], True, id="finished anew"),
        pytest.param([say({"content": "Hel"}, "stop"), say(BOTH, "stop")], False, id="a finish on every chunk"),
        pytest.param([say({"content": "Hel"}, "stop"), say(BOTH, "stop"), STOP], True, id="and one of its own"),
        pytest.param([say({"content": "Hel"}, "null"), say(BOTH, "null")], False, id="null as text"),
        pytest.param([HEL, STOP, say({"content": "x"}, index=1)], False, id="another choice"),
        pytest.param([HEL, STOP, say({"content": "x"}, "stop", index=1)], True, id="another choice that finished"),
    ],
)
def test_a_finish_proves_the_end_unless_content_follows(events: list[bytes], complete: bool) -> None:  # noqa: FBT001 - a table
    cut = TransportError(phase="read")

    assert (read(*events).ending is None) is complete
    assert read(*events, cut=cut).ending is (None if complete else cut)
    assert read(*events, DONE).ending is None


@pytest.mark.parametrize(
    ("events", "short"),
    [
        pytest.param([HEL, say(finish="stop", usage=USAGE)], True, id="usage with the finish"),
        pytest.param([HEL, STOP, say(usage=USAGE)], True, id="usage behind the finish"),
        pytest.param([HEL, STOP, data({"id": "c1", "choices": [], "usage": USAGE})], True, id="usage alone"),
        pytest.param([HEL, STOP], False, id="no usage"),
        pytest.param([say({"content": "Hel"}, "stop", usage=USAGE)], False, id="content"),
        pytest.param([say({"reasoning_content": "Hm"}, "stop", usage=USAGE)], False, id="thoughts"),
        pytest.param([HEL, say(finish="tool_calls", usage=USAGE)], False, id="tool calls"),
        pytest.param([HEL, say(finish="function_call", usage=USAGE)], False, id="function call"),
        pytest.param([HEL, say(finish="tool_use"), say(finish="stop", usage=USAGE)], False, id="tool calls, then stop"),
        pytest.param([HEL, STOP, LO, say(finish="stop", usage=USAGE)], False, id="a second finish"),
    ],
)
def test_the_short_wait_is_for_done_behind_an_unambiguous_end(events: list[bytes], short: bool) -> None:  # noqa: FBT001 - a table
    assert read(*events).reader.lingering is short


async def test_a_pause_behind_a_doubtful_finish_ends_by_silence_alone() -> None:
    steps: list[Step] = [say({"content": "Hel"}, "stop", usage=USAGE), 0.7, say({"content": "lo"}), STOP, DONE]

    async with served(Reply(steps)) as (client, _):
        whole = await client.chat("hi").pipe(completion())
    async with served(
        Reply([HEL, say(finish="tool_calls", usage=USAGE), Act.HANG]), timeouts=Timeouts(silence=0.8)
    ) as (
        client,
        simulator,
    ):
        seen = await observe(client.chat("hi"))
        exchange = simulator.exchanges[0]
        await exchange.over.wait()

    assert whole.text == "Hello"
    assert seen.endings == [None]


async def test_comments_behind_a_doubtful_finish_hold_the_stream_open() -> None:
    comments: list[Step] = [0.1, b": tool runs\n\n"] * 12
    steps: list[Step] = [HEL, say(finish="tool_calls", usage=USAGE), *comments, LO, STOP, DONE]

    async with served(Reply(steps), timeouts=Timeouts(silence=0.8)) as (client, _):
        whole = await client.chat("hi").pipe(completion())

    assert whole.text == "Hello"


async def test_silence_behind_lost_proof_is_a_silence_timeout() -> None:
    async with served(Reply([HEL, STOP, LO, Act.HANG]), timeouts=Timeouts(silence=0.2)) as (client, _):
        seen = await observe(client.chat("hi"))

    assert type(seen.endings[0]) is SilenceTimeoutError


# Usage


@pytest.mark.parametrize(
    "empty", [{}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, {"prompt_tokens": None}]
)
def test_an_empty_usage_never_replaces_one_that_says_something(empty: dict[str, Any]) -> None:
    for events in (
        [say(finish="stop", usage=USAGE), data({"id": "c1", "choices": [], "usage": empty})],
        [say({"content": "x"}, usage=empty), say(finish="stop", usage=USAGE)],
    ):
        seen = read(HEL, *events, DONE)
        assert seen.whole.usage == Usage(3, 2, 5)
        assert seen.chunks[-1].usage == Usage(3, 2, 5)
        assert json.loads(seen.chunks[-1].raw)["usage"]["completion_tokens"] == 2


def test_a_usage_in_two_halves_is_one() -> None:
    halves = [
        {"prompt_tokens": 3, "completion_tokens": 0, "total_tokens": 3},
        {"prompt_tokens": 0, "completion_tokens": 2, "total_tokens": 2},
    ]

    seen = read(say({"content": "Hi"}, usage=halves[0]), say(finish="stop", usage=halves[1], service_tier="x"), DONE)

    assert seen.whole.usage == Usage(3, 2, 5)
    assert seen.reader.billed is not None
    assert seen.reader.billed.usage == Usage(3, 2, 5)


def test_a_usage_that_counts_as_it_goes_is_its_last() -> None:
    counts = [{"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count} for count in (1, 2, 9)]

    seen = read(*(say({"content": "x"}, usage=count) for count in counts), STOP, DONE)

    assert [chunk.usage and chunk.usage.completion_tokens for chunk in seen.chunks] == [1, 2, 9, None]
    assert seen.whole.usage == Usage(3, 9, 12)


@pytest.mark.parametrize("place", [{"usage": USAGE}, {}])
def test_usage_on_a_choice_or_of_groq_is_the_usage(place: dict[str, Any]) -> None:
    choice: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": "stop", **place}

    seen = read(HEL, data({"id": "c1", "choices": [choice], "x_groq": {"usage": USAGE}}), DONE)

    assert seen.whole.usage == Usage(3, 2, 5)


# Whole messages


@pytest.mark.parametrize("delta", [{}, {"delta": {}}, {"delta": None}, {"delta": {"content": ""}}])
def test_a_message_that_repeats_the_deltas_adds_nothing(delta: dict[str, Any]) -> None:
    repeated = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    message = {"id": "c1", "choices": [{"index": 0, **delta, **repeated}]}

    seen = read(HEL, LO, data(message))

    assert (seen.ending, seen.whole.text, seen.whole.finish_reason) == (None, "Hello", "stop")


CALL = {"index": 0, "id": "call-1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@pytest.mark.parametrize("more", [{}, {"tool_calls": [CALL]}], ids=["plain", "two kinds"])
@pytest.mark.parametrize("said", [{"content": "Hello"}, {"reasoning": "Hm."}, {"tool_calls": [CALL]}])
def test_message_behind_deltas_adds_what_they_have_not_said(said: dict[str, Any], more: dict[str, Any]) -> None:
    parts = {"role": "assistant", "content": "Hello", "reasoning": "Hm.", "tool_calls": [CALL]}
    message = {"id": "c1", "choices": [{"index": 0, "message": parts, "finish_reason": "tool_calls"}]}

    whole = read(say({**said, **more}), data(message)).whole

    assert (whole.text, whole.reasoning) == ("Hello", "Hm.")
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [("f", '{"a":1}')]


def test_an_answer_in_messages_or_texts_alone_is_all_of_them() -> None:
    for name in ("message", "text"):
        pieces = [
            {"choices": [{"index": 0, name: {"content": word} if name == "message" else word}]}
            for word in ("Hel", "lo")
        ]
        assert read(say({"role": "assistant", "content": ""}), *map(data, pieces), STOP).whole.text == "Hello"


# Halves of surrogate pairs


def raw(delta: str, finish: str = "null") -> bytes:
    """An event with this delta, as it stands."""
    return b'data: {"id": "c1", "choices": [{"index": 0, "delta": %b, "finish_reason": %b}]}\n\n' % (
        delta.encode(),
        finish.encode(),
    )


@pytest.mark.parametrize("name", ["content", "reasoning", "reasoning_content", "refusal"])
def test_two_halves_of_an_emoji_in_two_chunks_are_the_emoji(name: str) -> None:
    seen = read(raw(rf'{{"{name}": "a\ud83d"}}'), raw(rf'{{"{name}": "\ude00b"}}'), STOP, DONE)

    texts = [getattr(chunk.choices[0].delta, name) or "" for chunk in seen.chunks]
    assert "".join(texts) == "a\U0001f600b"
    assert all(
        json.loads(chunk.raw)["choices"][0]["delta"].get(name, "") == text
        for chunk, text in zip(seen.chunks, texts, strict=True)
    )


def test_two_halves_in_the_arguments_of_a_call_are_joined() -> None:
    def piece(arguments: str, index: int) -> bytes:
        return raw(rf'{{"tool_calls": [{{"index": {index}, "function": {{"arguments": "{arguments}"}}}}]}}')

    seen = read(piece(r"\ud83d", 0), piece(r"\ud83d", 1), piece(r"\ude01", 1), piece(r"\ude00", 0), STOP, DONE)

    pieces: dict[int | None, str] = {}
    for chunk in seen.chunks:
        for call in chunk.choices[0].delta.tool_calls:
            pieces[call.index] = pieces.get(call.index, "") + (call.function.arguments or "")
    assert pieces == {0: "\U0001f600", 1: "\U0001f601"}


def test_plain_chunks_behind_a_joined_pair_are_read_the_fast_way_again() -> None:
    seen = read(
        HEL, raw(r'{"content": "\ud83d"}'), LO, raw(r'{"content": "\ud83d"}'), raw(r'{"content": "\ude00"}'), LO, STOP
    )

    assert seen.whole.text == "Hel\ufffdlo\U0001f600lo"


@pytest.mark.parametrize(
    ("events", "text"),
    [
        ([HEL, raw(r'{"content": "a\ud83d"}'), LO, STOP], "Hela\ufffdlo"),
        ([HEL, raw(r'{"content": "a\ud83d"}'), STOP], "Hela\ufffd"),
        ([HEL, raw(r'{"content": "a\ud83d"}'), DONE], "Hela\ufffd"),
        ([HEL, raw(r'{"content": "a\ud83d"}', '"stop"')], "Hela\ufffd"),
        ([HEL, raw(r'{"content": "a\ud83d"}'), data(ERROR)], "Hela\ufffd"),
        ([HEL, raw(r'{"content": "a\ud83d"}')], "Hela\ufffd"),
        ([HEL, raw(r'{"content": "\ude00a"}'), STOP], "Hel\ufffda"),
    ],
)
def test_a_half_without_its_other_half_is_one_replacement_character(events: list[bytes], text: str) -> None:
    assert read(*events).whole.text == text
    assert read(*events, cut=TransportError(phase="read")).whole.text == text


async def test_a_half_is_delivered_before_the_error_of_a_silent_connection() -> None:
    async with served(Reply([HEL, raw(r'{"content": "a\ud83d"}'), Act.HANG]), timeouts=Timeouts(silence=0.2)) as (
        client,
        _,
    ):
        seen = await observe(client.chat("hi"))

    assert type(seen.endings[0]) is SilenceTimeoutError
    assert "".join(chunk.choices[0].delta.content or "" for chunk in seen.values) == "Hela\ufffd"


# Any body at any cut


PIECES = [
    *(HEL, LO, STOP, DONE, say(), say({"role": "assistant", "content": ""}), say(finish="tool_calls", usage=USAGE)),
    *(say({"content": "x"}, "stop"), say({"content": "y"}, index=1), say(finish="stop", index=1), say(usage=USAGE)),
    *(raw(r'{"content": "\ud83d"}'), raw(r'{"content": "\ude00"}'), raw('{"content": 0.10}'), data({}), data(None)),
    *(
        b"event: ping\ndata: {}\n\n",
        b": comment\n\n",
        b'error: {"code": 400}\n',
        json.dumps(ERROR).encode(),
        b"<html>\n",
    ),
    *(
        data({"choices": [{"message": {"content": "M"}}]}),
        data({"choices": [{"text": "T"}]}),
        data(ERROR),
        b"data: {\n\n",
    ),
    *(b"\n", b"\r\n", b"\r", b"data: [DONE]", b'data: "[DONE]"\n\n', b"\xef\xbb\xbf", b"event: error\n", b"id: 7\n"),
]


@given(
    st.lists(st.sampled_from(PIECES), max_size=9),
    st.lists(st.integers(1, 90), max_size=12),
    st.sampled_from([None, "read"]),
)
@example([HEL, raw(r'{"content": "\ud83d"}'), STOP, DONE], [50], None)
@settings(deadline=None)
def test_a_body_gives_the_same_values_and_ending_at_any_cut(
    pieces: list[bytes], sizes: list[int], phase: Literal["read"] | None
) -> None:
    body, blocks, at = b"".join(pieces), list[bytes](), 0
    for size in sizes:
        blocks.append(body[at : at + size])
        at += size
    blocks.append(body[at:])
    cut = None if phase is None else TransportError(phase=phase)

    whole = Read([body], cut)

    assert Read(blocks, cut).facts == whole.facts
    if whole.ending is None:
        assert whole.chunks
