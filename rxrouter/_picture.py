"""Lanes of marks on an axis of time, as the text of an SVG: light and dark, the same bytes for the same figures."""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Literal

from msgspec import Struct

_WIDTH = 720.0  # as wide as a README shows it; a figure that needs more makes the picture wider
_EDGE = 24.0  # between the picture's border and anything
_RADIUS = 13.0  # of a marble where there is room
_RIGHT = _EDGE + _RADIUS + 11.0  # between the border and the last time: a marble, and the arrow
_SMALLEST = 7.5  # of a marble that can be read
_STROKE = 9.0  # half of a stroke's height
_FEW = 100  # strokes on a lane that may be thick
_NUMBER = 40.0  # what a number on the axis needs
_CHARACTER = 7.3  # the width of a monospaced character of 12 px, in the widest of the usual fonts
_LETTER = 8.8  # the width of a letter of a title, on average, likewise

_UNSAYABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# Each hue's fill and line in light, and in dark.
_HUES = (
    ("#dbeafe", "#2563eb", "#17325f", "#6aa5ff"),
    ("#ffedd5", "#c2570c", "#472a10", "#f0a35e"),
    ("#d5f5e3", "#15803d", "#12382a", "#5fd39a"),
    ("#ede9fe", "#7c3aed", "#33265c", "#b79cff"),
    ("#fce7f3", "#be2a77", "#4a1c38", "#f28cc0"),
    ("#cdf4f7", "#0e7490", "#0e3a45", "#55c8dc"),
    ("#fdf3c4", "#94690a", "#3d3310", "#dfc04f"),
    ("#e5e9f0", "#4b5a70", "#2a3340", "#9fb0c8"),
)
HUES = len(_HUES)
#          paper      ink        quiet      line       guide      box        bar        red
_LIGHT = ("#ffffff", "#1f2937", "#667080", "#cdd4de", "#edf0f4", "#f5f7fa", "#818cf8", "#cf222e")
_DARK = ("#0f141b", "#e5eaf1", "#929dac", "#3a4554", "#1c242e", "#1a212b", "#6d78d6", "#ff7b72")


class Mark(Struct, frozen=True):
    """Something at a time: a marble with its sign in it, the end, an error, or a stroke among many."""

    at: float
    kind: Literal["marble", "end", "error", "stroke"] = "marble"
    sign: str = ""
    hue: int = 0
    faint: bool = False  # said, but heard by nobody; of a stroke: a short one


class Span(Struct, frozen=True):
    """From one time to another; None for beyond the picture."""

    since: float
    until: float | None = None


class Lane(Struct, frozen=True):
    """One line of time."""

    name: str
    marks: Sequence[Mark]
    solid: Sequence[Span] = ()  # where somebody listens
    bars: Sequence[Span] = ()  # drawn under it
    text: str = ""  # under all


class Figure(Struct, frozen=True):
    """Lanes and boxes (the strings), one under the other, on one axis."""

    title: str
    rows: Sequence[Lane | str]
    since: float
    until: float
    legend: Sequence[tuple[Mark, str]] = ()
    pitch: float = 1e9  # pixels that a second has at most
    step: float = 1.0  # seconds between two numbers on the axis, at least


def draw(title: str, figures: Sequence[Figure]) -> str:
    """The figures one under the other; `title` and theirs are also for those who can't see them."""
    names = [row.name for figure in figures for row in figure.rows if isinstance(row, Lane)]
    left = _EDGE + max([48.0, *(_wide(name) + 12 for name in names)]) + _RADIUS
    axes = [_Axis.of(figure, left) for figure in figures]
    width = max([_WIDTH, *(axis.end + _RIGHT for axis in axes)])
    sheet = _Sheet(width, left)
    for figure, axis in zip(figures, axes, strict=True):
        sheet.figure(figure, axis)
    size = f'width="{_n(width)}" height="{_n(sheet.y)}"'
    view = f'viewBox="0 0 {_n(width)} {_n(sheet.y)}"'
    told = " ".join(f"{figure.title}." for figure in figures)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} {view} role="img" aria-labelledby="title desc">',
            f'<title id="title">{_xml(title)}</title>',
            f'<desc id="desc">{_xml(told)}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" {size} rx="10"/>',
            *sheet.parts,
            "</svg>\n",
        ]
    )


