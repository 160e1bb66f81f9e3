"""Answer, without a server: bounds, threads, gates."""

from __future__ import annotations

import asyncio
import threading

import pytest
import reactivex
from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxrouter import ChatChunk, Restarted, StreamError
from rxrouter._gate import ReaderGate
from rxrouter.relay import NDJSON, Encoder, Explain, Failure, OpenAIChunks
from rxrouter.relay.answer import Answer
from rxrouter.relay.failure import unexplained
from tests.operators.support import chunk, finished
from tests.relay.support import Live, reported
from tests.support import until

WORD = finished({"content": "word "})
LARGE = chunk({"content": "w" * 10_000})


def answer(encoder: Encoder | None = None, explain: Explain = unexplained) -> Answer:
    return Answer(encoder or NDJSON(), explain=explain, keep_alive=60.0, after=None)


def start(reading: Answer, chunks: Observable[ChatChunk]) -> None:
    reading.start(lambda: chunks, lambda: None)


async def test_a_source_is_held_while_as_much_waits_as_a_socket_takes_and_let_go_when_it_is_taken() -> None:
    opened: list[None] = []
    gate = ReaderGate(lambda action: action(), lambda: opened.append(None))
    observers: list[abc.ObserverBase[ChatChunk]] = []

    def subscribe(observer: abc.ObserverBase[ChatChunk], _: object = None) -> abc.DisposableBase:
        gate.offer()
        observers.append(observer)
        return Disposable()

    reading = answer()
    start(reading, Observable(subscribe))
    count = 0
    while not gate.closed:
        observers[0].on_next(LARGE)
        count += 1
    assert count == 7  # of 10 KB: the first beyond 64 KB
    assert sum(map(len, reading.take())) > 70_000
    assert opened == [None]
    for _ in range(7):
        observers[0].on_next(LARGE)
    assert opened == [None]
    reading.leave()
    assert opened == [None, None]


async def test_a_source_that_cannot_wait_is_given_up_at_a_bound() -> None:
    live, reading = Live(), answer()
    start(reading, live)
    reading.open()
    waiting = 0
    while live.watched:
        live.on_next(LARGE)
        waiting += 1
    assert 400 < waiting < 450
    assert b'"code":503' in reading.take()[-1]


async def test_values_of_another_thread_arrive_in_order_and_before_the_end() -> None:
    reading, live = answer(), Live()
    start(reading, live)

    def speak() -> None:
        for number in range(1_000):
            live.on_next(finished({"content": f"{number} "}))
        live.on_completed()

    thread = threading.Thread(target=speak)
    thread.start()
    await until(lambda: reading.ended)
    thread.join()
    numbers = [line.partition(b'"content":"')[2].partition(b" ")[0] for line in reading.take()]
    assert numbers == [str(number).encode() for number in range(1_000)]


async def test_what_was_left_takes_nothing_more_and_can_be_left_again() -> None:
    live, reading = Live(), answer()
    start(reading, live)
    observer = live.observers[0]
    reading.leave()
    observer.on_next(WORD)
    observer.on_error(ValueError())
    reading.leave()
    assert reading.over
    assert reading.failure is None
    await reading.primed(60.0)


async def test_the_first_content_decides_and_what_has_none_does_not() -> None:
    live, reading = Live(), answer(OpenAIChunks())
    start(reading, live)
    deciding = asyncio.create_task(reading.primed(60.0))
    live.on_next(chunk({"role": "assistant", "content": ""}))
    live.on_next(chunk())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not deciding.done()
    live.on_next(WORD)
    await deciding
    live.on_error(StreamError(502))
    assert reading.failure is None
    reading.leave()


@pytest.mark.virtual
async def test_priming_ends_by_the_clock_and_silence_is_filled_by_the_clock() -> None:
    live, reading = Live(), answer()
    start(reading, live)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await reading.primed(10.0)
    assert loop.time() - began == 10.0
    reading.open()
    times: list[float] = []
    for _ in range(3):
        await until_there(reading)
        times.append(loop.time() - began)
        reading.take()
    assert times == [70.0, 130.0, 190.0]
    await asyncio.sleep(30)
    live.on_next(WORD)
    reading.take()
    await until_there(reading)
    assert loop.time() - began == 280.0
    reading.leave()


async def until_there(reading: Answer) -> None:
    while not reading.frames:  # noqa: ASYNC110 - virtual time
        await asyncio.sleep(1)


class Clumsy(NDJSON):
    """An encoder with a mistake."""

    def end(self) -> tuple[bytes, ...]:
        raise ValueError("no end")

    def error(self, failure: Failure) -> tuple[bytes, ...]:  # noqa: ARG002
        raise ValueError("no error")


@pytest.mark.parametrize("ending", [reactivex.empty(), reactivex.throw(StreamError(502))])
async def test_a_dialect_that_cannot_say_the_end_breaks_off_or_has_a_status_when_nothing_was_sent(
    ending: Observable[ChatChunk],
) -> None:
    errors = reported()
    early = answer(Clumsy())
    start(early, reactivex.concat(reactivex.of(WORD), ending))
    await until(lambda: early.ended)
    assert early.failure is not None
    assert early.failure.status == 500
    live, late = Live(), answer(Clumsy())
    start(late, reactivex.concat(live, ending))
    live.on_next(WORD)
    late.open()
    live.on_completed()
    await until(lambda: late.ended)
    assert late.broken
    assert late.failure is None
    assert list(map(type, errors)) == [ValueError] * 2


async def test_an_explanation_that_fails_is_the_sentence_of_its_kind() -> None:
    def explain(error: Exception) -> str | None:
        raise KeyError(error)

    errors = reported()
    reading = answer(explain=explain)
    start(reading, reactivex.throw(StreamError(429)))
    await until(lambda: reading.ended)
    assert reading.failure == Failure(429, "rate_limited", "Too many requests; try again a little later.")
    assert list(map(type, errors)) == [KeyError]


@pytest.mark.parametrize("opened", [False, True])
async def test_a_mistake_in_somebody_s_operator_is_told_to_the_loop_too(*, opened: bool) -> None:
    mistake, errors, live = AttributeError("no such"), reported(), Live()
    reading = answer()
    start(reading, live)
    if opened:
        reading.open()
    live.on_error(mistake)
    assert errors == [mistake]
    assert (b'"code":500' in b"".join(reading.frames)) is opened


async def test_answer_ends_when_the_subscribe_of_its_source_raises_a_base_exception() -> None:
    def subscribe(_: abc.ObserverBase[ChatChunk], __: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        raise asyncio.CancelledError

    errors = reported()
    reading = answer()
    start(reading, Observable(subscribe))

    assert reading.ended
    assert [type(error.__cause__) for error in errors] == [asyncio.CancelledError]


async def test_a_source_that_raises_when_it_is_left_is_left() -> None:
    mistake, errors, woken = OSError("file is closed"), reported(), list[None]()

    def dispose() -> None:
        raise mistake

    def never(*_: object) -> abc.DisposableBase:
        return Disposable(dispose)

    reading = answer()
    reading.start(lambda: Observable(never), lambda: woken.append(None))
    reading.leave()
    await reading.primed(60.0)
    assert reading.over
    assert woken == [None]
    assert errors == [mistake]


async def test_what_many_readers_are_told_keeps_none_of_them() -> None:
    cause = StreamError(502)
    reading = answer(OpenAIChunks())
    start(reading, reactivex.of(Restarted(attempt=2, cause=cause)))
    await until(lambda: reading.ended)
    assert reading.failure is not None
    assert cause.__traceback__ is None
