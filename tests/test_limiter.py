"""Limiter against a model of it that is too simple to be wrong, in virtual time; threads, loops and clocks."""

from __future__ import annotations

import contextvars
import gc
import json
import random
import sys
import threading
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import reactivex as rx
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from multidict import CIMultiDict
from reactivex import Observable, Observer, Subject, abc, operators as ops
from reactivex.disposable import Disposable
from reactivex.scheduler import ImmediateScheduler

from rxrouter import ChatChunk, Limiter, RouterError, StatusError, StreamError, Usage
from rxrouter._wire.failure import status_error
from rxrouter.operators import limit
from tests.operators.support import Clock, chunk, noting
from tests.support import SHARED, needs_shared

MINUTE = 60_000  # milliseconds, as all times here
WORD = chunk({"content": "word"})
EMPTY: Observable[ChatChunk] = rx.empty()


class Reader:
    """A subscriber of a source of its own; `starts` is written by the sources, with the time."""

    def __init__(self, play: Play, kind: str, tokens: int | None) -> None:
        self.number = len(play.readers)
        self.endings = 0
        self.open = False  # the source has a subscriber
        self.said = Subject[ChatChunk]()
        self._play = play
        self._kind = kind
        play.readers.append(self)
        chain = Observable(self._subscribe).pipe(limit(play.limiter, tokens=tokens))
        self.subscription = chain.subscribe(lambda _: None, self._end, self._end, scheduler=play.clock)

    def _subscribe(self, observer: abc.ObserverBase[ChatChunk], _: object = None) -> abc.DisposableBase:
        play = self._play
        play.starts.append((self.number, play.clock.ms))
        if self._kind == "raises":
            raise RuntimeError("no socket")
        self.open = True
        assert play.streams is None or sum(reader.open for reader in play.readers) <= play.streams
        if self._kind == "empty":
            self.close()
            observer.on_completed()
        subscription = self.said.subscribe(observer)

        def dispose() -> None:
            self.close()
            subscription.dispose()

        return Disposable(dispose)

    def close(self) -> None:
        self.open = False

    def finish(self) -> None:
        self.close()
        self.said.on_completed()

    def _end(self, error: Exception | None = None) -> None:
        self.endings += 1
        self._error = error  # and with it, by its traceback, whatever had part in it
        if self._kind == "again" and self.endings == 1:
            Reader(self._play, "stays", None)


class Play:
    """What is played: a limiter, its readers, and when their sources were started."""

    def __init__(self, streams: int | None, requests: int | None, tokens: int | None) -> None:
        self.streams = streams
        self.clock = Clock()
        self.limiter = Limiter(streams, requests_per_minute=requests, tokens_per_minute=tokens, tokens_per_request=10)
        self.readers = list[Reader]()
        self.starts = list[tuple[int, int]]()