class _Axis(Struct, frozen=True):
    """Where a time is, and how large a marble."""

    since: float
    left: float
    scale: float  # pixels a second
    end: float
    radius: float

    @classmethod
    def of(cls, figure: Figure, left: float) -> _Axis:
        """As long as there is room, and longer where marbles would not have enough."""
        span = max(figure.until - figure.since, 1e-3)
        gap = _closest(figure)
        scale = max(min(figure.pitch, (_WIDTH - _RIGHT - left) / span), (2 * _SMALLEST + 1) / gap)
        return cls(figure.since, left, scale, left + span * scale, min(_RADIUS, (scale * gap - 1) / 2))

    def x(self, at: float) -> float:
        return self.left + (at - self.since) * self.scale

    def numbers(self, figure: Figure) -> list[float]:
        """The times that are written under the lanes: round ones, as close as they can stand."""
        steps = (figure.step * nice * 10**power for power in range(12) for nice in (1, 2, 5))
        step = next(step for step in steps if step * self.scale >= _NUMBER)
        first, last = math.ceil(figure.since / step), math.floor(figure.until / step + 1e-6)
        return [round(number * step, 6) for number in range(first, last + 1)]


class _Sheet:
    """What is drawn, from top to bottom."""

    def __init__(self, width: float, left: float) -> None:
        self.parts: list[str] = []
        self.y = _EDGE
        self._left = left - _RADIUS
        self._right = width - _EDGE

    def figure(self, figure: Figure, axis: _Axis) -> None:
        if self.parts:
            self._path("d", f"M{_n(_EDGE)} {_n(self.y)}H{_n(self._right)}")
            self.y += _EDGE
        for line in textwrap.wrap(figure.title, int((self._right - _EDGE) / _LETTER)):
            self._text("t", _EDGE, self.y + 12, line)
            self.y += 21
        behind, top = len(self.parts), self.y + 11
        self.y = top
        for row in figure.rows:
            if isinstance(row, Lane):
                self._lane(row, axis)
            else:
                self._box(row)
        self._numbers(axis.numbers(figure), axis, top, behind)
        self._legend(figure.legend)

    def _lane(self, lane: Lane, axis: _Axis) -> None:
        y = self.y + axis.radius + 4
        self._text("n", _EDGE, y + 4, lane.name)
        self._path("b", f"M{_n(self._left)} {_n(y)}H{_n(self._right)}")
        self._path("d", f"M{_n(self._right - 5)} {_n(y - 4)}l5 4-5 4")
        for span in lane.solid:
            end = self._right if span.until is None else axis.x(span.until)
            self._path("l", f"M{_n(axis.x(span.since))} {_n(y)}H{_n(end)}")
        self._strokes([mark for mark in lane.marks if mark.kind == "stroke"], axis, y)
        self.y = y + axis.radius + 6 + self._piles(lane.marks, axis, y)
        for bars in _packed(lane.bars):
            for bar in bars:
                to = f"{_n(self._right)}m-4-3l4 3-4 3" if bar.until is None else f"{_n(axis.x(bar.until))}v-6"
                self._path("w", f"M{_n(axis.x(bar.since))} {_n(self.y - 1)}v6H{to}")
            self.y += 9
        if lane.text:
            self._text("q", self._left, self.y + 10, lane.text)
            self.y += 16
        self.y += 8

    def _piles(self, marks: Sequence[Mark], axis: _Axis, y: float) -> float:
        """What is at one time stands under one another; returns how much higher than one mark the highest pile is."""
        pitch = 2 * axis.radius + 2
        piles = Counter(mark.at for mark in marks if mark.kind in {"marble", "error"})
        for mark in marks:
            if mark.kind == "end":  # behind its pile, and as high
                height = 2 * axis.radius + 8 + max(0, piles[mark.at] - 1) * pitch
                self._path(f"e{_faint(mark)}", f"M{_n(axis.x(mark.at))} {_n(y - axis.radius - 4)}v{_n(height)}")
        piled = Counter[float]()
        for mark in marks:
            if mark.kind in {"marble", "error"}:
                self._mark(mark, axis.x(mark.at), y + piled[mark.at] * pitch, axis.radius)
                piled[mark.at] += 1
        return (max(piles.values(), default=1) - 1) * pitch

    def _strokes(self, marks: Sequence[Mark], axis: _Axis, y: float) -> None:
        """All strokes of one colour and height are one path; few of them are thick."""
        thick = " k" if len(marks) < _FEW else ""
        for hue, faint in sorted({(mark.hue, mark.faint) for mark in marks}):
            half = _STROKE / 2 if faint else _STROKE
            places = {round(axis.x(mark.at)) for mark in marks if (mark.hue, mark.faint) == (hue, faint)}
            self._path(f"s h{hue}{thick}", "".join(f"M{x} {_n(y - half)}v{_n(2 * half)}" for x in sorted(places)))

    def _mark(self, mark: Mark, x: float, y: float, radius: float) -> None:
        """One that stands alone, at the place of its middle."""
        faint = _faint(mark)
        if mark.kind == "marble":
            self.parts.append(f'<circle class="h{mark.hue}{faint}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}"/>')
            self._text(f"m{faint}", x, y + radius * 0.37, mark.sign, size=radius * 1.05)
        elif mark.kind == "error":
            arm = radius * 0.62
            down, up = f"{_n(2 * arm)} {_n(2 * arm)}", f"{_n(2 * arm)} {_n(-2 * arm)}"
            self._path(f"x{faint}", f"M{_n(x - arm)} {_n(y - arm)}l{down}M{_n(x - arm)} {_n(y + arm)}l{up}")
            self._text(f"r{faint}", x + arm + 4, y - arm + 3, mark.sign)
        else:
            self._strokes([mark], _Axis(mark.at, x, 1, x, radius), y)

    def _box(self, text: str) -> None:
        lines = _folded(text, int((self._right - self._left - 24) / _CHARACTER))
        height = 17 * len(lines) + 15
        self.parts.append(
            f'<rect class="o" x="{_n(self._left)}" y="{_n(self.y + 2)}" width="{_n(self._right - self._left)}"'
            f' height="{_n(height)}" rx="8"/>'
        )
        for line in lines:
            self._text("p", (self._left + self._right) / 2, self.y + 22, line)
            self.y += 17
        self.y += 15 + 12

    def _numbers(self, numbers: Sequence[float], axis: _Axis, top: float, behind: int) -> None:
        """The axis: numbers under the lanes, and lines from them through all that was drawn since `behind`."""
        guides = "".join(f"M{_n(axis.x(at))} {_n(top)}V{_n(self.y)}" for at in numbers)
        self.parts.insert(behind, f'<path class="g" d="{guides}"/>')
        for at in numbers:
            self._text("a", axis.x(at), self.y + 13, f"{at:g} s" if at == numbers[-1] else f"{at:g}")
        self.y += 22

    def _legend(self, legend: Sequence[tuple[Mark, str]]) -> None:
        """The marks and what they stand for, in as many lines as they need."""
        x = _EDGE
        for mark, text in legend:
            start = 33.0 if mark.kind == "error" and mark.sign else 25.0
            need = start + _wide(text) + 18
            if x > _EDGE and x + need > self._right + 18:
                x, self.y = _EDGE, self.y + 25
            self._mark(mark, x + 9, self.y + 12, 9)
            self._text("v", x + start, self.y + 16, text)
            x += need
        self.y += (25 if legend else 0) + _EDGE

    def _path(self, kind: str, d: str) -> None:
        self.parts.append(f'<path class="{kind}" d="{d}"/>')

    def _text(self, kind: str, x: float, y: float, text: str, size: float = 0) -> None:
        if text:
            sized = f' style="font-size:{_n(size)}px"' if size else ""
            self.parts.append(f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}"{sized}>{_xml(text)}</text>')


