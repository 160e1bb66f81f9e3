"""What the tests of coalesce, smooth and sentences share: text in many scripts, its arrival, and what is shown when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, TypeAlias, cast

import regex  # type: ignore[import-untyped] # its stubs are one more package
from hypothesis import strategies as st
from msgspec import Struct
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, ChatCompletion, Usage
from rxrouter._wire.chunk import (
    Choice,
    Delta,
    FunctionDelta,
    ToolCallDelta,
    kind_of,
    merge_key,
    text_and_structure,
    text_of,
)
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.graphemes import whole
from rxrouter._wire.restarted import Restarted

NEVER = 100_000.0
ROUNDING = 0.001  # seconds: of datetimes, many times over

Operator: TypeAlias = Callable[[Observable[Any]], Observable[Any]]

# Clusters of many characters, parts of such, and prose with what could be taken for the end of a sentence.
CLUSTERS = (
    *("e\u0301", "g\u0308\u0323", "👍🏽", "👨\u200d👩\u200d👧\u200d👦", "❤\ufe0f", "1\ufe0f\u20e3", "🇩🇪", "\r\n"),
    "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    *("\u1112\u1161\u11ab", "각\u11a8", "क्षि", "ক্ষ্ম", "நி", "กำ", "ห\u0e48", "\u0600\u0661", "カ\uff9e"),
)
PARTS = (
    *("\u0301", "\u200d", "\ufe0f", "\u20e3", "🏽", "🇩", "🇪", "🇫", "👩", "\u094d", "क", "\u1161", "\u11a8", "\u1100"),
    *("\u200b", "\u0600", "\u00ad", "\u0378", "\U0001fae9"),  # the last two: unassigned, newer than some Pythons
    *("\r", "\n", "\n\n", " ", "  ", "\t", "\u2028", "\u3000"),
)
PROSE = (
    *("Hello", " world", "a", "B", "é", "ß", "你好", "日本語", "한국어", "हाँ। ", "ไทย", "مرحبا؟ ", "🙂", "I"),
    *(". ", "! ", "? ", "... ", "…", '." ', ".) ", "。", "！", "」", "”", "\n- ", "\n1. ", "\n# ", "\na) "),
    *("Mr. ", "e.g. ", "3.14", "U.S. ", "No. 5", "v1.2", "J. "),
)
texts = st.lists(st.sampled_from(CLUSTERS + PARTS + PROSE) | st.characters(codec="utf-8"), max_size=24).map("".join)
gaps = st.sampled_from([0.0, 0.0, 0.001, 0.01, 0.02, 0.034, 0.05, 0.1, 0.25, 1.0, 7.0])
endings = st.none() | st.builds(ValueError, st.just("cut"))


class Arrival(Struct):
    """Values, each with the second when it comes; and when the end does, which is an error or None."""

    values: list[tuple[float, Any]]
    end: float = NEVER
    error: Exception | None = None

    @property
    def text(self) -> str:
        return "".join(value for _, value in self.values)


def _sums(waits: list[float]) -> list[float]:
    return [round(at, 6) for at in accumulate(waits)]


def timed(values: Sequence[Any]) -> st.SearchStrategy[Arrival]:
    """These values, at any pace, with any ending."""

    def arrival(at: list[float], error: Exception | None) -> Arrival:
        return Arrival([*zip(at, values, strict=False)], at[-1], error)

    times = st.lists(gaps, min_size=len(values) + 1, max_size=len(values) + 1).map(_sums)
    return st.builds(arrival, times, endings)


def cut(text: str) -> st.SearchStrategy[list[str]]:
    """The text in pieces, some of which may be empty."""
    cuts = st.lists(st.integers(0, len(text)), max_size=12).map(sorted)
    return cuts.map(lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)])


arrivals = texts.flatmap(cut).flatmap(timed)


class Timer(Struct):
    """One timer of an operator."""

    at: float
    alone: bool  # there was no other
    disposable: Any = None
    fired: float | None = None

    def over_by(self, time: float) -> bool:
        return self.disposable.is_disposed if self.fired is None else self.fired <= time


class Clock(TestScheduler):
    """Virtual time, from 0, that remembers the timers it was asked for."""

    def __init__(self) -> None:
        super().__init__(0.0)
        self.timers: list[Timer] = []

    @property
    def time(self) -> float:
        return self.to_seconds(self.now)

    def at(self, time: float, call: Callable[..., None], *arguments: Any) -> abc.DisposableBase:
        return self.schedule_absolute(time, lambda scheduler, state: call(*arguments))

    def schedule_relative(self, duetime: Any, action: Any, state: Any = None) -> abc.DisposableBase:
        timer = Timer(self.time, all(other.over_by(self.time) for other in self.timers))

        def fire(scheduler: abc.SchedulerBase, state: Any = None) -> Any:
            timer.fired = self.time
            return action(scheduler, state)

        self.timers.append(timer)
        timer.disposable = super().schedule_relative(duetime, fire, state)
        return cast(abc.DisposableBase, timer.disposable)


class Shown(Struct):
    """What an operator said, how it ended, when it left its source; and its timers."""

    values: list[tuple[float, Any]] = []
    endings: list[tuple[float, Exception | None]] = []
    left: list[float] = []
    timers: list[Timer] = []

    @property
    def text(self) -> str:
        return "".join(value for _, value in self.values)


def show(operator: Operator, arrival: Arrival, *, leave_at: float = NEVER, leave_with: int | None = None) -> Shown:
    """Plays an arrival to an operator; the reader leaves at a time, or inside `on_next`, with so many values."""
    clock = Clock()
    shown = Shown(timers=clock.timers)

    def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        said = [clock.at(at, observer.on_next, value) for at, value in arrival.values]
        if arrival.error is None:
            said.append(clock.at(arrival.end, observer.on_completed))
        else:
            said.append(clock.at(arrival.end, observer.on_error, arrival.error))
        return CompositeDisposable(*said, Disposable(lambda: shown.left.append(clock.time)))

    def on_next(value: Any) -> None:
        shown.values.append((clock.time, value))
        if len(shown.values) == leave_with:
            subscription.dispose()

    def on_end(error: Exception | None = None) -> None:
        shown.endings.append((clock.time, error))

    subscription = operator(Observable(subscribe)).subscribe(on_next, on_end, on_end, scheduler=clock)
    clock.at(leave_at, subscription.dispose)
    clock.start()
    return shown


def boundaries(text: str) -> set[int]:
    """Where another implementation of UAX #29 has clusters end."""
    return {match.end() for match in regex.finditer(r"\X", text)}


