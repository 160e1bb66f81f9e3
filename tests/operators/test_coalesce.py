from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st
from reactivex import Subject, abc
from reactivex.disposable import Disposable
from reactivex.scheduler import NewThreadScheduler, TimeoutScheduler
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, Choice, Delta
from rxrouter._wire.chunk import kind_of, text_of
from rxrouter.operators import coalesce, text
from tests.operators.display import (
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
)
from tests.operators.support import chunk, subscribed_scheduler
from tests.source.test_backpressure import flooded, paused, words

KINDS: list[dict[str, Any]] = [
    {"content": "TEXT"},
    {"reasoning": "TEXT"},
    {"refusal": "TEXT"},
    {"tool_calls": [{"index": 0, "function": {"arguments": "TEXT"}}]},
]


def saying(kind: dict[str, Any], text: str) -> ChatChunk:
    """A chunk that has this text as its one kind of content."""
    return chunk(msgspec.json.decode(msgspec.json.encode(kind).decode().replace("TEXT", text)))


def shown(chunks: list[Any]) -> list[str]:
    """What each chunk says, of whatever kind."""
    return [text_of(said, kind) for said in chunks if isinstance(said, ChatChunk) and (kind := kind_of(said))]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: next(iter(kind)))
def test_coalesce_joins_pieces_of_each_kind(kind: dict[str, Any]) -> None:
    clock, source, heard = TestScheduler(), Subject[ChatChunk](), list[Any]()
    source.pipe(coalesce(1.0, chars=8)).subscribe(heard.append, scheduler=clock)

    for line in ("ab\\n", "cd\\n", "ef\\n", "gh\\n"):
        source.on_next(saying(kind, line))

    assert shown(heard) == ["ab\ncd\nef\n"]
    clock.advance_by(1.001)
    assert shown(heard) == ["ab\ncd\nef\n", "gh\n"]


settings = st.tuples(st.sampled_from([0.0, 0.02, 0.05, 1.0]), st.sampled_from([1, 3, 1024]))


@given(arrivals, settings)
def test_coalesce_says_all_of_it_once_in_whole_clusters_and_ends_as_the_source_does(
    arrival: Arrival, setting: tuple[float, int]
) -> None:
    assert_honest(arrival, show(coalesce(*setting), arrival))


@given(arrivals, settings)
def test_coalesce_holds_a_whole_cluster_no_longer_than_its_seconds(
    arrival: Arrival, setting: tuple[float, int]
) -> None:
    assert_prompt(arrival, show(coalesce(*setting), arrival), setting[0])


@given(arrivals, settings, st.integers(1, 4), gaps)
def test_coalesce_is_silent_after_it_was_left(
    arrival: Arrival, setting: tuple[float, int], values: int, at: float
) -> None:
    assert_silent_after_leaving(coalesce(*setting), arrival, values, at)


@given(chunk_arrivals, settings)
def test_coalesced_chunks_are_the_same_answer(arrival: Arrival, setting: tuple[float, int]) -> None:
    assert_same_answer(arrival, show(coalesce(*setting), arrival))


@given(arrivals)
def test_coalesce_has_a_timer_for_deltas_and_none_for_what_may_go_on(arrival: Arrival) -> None:
    shown = show(coalesce(), arrival)

    assert {timer.at for timer in shown.timers} <= {at for at, value in arrival.values if value}


def test_coalesce_joins_what_comes_within_its_seconds_of_the_first() -> None:
    arrival = Arrival([(0.0, "a"), (0.02, "b"), (0.04, "c\n"), (0.06, "d\n")], end=9.0)

    assert show(coalesce(), arrival).values == [(0.05, "abc\n"), (0.11, "d\n")]


def test_coalesce_keeps_what_may_go_on_for_as_long_as_the_stream_is_silent() -> None:
    arrival = Arrival([(0.0, "e"), (100.0, "\u0301t"), (101.0, "é")], end=200.0)

    assert show(coalesce(), arrival).values == [(100.05, "e\u0301"), (101.05, "t"), (200.0, "é")]


def test_coalesce_emits_at_once_what_has_its_characters_and_then_waits_anew() -> None:
    arrival = Arrival([(0.0, "ab"), (0.01, "c\n"), (0.02, "d\n")], end=9.0)

    assert show(coalesce(0.05, 4), arrival).values == [(0.01, "abc\n"), (0.07, "d\n")]


def test_coalesce_passes_a_chunk_that_is_alone_as_it_came() -> None:
    line, last = chunk({"content": "Hi\n"}), chunk({"content": "Ho"})

    (_, first), (_, second) = show(coalesce(), Arrival([(0.0, line), (1.0, last)], end=1.01)).values

    assert first is line
    assert second is last


def test_coalesce_cuts_a_thought_in_two_that_say_no_word_twice() -> None:
    details = [{"type": "reasoning.text", "text": "Hm", "index": 0}]
    thought = chunk({"role": "assistant", "reasoning_content": "Hm", "reasoning_details": details})

    (_, first), (_, rest) = show(coalesce(), Arrival([(0.0, thought)], end=1.0)).values

    assert first.choices[0].delta == Delta(role="assistant", reasoning_content="H", reasoning_details=details)
    assert rest.choices[0].delta == Delta(reasoning_content="m")
    assert (first.id, rest.id) == (thought.id, thought.id)


def test_coalesce_of_nothing_is_nothing() -> None:
    assert show(coalesce(), Arrival([(0.0, ""), (1.0, "")], end=2.0)).values == []
    assert show(coalesce(), Arrival([(0.0, "")], end=2.0)).timers == []


