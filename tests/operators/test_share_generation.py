from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st
from reactivex import Observable, abc, operators as ops
from reactivex.disposable import Disposable
from reactivex.subject import Subject
from reactivex.testing import TestScheduler

from rxrouter import ChatChunk, Overflow, SlowReaderError, iterate
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import share_generation, text
from rxrouter.testing import Reply, answer
from tests.operators.support import chunk, play, subscribed_scheduler
from tests.strategies import answers
from tests.support import Observed, observe, served, until

# Many consumers of one answer; late ones get a snapshot or all, and the tail; the last one out cancels.


class Source:
    """A hot source that counts who subscribes and who leaves."""

    def __init__(self) -> None:
        self.subscribed = 0
        self.left = 0
        self.says: abc.ObserverBase[Any] = Subject[Any]()

    @property
    def observable(self) -> Observable[Any]:
        def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
            self.subscribed += 1
            self.says = observer
            return Disposable(self._leave)

        return Observable(subscribe)

    def _leave(self) -> None:
        self.left += 1


class Reader:
    """What one reader was told."""

    def __init__(self, shared: Observable[Any], on_next: Callable[[Any], object] = lambda _: None) -> None:
        self.values: list[Any] = []
        self.endings: list[Exception | None] = []

        def note(value: Any) -> None:
            self.values.append(value)
            on_next(value)

        self.subscription = shared.subscribe(note, self.endings.append, lambda: self.endings.append(None))


def test_readers_of_one_generation_share_one_subscription() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    readers = [Reader(shared) for _ in range(3)]

    source.says.on_next("a")
    source.says.on_completed()

    assert source.subscribed == 1
    assert [(reader.values, reader.endings) for reader in readers] == [(["a"], [None])] * 3


@pytest.mark.parametrize(
    ("replay", "late"), [("all", ["a", "b", "c"]), (2, ["b", "c"]), (0, []), (None, []), (9, ["a", "b", "c"])]
)
def test_a_late_reader_gets_what_it_missed_and_the_rest(replay: Any, late: list[str]) -> None:
    source = Source()
    shared = source.observable.pipe(share_generation(replay))
    early = Reader(shared)
    for value in "abc":
        source.says.on_next(value)

    reader = Reader(shared)
    source.says.on_next("d")
    source.says.on_completed()

    assert reader.values == [*late, "d"]
    assert early.values == list("abcd")
    assert reader.endings == [None]


@given(answers, st.data())
def test_a_late_reader_gets_a_snapshot_that_folds_as_all_before_it(
    chunks: list[ChatChunk], data: st.DataObject
) -> None:
    source = Source()
    shared = source.observable.pipe(share_generation("snapshot"))
    early = Reader(shared)
    at = data.draw(st.integers(0, len(chunks)))
    for one in chunks[:at]:
        source.says.on_next(one)

    late = Reader(shared)
    for one in chunks[at:]:
        source.says.on_next(one)

    assert early.values == chunks
    assert late.values[-len(chunks[at:]) or len(late.values) :] == chunks[at:]
    assert len(late.values) <= len(chunks[at:]) + 1
    assert folded(late.values) == folded(chunks)


def test_what_has_no_snapshot_is_told_to_all_and_closes_the_source() -> None:
    source = Source()
    readers = [Reader(source.observable.pipe(share_generation("snapshot")))]

    source.says.on_next("a text, and no chunk")

    assert [type(ending) for ending in readers[0].endings] == [TypeError]
    assert source.left == 1


def folded(chunks: list[ChatChunk]) -> Any:
    fold = CompletionFold()
    for one in chunks:
        fold.add(one)
    return fold.completion()


def test_a_reader_after_a_good_end_gets_all_of_it_and_costs_nothing() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    Reader(shared)
    source.says.on_next("a")
    source.says.on_completed()

    late = Reader(shared)

    assert (late.values, late.endings, source.subscribed) == (["a"], [None], 1)


def test_a_reader_after_a_failure_begins_a_new_generation() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    first = Reader(shared)
    source.says.on_next("a")
    source.says.on_error(ValueError("cut"))

    second = Reader(shared)
    source.says.on_next("b")

    assert [str(ending) for ending in first.endings] == ["cut"]
    assert (second.values, source.subscribed) == (["b"], 2)


def test_retry_below_begins_anew_within_on_error() -> None:
    source = Source()
    reader = Reader(source.observable.pipe(share_generation(), ops.retry(2)))

    source.says.on_next("a")
    source.says.on_error(ValueError("cut"))
    source.says.on_next("b")
    source.says.on_completed()

    assert (reader.values, reader.endings, source.subscribed) == (["a", "b"], [None], 2)


def test_the_last_reader_to_leave_closes_the_source() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    readers = [Reader(shared), Reader(shared)]

    readers[0].subscription.dispose()
    assert source.left == 0
    readers[1].subscription.dispose()
    readers[1].subscription.dispose()

    assert source.left == 1
    assert [reader.endings for reader in readers] == [[], []]