def _closest(figure: Figure) -> float:
    """The shortest time between two marbles of a lane; half a second at least, whatever it costs in overlaps."""
    lanes = [row for row in figure.rows if isinstance(row, Lane)]
    times = [sorted({mark.at for mark in lane.marks if mark.kind != "stroke"}) for lane in lanes]
    return max(0.5, min((later - at for lane in times for at, later in pairwise(lane)), default=math.inf))


def _packed(spans: Iterable[Span]) -> list[list[Span]]:
    """In rows, so that none lies over another."""
    rows: list[list[Span]] = []
    for span in spans:
        free = (row for row in rows if row[-1].until is not None and row[-1].until <= span.since)
        row = next(free, None)
        if row is None:
            rows.append([span])
        else:
            row.append(span)
    return rows


def _folded(text: str, width: int) -> list[str]:
    """Lines of at most so many characters, broken behind commas; what is more than three of them is left out."""
    glued = re.sub(r"(?<!,) ", "\xa0", text)
    lines = textwrap.wrap(glued, width, max_lines=3, placeholder=" …", break_on_hyphens=False)
    return [line.replace("\xa0", " ") for line in lines]


def _wide(text: str) -> float:
    """The width of a monospaced text."""
    return _CHARACTER * sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _faint(mark: Mark) -> str:
    return " f" if mark.faint else ""


