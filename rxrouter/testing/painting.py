"""The picture of marble diagrams: what was played, on lanes of time; never what was expected."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rxrouter._picture import HUES, Figure, Lane, Mark, Span, draw
from rxrouter.testing.describing import describe
from rxrouter.testing.marbles import MarbleSpec
from rxrouter.testing.played import Heard, Played, Told
from rxrouter.testing.rows import marks

_PITCH = 46.0  # pixels that a tick has at most
_LONG = 74  # characters of an expression beyond which it says of its functions only that they are there
_SHORT = 40  # characters by which a value can be told from the others
_UNHEARD = 4  # ticks after the last event in which is shown what nobody heard


def paint(title: str, diagrams: Sequence[tuple[MarbleSpec, Played]]) -> str:
    """The SVG of diagrams that were played, one under the other; a name has one colour in all of them.

    Args:
        title: What they are of, for those who can't see it.
        diagrams: Each with what `check` or `play` returned.
    """
    hues: dict[str, int] = {}
    return draw(title, [_Drawing(spec, played, hues).figure() for spec, played in diagrams])


class _Drawing:
    """One diagram on its way to a figure."""

    def __init__(self, spec: MarbleSpec, played: Played, hues: dict[str, int]) -> None:
        self._spec = spec
        self._played = played
        self._hues = hues
        rows = [*map(marks, spec.cold.values()), *(marks(row, hot=True) for row in spec.hot.values())]
        names = [mark.name for row in rows for mark in row if mark.kind == "value"]
        names += [self._name(told) for heard in played.readers.values() for told in heard.told if told.kind == "value"]
        _colour(names, hues)
        every = [one for all_of_it in played.sources.values() for one in all_of_it] + list(played.readers.values())
        self._last = max(
            tick for one in every for tick in (one.since, one.until or 0, *(told.tick for told in one.told))
        )

    def figure(self) -> Figure:
        sources = [lane for name in self._spec.cold for lane in self._cold(name)]
        sources += [self._hot(name) for name in self._spec.hot]
        readers = [self._reader(name, heard) for name, heard in self._played.readers.items()]
        times = [mark.at for lane in (*sources, *readers) for mark in lane.marks]
        return Figure(
            self._spec.title,
            [*sources, _shortened(self._spec.expression), *readers],
            since=min([0, *times]),
            until=max([self._last, *times]),
            legend=list(self._legend([*sources, *readers])),
            pitch=_PITCH,
        )

    def _cold(self, name: str) -> Iterator[Lane]:
        """One lane; more, where subscriptions are at the same time."""
        row = marks(self._spec.cold[name])
        lanes: list[list[Heard]] = []
        for heard in self._played.sources[name]:
            free = (lane for lane in lanes if lane[-1].until is not None and lane[-1].until <= heard.since)
            lane = next(free, None)
            if lane is None:
                lanes.append([heard])
            else:
                lane.append(heard)
        for lane in lanes:
            found: list[Mark] = []
            for number, heard in enumerate(lane):
                until = lane[number + 1].since if number + 1 < len(lane) else self._last + _UNHEARD
                for place, mark in enumerate(row):
                    at, unheard = heard.since + mark.tick, place >= len(heard.told)
                    if not unheard or at < until:
                        found.append(self._mark(at, mark.kind, mark.name, faint=unheard))
            spans = [Span(heard.since, heard.until) for heard in lane]
            yield Lane(name, found, spans, spans)
        if not lanes:
            yield Lane(name, [self._mark(mark.tick, mark.kind, mark.name, faint=True) for mark in row])

    def _hot(self, name: str) -> Lane:
        heard = self._played.sources[name]
        said = Counter[float]()
        found: list[Mark] = []
        for mark in marks(self._spec.hot[name], hot=True):
            said[mark.tick] += 1
            most = max((sum(told.tick == mark.tick for told in one.told) for one in heard), default=0)
            found.append(self._mark(mark.tick, mark.kind, mark.name, faint=said[mark.tick] > most))
        spans = [Span(one.since, one.until) for one in heard]
        return Lane(f"hot {name}", found, spans, spans)

    def _reader(self, name: str, heard: Heard) -> Lane:
        found = [self._mark(told.tick, told.kind, self._name(told)) for told in heard.told]
        span = Span(heard.since, heard.until)
        left = heard.until is not None and not any(told.kind != "value" for told in heard.told)
        return Lane(f"reader {name}".strip(), found, [span], [span] if name or left else [])

    def _name(self, told: Told) -> str:
        return self._played.sign(told).removeprefix("#(").removesuffix(")")

    def _mark(self, at: float, kind: str, name: str, *, faint: bool = False) -> Mark:
        if kind == "complete":
            return Mark(at, "end", faint=faint)
        if kind == "error":
            return Mark(at, "error", name.removeprefix("#"), faint=faint)
        return Mark(at, "marble", name, self._hues[name], faint=faint)

    def _legend(self, lanes: Sequence[Lane]) -> Iterator[tuple[Mark, str]]:
        """The names on the lanes, in the order of their appearance, and what they stand for."""
        seen: set[tuple[str, str]] = set()
        for mark in (mark for lane in lanes for mark in lane.marks):
            name = mark.sign or "#"
            if (mark.kind, name) not in seen and mark.kind != "end" and name in self._played.values:
                seen.add((mark.kind, name))
                yield Mark(0, mark.kind, mark.sign, mark.hue), describe(self._played.values[name], _SHORT)


def _colour(names: Sequence[str], hues: dict[str, int]) -> None:
    """Gives names that have none a hue: one that no other of them has, if there is one, and that fewest have at all."""
    for name in names:
        if name not in hues:
            near, far = {hues.get(other) for other in names}, Counter(hues.values())
            hues[name] = min(range(HUES), key=lambda hue: (hue in near, far[hue], hue))


def _shortened(expression: str) -> str:
    """The expression in one line; where that is long, without what the innermost functions in it do."""
    text = re.sub(r"(?<=[(\[{])\n\s*|\n\s*(?=[)\]}])", "", expression)
    text = re.sub(r"\s*\n\s*", " ", text)
    if len(text) <= _LONG:
        return text
    functions = [node for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.Lambda)]
    line = text.encode()  # the offsets are of bytes
    for body in sorted((function.body for function in functions), key=lambda body: -body.col_offset):
        if not any(isinstance(node, ast.Lambda) for node in ast.walk(body)):
            line = line[: body.col_offset] + "…".encode() + line[body.end_col_offset :]
    return line.decode()
