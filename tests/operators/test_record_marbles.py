from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import reactivex
from reactivex import Observable, operators as ops
from reactivex.testing import ReactiveTest, TestScheduler

from rxrouter import ChatChunk, StatusError, Usage
from rxrouter._wire.restarted import Restarted
from rxrouter.operators import record_marbles
from tests.operators.support import chunk, play, subscribed_scheduler

SVG = "{http://www.w3.org/2000/svg}"
ROLE, HEL, LO = chunk({"role": "assistant"}), chunk({"content": "Hel"}), chunk({"content": "lo"})
END = None


def texts(svg: str, kind: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter(f"{SVG}text") if e.get("class") == kind]


def strokes(svg: str) -> dict[str, int]:
    """How many strokes there are of each kind, without those of the legend."""
    drawn = [e for e in ET.fromstring(svg).iter(f"{SVG}path") if (e.get("class") or "").startswith("s ")]
    counts = [(e.get("class") or "", (e.get("d") or "").count("M")) for e in drawn]
    kinds = len({kind for kind, _ in counts})
    found: dict[str, int] = {}
    for kind, count in counts[: len(counts) - kinds]:
        found[kind] = found.get(kind, 0) + count
    return found


def drawn(*source: tuple[int, Any], disposed: int = 800) -> str:
    """The picture of a run."""
    pictures: list[str] = []
    play(record_marbles(pictures.append), *source, disposed=disposed)
    (picture,) = pictures
    return picture


def virtual(build: Callable[[TestScheduler], Observable[Any]]) -> None:
    scheduler = TestScheduler()
    scheduler.start(lambda: build(scheduler), disposed=1000)


def test_record_marbles_passes_every_value_through_untouched() -> None:
    source = [(1, ROLE), (2, HEL), (3, "text"), (4, 7), (5, END)]

    heard, subscription = play(record_marbles(lambda _: None), *source)

    assert heard == source
    assert all(told is sent for (_, told), (_, sent) in zip(heard, source, strict=True))
    assert subscription == (0, 5)


def test_a_picture_says_when_the_first_content_came_the_longest_gap_and_the_end() -> None:
    svg = drawn((1, ROLE), (3, HEL), (4, LO), (9, chunk(usage={"cost": 0.5})), (11, END))

    assert texts(svg, "t") == ["11.00 s: 4 values, complete"]
    (facts,) = texts(svg, "q")
    assert facts == "first content after 3.00 s · └─┘ longest gap 5.00 s · 4 values · complete after 11.00 s"


def test_the_axis_is_true() -> None:
    svg = drawn((1, HEL), (2, HEL), (6, HEL), (10, END))

    (path,) = [e.get("d") or "" for e in ET.fromstring(svg).iter(f"{SVG}path") if e.get("class") == "s h0 k"][:1]
    first, second, third = (float(x) for x in re.findall(r"M([\d.]+)", path))
    assert (third - second) / (second - first) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (ROLE, "no content"),
        (chunk({"content": "Hi"}), "text"),
        (chunk({"refusal": "no"}), "text"),
        ("Hi", "text"),
        (chunk({"reasoning": "hm"}), "reasoning"),
        (chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}), "reasoning"),
        (chunk({"tool_calls": [{"index": 0}]}), "tool call"),
        (chunk({"images": [{}]}), "media"),
        (chunk({"audio": {"data": "x"}}), "media"),
        (chunk({"annotations": [{}]}), "citation"),
        (chunk(usage={"cost": 1.0}), "usage"),
        (Usage(cost=1.0), "usage"),
        (7, "other value"),
    ],
)
def test_strokes_are_by_kind(value: Any, kind: str) -> None:
    assert texts(drawn((1, value), (2, END)), "v") == [kind]


def test_a_chunk_of_two_kinds_is_two_strokes() -> None:
    svg = drawn((1, chunk({"content": "o"}, usage={"cost": 1.0})), (2, END))

    assert texts(svg, "v") == ["text", "usage"]


def test_a_citation_is_no_first_content() -> None:
    svg = drawn((1, chunk({"annotations": [{}]})), (5, HEL), (6, END))

    assert "first content after 5.00 s" in texts(svg, "q")[0]


def test_an_error_is_told_by_its_name_alone() -> None:
    svg = drawn((1, HEL), (2, StatusError(502, message="a secret of the provider")))

    assert texts(svg, "t") == ["2.00 s: 1 value, StatusError"]
    assert "secret" not in svg


def test_no_text_of_the_answer_is_in_the_picture() -> None:
    assert "Zaphod" not in drawn((1, chunk({"content": "Zaphod", "reasoning": "Zaphod"})), (2, "Zaphod"), (3, END))


def test_a_reader_that_leaves_is_told_and_the_source_is_left_first() -> None:
    order: list[str] = []
    source = reactivex.never().pipe(ops.finally_action(lambda: order.append("left")))
    source.pipe(record_marbles(lambda svg: order.append(texts(svg, "t")[0]))).subscribe().dispose()

    assert order[0] == "left"
    assert order[1].endswith("0 values, left")


def test_a_run_is_written_once_however_it_ends() -> None:
    for ending in (END, ValueError("no")):
        pictures: list[str] = []
        play(record_marbles(pictures.append), (1, HEL), (2, ending))
        assert len(pictures) == 1

    pictures = []
    subscription = reactivex.never().pipe(record_marbles(pictures.append)).subscribe()
    subscription.dispose()
    subscription.dispose()
    assert len(pictures) == 1


