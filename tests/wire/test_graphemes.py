"""Cuts are only where another implementation of UAX #29 has them, in any text; and the known hard cases are exact."""

from __future__ import annotations

from itertools import accumulate, pairwise
from unicodedata import unidata_version

import pytest
from hypothesis import given, strategies as st

from rxrouter._wire.graphemes import boundary, next_boundary, whole
from tests.operators.display import boundaries, texts

HARD = {
    "accent": ["e\u0301", "t", "e\u0301"],
    "two accents": ["g\u0308\u0323", "a"],
    "skin tone": ["👍🏽", "👍"],
    "family": ["👨\u200d👩\u200d👧\u200d👦", "👩"],
    "style": ["❤\ufe0f", "❤"],
    "keycap": ["1\ufe0f\u20e3", "2"],
    "flags": ["🇩🇪", "🇫🇷", "🇧"],
    "flags behind text": ["a", "🇩🇪", "🇫🇷"],
    "flag of tags": ["🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f", "!"],
    "emoji newer than some Pythons": ["\U0001fae9", " ", "\U0001fae9", "\U0001fae9"],
    "Hangul": ["각", "각", "\u1100\u1161\u11a8", "\u1112\u1161\u11ab"],
    "Devanagari": ["क्षि", "त्र", "का", "र"],
    "Bengali": ["ক্ষ্ম", "আ"],
    "Tamil": ["நி", "ல", "ம்"],
    "Thai": ["กำ", "ห\u0e48", "า"],
    "Lao": ["ກຳ", "ກ"],
    "Khmer": ["ខ្មែ", "រ"],
    "Arabic sign that spans": ["\u0600\u0661", "\u0662"],
    "prefixed repha": ["\u0d4eക", "ക"],
    "halfwidth voiced": ["カ\uff9e", "カ"],
    "CRLF": ["a", "\r\n", "\r\n", "\n", "\r", "b"],
    "controls": ["a", "\n", "\u0301", "\u2028", "\u0301"],
    "zero width space": ["a", "\u200b", "b"],
    "joiner before text": ["a\u200c", "b"],
    "ideographs": ["你", "好", "。"],
    "ideographs newer than some Pythons": ["\U000323b0", "\U0003347f", "a"],
}


def cuts(text: str) -> list[int]:
    return [at for at in range(1, len(text)) if boundary(text, at)]


def clusters(text: str) -> list[str]:
    ends = [0, *cuts(text), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


@pytest.mark.parametrize("expected", HARD.values(), ids=HARD.keys())
def test_hard_cases_are_clusters_as_people_see_them(expected: list[str]) -> None:
    text = "".join(expected)

    assert clusters(text) == expected
    assert boundaries(text) == set(accumulate(map(len, expected)))


@given(texts | st.text())
def test_no_cut_is_inside_a_cluster(text: str) -> None:
    assert set(cuts(text)) <= boundaries(text)


@pytest.mark.parametrize(
    "text",
    ["क\U000113d0क", "a\U00011f5a", "\U000113d1a", "\U00016d63\U00016d67", "a\u0897"],
    ids=["virama", "mark", "prefix", "vowel", "Arabic mark"],
)
def test_what_came_with_unicode_16_is_not_cut_where_python_knows_only_14(text: str) -> None:
    assert set(cuts(text)) <= boundaries(text)


@given(st.text(st.characters(max_codepoint=0x2FF)))
def test_in_latin_text_only_crlf_is_kept_together(text: str) -> None:
    assert {*cuts(text), len(text)} == boundaries(text) | {len(text)}


@given(texts)
def test_a_cut_depends_neither_on_what_follows_nor_on_what_was_cut_off_before(text: str) -> None:
    whole_text = cuts(text)

    for at in whole_text:
        assert cuts(text[: at + 1]) == [cut for cut in whole_text if cut <= at]
        assert cuts(text[at:]) == [cut - at for cut in whole_text if cut > at]


@given(texts.filter(bool), st.data())
def test_next_boundary_is_the_first_from_there_on(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(1, len(text)))

    assert next_boundary(text, at) == min(end for end in (*cuts(text), len(text)) if end >= at)


@given(texts, texts)
def test_what_is_whole_is_cut_from_what_follows_whatever_it_is(text: str, more: str) -> None:
    size = whole(text)

    assert size in boundaries(text) | {0}
    assert size in boundaries(text + more) | {0}
    assert len(text) - size in {0, *(len(cluster) for cluster in clusters(text)[-1:])}


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("a", 0), ("ab", 1), ("a\n", 2), ("a\r", 1), ("a\r\n", 3), ("🇩", 0), ("🇩🇪", 0), ("🇩🇪🇫", 2)],
)
def test_whole_is_all_but_what_may_go_on(text: str, size: int) -> None:
    assert whole(text) == size


@given(texts, st.integers(0, 40))
def test_whole_looks_only_at_what_is_new(text: str, seen: int) -> None:
    seen = min(seen, len(text))
    before = whole(text[:seen])

    assert max(before, whole(text, seen)) == whole(text)


@pytest.mark.long
def test_no_character_is_cut_from_its_neighbours() -> None:
    around = [
        "a{}",
        "{}a",
        "क{}",
        "{}क",
        "{}क्",
        "क्{}",
        "क्{}ष",
        "क{}ष",
        "🙂{}",
        "{}🙂",
        "가{}",
        "{}가",
        "ᄀ{}",
        "🇩{}",
        "{}🇩🇪",
        "{}\u0301",
    ]
    for code in (*range(0xD800), *range(0xE000, 0x20100), *range(0xE0000, 0xE0200)):  # beyond are ideographs
        for context in around:
            text = context.format(chr(code))
            assert set(cuts(text)) <= boundaries(text), f"{code:X} in {context}, Unicode {unidata_version}"