def test_coming_back_stops_the_clock_of_the_grace_and_staying_away_closes_the_source() -> None:
    scheduler, source = TestScheduler(), Source()
    shared = source.observable.pipe(share_generation(grace=5.0))
    shared.subscribe(scheduler=scheduler).dispose()

    scheduler.advance_to(4.9)
    assert source.left == 0
    back = shared.subscribe(scheduler=scheduler)
    scheduler.advance_to(20.0)
    assert (source.left, source.subscribed) == (0, 1)
    back.dispose()
    scheduler.advance_to(24.9)
    assert source.left == 0
    scheduler.advance_to(25.0)
    assert source.left == 1


def test_after_the_grace_the_next_reader_begins_a_new_generation_without_the_old_values() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    first = Reader(shared)
    source.says.on_next("a")
    first.subscription.dispose()

    second = Reader(shared)
    source.says.on_next("b")

    assert (second.values, source.subscribed) == (["b"], 2)


def test_a_reader_that_raises_is_told_and_detached_and_no_one_else() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    before, bad, after = Reader(shared), Reader(shared, lambda value: 1 / (value - 2)), Reader(shared)

    for value in (1, 2, 3):
        source.says.on_next(value)
    source.says.on_completed()

    assert (before.values, after.values) == ([1, 2, 3], [1, 2, 3])
    assert (before.endings, after.endings) == ([None], [None])
    assert bad.values == [1, 2]
    assert [type(ending) for ending in bad.endings] == [ZeroDivisionError]


def test_the_result_of_what_was_cancelled_is_a_readers_own_mistake() -> None:
    def wrong(_: object) -> None:
        raise asyncio.CancelledError  # no Exception: it would pass all who listen for one

    source = Source()
    shared = source.observable.pipe(share_generation())
    bad, good = Reader(shared, wrong), Reader(shared)
    source.says.on_next(1)
    late = Reader(shared, wrong)
    source.says.on_next(2)
    source.says.on_completed()

    assert (good.values, good.endings) == ([1, 2], [None])
    for reader in (bad, late):
        assert reader.values == [1]
        assert [str(error) for error in reader.endings] == ["a callback of a stream raised CancelledError"]


def test_a_source_that_can_not_be_subscribed_is_told_and_the_next_reader_tries_again() -> None:
    class Refusing(Observable[Any]):
        def subscribe(self, *_: Any, **__: Any) -> abc.DisposableBase:
            raise RuntimeError("the loop is closed")

    shared = Refusing().pipe(share_generation())

    for reader in (Reader(shared), Reader(shared)):
        assert [str(error) for error in reader.endings] == ["the loop is closed"]


def test_an_ending_handler_that_raises_keeps_the_ending_from_nobody() -> None:
    scheduler, source = TestScheduler(), Source()
    shared = source.observable.pipe(share_generation())

    def bad() -> None:
        raise ValueError("mine")

    shared.subscribe(on_completed=bad, scheduler=scheduler)
    after = Reader(shared)

    source.says.on_completed()

    assert after.endings == [None]
    with pytest.raises(ValueError, match="mine"):  # where RxPY reports what nobody handles
        scheduler.start()


def test_the_only_reader_that_raises_closes_the_source() -> None:
    source = Source()
    bad = Reader(source.observable.pipe(share_generation()), lambda _: 1 / 0)

    source.says.on_next(1)

    assert source.left == 1
    assert [type(ending) for ending in bad.endings] == [ZeroDivisionError]


def test_values_that_a_reader_causes_come_after_the_one_it_was_reading() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())

    def more(value: int) -> None:
        if value < 3:
            source.says.on_next(value + 1)

    readers = [Reader(shared, more), Reader(shared), Reader(shared)]

    source.says.on_next(0)

    assert [reader.values for reader in readers] == [[0, 1, 2, 3]] * 3


def test_one_who_joins_in_the_middle_of_a_value_gets_it_once() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    joined: list[Reader] = []

    def join(value: int) -> None:
        if not joined:
            source.says.on_next(value + 1)
            joined.append(Reader(shared))

    first = Reader(shared, join)
    source.says.on_next(1)

    assert first.values == [1, 2]
    assert joined[0].values == [1, 2]


def test_one_who_leaves_in_the_middle_of_a_value_gets_no_more() -> None:
    source = Source()
    shared = source.observable.pipe(share_generation())
    readers: list[Reader] = []
    readers.append(Reader(shared, lambda _: readers[1].subscription.dispose()))
    readers.append(Reader(shared))

    source.says.on_next("a")
    source.says.on_completed()

    assert (readers[1].values, readers[1].endings) == ([], [])
    assert readers[0].endings == [None]


async def test_one_request_serves_many_readers() -> None:
    async with served(Reply.of(answer("Hello there, all of you"))) as (client, simulator):
        shared = client.chat("hi").pipe(share_generation())

        seen = await asyncio.gather(*(observe(shared.pipe(text())) for _ in range(20)))

        assert len(simulator.exchanges) == 1
        assert {"".join(one.values) for one in seen} == {"Hello there, all of you"}