def assert_honest(arrival: Arrival, shown: Shown) -> None:
    """All text once, in order, in whole clusters; then one ending, which is the source's and comes when it does."""
    assert shown.text == arrival.text
    assert all(value for _, value in shown.values)
    assert set(accumulate(len(value) for _, value in shown.values)) <= boundaries(arrival.text)
    assert shown.endings == [(arrival.end, arrival.error)]
    assert all(at <= arrival.end for at, _ in shown.values)
    assert shown.left == [arrival.end]
    assert all(timer.alone and timer.over_by(arrival.end) for timer in shown.timers)


def assert_silent_after_leaving(operator: Operator, arrival: Arrival, values: int, at: float) -> None:
    """Left inside `on_next` or at any time, an operator leaves its source at once, stops its timer, and is silent."""
    whole = show(operator, arrival)
    inside = show(operator, arrival, leave_with=values)
    outside = show(operator, arrival, leave_at=at)

    if values <= len(whole.values):
        assert inside.values == whole.values[:values]
        assert inside.left == [inside.values[-1][0]]
        assert not inside.endings
    assert outside.values == whole.values[: len(outside.values)]
    assert (
        sum(when < at for when, _ in whole.values) <= len(outside.values) <= sum(when <= at for when, _ in whole.values)
    )
    assert outside.left == [min(at, arrival.end)]
    for shown in (inside, outside):
        assert all(timer.over_by(shown.left[0]) for timer in shown.timers)


def assert_prompt(arrival: Arrival, shown: Shown, seconds: float) -> None:
    """Every character is shown so many seconds after it was known to be in a whole cluster, or sooner."""
    known: list[float] = []
    text = ""
    for at, value in arrival.values:
        text += value
        known += [at] * (whole(text) - len(known))
    known += [arrival.end] * (len(text) - len(known))
    seen = [at for at, value in shown.values for _ in value]
    late = [(here, there) for here, there in zip(known, seen, strict=True) if there > here + seconds + ROUNDING]
    assert not late


