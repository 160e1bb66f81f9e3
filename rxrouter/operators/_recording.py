"""Runs as they were: which kinds of values came when, in bounded memory, and the picture of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from rxrouter._picture import Figure, Lane, Mark, Span, draw
from rxrouter._wire.chunk import ChatChunk, Usage

_EMPTY, _REASONING, _TEXT, _TOOL_CALL, _MEDIA, _CITATION, _USAGE, _OTHER = (1 << place for place in range(8))
_CONTENT = _REASONING | _TEXT | _TOOL_CALL | _MEDIA
_LEGEND = {  # in the order of drawing; the hue, and whether the stroke is short
    _EMPTY: ("no content", 7, True),
    _REASONING: ("reasoning", 3, False),
    _TEXT: ("text", 0, False),
    _TOOL_CALL: ("tool call", 1, False),
    _MEDIA: ("media", 5, False),
    _CITATION: ("citation", 6, False),
    _USAGE: ("usage", 2, False),
    _OTHER: ("other value", 4, False),
}
COMPLETE = "complete"  # the ending that is a good one
_MOMENTS = 1024  # of a run: more than a picture has pixels for it
_RUNS = 12  # that are kept and drawn, the last ones


class Run:
    """One subscription, or what came of it after a `Restarted`; times are seconds on the scheduler's clock."""

    __slots__ = ("_first_content", "_gap", "_kinds", "_last", "_rate", "began", "ended", "ending", "failed", "values")

    def __init__(self, began: float) -> None:
        self.began = began
        self.ended = began
        self.ending = ""
        self.failed = False
        self.values = 0
        self._kinds = [0] * _MOMENTS  # of the values in each moment; all moments double when there are too many
        self._rate = float(_MOMENTS)  # moments a second
        self._first_content: float | None = None
        self._last = began
        self._gap = (began, began)  # the longest without a value, after the first

    def add(self, value: object, now: float) -> None:
        """Takes note of a value."""
        kinds = _kinds_of(value)
        place = int((now - self.began) * self._rate)
        while place >= _MOMENTS:
            self._double_moments()
            place >>= 1
        self._kinds[max(place, 0)] |= kinds  # wall clocks step back
        if self.values and now - self._last > self._gap[1] - self._gap[0]:
            self._gap = (self._last, now)
        self.values += 1
        self._last = now
        if self._first_content is None and kinds & _CONTENT:
            self._first_content = now

    def end(self, ending: str, now: float, *, failed: bool = False) -> None:
        """Takes note of how it ended; it has one ending."""
        if not self.ending:
            self.ending, self.ended, self.failed = ending, now, failed

    def kinds(self) -> Iterator[tuple[float, int]]:
        """When something came, and of which kinds it was."""
        return ((self.began + place / self._rate, kinds) for place, kinds in enumerate(self._kinds) if kinds)

    def lane(self, name: str, zero: float) -> Lane:
        """What is drawn of it, on an axis that begins at `zero`."""
        marks = [
            Mark(at - zero, "stroke", hue=hue, faint=short)
            for kind, (_, hue, short) in _LEGEND.items()
            for at, kinds in self.kinds()
            if kinds & kind
        ]
        if self.failed or self.ending == COMPLETE:
            marks.append(Mark(self.ended - zero, "error" if self.failed else "end"))
        facts = [_counted(self.values), f"{self.ending} after {_seconds(self.ended - self.began)}"]
        if self._first_content is not None:
            facts.insert(0, f"first content after {_seconds(self._first_content - self.began)}")
        since, until = self._gap
        if until > since:
            facts.insert(1, f"└─┘ longest gap {_seconds(until - since)}")
        gap = [Span(since - zero, until - zero)] if until > since else []
        return Lane(name, marks, [Span(self.began - zero, self.ended - zero)], gap, text=" · ".join(facts))

    def _double_moments(self) -> None:
        kinds = self._kinds
        self._kinds = [one | other for one, other in zip(kinds[::2], kinds[1::2], strict=True)] + [0] * (_MOMENTS // 2)
        self._rate /= 2


class Recording:
    """The runs of one Observable, of which the last ones are kept."""

    def __init__(self) -> None:
        self._runs: deque[Run] = deque(maxlen=_RUNS)
        self._begun = 0

    def begin(self, now: float) -> Run:
        """A new lane."""
        self._begun += 1
        self._runs.append(run := Run(now))
        return run

    @property
    def over(self) -> bool:
        """Whether no run goes on."""
        return all(run.ending for run in self._runs)

    def picture(self) -> str:
        """The SVG of the runs."""
        runs = list(self._runs)
        zero = min(run.began for run in runs)
        first = self._begun - len(runs) + 1
        seen = 0
        for run in runs:
            for _, kinds in run.kinds():
                seen |= kinds
        until = max(run.ended for run in runs) - zero
        last = f"{_counted(runs[-1].values)}, {runs[-1].ending}"
        figure = Figure(
            f"{_seconds(until)}: {last}"
            if self._begun == 1
            else f"{_seconds(until)}: {self._begun} runs, the last with {last}",
            [run.lane(f"run {number}", zero) for number, run in enumerate(runs, first)],
            since=0.0,
            until=until,
            legend=[
                (Mark(0, "stroke", hue=hue, faint=short), name)
                for kind, (name, hue, short) in _LEGEND.items()
                if seen & kind
            ],
            step=0.001,
        )
        return draw("A stream as it came", [figure])


def _kinds_of(value: object) -> int:
    if not isinstance(value, ChatChunk):
        return _TEXT if isinstance(value, str) else _USAGE if isinstance(value, Usage) else _OTHER
    kinds = 0 if value.usage is None else _USAGE
    for choice in value.choices:
        delta = choice.delta
        if delta.content or delta.refusal:
            kinds |= _TEXT
        if delta.reasoning or delta.reasoning_content or delta.reasoning_details:
            kinds |= _REASONING
        if delta.tool_calls:
            kinds |= _TOOL_CALL
        if delta.images or delta.audio:
            kinds |= _MEDIA
        if delta.annotations:
            kinds |= _CITATION
    return kinds or _EMPTY


def _counted(values: int) -> str:
    return "1 value" if values == 1 else f"{values} values"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
