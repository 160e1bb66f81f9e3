"""The parser against a literal reading of the standard, at any cuts and under any bound."""

# pyright: reportPrivateUsage=false
# The memory that the parser holds is in its private buffers.

from __future__ import annotations

import importlib.util
import re
import time
import tracemalloc
from collections.abc import Callable, Iterable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from rxrouter import Comment, EventTooLargeError, ServerSentEvent, SSEParser
from tests.support import SHARED, needs_shared

BOM = b"\xef\xbb\xbf"

# What matters to the grammar, whole and broken; plain JSON events are there for the parser's fast way.
PIECES = [
    *(b"\n", b"\r", b"\r\n", b"\n\n", b":", b" ", b"\0", b"a"),
    *(b"data: ", b"data:", b"data", b"dat", b"data: x\n\n", b"data: y\n\ndata: z\n\n", b"data: a\ndata: b\n\n"),
    *(b'{"a":1}', b'data: {"a":1}\n\n', b": OPENROUTER PROCESSING\n\n", b"data: x\r\n\r\n"),
    *(b"id: ", b"id:", b"id", b"id: 7\n", b"id:\0", b"id\n", b"event: x", b"event:", b"event: x\n", b"event\n"),
    *(b"retry: 10", b"retry: 10\n", b"retry:", b"retry: -1\n", b"retry: \xd9\xa1\n", b"retry: 1 \n", b" data: n\n"),
    *(BOM, BOM[:1], BOM[:2], BOM[1:], "é€😀".encode(), "😀".encode()[:3], b"\xff", b"\x85", "\u2028".encode()),
]
pieces = st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30)
streams = pieces.map(b"".join)
any_cuts = st.lists(st.floats(0, 1), max_size=20)

lines = st.text().filter(lambda text: not re.search("[\r\n]", text))
ids = lines.filter(lambda text: "\0" not in text)
events = st.builds(
    ServerSentEvent,
    event=lines.filter(bool),
    data=st.text().filter(lambda text: "\r" not in text),
    id=ids,
)


class Reference:
    """WHATWG HTML 9.2.5 and 9.2.6, sentence by sentence, for a stream that is there as a whole."""

    def __init__(self, stream: bytes) -> None:
        self.items: list[ServerSentEvent | Comment] = []
        self.last_event_id = ""
        self.reconnection_time: int | None = None
        self._data = ""
        self._event_type = ""
        self._last_event_id_buffer = ""

        text = stream.removeprefix(BOM).decode("utf-8", errors="replace")
        *finished, _unfinished = re.split("\r\n|\n|\r", text)
        for line in finished:
            self._interpret(line)

    def _interpret(self, line: str) -> None:
        if not line:
            self._dispatch()
        elif line.startswith(":"):
            self.items.append(Comment(line[1:]))
        elif ":" in line:
            field, value = line.split(":", maxsplit=1)
            self._process(field, value.removeprefix(" "))
        else:
            self._process(line, "")

    def _process(self, field: str, value: str) -> None:
        match field:
            case "event":
                self._event_type = value
            case "data":
                self._data += value + "\n"
            case "id":
                if "\0" not in value:
                    self._last_event_id_buffer = value
            case "retry":
                if re.fullmatch("[0-9]+", value):
                    self.reconnection_time = int(value)
            case _:
                pass

    def _dispatch(self) -> None:
        self.last_event_id = self._last_event_id_buffer
        if self._data:
            event_type = self._event_type or "message"
            self.items.append(ServerSentEvent(event_type, self._data.removesuffix("\n"), self.last_event_id))
        self._data = ""
        self._event_type = ""


