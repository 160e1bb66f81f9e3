from __future__ import annotations

import re
from collections import Counter
from itertools import combinations
from xml.etree import ElementTree as ET

from hypothesis import given, strategies as st

from rxrouter._picture import Figure, Lane, Mark, Span, draw

SVG = "{http://www.w3.org/2000/svg}"


def figure(*rows: Lane | str, until: float = 10, title: str = "a figure", **more: object) -> Figure:
    return Figure(title, rows, 0, until, **more)  # type: ignore[arg-type]


def drawn(*figures: Figure) -> ET.Element:
    return ET.fromstring(draw("a picture", figures))


def texts(svg: ET.Element, kind: str) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text") if element.get("class") == kind]


def paths(svg: ET.Element, kind: str) -> list[str]:
    return [element.get("d", "") for element in svg.iter(f"{SVG}path") if element.get("class") == kind]


def circles(svg: ET.Element) -> list[tuple[float, float, float]]:
    return [(float(c.get("cx", "")), float(c.get("cy", "")), float(c.get("r", ""))) for c in svg.iter(f"{SVG}circle")]


def test_one_time_is_at_one_place_on_all_lanes() -> None:
    svg = drawn(figure(Lane("one", [Mark(3)]), "box", Lane("other", [Mark(3), Mark(4)])))

    places = Counter(x for x, _, _ in circles(svg))
    assert sorted(places.values()) == [1, 2]


def test_marbles_have_room_however_many_there_are() -> None:
    for count in (1, 10, 40, 200):
        svg = drawn(figure(Lane("src", [Mark(at, sign="a") for at in range(count)]), until=count))

        found = circles(svg)
        assert len(found) == count
        assert all(r >= 7.5 for _, _, r in found)
        assert all(abs(x - other_x) >= r + other_r for (x, _, r), (other_x, _, other_r) in combinations(found, 2))
        assert max(x + r for x, _, r in found) < float(svg.get("width", ""))


def test_a_picture_is_as_wide_as_a_readme_if_that_will_do() -> None:
    assert drawn(figure(Lane("src", [Mark(at) for at in range(20)]))).get("width") == "720"


def test_what_is_at_one_time_stands_under_one_another_and_the_end_goes_through_it() -> None:
    svg = drawn(figure(Lane("src", [Mark(2, sign="a"), Mark(2, sign="b"), Mark(2, "end")])))

    (x, y, r), (other_x, other_y, _) = circles(svg)
    assert x == other_x
    assert other_y - y > 2 * r
    (end,) = paths(svg, "e")
    at, top, height = map(float, re.findall(r"[\d.]+", end))
    assert at == x
    assert top < y - r
    assert top + height > other_y + r


def test_bars_that_overlap_lie_under_one_another() -> None:
    svg = drawn(figure(Lane("src", [], bars=[Span(0, 4), Span(2, 6), Span(4, 8), Span(5)])))

    heights = [re.findall(r"M[\d.]+ ([\d.]+)", bar)[0] for bar in paths(svg, "w")]
    assert sorted(Counter(heights).values()) == [1, 1, 2]


def test_strokes_on_one_pixel_are_one() -> None:
    marks = [Mark(at / 100_000, "stroke", hue=at % 2) for at in range(100_000)]

    text = draw("many", [figure(Lane("run", marks), until=1.0, step=0.001)])

    assert sum(len(path.split("M")) - 1 for hue in (0, 1) for path in paths(ET.fromstring(text), f"s h{hue}")) < 1300
    assert len(text) < 30_000


def test_numbers_on_the_axis_are_round_and_apart() -> None:
    for until in (3, 13, 100, 999):
        svg = drawn(figure(Lane("src", []), until=until))
        numbers = [float(text.removesuffix(" s")) for text in texts(svg, "a")]

        assert numbers[0] == 0
        assert until / 2 < numbers[-1] <= until
        assert 3 <= len(numbers) <= 20
        assert all(number == int(number) for number in numbers)
    svg = drawn(figure(Lane("run", []), until=0.0123, step=0.001))
    assert texts(svg, "a") == ["0", "0.001", "0.002", *(f"0.00{n}" for n in range(3, 10)), "0.01", "0.011", "0.012 s"]


def test_the_axis_begins_before_zero_where_marks_do() -> None:
    svg = ET.fromstring(draw("hot", [Figure("hot", [Lane("hot src", [Mark(-2), Mark(1)])], -2, 3)]))

    assert texts(svg, "a") == ["-2", "-1", "0", "1", "2", "3 s"]


def test_a_long_expression_is_broken_and_what_is_too_long_is_cut() -> None:
    short, long = drawn(figure("src.pipe(text())")), drawn(figure("a word, " * 200))

    assert texts(short, "p") == ["src.pipe(text())"]
    assert len(texts(long, "p")) == 3
    assert [line[-1] for line in texts(long, "p")] == [",", ",", "…"]


def test_a_legend_goes_on_in_the_next_line() -> None:
    svg = drawn(figure(Lane("src", []), legend=[(Mark(0, sign="a"), "x" * 40)] * 5))

    explanations = [e for e in svg.iter(f"{SVG}text") if e.get("class") == "v"]
    assert len({e.get("y") for e in explanations}) == 3
    for e in explanations:
        assert float(e.get("x", "")) + 40 * 7.2 < 720


def test_who_can_not_see_it_is_told_the_titles() -> None:
    svg = drawn(figure(title="first"), figure(title="a < b"))

    assert svg.get("role") == "img"
    assert svg.get("aria-labelledby") == "title desc"
    assert [svg.findtext(f"{SVG}title"), svg.findtext(f"{SVG}desc")] == ["a picture", "first. a < b."]


def test_it_has_two_sets_of_colours_no_script_and_nothing_from_elsewhere() -> None:
    text = draw("a picture", [figure(Lane("src", [Mark(1, sign="a")]))])

    assert "@media(prefers-color-scheme:dark)" in text
    assert not re.search(r"<script|href|url\(|@import|@font-face|on\w+=", text)
    light, _, dark = text.partition("prefers-color-scheme")
    for name in (".paper", ".h0", ".h7", ".l,.e", ".o"):
        assert f"{name}{{" in light
        assert f"{name}{{" in dark


@given(st.text(), st.text(), st.text(), st.text())
def test_any_text_makes_a_picture_that_can_be_read(title: str, name: str, box: str, sign: str) -> None:
    text = draw(title, [figure(Lane(name, [Mark(1, sign=sign)]), box, title=title, legend=[(Mark(0), box)])])

    ET.fromstring(text.encode())


def test_the_same_figures_are_the_same_bytes_without_noise() -> None:
    figures = [figure(Lane("src", [Mark(1 / 3), Mark(2 / 3, "error", "x")], [Span(0, 0.1 + 0.2)]), until=7 / 3)]

    assert draw("a", figures) == draw("a", figures)
    assert not re.search(r"\d\.\d\d", re.sub(r"<style>.*</style>", "", draw("a", figures)))