class Model:
    """The same by the book: whoever is first in line starts at the first millisecond at which nothing forbids it."""

    def __init__(self, streams: int | None, requests: int | None, tokens: int | None) -> None:
        self.streams, self.requests, self.tokens = streams, requests, tokens
        self.now = 0
        self.paused_until = 0
        self.line = list[int]()
        self.running = dict[int, str]()
        self.starts = list[tuple[int, int]]()
        self.spent = dict[object, tuple[int, int]]()  # when, how many tokens
        self.readers = list[tuple[str, int]]()  # kind, tokens

    def subscribe(self, kind: str, tokens: int | None) -> None:
        self.line.append(len(self.readers))
        self.readers.append((kind, tokens or 10))
        self.go_on()

    def end(self, number: int, used: int | None = None, retry_after: int = 0) -> None:
        self.paused_until = max(self.paused_until, self.now + retry_after)
        if self.running.pop(number) == "again":
            self.line.append(len(self.readers))
            self.readers.append(("stays", 10))
        if used is not None:
            self.correct(number, used)
        self.go_on()

    def leave(self, number: int, used: int | None) -> None:
        if number in self.line:
            self.line.remove(number)
        if self.running.pop(number, None) and used is not None:
            self.correct(number, used)
        self.go_on()

    def correct(self, number: int, used: int) -> None:
        del self.spent[number]
        self.spent[object()] = self.now, used

    def pass_ms(self, ms: int) -> None:
        end = self.now + ms
        while (due := self.due()) is not None and due <= end:
            self.now = due
            self.go_on()
        self.now = end

    def go_on(self) -> None:
        while self.due() == self.now:
            number = self.line.pop(0)
            self.starts.append((number, self.now))
            kind, tokens = self.readers[number]
            self.spent[number] = self.now, tokens
            if kind in {"stays", "again"}:
                self.running[number] = kind

    def due(self) -> int | None:
        """When the first in line may start, as things are."""
        if not self.line or (self.streams is not None and len(self.running) >= self.streams):
            return None
        ends = [when + MINUTE for when, _ in self.spent.values()] + [when + MINUTE for _, when in self.starts]
        return min(
            when for when in {self.now, self.paused_until, *ends} if when >= self.now and self.may_start_at(when)
        )

    def may_start_at(self, when: int) -> bool:
        started = sum(at > when - MINUTE for _, at in self.starts)
        spent = sum(tokens for at, tokens in self.spent.values() if at > when - MINUTE)
        _, wanted = self.readers[self.line[0]]
        return (
            when >= self.paused_until
            and (self.requests is None or started < self.requests)
            and (self.tokens is None or spent + wanted <= self.tokens)
        )


class LimiterMachine(RuleBasedStateMachine):
    """What can happen to a limiter, happens to it and to the model; after each step they are compared."""

    @initialize(
        streams=st.none() | st.integers(1, 3),
        requests=st.none() | st.integers(1, 5),
        tokens=st.none() | st.integers(40, 100),
    )
    def begin(self, streams: int | None, requests: int | None, tokens: int | None) -> None:
        self.requests = requests
        self.play, self.model = Play(streams, requests, tokens), Model(streams, requests, tokens)

    @rule(
        kinds=st.lists(
            st.sampled_from(["stays", "stays", "stays", "again", "empty", "raises"]), min_size=1, max_size=2
        ),
        tokens=st.none() | st.integers(1, 40),
    )
    def subscribe(self, kinds: list[str], tokens: int | None) -> None:
        for kind in kinds:
            Reader(self.play, kind, tokens)
            self.model.subscribe(kind, tokens)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 9), how=st.sampled_from(["complete", "fail"]), used=st.none() | st.integers(0, 90))
    def end(self, which: int, how: str, used: int | None) -> None:
        number, said = self.running(which)
        usage = Usage(total_tokens=used) if used is not None else None
        if how == "fail":
            said.on_error(StreamError(502, usage=usage))
        else:
            said.on_next(ChatChunk(usage=usage))
            said.on_completed()
        self.model.end(number, used=used)

    @precondition(lambda self: self.model.running)
    @rule(kinds=st.lists(st.sampled_from(["stays", "empty"]), max_size=3))
    def end_all_and_subscribe(self, kinds: list[str]) -> None:
        for _ in range(len(self.model.running)):
            self.end(0, "complete", None)
        if kinds:
            self.subscribe(kinds, None)

    @precondition(lambda self: self.model.running)
    @rule(which=st.integers(0, 9), retry_after=st.integers(1, 100))
    def refuse(self, which: int, retry_after: int) -> None:
        number, said = self.running(which)
        said.on_error(StatusError(429, retry_after=retry_after))
        self.model.end(number, retry_after=retry_after * 1000)

    def running(self, which: int) -> tuple[int, Subject[ChatChunk]]:
        number = sorted(self.model.running)[which % len(self.model.running)]
        self.play.readers[number].close()
        return number, self.play.readers[number].said

    @precondition(lambda self: self.model.readers)
    @rule(which=st.integers(0, 30), used=st.none() | st.integers(0, 90))
    def leave(self, which: int, used: int | None) -> None:
        reader = self.play.readers[which % len(self.play.readers)]
        if used is not None and reader.open:
            reader.said.on_next(ChatChunk(usage=Usage(total_tokens=used)))
        self.model.leave(reader.number, used)
        reader.subscription.dispose()

    @rule(ms=st.sampled_from([1, 500, 10_000, 30_000, 59_999, 60_000, 61_000]))
    def pass_time(self, ms: int) -> None:
        self.play.clock.pass_ms(ms)
        self.model.pass_ms(ms)

    @precondition(lambda self: hasattr(self, "model"))
    @invariant()
    def is_as_the_model(self) -> None:
        self.pass_time(1)
        play, model = self.play, self.model
        assert play.starts == model.starts
        assert (play.limiter.running, play.limiter.waiting) == (len(model.running), len(model.line))
        assert len(play.clock.timers) == (model.due() is not None)
        assert all(reader.endings <= 1 for reader in play.readers)

    def teardown(self) -> None:
        if not hasattr(self, "play"):
            return
        starts = [at for _, at in self.play.starts]
        if self.requests is not None:
            assert all(
                later - earlier >= MINUTE for earlier, later in zip(starts, starts[self.requests :], strict=False)
            )
        for reader in reversed(self.play.readers):
            reader.subscription.dispose()
        limiter = self.play.limiter
        assert (limiter.running, limiter.waiting, len(self.play.clock.timers)) == (0, 0, 0)


