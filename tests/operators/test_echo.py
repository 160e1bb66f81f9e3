from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk
from rxrouter.operators._echo import echo, without_echo
from tests.operators.support import chunk, play


@pytest.mark.parametrize(
    ("shown", "said", "repeated"),
    [
        ("one two", " three", 0),
        ("one two", "two three", 3),
        ("one two", " two three", 4),
        ("one two", "one two three", 7),
        ("Hello wor", "world", 3),
        ("hel", "lo", 0),  # one word, not an echo of its l
        ("a long unbroken unbreakabl", "unbreakable", 10),
        ("没有空格的一句长长的话被剪断", "的一句长长的话被剪断了", 10),
        ("[0, 0, 0,", " 0, 0]", 0),  # it repeats itself anyway
        ("if a:\n    end\nend\n", "end\n", 0),
        ("| --- |", " --- |", 0),
        ("one\n\n", "\n\ntwo", 2),  # white space is not sent back, so it is said again
        ("one\n\n", "\ntwo", 1),
        ("one ", "two", 0),
        ("one two ", "two three", 4),
        ("one one ", "one three", 0),
        ("the one and the", " the two", 4),
        ("x", "y", 0),
    ],
)
def test_the_longest_overlap_is_an_echo_unless_the_text_repeats_itself(shown: str, said: str, repeated: int) -> None:
    assert echo(shown, said, whole=True) == repeated


def test_while_more_could_be_repeated_it_is_not_known() -> None:
    assert echo("one two three", "one") is None
    assert echo("one two three", "one two thre") is None
    assert echo("one two three", "one two three") == 13
    assert echo("one two three", "one two three four") == 13
    assert echo("one two three", "one two four") == 0


@given(st.permutations(["abcdefghij", "KLMNOPQRST.", "0123456789,"]), st.data())
def test_what_was_cut_and_gone_on_with_is_the_text(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    cut = data.draw(st.integers(1, len(text) - 1))
    words_begin = [at for at in range(cut) if not at or text[at - 1] == " "]
    begin = data.draw(st.sampled_from([*words_begin, cut]))

    shown, said = text[:cut], text[begin:]

    assert shown + said[echo(shown, said, whole=True) :] == text


@given(st.text("ab \n", max_size=12), st.text("ab \n", min_size=1, max_size=12))
def test_an_echo_is_an_overlap(shown: str, said: str) -> None:
    repeated = echo(shown, said, whole=True)

    assert repeated is not None
    assert shown.endswith(said[:repeated])


@given(st.text("ab ", max_size=12), st.lists(st.text("ab ", min_size=1, max_size=3), min_size=1, max_size=8))
def test_how_the_continuation_is_cut_does_not_matter(shown: str, pieces: list[str]) -> None:
    chunks = [chunk({"content": piece}) for piece in pieces]

    told = heard(shown, chunks)

    assert told == heard(shown, [chunk({"content": "".join(pieces)})])


def test_what_is_trimmed_keeps_all_else() -> None:
    first = chunk({"role": "assistant", "content": "two th", "reasoning": "hm"}, provider="Venice")

    trimmed = play(without_echo("one two"), (1, first), (2, None))[0][0][1]

    assert trimmed == chunk({"role": "assistant", "content": " th", "reasoning": "hm"}, provider="Venice")
    assert b'" th"' in trimmed.raw


def test_what_comes_before_the_text_is_not_held() -> None:
    role, thought, text = chunk({"role": "assistant"}), chunk({"reasoning": "hm"}), chunk({"content": " three"})

    assert play(without_echo("one two"), (1, role), (2, thought), (3, text), (4, None))[0] == [
        (1, role),
        (2, thought),
        (3, text),
        (4, None),
    ]


def test_a_finish_ends_the_wait() -> None:
    finish = chunk(choices=[{"index": 0, "delta": {"content": ""}, "finish_reason": "stop"}])

    told, _ = play(without_echo("yes, yes"), (1, chunk({"content": "yes"})), (2, finish), (9, None))

    assert [at for at, _ in told] == [2, 2, 9]


def test_text_that_may_be_an_echo_is_not_shown_at_an_error_but_all_else_that_came_with_it() -> None:
    error = ValueError("cut")
    usage = {"completion_tokens": 1}
    said = chunk({"content": "one", "reasoning": "hm"}, usage=usage)

    told, _ = play(without_echo("one two"), (1, said), (2, error))

    assert told == [(2, chunk({"content": "", "reasoning": "hm"}, usage=usage)), (2, error)]


def heard(shown: str, chunks: list[ChatChunk]) -> str:
    told, _ = play(without_echo(shown), *((1, piece) for piece in chunks), (2, None))
    return "".join(value.choices[0].delta.content or "" for _, value in told if value is not None)