def _xml(text: str) -> str:
    """Text in an element; what XML has no way to say becomes �."""
    return escape(_UNSAYABLE.sub("\ufffd", text), quote=False)


def _n(number: float) -> str:
    """A number without noise."""
    return f"{number:.1f}".removesuffix(".0")


def _colours(colours: tuple[str, ...], hues: Iterable[tuple[str, str]]) -> str:
    paper, ink, quiet, line, guide, box, bar, red = colours
    return (
        f".paper{{fill:{paper}}}text{{fill:{ink}}}.q,.a,.v,.n{{fill:{quiet}}}.r{{fill:{red}}}"
        f".b,.d{{stroke:{line}}}.g{{stroke:{guide}}}.l,.e{{stroke:{ink}}}.w{{stroke:{bar}}}.x{{stroke:{red}}}"
        f".o{{fill:{box};stroke:{line}}}"
        + "".join(f".h{hue}{{fill:{fill};stroke:{edge}}}" for hue, (fill, edge) in enumerate(hues))
    )


_STYLE = (
    "path{fill:none;stroke-linecap:round;stroke-linejoin:round}"
    "text{font:12px ui-monospace,SFMono-Regular,Menlo,Consolas,'Liberation Mono','DejaVu Sans Mono',monospace}"
    ".t{font:600 15px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif}"
    ".m,.p,.a{text-anchor:middle}.m{font-weight:600}.a,.q,.r{font-size:11px}"
    ".b{stroke-width:1.5;stroke-dasharray:0 5}.l{stroke-width:2}.e,.x{stroke-width:3}"
    "circle{stroke-width:1.5}.s{stroke-width:1.6}.k{stroke-width:3}.w{stroke-width:1.5}.f{opacity:.35}"
    + _colours(_LIGHT, [(fill, edge) for fill, edge, _, _ in _HUES])
    + f"@media(prefers-color-scheme:dark){{{_colours(_DARK, [(fill, edge) for _, _, fill, edge in _HUES])}}}"
)