TestLimiterIsAsItsModel = LimiterMachine.TestCase
TestLimiterIsAsItsModel.settings = settings(stateful_step_count=60)


def test_who_has_waited_starts_before_who_comes_in_the_moment_of_its_turn() -> None:
    play = Play(2, None, None)
    first, second, third = (Reader(play, "stays", None) for _ in range(3))

    first.finish()
    second.finish()
    late = Reader(play, "stays", None)
    play.clock.pass_ms(1)

    assert [number for number, _ in play.starts] == [first.number, second.number, third.number, late.number]


def test_a_long_row_that_ends_at_once_is_no_stack() -> None:
    limiter, clock, ended, row = Limiter(1), Clock(), list[int](), 2 * sys.getrecursionlimit()
    for number in range(row):
        EMPTY.pipe(limit(limiter)).subscribe(on_completed=partial(ended.append, number), scheduler=clock)

    clock.pass_ms(1)

    assert ended == [*range(row)]
    assert (limiter.running, limiter.waiting) == (0, 0)


def test_who_subscribes_again_in_its_ending_goes_behind_those_who_wait() -> None:
    play = Play(1, None, None)
    again, waiting = Reader(play, "again", None), Reader(play, "stays", None)

    again.finish()
    play.clock.pass_ms(1)
    assert play.limiter.running == play.limiter.waiting == 1
    waiting.finish()
    play.clock.pass_ms(1)

    assert [number for number, _ in play.starts] == [0, 1, 2]


@pytest.mark.parametrize("leaves", ["waiting", "about to start", "running"])
def test_a_permit_survives_whoever_leaves_twice_and_whenever(leaves: str) -> None:
    play = Play(1, None, None)
    first, second = Reader(play, "stays", None), Reader(play, "stays", None)
    if leaves != "waiting":
        first.finish()
    if leaves == "running":
        play.clock.pass_ms(1)

    second.subscription.dispose()
    second.subscription.dispose()
    first.subscription.dispose()

    assert (play.limiter.running, play.limiter.waiting) == (0, 0)
    assert second.number not in dict(play.starts) or leaves == "running"
    play.clock.pass_ms(1)
    Reader(play, "stays", None)
    assert play.starts[-1] == (2, play.clock.ms)


def test_a_reader_that_leaves_in_on_next_gives_its_permit_back() -> None:
    limiter = Limiter(1)

    rx.of(WORD, WORD).pipe(limit(limiter), ops.take(1)).subscribe()

    assert (limiter.running, limiter.waiting) == (0, 0)


