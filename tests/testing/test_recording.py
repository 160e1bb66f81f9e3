from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from rxrouter.testing import Recording, answer

BODY = b"".join(answer("Hello there"))


def test_a_recording_without_sizes_has_an_event_a_block(tmp_path: Path) -> None:
    (tmp_path / "x.sse").write_bytes(BODY)

    assert list(Recording.load(tmp_path / "x.sse").blocks) == answer("Hello there")


def test_a_saved_recording_comes_back_with_blocks_and_timing(tmp_path: Path) -> None:
    recording = Recording((b"data: a\n", b"\n", b"data: b\n\n"), (0.0, 0.25, 1.5))

    recording.save(tmp_path / "x.sse")

    assert Recording.load(tmp_path / "x.sse") == recording
    assert (tmp_path / "x.sse").read_bytes() == recording.body


def test_sizes_alone_are_a_recording_without_timing(tmp_path: Path) -> None:
    (tmp_path / "x.sse").write_bytes(b"data: a\n\n")
    (tmp_path / "x.chunks.json").write_text("[4, 5]")

    assert Recording.load(tmp_path / "x.sse") == Recording((b"data", b": a\n\n"), (0.0, 0.0))


def test_sizes_of_another_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.sse").write_bytes(b"data: a\n\n")
    (tmp_path / "x.chunks.json").write_text("[4, 4]")

    with pytest.raises(ValueError, match="don't add up"):
        Recording.load(tmp_path / "x.sse")


def test_pauses_are_one_a_block() -> None:
    with pytest.raises(ValueError, match="2 blocks have 1 pauses"):
        Recording((b"a", b"b"), (0.1,))


@given(st.lists(st.integers(1, 50)))
def test_recut_keeps_every_byte(sizes: list[int]) -> None:
    recut = Recording((BODY,)).recut(sizes)

    assert recut.body == BODY
    assert all(recut.blocks)
    assert [len(block) for block in recut.blocks][: len(sizes)][:-1] == sizes[: len(recut.blocks)][: len(sizes) - 1][
        : len(recut.blocks) - 1
    ]


def test_bytewise_is_a_byte_a_block() -> None:
    assert set(map(len, Recording((BODY,)).bytewise().blocks)) == {1}