def test_coalesce_keeps_the_order_when_a_value_makes_the_source_say_more() -> None:
    source, clock = Subject[str](), Clock()
    got: list[str] = []

    def on_next(value: str) -> None:
        got.append(value)
        if len(got) == 1:
            source.on_next("X")

    source.pipe(coalesce(9, 2)).subscribe(on_next, scheduler=clock)
    source.on_next("abc")
    source.on_completed()

    assert got == ["ab", "c", "X"]


def test_coalesce_keeps_kinds_apart_when_a_value_makes_the_source_say_more_of_another() -> None:
    source, clock = Subject[ChatChunk](), Clock()
    got: list[ChatChunk] = []
    thought, word, no = chunk({"reasoning": "Hm"}), chunk({"content": "Hi"}), chunk({"refusal": "No"})

    def on_next(value: ChatChunk) -> None:
        got.append(value)
        if value is thought:
            source.on_next(no)

    source.pipe(coalesce()).subscribe(on_next, scheduler=clock)
    source.on_next(thought)
    source.on_next(word)
    source.on_completed()

    assert got == [thought, word, no]


class Threaded(NewThreadScheduler):
    """Its timer runs out on whichever calls `fire`."""

    def schedule_relative(self, duetime: Any, action: Any, state: Any = None) -> abc.DisposableBase:  # noqa: ARG002 - RxPY's
        self.fire = partial(action, self, state)
        return Disposable()


@pytest.mark.parametrize("named", [True, False])
def test_coalesce_keeps_the_threads_of_a_scheduler_apart(monkeypatch: pytest.MonkeyPatch, *, named: bool) -> None:
    source, scheduler = Subject[str](), Threaded()
    monkeypatch.setattr(TimeoutScheduler, "singleton", lambda: scheduler)
    got: list[str] = []
    said: list[Future[None]] = []

    with ThreadPoolExecutor(1) as another:

        def on_next(value: str) -> None:
            got.append(value)
            if not said:
                said.append(another.submit(source.on_next, " world"))
                with pytest.raises(TimeoutError):
                    said[0].result(0.05)

        source.pipe(coalesce()).subscribe(on_next, scheduler=scheduler if named else None)
        source.on_next("Hello")
        scheduler.fire()
        said[0].result()
    source.on_completed()

    assert got == ["Hell", "o world"]


def test_coalesce_does_not_wait_for_another_subscriber_of_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source, scheduler = Subject[str](), Threaded()
    monkeypatch.setattr(TimeoutScheduler, "singleton", lambda: scheduler)
    source.pipe(coalesce()).subscribe()
    source.on_next("Hello")

    with ThreadPoolExecutor(1) as another, source.lock:  # as a sibling would hold it while its reader is slow
        another.submit(scheduler.fire).result(5)


def test_coalesce_hands_the_scheduler_up() -> None:
    given_scheduler, reached = subscribed_scheduler(coalesce())

    assert reached is given_scheduler


@pytest.mark.parametrize(("seconds", "chars"), [(-1, 1), (float("nan"), 1), (1, 0), (1, float("nan"))])
def test_coalesce_refuses_what_makes_no_sense(seconds: float, chars: Any) -> None:
    with pytest.raises(ValueError, match=r"seconds|chars"):
        coalesce(seconds, chars)


def test_coalesce_joins_chunks_that_have_their_second_each() -> None:
    values = [(n / 100, chunk({"content": piece}, created=n)) for n, piece in enumerate(("e", "\u0301", "!\n"), 1)]

    ((_, joined),) = show(coalesce(), Arrival(values, end=1.0)).values

    assert joined == chunk({"content": "e\u0301!\n"}, created=1)


def test_coalesce_gives_the_text_beside_structure_to_the_cluster_that_it_goes_on() -> None:
    last = msgspec.structs.replace(
        chunk({}), system_fingerprint="fp", choices=[Choice(0, Delta(content="\u0301x"), "stop")]
    )

    shown = show(coalesce(), Arrival([(0.0, chunk({"role": "assistant", "content": "e"})), (0.2, last)], end=1.0))

    assert [at for at, _ in shown.values] == [0.2, 0.2]
    said, end = (value for _, value in shown.values)
    assert said.choices == [Choice(0, Delta(role="assistant", content="e\u0301x"))]
    assert end == msgspec.structs.replace(last, choices=[Choice(0, Delta(), "stop")])


def test_coalesce_passes_text_beside_structure_as_it_came_where_nothing_of_its_kind_waits() -> None:
    last = msgspec.structs.replace(chunk({}), choices=[Choice(0, Delta(content="\u0301x"), "stop")])
    arrival = Arrival([(0.0, chunk({"reasoning": "e"})), (0.2, last)], end=1.0)

    assert show(coalesce(), arrival).values[-1][1] is last


def test_a_cluster_without_end_is_cut_so_that_little_is_held() -> None:
    arrival = Arrival([(float(at), "\u0301" * 8) for at in range(100)], end=100.0)

    shown = show(coalesce(), arrival)

    assert shown.text == arrival.text
    assert max(len(value) for _, value in shown.values) <= 64 + 8


async def test_slow_reader_pauses_the_server_through_coalesce() -> None:
    async with flooded() as (client, simulator):
        reader = client.chat("hi").pipe(text(), coalesce()).iterate(high=8, low=2)

        first = await anext(reader)
        await paused(simulator.exchanges[0])
        rest = [value async for value in reader]

        assert "".join([first, *rest]) == "".join(words())
