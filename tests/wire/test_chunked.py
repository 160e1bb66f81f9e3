"""Chunks taken off a body: what they held, at once, and where HTTP's own parser has to take over."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from rxrouter._wire import chunked
from rxrouter._wire.chunked import PlainChunks

EVENT = b'data: {"id":"gen-1","choices":[]}\n\n'
LAST = b"0\r\n\r\n"

contents = st.lists(
    st.sampled_from([b"a", EVENT, EVENT.replace(b"\n", b"\r\n"), b"\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n", b"x" * 5000])
    | st.binary(min_size=1, max_size=20),
    max_size=12,
)
sizes = st.sampled_from([b"%x", b"%X", b"%04x"])
behind = st.sampled_from([LAST, b"0\r\nTrailer: 1\r\n\r\n", b"5;a=b\r\nhello\r\n", b"zz\r\n", b"-5\r\n", b""])
any_cuts = st.lists(st.floats(0, 1), max_size=15)


def coded(contents: list[bytes], size: bytes = b"%x") -> bytes:
    return b"".join(size % len(content) + b"\r\n" + content + b"\r\n" for content in contents)


def cut(data: bytes, cuts: list[float]) -> list[bytes]:
    places = sorted({0, len(data), *(round(part * len(data)) for part in cuts)})
    return [data[a:b] for a, b in pairwise(places)]


@given(contents, sizes, behind, any_cuts)
def test_gives_what_the_chunks_hold_and_keeps_what_is_not_plain(
    contents: list[bytes], size: bytes, behind: bytes, cuts: list[float]
) -> None:
    chunks = PlainChunks()

    body = [block for data in cut(coded(contents, size) + behind, cuts) for block in chunks.feed(data)]

    assert b"".join(body) == b"".join(contents)
    assert chunks.rest == (behind or None)


@given(contents, any_cuts)
def test_each_byte_leaves_with_the_block_that_brought_it(contents: list[bytes], cuts: list[float]) -> None:
    chunks = PlainChunks()
    arrived, given_out = 0, 0
    ends: list[bool] = []  # of each byte of the coded body: whether it is content
    for content in contents:
        ends += [False] * (len(b"%x" % len(content)) + 2) + [True] * len(content) + [False] * 2

    for data in cut(coded(contents), cuts):
        arrived += len(data)
        given_out += sum(map(len, chunks.feed(data)))
        assert given_out == sum(ends[:arrived])


@pytest.mark.parametrize("size", [b"+5", b"-5", b" 5", b"5 ", b"0x5", b"5_", b"1_0", b"", b"g", b"123456789", b"\t5"])
def test_a_size_that_only_python_takes_for_one_is_none(size: bytes) -> None:
    data = size + b"\r\nhello\r\n"
    chunks = PlainChunks()

    assert chunks.feed(data) == []
    assert chunks.rest == data


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b"\rx", b"x\n", b"0\r\n\r\n"])
@pytest.mark.parametrize("step", [1, 1000])
def test_what_does_not_end_where_its_size_says_is_damaged_there(end: bytes, step: int) -> None:
    data = coded([b"good"]) + b"5\r\nhello" + end + (coded([b"never"]) if len(end) > 1 else b"")
    chunks = PlainChunks()

    blocks = [data[at : at + step] for at in range(0, len(data), step)]

    assert b"".join(block for data in blocks for block in chunks.feed(data)) == b"goodhello"
    assert chunks.rest is not None
    assert chunks.rest.startswith(b"\r\n"), "no parser takes that for a size"


def test_a_size_is_remembered_and_no_more_of_them_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[bytes, int] = {}
    monkeypatch.setattr(chunked, "_sizes", known)
    monkeypatch.setattr(chunked, "_SMALL", 20)
    chunks = PlainChunks()

    for number in range(1, 60):
        assert chunks.feed(coded([b"x" * number])) == [b"x" * number]
        assert chunks.feed(coded([b"x" * number])) == [b"x" * number]

    assert known == {b"%x" % number: number for number in range(1, 20)} | {b"14": 20}
