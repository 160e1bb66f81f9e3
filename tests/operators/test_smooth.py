from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from reactivex import Subject
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk
from rxrouter._wire.restarted import Restarted
from rxrouter.operators import smooth, text
from tests.operators.display import (
    NEVER,
    ROUNDING,
    Arrival,
    Clock,
    arrivals,
    assert_honest,
    assert_prompt,
    assert_same_answer,
    assert_silent_after_leaving,
    chunk_arrivals,
    gaps,
    show,
    timed,
)
from tests.operators.support import chunk, subscribed_scheduler
from tests.operators.test_coalesce import KINDS, saying, shown
from tests.source.test_backpressure import flooded, paused, words

LAG, FRAME = 0.25, 1 / 30
FAMILY = "👨\u200d👩\u200d👧\u200d👦"


# Arguments of tool calls are not for people, and never split.
@pytest.mark.parametrize("kind", KINDS[:3], ids=lambda kind: next(iter(kind)))
def test_smooth_paces_pieces_of_each_kind(kind: dict[str, Any]) -> None:
    clock, source, heard = TestScheduler(), Subject[ChatChunk](), list[Any]()
    source.pipe(smooth(lag=LAG, frame=FRAME)).subscribe(heard.append, scheduler=clock)

    source.on_next(saying(kind, "x" * 400))
    assert 0 < sum(map(len, shown(heard))) < 200
    clock.advance_by(0.3)

    assert len(shown(heard)) > 4
    assert "".join(shown(heard)) == "x" * 399  # the last cluster may still grow


paces = st.sampled_from([(0.25, 1 / 30), (0.06, 1 / 30), (1.0, 0.2), (0.1, 0.09)])
bursts = st.lists(st.integers(0, 400).map(lambda size: "x" * size), max_size=30).flatmap(timed)
hard = st.lists(st.sampled_from([FAMILY, "🇩🇪", "a", "क्षि", "\n"]), max_size=30).flatmap(timed)


@given(arrivals, paces)
def test_smooth_says_all_of_it_once_in_whole_clusters_and_ends_as_the_source_does(
    arrival: Arrival, pace: tuple[float, float]
) -> None:
    assert_honest(arrival, show(smooth(lag=pace[0], frame=pace[1]), arrival))


@example(Arrival([(0.0, f"{FAMILY}\n"), (0.01, "abc\n")], end=9.0), (LAG, FRAME))  # ahead by most of a long cluster
@given(arrivals | bursts | hard, paces)
def test_smooth_is_never_further_behind_than_its_lag(arrival: Arrival, pace: tuple[float, float]) -> None:
    assert_prompt(arrival, show(smooth(lag=pace[0], frame=pace[1]), arrival), pace[0])


@given(arrivals | bursts | hard, paces)
def test_smooth_emits_no_more_often_than_once_a_frame(arrival: Arrival, pace: tuple[float, float]) -> None:
    frames = [at for at, _ in show(smooth(lag=pace[0], frame=pace[1]), arrival).values if at < arrival.end]

    assert all(later - earlier > pace[1] - ROUNDING for earlier, later in pairwise(frames))


@given(arrivals, st.integers(1, 4), gaps)
def test_smooth_is_silent_after_it_was_left(arrival: Arrival, values: int, at: float) -> None:
    assert_silent_after_leaving(smooth(), arrival, values, at)


@given(chunk_arrivals, paces)
def test_smoothed_chunks_are_the_same_answer(arrival: Arrival, pace: tuple[float, float]) -> None:
    assert_same_answer(arrival, show(smooth(lag=pace[0], frame=pace[1]), arrival))


@given(bursts)
def test_smooth_has_a_timer_only_while_whole_clusters_wait(arrival: Arrival) -> None:
    shown = show(smooth(), arrival)

    for at in (timer.at for timer in shown.timers if timer.at < arrival.end):
        came = sum(len(value) for when, value in arrival.values if when <= at)
        said = sum(len(value) for when, value in shown.values if when <= at)
        assert came - said > 1  # the last may go on