def test_a_reader_that_raises_at_the_end_gives_its_permit_back() -> None:
    limiter, source = Limiter(1), Subject[ChatChunk]()

    def raising() -> None:
        raise ZeroDivisionError

    source.pipe(limit(limiter)).subscribe(on_completed=raising)
    with pytest.raises(ZeroDivisionError):
        source.on_completed()

    assert limiter.running == 0


def test_the_error_of_a_source_that_can_t_be_subscribed_is_told_also_who_had_to_wait() -> None:
    limiter, clock, told = Limiter(1), Clock(), list[Exception]()
    first = Subject[ChatChunk]()

    first.pipe(limit(limiter)).subscribe(scheduler=clock)
    NoLoop().pipe(limit(limiter)).subscribe(on_error=told.append, scheduler=clock)
    first.on_completed()
    clock.pass_ms(1)
    NoLoop().pipe(limit(limiter)).subscribe(on_error=told.append, scheduler=clock)

    assert [str(error) for error in told] == ["no loop", "no loop"]
    assert (limiter.running, limiter.waiting) == (0, 0)


class NoLoop(Observable[ChatChunk]):
    """As a client's whose loop is closed: it raises where it is subscribed."""

    def subscribe(self, *_: Any, **__: Any) -> abc.DisposableBase:
        raise RuntimeError("no loop")


def test_a_late_start_runs_in_the_context_of_its_own_subscriber() -> None:
    """Else the gate of its chain, and who watches it, would be those of the stream whose end let it in."""
    whose, seen = ContextVar("whose", default="nobody's"), list[str]()
    limiter, clock, first = Limiter(1), Clock(), Subject[ChatChunk]()

    def subscribe(name: str, source: Observable[ChatChunk]) -> None:
        whose.set(name)
        source.pipe(limit(limiter)).subscribe(scheduler=clock)

    contextvars.copy_context().run(subscribe, "the first's", first)
    contextvars.copy_context().run(subscribe, "its own", noting(lambda: seen.append(whose.get()), EMPTY))
    first.on_completed()
    clock.pass_ms(1)

    assert seen == ["its own"]


def test_a_chunk_that_says_what_was_used_so_far_counts_when_the_reader_leaves() -> None:
    play = Play(None, None, 100)
    reader = Reader(play, "stays", 10)
    for used in (20, 95):
        reader.said.on_next(ChatChunk(usage=Usage(total_tokens=used)))

    reader.subscription.dispose()
    Reader(play, "stays", 10)

    assert (play.limiter.running, play.limiter.waiting) == (0, 1)


def test_a_stream_without_usage_costs_its_estimate() -> None:
    play = Play(None, None, 100)
    first = Reader(play, "stays", 60)
    first.finish()
    Reader(play, "stays", 60)

    assert play.limiter.waiting == 1
    play.clock.pass_ms(MINUTE)
    assert play.limiter.waiting == 0


RECORDED = sorted((SHARED / "recordings" / "errors").glob("*429*.meta.json"))


@needs_shared
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.partition(".")[0])
def test_recorded_429s_pause_the_limiter_until_they_say(path: Path) -> None:
    now = 1759845400.0  # 20 s before the one that names a time
    facts = json.loads(path.read_text())
    body = path.with_name(path.name.replace(".meta", "")).read_bytes()
    error = status_error(429, CIMultiDict(facts["headers"]), body, now)
    pause = {"openrouter_429_free_models_per_min": 20_000, "azure_429_retry_after": 1000}.get(
        path.name.partition(".")[0], 0
    )
    play = Play(None, None, None)

    Reader(play, "stays", None).said.on_error(error)
    Reader(play, "stays", None)
    assert play.limiter.waiting == bool(pause)
    play.clock.pass_ms(120_000)

    assert play.starts == [(0, 0), (1, pause)]


