"""Frames: what a payload is on the wire, and where a reader is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, Comment, ServerSentEvent, SSEParser
from rxrouter.relay import Bare, Events, Failure, Lines, OpenAIChunks
from rxrouter.relay.frames import Place
from rxrouter.relay.telling import Telling
from tests.operators.support import chunk

places = st.builds(Place, st.integers(0, 10**9), st.integers(0, 99))
json_texts = st.recursive(st.none() | st.text(max_size=4), st.lists, max_leaves=4).map(
    lambda value: json.dumps(value, indent=1, ensure_ascii=False)
)


@given(json_texts, st.sampled_from(["\n", "\r", "\r\n"]), st.none() | places)
def test_an_event_is_the_payload_s_value_whatever_lines_it_has(text: str, line_end: str, place: Place | None) -> None:
    frame = Events().frame(text.replace("\n", line_end).encode(), place)
    (event,) = SSEParser().feed(frame)
    assert isinstance(event, ServerSentEvent)
    assert event.id == ("" if place is None else str(place))
    assert json.loads(event.data) == json.loads(text)


@given(json_texts, st.sampled_from(["\n", "\r", "\r\n"]))
def test_a_line_is_the_payload_s_value_on_one_line(text: str, line_end: str) -> None:
    frame = Lines("application/x-ndjson").frame(text.replace("\n", line_end).encode())
    assert frame.endswith(b"\n")
    assert len(frame.splitlines()) == 1 or b"\x0b" in frame or b"\x0c" in frame
    assert json.loads(frame) == json.loads(text)


def test_a_frame_that_was_made_for_another_reader_is_the_same() -> None:
    framing, seen = Events(), (None, Place(1), Place(1), Place(1, 1), None)
    for payload in (b"", b"x" * 10, b"x" * 10_000):
        frames = [framing.frame(payload, place) for place in seen]
        assert frames == [Events().frame(payload, place) for place in seen]
        assert frames[0] == b"data: %b\n\n" % payload


def test_comments_are_what_no_reader_sees() -> None:
    assert SSEParser().feed(Events().comment()) == [Comment(" keep-alive")]
    assert not Lines("").comment().strip()
    assert Bare("").comment() == b""


@given(places)
def test_a_place_is_found_again_by_its_name(place: Place) -> None:
    assert Place.parse(str(place)) == place


@given(places, places)
def test_places_are_in_the_order_of_reading(one: Place, other: Place) -> None:
    assert (one < other) == ((one.entries, one.frames) < (other.entries, other.frames))


@pytest.mark.parametrize("name", ["", "x", "1.", ".1", "1.2.3", " 1", "1\n", "-1", "+1", "1e3", "٣", "9" * 30])
def test_no_other_name_is_a_place(name: str) -> None:
    with pytest.raises(ValueError, match="none of ours"):
        Place.parse(name)


def test_headers_name_the_type() -> None:
    framings: list[Any] = [Events({"x": "y"}), Lines("application/x-ndjson"), Bare("text/plain")]
    assert [framing.headers["Content-Type"] for framing in framings] == [
        "text/event-stream",
        "application/x-ndjson",
        "text/plain",
    ]
    assert framings[0].headers["x"] == "y"


class Counting(OpenAIChunks):
    """Knows how often it was asked."""

    asked = 0

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        self.asked += 1
        return super().chunk(chunk)


def test_a_reader_that_comes_back_costs_no_payload_of_what_it_has() -> None:
    words = [chunk({"content": "word"}, model=f"m{n}") for n in range(4)]
    encoder, failure = Counting(), Failure(502, "x", "y")
    first, again = Telling(Counting(), Place()), Telling(encoder, Place(3))
    assert [again.chunk(word) for word in words] == [[], [], [], *[first.chunk(word) for word in words][3:]]
    assert encoder.asked == 1
    assert again.error(failure, of_log=True) == first.error(failure, of_log=True)


def test_an_error_has_the_head_of_the_last_chunk_also_where_that_was_read_before() -> None:
    word, failure = chunk({"content": "word"}, model="m"), Failure(502, "x", "y")
    first, again = Telling(OpenAIChunks(), Place()), Telling(OpenAIChunks(), Place(1))
    first.chunk(word)
    again.chunk(word)
    assert again.error(failure, of_log=True) == first.error(failure, of_log=True)


def test_an_end_that_is_not_in_the_log_has_no_place_and_is_told_at_once() -> None:
    telling = Telling(OpenAIChunks(), Place(7))
    frames = telling.error(Failure(503, "x", "y"), of_log=False)
    assert frames is not None
    assert len(frames) == 2
    assert not any(b"id: " in frame for frame in frames)
    assert telling.numbered
    assert not telling.behind


class Syllables(OpenAIChunks):
    """Encodes each chunk as three payloads."""

    def chunk(self, chunk: ChatChunk) -> tuple[bytes, ...]:
        text = chunk.choices[0].delta.content or ""
        return tuple(f"{text}{number}".encode() for number in range(3))


def test_a_reader_gets_the_rest_of_an_entry_when_it_comes_back_between_its_frames() -> None:
    entries = [chunk({"content": text}) for text in "abc"]
    first = Telling(Syllables(), Place())
    frames = [frame for entry in entries for frame in first.chunk(entry)]
    events = [event for event in SSEParser().feed(b"".join(frames)) if isinstance(event, ServerSentEvent)]
    assert [event.data for event in events] == [f"{text}{number}" for text in "abc" for number in range(3)]
    assert [event.id for event in events] == ["0.1", "0.2", "1", "1.1", "1.2", "2", "2.1", "2.2", "3"]

    for read, event in enumerate(events, 1):
        again = Telling(Syllables(), Place.parse(event.id))
        assert [frame for entry in entries for frame in again.chunk(entry)] == frames[read:]
        assert not again.behind
