from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rxrouter.testing.rows import Mark, leaving, marks, window, written, written_window

LETTERS = st.sampled_from("abcXYZ019é")
MOMENTS = st.one_of(
    LETTERS,
    st.text(LETTERS, min_size=2, max_size=4).map(lambda letters: f"({letters})"),
    st.integers(1, 5).map(lambda ticks: "-" * ticks),
)
ENDINGS = st.sampled_from(["", "|", "#", "#(x)", "(a|)", "(ab#)", "(a#(slow))"])


def sign(mark: Mark) -> str:
    if mark.kind == "error":
        return "#" if mark.name == "#" else f"#({mark.name})"
    return mark.name or "|"


def test_a_row_reads_as_in_rxjs() -> None:
    assert marks("-a-(bc|)") == [
        Mark(1, "value", "a"),
        Mark(3, "value", "b"),
        Mark(3, "value", "c"),
        Mark(3, "complete"),
    ]


def test_a_group_takes_as_many_ticks_as_it_is_wide() -> None:
    assert marks("(ab)c") == [Mark(0, "value", "a"), Mark(0, "value", "b"), Mark(4, "value", "c")]


def test_an_error_has_a_name_alone_and_in_a_group() -> None:
    assert marks("--#") == [Mark(2, "error", "#")]
    assert marks("--#(slow)") == [Mark(2, "error", "slow")]
    assert marks("-(a#(x))") == [Mark(1, "value", "a"), Mark(1, "error", "x")]


def test_spaces_are_for_alignment() -> None:
    assert marks("  -a  -b-") == marks("-a-b-")


def test_a_hot_row_counts_from_its_subscription() -> None:
    assert marks("-a-^-b", hot=True) == [Mark(-2, "value", "a"), Mark(2, "value", "b")]
    assert marks("-a", hot=True) == marks("-a")


@given(st.lists(MOMENTS), ENDINGS)
def test_a_row_that_is_read_is_written_the_same(moments: list[str], ending: str) -> None:
    row = "".join(moments) + ending

    assert written([(mark.tick, sign(mark)) for mark in marks(row)]) == row.rstrip("-")


def test_what_no_row_can_say_is_not_written_as_if_it_could() -> None:
    assert written([(1, "a"), (1, "b"), (2, "c")]) == "-(ab)…c"
    assert written([(1.5, "a")]) == "…a"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("--a 9s b|", "time jumps"),
        ("-a 500ms |", "time jumps"),
        ("-a-|-b", "after the end"),
        ("-a-#(x)|", "after the end"),
        ("-(ab", "a group is open"),
        ("-a)", "')' is no mark"),
        ("-()", "'(' is no mark"),
        ("-(a(b))", "'(' is no mark"),
        ("-(a-b)", "'-' is no mark"),
        ("-(a,b)", "',' is no mark"),
        ("-a->", "'>' is no mark"),
        ("-a-*", "'*' is no mark"),
        ("^-a", "'^' is no mark"),
        ("-a-!", "'!' is no mark"),
        ("-" * 1001, "longer than a play"),
    ],
)
def test_what_would_be_misread_is_refused(row: str, why: str) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        marks(row)

    assert why in str(refused.value)


def test_a_hot_row_has_one_subscription_mark() -> None:
    with pytest.raises(ValueError, match=r"'\^' is no mark"):
        marks("-^-^", hot=True)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("^---!", (0, 4)),
        ("--^-", (2, None)),
        ("--(^!)", (2, 2)),
        ("^!--", (0, 1)),
        ("----", None),
        ("", None),
    ],
)
def test_a_window_is_from_subscribing_to_leaving(row: str, expected: object) -> None:
    assert window(row) == expected


@pytest.mark.parametrize("row", ["!--^", "^-^", "^--!!", "---!", "^-a-!", "(^-!)"])
def test_a_window_that_is_none_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match=r"one \^ where"):
        window(row)


@given(st.integers(0, 20), st.none() | st.integers(0, 20))
def test_a_window_is_written_as_it_is_read(since: int, length: int | None) -> None:
    until = None if length is None else since + length

    assert window(written_window(since, until)) == (since, until)


def test_a_window_between_ticks_is_told_in_numbers() -> None:
    assert written_window(0.5, 2) == "from 0.5 to 2"
    assert written_window(0, 2.25) == "from 0 to 2.25"
    assert written_window(0.5, None) == "from 0.5 to the end"


def test_leaving_is_one_mark() -> None:
    assert leaving("---!") == 3
    for row in ("----", "-!-!", "^--!", "-a-!"):
        with pytest.raises(ValueError, match="one ! where"):
            leaving(row)