@pytest.mark.parametrize(
    ("error", "pause"),
    [
        (StatusError(429, "RateLimitReached", retry_after=3), 3000),
        (StreamError(429, retry_after=3), 3000),
        (StreamError("rate_limited", error_type="rate_limit_exceeded", retry_after=3), 3000),
        (StatusError(429, retry_after=1e12), 86_400_000),
        (StatusError(429), 0),
        (StatusError(429, retry_after=0), 0),
        (StatusError(503, retry_after=3), 0),
        (RouterError(), 0),
        (ValueError("a callback raised"), 0),
    ],
    ids=[
        "code",
        "in the stream",
        "by its type",
        "for ever",
        "no pause",
        "no pause at all",
        "no 429",
        "other",
        "foreign",
    ],
)
def test_a_429_pauses_for_as_long_as_it_says_and_nothing_else_does(error: Exception, pause: int) -> None:
    play = Play(None, None, None)
    Reader(play, "stays", None).said.on_error(error)
    Reader(play, "stays", None)

    play.clock.pass_ms(86_400_001)

    assert play.starts == [(0, 0), (1, pause)]


def test_a_short_pause_does_not_cut_a_long_one_short() -> None:
    play = Play(None, None, None)
    readers = [Reader(play, "stays", None) for _ in range(2)]
    readers[0].said.on_error(StatusError(429, retry_after=9))
    readers[1].said.on_error(StatusError(429, retry_after=2))
    Reader(play, "stays", None)

    play.clock.pass_ms(10_000)

    assert play.starts[-1] == (2, 9000)


def test_one_clock_serves_all_while_somebody_is_inside_and_the_minute_survives_its_change() -> None:
    """Two loops' schedulers may be hours apart; one that stands still (its loop is closed) is not waited for."""
    stopped, later = Clock(), Clock()
    later.pass_ms(7_200_000)
    limiter, started = Limiter(requests_per_minute=1), list[int]()

    def source(clock: Clock) -> Observable[ChatChunk]:
        return noting(lambda: started.append(clock.ms), EMPTY)

    source(stopped).pipe(limit(limiter)).subscribe(scheduler=stopped)
    stopped.pass_ms(10_000)
    source(later).pipe(limit(limiter)).subscribe(scheduler=later)
    later.pass_ms(120_000)

    assert started == [0, 7_200_000 + 50_000]


def test_a_stream_that_nobody_can_end_any_more_has_no_permit() -> None:
    """As one on a loop that was closed under it."""
    limiter, clock, started = Limiter(1), Clock(), list[str]()
    Subject[ChatChunk]().pipe(limit(limiter)).subscribe(scheduler=clock)
    gc.collect()

    noting(lambda: started.append("next"), EMPTY).pipe(limit(limiter)).subscribe(scheduler=clock)

    assert started == ["next"]


def test_one_that_nobody_can_end_any_more_wakes_who_waits_for_its_permit() -> None:
    limiter, clock, started = Limiter(1), Clock(), list[str]()
    Subject[ChatChunk]().pipe(limit(limiter)).subscribe(scheduler=clock)
    noting(lambda: started.append("next"), EMPTY).pipe(limit(limiter)).subscribe(scheduler=clock)

    gc.collect()
    clock.pass_ms(1)

    assert started == ["next"]


class LoopClock(Clock):
    """The time of a loop that can be closed: what is scheduled then never runs."""

    closed = False


@pytest.mark.parametrize("dead", ["running", "about to start", "waiting"])
def test_who_is_on_a_loop_that_was_closed_is_in_nobody_s_way(dead: str) -> None:
    limiter, loop, clock, started = Limiter(1), LoopClock(), Clock(), list[str]()
    first, second = Subject[ChatChunk](), Subject[ChatChunk]()

    held = [
        source.pipe(limit(limiter)).subscribe(scheduler=scheduler)
        for source, scheduler in ((first, clock if dead == "waiting" else loop), (second, loop))
    ]
    if dead == "about to start":
        first.on_completed()
    loop.closed = True
    noting(lambda: started.append("next"), EMPTY).pipe(limit(limiter)).subscribe(scheduler=clock)
    first.on_completed()
    clock.pass_ms(1)

    assert started == ["next"]
    assert (limiter.running, limiter.waiting) == (0, 0)
    assert len(held) == 2
    noting(lambda: started.append("at once"), EMPTY).pipe(limit(limiter)).subscribe(scheduler=clock)
    assert started == ["next", "at once"]