@given(bursts, bursts)
def test_smooth_drops_what_was_not_shown_of_an_answer_that_begins_anew(first: Arrival, second: Arrival) -> None:
    restarted, restart_at = Restarted(attempt=2), round(first.end + 0.0005, 6)  # between what else happens
    values = [(at, chunk({"content": value})) for at, value in first.values]
    values.append((restart_at, restarted))
    values += [(restart_at + at, chunk({"content": value})) for at, value in second.values]

    shown = show(smooth(), Arrival(values, restart_at + second.end)).values

    unbroken = show(smooth(), Arrival(values[: len(first.values)])).values
    assert [at for at, value in shown if value is restarted] == [restart_at]
    assert _content(shown, before=restart_at) == _content(unbroken, before=restart_at)
    assert _content(shown) == _content(unbroken, before=restart_at) + second.text


def _content(values: list[tuple[float, ChatChunk]], before: float = NEVER) -> str:
    return "".join(part.delta.content or "" for at, value in values if at < before for part in value.choices)


def test_smooth_shows_a_burst_evenly() -> None:
    shown = show(smooth(), Arrival([(0.0, "x" * 66)], end=9.0)).values

    assert [len(value) for _, value in shown] == [11, 10, 10, 10, 10, 10, 4, 1]
    assert [at for at, _ in shown[:-1]] == pytest.approx([n * FRAME for n in range(7)], abs=ROUNDING)


def test_smooth_begins_at_once_when_nothing_waits() -> None:
    shown = show(smooth(), Arrival([(0.0, "ab"), (5.0, "cd")], end=9.0)).values

    assert shown == [(0.0, "a"), (5.0, "b"), (5.066666, "c"), (9.0, "d")]


def test_smooth_follows_a_steady_model_in_steady_steps() -> None:
    arrival = Arrival([(round(n * 0.05, 6), "word ") for n in range(200)], end=10.0)

    settled = [len(value) for at, value in show(smooth(), arrival).values if 1 < at < 9]

    assert set(settled) <= {3, 4}  # 100 characters a second at 30 frames


def test_smooth_of_one_huge_delta_shows_most_of_it_at_once() -> None:
    shown = show(smooth(), Arrival([(0.0, "x" * 100_000), (0.01, "y" * 10)], end=9.0)).values

    assert len(shown[0][1]) == 99_999
    assert sum(len(value) for at, value in shown if at <= LAG) == 100_009


def test_smooth_keeps_what_may_go_on_for_as_long_as_the_stream_is_silent() -> None:
    shown = show(smooth(), Arrival([(0.0, "e"), (100.0, "\u0301t")], end=200.0)).values

    assert shown == [(100.0, "é"), (200.0, "t")]


def test_smooth_has_no_timer_for_what_may_go_on() -> None:
    assert show(smooth(), Arrival([(0.0, "ab"), (0.01, "\u0301")], end=9.0)).timers == []


def test_smooth_passes_a_chunk_that_is_shown_whole_as_it_came() -> None:
    last = chunk({"content": "Hi"})

    assert show(smooth(), Arrival([(0.0, chunk({"content": "\n"})), (0.01, last)], end=0.02)).values[-1][1] is last


def test_smooth_of_nothing_is_nothing() -> None:
    shown = show(smooth(), Arrival([(0.0, ""), (1.0, "")], end=2.0))

    assert shown.values == []
    assert shown.timers == []


def test_smooth_keeps_the_order_when_a_value_makes_the_source_say_more() -> None:
    source, clock = Subject[str](), Clock()
    got: list[str] = []

    def on_next(value: str) -> None:
        got.append(value)
        if len(got) == 1:
            source.on_next("XYZ")

    source.pipe(smooth()).subscribe(on_next, scheduler=clock)
    source.on_next("abc")
    clock.start()
    source.on_completed()

    assert "".join(got) == "abcXYZ"


def test_smooth_hands_the_scheduler_up() -> None:
    given_scheduler, reached = subscribed_scheduler(smooth())

    assert reached is given_scheduler


@pytest.mark.parametrize(("lag", "frame"), [(0.25, 0.0), (0.1, 0.1), (-1.0, 0.1), (float("nan"), 0.1)])
def test_smooth_refuses_what_makes_no_sense(lag: float, frame: float) -> None:
    with pytest.raises(ValueError, match="frame"):
        smooth(lag=lag, frame=frame)


async def test_slow_reader_pauses_the_server_through_smooth() -> None:
    async with flooded() as (client, simulator):
        reader = client.chat("hi").pipe(text(), smooth()).iterate(high=8, low=2)

        first = await anext(reader)
        await paused(simulator.exchanges[0])
        rest = [value async for value in reader]

        assert "".join([first, *rest]) == "".join(words())