def cut(stream: bytes, cuts: Iterable[float]) -> list[bytes]:
    """The stream in blocks, cut at these parts of its length; equal cuts make empty blocks."""
    edges = [0, *sorted(round(part * len(stream)) for part in cuts), len(stream)]
    return [stream[a:z] for a, z in pairwise(edges)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def parse(blocks: Iterable[bytes]) -> tuple[list[ServerSentEvent | Comment], SSEParser]:
    parser = SSEParser()
    return [item for block in blocks for item in parser.feed(block)], parser


def decode(*blocks: bytes) -> list[ServerSentEvent | Comment]:
    return parse(blocks)[0]


def delivered(blocks: Iterable[bytes], limit: int) -> tuple[list[Any], bool]:
    """What came out under a bound, before and with the error; and whether there was one."""
    parser = SSEParser(limit)
    items: list[Any] = []
    for block in blocks:
        try:
            items += parser.feed(block)
        except EventTooLargeError as error:
            return items + error.events, True
    return items, False


@given(streams, any_cuts)
@example(b"data: a\r\rdata: b\r\n\r\n", [0.4, 0.45])
@example(b"id: 1\n\ndata: a\n\nid\n\ndata: b\n\n", [])
@example(BOM + BOM + b"data: a\n\n", [0.1, 0.2])
def test_parser_does_what_the_standard_says_at_any_cuts(stream: bytes, cuts: list[float]) -> None:
    reference = Reference(stream)

    items, parser = parse(cut(stream, cuts))

    assert items == reference.items
    assert parser.last_event_id == reference.last_event_id
    seconds = reference.reconnection_time
    assert parser.reconnection_time == (None if seconds is None else seconds / 1000)


@given(pieces)
@example([b"id: 7\n\n", b"data: x\n\n", b"id\n\n", b"data: x\n\n"])
@example([b"event: x\n", b"data: x\n\n", b"data", b"data: x\n\n", b"data: x\r", b"\ndata: x\n\n"])
def test_parser_does_what_the_standard_says_when_blocks_are_whole_lines_and_events(blocks: list[bytes]) -> None:
    items, parser = parse(blocks)

    reference = Reference(b"".join(blocks))
    assert items == reference.items
    assert parser.last_event_id == reference.last_event_id


@given(st.binary(max_size=200), any_cuts)
def test_cuts_never_change_the_events(stream: bytes, cuts: list[float]) -> None:
    whole = decode(stream)

    assert decode(*cut(stream, cuts)) == whole
    assert decode(*bytewise(stream)) == whole


@given(streams, any_cuts)
def test_split_says_the_same_as_feed_with_plain_events_as_bytes(stream: bytes, cuts: list[float]) -> None:
    parser = SSEParser()

    items = [item for block in cut(stream, cuts) for item in parser.split(block)]

    assert [
        ServerSentEvent("message", x.decode(errors="replace")) if isinstance(x, bytes) else x for x in items
    ] == Reference(stream).items


@given(events)
def test_decoding_what_was_encoded_gives_the_event_back(event: ServerSentEvent) -> None:
    assert decode(event.encode()) == [event]


@given(st.lists(events.filter(lambda event: bool(event.id))), any_cuts)
def test_decoding_what_was_encoded_gives_a_sequence_of_events_back(
    sent: list[ServerSentEvent], cuts: list[float]
) -> None:
    stream = b"".join(event.encode() for event in sent)

    assert decode(*cut(stream, cuts)) == sent


@given(lines)
def test_decoding_an_encoded_comment_gives_it_back(text: str) -> None:
    assert decode(Comment(text).encode()) == [Comment(text)]


@pytest.mark.parametrize("data", ["a\rb", "a\r\nb", "a\nb"])
def test_encode_turns_every_line_end_of_the_data_into_lf(data: str) -> None:
    assert decode(ServerSentEvent(data=data).encode()) == [ServerSentEvent(data="a\nb")]


@pytest.mark.parametrize(
    "unsayable",
    [
        pytest.param(ServerSentEvent(event="a\nb"), id="LF in the event"),
        pytest.param(ServerSentEvent(event="a\rb"), id="CR in the event"),
        pytest.param(ServerSentEvent(id="1\n2"), id="LF in the id"),
        pytest.param(ServerSentEvent(id="1\r2"), id="CR in the id"),
        pytest.param(ServerSentEvent(id="1\0"), id="NUL in the id"),
        pytest.param(Comment("a\nb"), id="LF in a comment"),
        pytest.param(Comment("a\rb"), id="CR in a comment"),
    ],
)
def test_encode_refuses_what_the_wire_cannot_say(unsayable: ServerSentEvent | Comment) -> None:
    with pytest.raises(ValueError, match="one line"):
        unsayable.encode()


def test_an_event_of_three_data_lines_is_one_event() -> None:
    assert decode(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [ServerSentEvent(data="YHOO\n+2\n10")]


def test_four_blocks_are_a_comment_an_event_with_an_id_one_without_and_one_that_never_ends() -> None:
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n"

    items, parser = parse([stream])

    assert items == [
        Comment(" test stream"),
        ServerSentEvent(data="first event", id="1"),
        ServerSentEvent(data="second event"),
    ]
    assert parser.last_event_id == ""
    assert parser.feed(b"\n") == [ServerSentEvent(data=" third event")]


def test_data_without_a_value_is_an_empty_event_and_two_are_one_with_a_newline() -> None:
    assert decode(b"data\n\ndata\ndata\n\ndata:") == [ServerSentEvent(data=""), ServerSentEvent(data="\n")]


def test_the_space_after_the_colon_is_no_part_of_the_data() -> None:
    assert decode(b"data:test\n\ndata: test\n\n") == [ServerSentEvent(data="test")] * 2


@given(streams, any_cuts, st.integers(3, 40))
def test_a_bound_lets_nothing_out_but_events_and_too_large_and_holds_the_memory(
    stream: bytes, cuts: list[float], limit: int
) -> None:
    parser = SSEParser(limit)

    for block in cut(stream, cuts):
        try:
            parser.feed(block)
        except EventTooLargeError:
            assert not parser._line
            assert not parser._data
            return

        assert len(parser._line) <= limit
        assert len(parser._data.removesuffix(b"\n")) <= limit  # an LF follows each line; the last one is not data yet


@given(streams, any_cuts, st.integers(1, 40))
@example(BOM, [], 1)
def test_under_a_bound_cuts_change_neither_the_events_nor_whether_it_is_passed(
    stream: bytes, cuts: list[float], limit: int
) -> None:
    whole = delivered([stream], limit)

    assert delivered(cut(stream, cuts), limit) == whole
    assert delivered(bytewise(stream), limit) == whole


@given(streams, any_cuts)
def test_a_bound_as_large_as_the_stream_is_never_passed(stream: bytes, cuts: list[float]) -> None:
    assert delivered(cut(stream, cuts), max(1, len(stream))) == (Reference(stream).items, False)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"data: 789ab\n\n", id="a finished line"),
        pytest.param(b"data: 789ab", id="an unfinished line"),
        pytest.param(b": 3456789ab\n", id="a comment"),
        pytest.param(b"data:678\ndata:678\ndata:678\ndata:678\n\n", id="data of many lines"),
    ],
)
def test_what_passes_the_bound_is_refused(stream: bytes) -> None:
    with pytest.raises(EventTooLargeError, match="larger than 10 bytes"):
        SSEParser(10).feed(stream)