def test_what_is_disposed_before_it_has_started_costs_nothing() -> None:
    play = Play(1, 2, 20)
    first, second = Reader(play, "stays", 10), Reader(play, "stays", 10)
    first.finish()

    second.subscription.dispose()
    Reader(play, "stays", 10)
    play.clock.pass_ms(1)

    assert [number for number, _ in play.starts] == [0, 2]


def test_a_permit_is_free_only_when_what_was_being_subscribed_is_closed() -> None:
    limiter, began, go_on, order = Limiter(1), threading.Event(), threading.Event(), list[str]()

    def slow(place: Any) -> abc.DisposableBase:
        places.append(place)
        began.set()
        go_on.wait()
        return Disposable(lambda: order.append(f"closed, {limiter.running} running"))

    def enter() -> None:
        limiter.enter(Observer[int](), slow, ImmediateScheduler())

    places = list[Any]()
    thread = threading.Thread(target=enter)
    thread.start()
    began.wait()
    places[0].dispose()
    assert limiter.running == 1
    go_on.set()
    thread.join()

    assert order == ["closed, 1 running"]
    assert limiter.running == 0


def test_a_request_is_never_estimated_at_more_than_a_minute_s_tokens() -> None:
    started = list[int]()
    limiter = Limiter(tokens_per_minute=500)
    for number in range(2):
        noting(partial(started.append, number), EMPTY).pipe(limit(limiter)).subscribe(scheduler=Clock())

    assert started == [0]


def test_permits_are_given_and_taken_by_many_threads() -> None:
    limiter = Limiter(3)
    most, running = 0, 0
    lock = threading.Lock()

    def subscribe(observer: abc.ObserverBase[int], _: object = None) -> abc.DisposableBase:
        nonlocal most, running
        with lock:
            running += 1
            most = max(most, running)

        def left() -> None:
            nonlocal running
            with lock:
                running -= 1

        return Disposable(left)

    def visit(seed: int) -> None:
        chance = random.Random(seed)
        chain = Observable(subscribe).pipe(limit(limiter))
        inside = list[abc.DisposableBase]()
        for _ in range(300):
            if chance.random() < 0.5 or not inside:
                inside.append(chain.subscribe(scheduler=ImmediateScheduler()))
            else:
                inside.pop(chance.randrange(len(inside))).dispose()
        for one in inside:
            one.dispose()

    threads = [threading.Thread(target=visit, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == 3
    assert (running, limiter.running, limiter.waiting) == (0, 0, 0)


def test_limits_that_are_none_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="streams is at least 1"):
        Limiter(0)
    with pytest.raises(TypeError, match="requests_per_minute is an integer"):
        Limiter(requests_per_minute="20")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="streams is an integer, or None, not bool"):
        Limiter(True)  # noqa: FBT003
    with pytest.raises(ValueError, match="a request of 1000 tokens can't start, with 500 tokens per minute"):
        Limiter(tokens_per_minute=500, tokens_per_request=1000)
    with pytest.raises(ValueError, match="tokens_per_request is at least 1"):
        Limiter(tokens_per_request=0)
    with pytest.raises(ValueError, match=r"^tokens is at least 1, or None, not 0"):
        limit(Limiter(), tokens=0)
    with pytest.raises(ValueError, match="a request of 600 tokens can't start"):
        limit(Limiter(tokens_per_minute=500, tokens_per_request=100), tokens=600)


def test_a_limiter_shows_how_it_stands() -> None:
    play = Play(1, None, None)
    for _ in range(3):
        Reader(play, "stays", None)

    assert repr(play.limiter) == "Limiter(running=1, waiting=2)"