async def test_the_server_sees_the_last_reader_leave_and_not_the_one_before() -> None:
    async with served(Reply.of(answer("word " * 50), rate=100)) as (client, simulator):
        shared = client.chat("hi").pipe(share_generation())
        seen = [Observed[ChatChunk](), Observed[ChatChunk]()]
        subscriptions = [shared.subscribe(one.on_next, one.on_error, one.on_completed) for one in seen]
        await until(lambda: all(len(one.values) > 2 for one in seen))

        subscriptions[0].dispose()
        count = len(seen[1].values)
        await until(lambda: len(seen[1].values) > count + 2)
        assert simulator.exchanges[0].left_at is None
        subscriptions[1].dispose()

        await simulator.exchanges[0].over.wait()
        assert simulator.exchanges[0].left_at is not None


@pytest.mark.parametrize("overflow", [Overflow.COALESCE, Overflow.ERROR, Overflow.DROP_OLDEST, Overflow.LATEST])
async def test_a_reader_that_sleeps_harms_nobody_and_holds_its_bound(overflow: Overflow) -> None:
    words = " ".join(str(number) for number in range(3000))
    async with served(Reply.of(answer(words))) as (client, _):
        shared = client.chat("hi").pipe(text(), share_generation(None, high=50, overflow=overflow))
        sleeper = iterate(shared, high=10, low=2)
        first = await anext(sleeper)
        other = await observe(shared)

        assert "".join(other.values)  # all that came after it had joined; nobody waited for the sleeper
        rest: list[str] = []
        try:
            async for value in sleeper:
                rest.append(value)  # noqa: PERF401 - what came before the error counts
        except SlowReaderError:
            assert overflow is Overflow.ERROR
        if overflow is Overflow.COALESCE:
            assert first + "".join(rest) == words
            assert len(rest) < 100
        else:
            assert len(rest) <= 10 + 50 + 2


async def test_pause_makes_all_wait_for_the_slowest() -> None:
    words = "a word " * 20_000
    async with served(Reply.of(answer(words))) as (client, _):
        shared = client.chat("hi").pipe(text(), share_generation(None, high=20, overflow=Overflow.PAUSE))
        fast: list[str] = []
        shared.subscribe(fast.append)
        slow: list[str] = []
        behind = 0

        async for value in iterate(shared, high=10, low=2):
            slow.append(value)
            behind = max(behind, len(fast) - len(slow))
            if len(slow) % 50 == 0:
                await asyncio.sleep(0)

        assert "".join(slow) == "".join(fast) == words
        assert behind < 20_000  # one read's worth, not the answer


async def test_readers_on_other_threads_join_on_the_loop() -> None:
    async with served(Reply.of(answer("Hello there"), rate=200)) as (client, simulator):
        shared = client.chat("hi").pipe(share_generation(), text())
        here = asyncio.ensure_future(observe(shared))
        await until(lambda: bool(simulator.exchanges))

        there = await asyncio.gather(*(asyncio.to_thread(lambda: shared.pipe(ops.to_list()).run()) for _ in range(4)))

        assert {"".join(words) for words in there} == {"Hello there"}
        assert "".join((await here).values) == "Hello there"
        assert len(simulator.exchanges) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_readers_do_no_sibling_loses_or_repeats_a_value(seed: int) -> None:
    chance, source = random.Random(seed), Source()
    shared = source.observable.pipe(share_generation(overflow=Overflow.ERROR))
    steady = Reader(shared)
    others: list[Reader] = []

    def misbehave(value: int) -> None:
        match chance.randrange(12):
            case 0:
                raise ValueError
            case 1 if others:
                chance.choice(others).subscription.dispose()
            case 2 if len(others) < 50:
                others.append(Reader(shared, misbehave))
            case 3:
                late.append(Reader(shared))
            case _:
                pass

    late: list[Reader] = []
    others.append(Reader(shared, misbehave))
    for value in range(200):
        source.says.on_next(value)
        if chance.random() < 0.2:
            others.append(Reader(shared, misbehave))
    source.says.on_completed()

    assert steady.values == list(range(200))
    for reader in late:
        assert (reader.values, reader.endings) == (list(range(200)), [None])
    for reader in others:
        assert reader.values == list(range(len(reader.values)))
        assert len(reader.endings) <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"replay": "some"}, "replay is"),
        ({"replay": -1}, "replay is"),
        ({"replay": True}, "replay is"),
        ({"replay": []}, "replay is"),
        ({"high": 0}, "high is"),
        ({"grace": -1}, "grace is"),
        ({"grace": float("nan")}, "grace is"),
    ],
)
def test_bad_arguments_are_refused_where_they_are_written(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        share_generation(**arguments)


def test_share_generation_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(share_generation(), (1, chunk({"content": "a"})), (2, error))[0][-1] == (2, error)


def test_share_generation_hands_the_scheduler_up() -> None:
    given_one, reached = subscribed_scheduler(share_generation())

    assert reached is given_one