def test_the_error_has_the_events_before_it_and_is_raised_for_ever_after() -> None:
    parser = SSEParser(20)

    first = parser.feed(b"data: one\n\n")
    with pytest.raises(EventTooLargeError) as caught:
        parser.feed(b": two\n\ndata: three\n\nid: 4\ndata: four\n\ndata: " + b"x" * 20)

    assert first == [ServerSentEvent(data="one")]
    assert caught.value.limit_bytes == 20
    assert caught.value.events == [Comment(" two"), ServerSentEvent(data="three"), ServerSentEvent(data="four", id="4")]
    for block in (b"data: five\n\n", b"\n", b""):
        with pytest.raises(EventTooLargeError) as again:
            parser.feed(block)
        assert again.value.events == []


@pytest.mark.parametrize("limit", [0, -1])
def test_a_bound_that_is_not_positive_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        SSEParser(limit)


def _one_line(size: int) -> bytes:
    return b"data: " + b"x" * size + b"\n\n"


def _many_lines(size: int) -> bytes:
    return b"data: 89\n" * (size // 9) + b"\n"


def _seconds_bytewise(stream: bytes) -> float:
    blocks = bytewise(stream)
    parser = SSEParser()

    began = time.process_time()
    for block in blocks:
        parser.split(block)
    return time.process_time() - began


@pytest.mark.parametrize("build", [_one_line, _many_lines])
def test_time_is_linear_in_the_bytes_even_one_by_one(build: Callable[[int], bytes]) -> None:
    ratio = float("inf")
    for _ in range(3):  # a busy machine may spoil one measurement; quadratic time spoils all, with a ratio of 16
        ratio = min(ratio, _seconds_bytewise(build(2_000_000)) / _seconds_bytewise(build(500_000)))
        if ratio < 8:
            break

    assert ratio < 8


def test_a_large_event_takes_at_most_three_times_its_size() -> None:
    size = 16 * 1024 * 1024
    stream = _one_line(size)
    blocks = [stream[i : i + 65536] for i in range(0, len(stream), 65536)]
    parser = SSEParser()

    tracemalloc.start()
    try:
        items = [item for block in blocks for item in parser.split(block)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert [len(item) for item in items if isinstance(item, bytes)] == [size]
    assert peak <= 3 * size


@cache
def conformance() -> Any:
    spec = importlib.util.spec_from_file_location("run_vectors", SHARED / "conformance" / "sse" / "run_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _complaints(vector: dict[str, Any], *, quick: bool) -> list[str]:
    wrong: list[str] = []
    for name, blocks in conformance().chunkings(vector, quick=quick):
        items, parser = parse(blocks)
        seconds = None if vector["retry"] is None else vector["retry"] / 1000
        got = [item for item in items if isinstance(item, ServerSentEvent)]
        if complaint := conformance().compare(vector, (got, vector["retry"], parser.last_event_id)):
            wrong.append(f"{vector['id']}, {name}: {complaint}")
        if parser.reconnection_time != seconds:
            wrong.append(f"{vector['id']}, {name}: retry {parser.reconnection_time}, expected {seconds}")
        comments = [item.text for item in items if isinstance(item, Comment)]
        if vector["comments"] is not None and comments != vector["comments"]:
            wrong.append(f"{vector['id']}, {name}: comments {comments!r}, expected {vector['comments']!r}")
    return wrong


@needs_shared
@pytest.mark.parametrize("file", ["vectors.json", "vectors_large.json"])
def test_parser_agrees_with_the_conformance_vectors(file: str) -> None:
    vectors = conformance().load_vectors([str(SHARED / "conformance" / "sse" / file)])

    wrong = [line for vector in vectors for line in _complaints(vector, quick=file == "vectors_large.json")]

    assert len(vectors) >= 11
    assert wrong == []


@needs_shared
def test_an_event_leaves_with_the_last_byte_of_its_blank_line() -> None:
    late: list[str] = []
    for name, _level, steps in conformance().PROMPT_CASES:
        parser = SSEParser()
        out = 0
        for block, expected in steps:
            out += sum(isinstance(item, ServerSentEvent) for item in parser.feed(block))
            if out != expected:
                late.append(f"{name}: {out} out after {block!r}, expected {expected}")

    assert late == []
