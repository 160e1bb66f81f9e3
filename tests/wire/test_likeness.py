"""What is compared instead of parsed is what parsing gives, or is not read at all."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, strategies as st

from rxrouter import ChatChunk, Comment, ServerSentEvent
from rxrouter._gate import Gate
from rxrouter._source.decode import ChunkReader
from rxrouter._wire.likeness import Likeness, like, unlike
from tests.strategies import bodies

decode = msgspec.json.Decoder(ChatChunk).decode

texts = st.text(min_size=1, max_size=8) | st.sampled_from(['"', "\\", '","role":"x', '"content":"', "\n", "👩‍💻", "\0"])
separators = st.sampled_from([(",", ":"), (", ", ": ")])
splices = st.lists(
    st.tuples(
        st.floats(0, 1),
        st.integers(0, 3),
        st.sampled_from([b'"', b"\\", b"{", b"}", b"]", b",", b'"content":"x"', b"\\u0063", b"\x01", b"\xff", b"e"]),
    ),
    max_size=3,
)


def said(text: Any, **more: Any) -> dict[str, Any]:
    return {
        "id": "gen-1",
        "provider": "P",
        "model": "a/b",
        "object": "chat.completion.chunk",
        "created": 1,
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}],
        **more,
    }


def encoded(body: Any, separators: tuple[str, str] = (",", ":"), *, escaped: bool = False) -> bytes:
    return json.dumps(body, separators=separators, ensure_ascii=escaped).encode(errors="replace")


def same(read: ChatChunk | None, data: bytes) -> bool:
    """Whether it is what parsing gives, or nothing."""
    return read is None or (read == decode(data) and read.raw == data)


@given(one=texts, other=texts, separators=separators, escaped=st.booleans())
def test_reads_what_differs_in_its_text_alone(
    *, one: str, other: str, separators: tuple[str, str], escaped: bool
) -> None:
    one = one if one.isascii() and one.isalnum() else "plain"  # other escapes than msgspec's teach nothing
    data, next_data = encoded(said(one), separators), encoded(said(other), separators, escaped=escaped)

    chunk = like(data, decode(data))(next_data)

    assert chunk is not None
    assert chunk == decode(next_data)
    assert chunk.raw == next_data


@given(bodies, bodies, separators)
def test_reads_nothing_wrongly_whatever_it_learned_from(
    one: dict[str, Any], other: dict[str, Any], separators: tuple[str, str]
) -> None:
    data = encoded(one, separators)
    try:
        chunk, _ = decode(data), decode(encoded(other, separators))
    except msgspec.DecodeError:
        return
    if len(chunk.choices) != 1 or not chunk.choices[0].delta.content:
        return

    read = like(data, chunk)

    assert same(read(data), data)
    assert same(read(encoded(other, separators)), encoded(other, separators))


@given(texts, splices)
@example("x", [(0.99, 0, b'"content":"x"')])
def test_damage_is_left_to_the_parser(text: str, splices: list[tuple[float, int, bytes]]) -> None:
    learned = encoded(said("learned", service_tier=None))
    read = like(learned, decode(learned))
    data = encoded(said(text, service_tier=None))
    for place, length, piece in splices:
        at = round(place * len(data))
        data = data[:at] + piece + data[at + length :]

    chunk = read(data)

    if chunk is not None:
        assert same(chunk, data)


@pytest.mark.parametrize(
    "body",
    [
        said("x", service_tier="flex"),
        said("x", choices=[{"index": 1, "delta": {"content": "x"}}]),
        said("x", choices=[{"index": 0, "delta": {"content": "x", "refusal": "no"}}]),
        said("x", choices=[{"index": 0, "delta": {"content": "x"}, "logprobs": {"content": [{"token": "x"}]}}]),
        said("x", choices=[{"index": 0, "delta": {"reasoning_details": [{"content": "y"}], "content": "x"}}]),
        said("x", usage={"cost": 1}),
    ],
)
def test_what_has_more_to_it_is_parsed(body: dict[str, Any]) -> None:
    data = encoded(body)
    assert like(data, decode(data)) is unlike


@pytest.mark.parametrize(
    "item",
    [b"", b"{", b'"x"', b'"x"},"finish_reason":null}]}', b"[DONE]", Comment(" x"), ServerSentEvent("error", "{}")],
)
def test_what_is_no_chunk_is_not_read(item: Any) -> None:
    data = encoded(said("x"))
    assert like(data, decode(data))(item) is None


def test_learning_ends_where_no_chunk_is_like_another() -> None:
    likeness = Likeness()

    def parsed(number: int, seen: int) -> None:
        data = encoded(said("x", id=f"gen-{number}"))
        likeness.learn(data, decode(data), seen)

    for number in range(3):
        parsed(number, number)
        assert likeness.read is not unlike
    for number in range(3, 9):
        parsed(number, number)
    assert likeness.read is unlike

    parsed(9, 20)  # there were others between
    assert likeness.read is not unlike


def test_an_image_is_not_copied_to_be_compared() -> None:
    loop = asyncio.new_event_loop()  # a gate wants one; nothing runs on it
    loop.close()
    reader = ChunkReader(1 << 26, 1, Gate(loop), lambda _: None)
    for _ in range(3):
        reader.feed(b"data: " + encoded(said("x")) + b"\n\n")
    event = b"data: " + encoded(said("y" * (8 << 20))) + b"\n\n"
    blocks = [event[at : at + 65536] for at in range(0, len(event), 65536)]

    tracemalloc.start()
    for block in blocks:
        reader.feed(block)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert reader.seen == 4
    assert peak < 2.1 * len(event)  # its bytes, and its text