def _chunk(index: int = 0, usage: Usage | None = None, finish: str | None = None, **delta: Any) -> ChatChunk:
    choice = Choice(index, Delta(**delta), finish)
    return ChatChunk(id="gen-1", model="a/b", created=5, usage=usage, choices=[choice])


def _thought(text: str) -> ChatChunk:
    return _chunk(reasoning=text, reasoning_details=[{"type": "reasoning.text", "text": text, "index": 0}])


def _summary(text: str) -> ChatChunk:
    return _chunk(reasoning_details=[{"type": "reasoning.summary", "summary": text, "index": 1}])


def _call(text: str) -> ChatChunk:
    return _chunk(tool_calls=[ToolCallDelta(0, function=FunctionDelta(arguments=text))])


chunks = st.one_of(
    texts.map(lambda text: _chunk(content=text)),
    texts.map(lambda text: _chunk(content=text)),
    texts.map(lambda text: _chunk(1, content=text, role="assistant")),
    texts.map(lambda text: _chunk(refusal=text)),
    texts.map(lambda text: _chunk(reasoning_content=text)),
    texts.map(lambda text: _chunk(content=text, finish="stop")),
    texts.map(_thought),
    texts.map(_summary),
    texts.map(_call),
    st.sampled_from([
        _chunk(),
        _chunk(role="assistant", content=""),
        _chunk(usage=Usage(total_tokens=3)),
        _chunk(annotations=[{"type": "url_citation"}]),
        _chunk(content="Hi", reasoning="hm"),
        _chunk(reasoning_details=[{"type": "reasoning.encrypted", "data": "x"}]),
        _chunk(tool_calls=[ToolCallDelta(0, "call_1", "function", FunctionDelta("wait"))]),
        Restarted(attempt=2),
    ]),
)  # fmt: skip
chunk_arrivals = st.lists(chunks, max_size=12).flatmap(timed)


def assert_same_answer(arrival: Arrival, shown: Shown) -> None:
    """Chunks that fold to the same; structure is passed at once, and in its place in the text."""
    came, left = [value for _, value in arrival.values], [value for _, value in shown.values]

    assert _folded(left) == _folded(came)
    assert _structure(shown) == _structure(arrival)
    assert _runs(_since_restart(left)) == _runs(_since_restart(came))
    assert all(timer.alone and timer.over_by(arrival.end) for timer in shown.timers)
    for run in _texts(left):
        assert set(accumulate(map(len, run))) <= boundaries("".join(run))


def _text(value: ChatChunk) -> str:
    """Empty for structure, which is what can't be joined or says nothing."""
    key = merge_key(value)
    return text_of(value, key) if key else ""


def _parts(value: ChatChunk) -> list[ChatChunk]:
    """A chunk, or its text and its structure, where it has both: which may leave one after the other."""
    kind = kind_of(value)
    if merge_key(value) is not None or kind is None or not text_of(value, kind):
        return [value]
    return [*text_and_structure(value, ChatChunk(id=value.id, model=value.model, created=value.created))]


def _structure(told: Arrival | Shown) -> list[tuple[float, ChatChunk]]:
    return [(at, part) for at, value in told.values for part in _parts(value) if not _text(part)]


def _kinds(values: list[ChatChunk]) -> Iterator[tuple[object, Iterator[ChatChunk]]]:
    """Runs of text of one kind, and structure."""
    parts = [part for value in values for part in _parts(value)]
    return groupby(parts, lambda part: merge_key(part) if _text(part) else id(part))


def _runs(values: list[ChatChunk]) -> list[tuple[object, str]]:
    """Structure, and between it the text of each kind."""
    return [(kind if isinstance(kind, tuple) else None, "".join(map(_text, run))) for kind, run in _kinds(values)]


def _texts(values: list[ChatChunk]) -> list[list[str]]:
    """How the text of each run is cut; arguments of tool calls are not for people."""
    return [
        [_text(part) for part in run]
        for kind, run in _kinds(values)
        if isinstance(kind, tuple) and kind[-1] != "tool_calls"
    ]


def _since_restart(values: list[ChatChunk]) -> list[ChatChunk]:
    restarts = [at for at, value in enumerate(values) if isinstance(value, Restarted)]
    return values[restarts[-1] :] if restarts else values


def _folded(values: Iterable[ChatChunk]) -> ChatCompletion:
    fold = CompletionFold()
    for value in values:
        fold.add(value)
    return fold.completion()