def test_the_picture_is_there_when_the_reader_hears_the_end() -> None:
    order: list[str] = []

    reactivex.of(HEL).pipe(record_marbles(lambda _: order.append("written"))).subscribe(
        on_completed=lambda: order.append("heard")
    )

    assert order == ["written", "heard"]


def test_leaving_inside_of_a_value_is_an_ending() -> None:
    pictures: list[str] = []
    play(lambda source: source.pipe(record_marbles(pictures.append), ops.take(1)), (1, HEL), (2, LO), (3, END))

    assert [texts(svg, "t") for svg in pictures] == [["1.00 s: 1 value, left"]]


def test_each_attempt_below_a_retry_is_a_lane_on_one_axis() -> None:
    pictures: list[str] = []

    def attempts(scheduler: TestScheduler) -> Observable[Any]:
        failing = scheduler.create_cold_observable(
            ReactiveTest.on_next(2, HEL), ReactiveTest.on_error(5, StatusError(502))
        )
        return failing.pipe(record_marbles(pictures.append), ops.retry(3))

    virtual(attempts)

    assert [len(texts(svg, "n")) for svg in pictures] == [1, 2, 3]
    assert texts(pictures[-1], "n") == ["run 1", "run 2", "run 3"]
    assert texts(pictures[-1], "t") == ["15.00 s: 3 runs, the last with 1 value, StatusError"]
    lanes = [e.get("d") or "" for e in ET.fromstring(pictures[-1]).iter(f"{SVG}path") if e.get("class") == "l"]
    ends = [tuple(map(float, re.findall(r"M([\d.]+) .*H([\d.]+)", lane)[0])) for lane in lanes]
    assert [begin for begin, _ in ends[1:]] == [end for _, end in ends[:-1]]


def test_a_restart_begins_a_lane() -> None:
    svg = drawn((1, HEL), (3, Restarted(attempt=2)), (5, LO), (6, END))

    assert texts(svg, "n") == ["run 1", "run 2"]
    first, second = texts(svg, "q")
    assert first.endswith("1 value · restarted after 3.00 s")
    assert second == "first content after 2.00 s · 1 value · complete after 3.00 s"


def test_runs_at_the_same_time_are_written_when_the_last_one_ends() -> None:
    pictures: list[str] = []
    recorded = reactivex.never().pipe(record_marbles(pictures.append))

    first, second = recorded.subscribe(), recorded.subscribe()
    first.dispose()
    assert pictures == []
    second.dispose()

    assert [len(texts(svg, "n")) for svg in pictures] == [2]


def test_the_last_twelve_runs_are_kept() -> None:
    pictures: list[str] = []
    recorded = reactivex.of(HEL).pipe(record_marbles(pictures.append))
    for _ in range(40):
        recorded.subscribe()

    assert texts(pictures[-1], "n") == [f"run {number}" for number in range(29, 41)]
    assert "40 runs" in texts(pictures[-1], "t")[0]


def test_a_long_stream_takes_no_more_memory_and_no_more_picture_than_a_short_one() -> None:
    kinds = [HEL, chunk({"reasoning": "hm"}), chunk({"tool_calls": [{"index": 0}]}), chunk(usage={"cost": 1.0})]

    def size(values: int) -> int:
        pictures: list[str] = []
        scheduler = TestScheduler()
        clock = 0.0

        def subscribe(observer: Any, _: Any) -> Any:
            nonlocal clock
            for number in range(values):
                clock += 0.37
                scheduler.advance_to(clock)
                observer.on_next(kinds[number % 4])
            observer.on_completed()

        source: Observable[ChatChunk] = Observable(subscribe)
        source.pipe(record_marbles(pictures.append)).subscribe(scheduler=scheduler)
        assert f"{values} values" in texts(pictures[0], "q")[0]
        assert sum(strokes(pictures[0]).values()) <= 4 * 620
        return len(pictures[0])

    assert size(20_000) < 1.1 * size(5_000) < 45_000


def test_it_writes_the_file(tmp_path: Path) -> None:
    for to in (tmp_path / "a.svg", str(tmp_path / "b.svg")):
        play(record_marbles(to), (1, HEL), (2, END))

        assert ET.fromstring(Path(to).read_text(encoding="utf-8")).tag == f"{SVG}svg"


def test_what_can_not_be_written_is_logged_and_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError("no ink")

    for to in (tmp_path / "no" / "where.svg", refuse):
        with caplog.at_level(logging.WARNING, "rxrouter"):
            heard, _ = play(record_marbles(to), (1, HEL), (2, END))

        assert heard == [(1, HEL), (2, END)]
    assert [record.name for record in caplog.records] == ["rxrouter", "rxrouter"]
    assert "no ink" in caplog.text


def test_what_is_no_place_to_write_to_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError):
        record_marbles(5)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_record_marbles_without_a_scheduler_has_the_time_of_the_wall() -> None:
    pictures: list[str] = []
    reactivex.of(HEL).pipe(record_marbles(pictures.append)).subscribe()

    assert re.search(r"1 value · complete after \d+ ms", texts(pictures[0], "q")[0])


def test_record_marbles_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(record_marbles(lambda _: None))

    assert reached is given
