"""Leaving Rx: async for, for_each, await and run(), and what becomes of errors nobody takes."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterable, Callable
from typing import Any, TypeVar

import pytest
import reactivex
from reactivex import Observable, operators as ops
from reactivex.disposable import Disposable
from reactivex.internal import SequenceContainsNoElementsError
from reactivex.subject import Subject

from rxrouter import (
    ChatChunk,
    OpenRouter,
    StatusError,
    StreamError,
    TruncatedStreamError,
    for_each,
    iterate,
)
from rxrouter._queue import Overflow, Queue
from rxrouter.operators import completion, text, usage
from rxrouter.testing import STORY, Act, Reply, Simulator, answer, chunk, event
from tests.support import observe, served

T = TypeVar("T")

WORDS = ["Once ", "upon ", "a ", "time"]
SAID = tuple(chunk({"content": word}) for word in WORDS)
SILENT = Reply((*SAID, Act.HANG))
TRUNCATED = Reply(SAID)
EMPTY = Reply.of(answer(""))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of what has no event
            await asyncio.sleep(0.001)


async def left(simulator: Simulator) -> bool:
    """Waits for the end of the first exchange; says whether it was the client who ended it."""
    await until(lambda: bool(simulator.exchanges))
    await simulator.exchanges[0].over.wait()
    return simulator.exchanges[0].left_at is not None


async def all_of(values: AsyncIterable[T]) -> list[T]:
    return [value async for value in values]


class Disposals:
    """A source that counts who comes and who goes."""

    def __init__(self, source: Observable[Any]) -> None:
        self.subscribed = 0
        self.disposed = 0

        def subscribe(observer: Any, scheduler: Any = None) -> Disposable:
            self.subscribed += 1
            inner = source.subscribe(observer, scheduler=scheduler)

            def dispose() -> None:
                self.disposed += 1
                inner.dispose()

            return Disposable(dispose)

        self.source: Observable[Any] = Observable(subscribe)


# async for


async def test_iteration_sends_nothing_before_its_first_value_is_asked_for() -> None:
    async with served() as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        aiter(words)
        await client.chat("something else")
        assert len(simulator.exchanges) == 1

        assert await anext(words) == "Once"
        assert len(simulator.exchanges) == 2
        await words.aclose()


async def test_iteration_gives_every_value_in_order() -> None:
    async with served() as (client, simulator):
        assert "".join([word async for word in client.chat("hi").pipe(text())]) == STORY
        assert len(simulator.exchanges) == 1


async def test_each_async_for_over_a_stream_is_a_request_of_its_own() -> None:
    async with served() as (client, simulator):
        words = client.chat("hi").pipe(text())

        first = [word async for word in words]
        second = [word async for word in words]

        assert first == second
        assert len(simulator.exchanges) == 2


async def test_iteration_raises_the_error_after_the_values_before_it() -> None:
    async with served(TRUNCATED) as (client, _):
        words = client.chat("hi").pipe(text()).iterate()

        got = [await anext(words) for _ in WORDS]
        with pytest.raises(TruncatedStreamError) as caught:
            await anext(words)

        assert got == WORDS
        assert caught.value.chunks_seen == 4


async def test_iteration_raises_the_error_once_and_has_ended_then() -> None:
    async with served(TRUNCATED) as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        with pytest.raises(TruncatedStreamError):
            await all_of(words)

        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(words)
        assert len(simulator.exchanges) == 1


async def test_iteration_that_has_ended_stays_so() -> None:
    async with served() as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        assert "".join([word async for word in words]) == STORY

        for _ in range(3):
            with pytest.raises(StopAsyncIteration):
                await anext(words)
        assert [word async for word in words] == []
        assert len(simulator.exchanges) == 1


async def test_error_before_the_first_value_is_raised_by_the_first_step() -> None:
    async with served(Reply.error(404, "No endpoints found.")) as (client, _):
        with pytest.raises(StatusError):
            await anext(client.chat("hi").iterate())


async def test_values_that_wait_are_given_before_an_error_that_came_meanwhile() -> None:
    failing = Reply((*SAID, event({"error": {"message": "Overloaded", "code": 503}})))
    async with served(failing) as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        got = [await anext(words)]
        await left(simulator)
        waited = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, waited.set)
        await waited.wait()

        got += [await anext(words) for _ in WORDS[1:]]
        with pytest.raises(StreamError):
            await anext(words)

        assert got == WORDS


async def test_break_disposes() -> None:
    async with served(SILENT) as (client, simulator):
        async for word in client.chat("hi").pipe(text()):
            if word == "a ":
                break

        assert await left(simulator)


async def test_exception_in_the_body_disposes() -> None:
    async with served(SILENT) as (client, simulator):

        async def fail() -> None:
            async for _ in client.chat("hi").pipe(text()):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()

        assert await left(simulator)


async def test_return_from_the_body_disposes() -> None:
    async with served(SILENT) as (client, simulator):

        async def first_word() -> str:
            async for word in client.chat("hi").pipe(text()):
                return word
            return ""

        assert await first_word() == "Once "
        assert await left(simulator)


async def test_cancelling_the_reading_task_disposes() -> None:
    async with served(SILENT) as (client, simulator):
        got: list[str] = []

        async def read() -> None:
            async for word in client.chat("hi").pipe(text()):
                got.append(word)  # noqa: PERF401 - seen while it grows

        reading = asyncio.create_task(read())
        await until(lambda: got == WORDS)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        del reading

        assert await left(simulator)


async def test_time_limit_around_one_step_leaves_the_iteration_usable() -> None:
    subject = Subject[int]()
    numbers = iterate(subject)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(anext(numbers), 0.01)
    subject.on_next(1)
    subject.on_completed()

    assert await all_of(numbers) == [1]


async def test_aclose_disposes_and_returns_when_the_request_is_gone() -> None:
    async with served(SILENT) as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        await anext(words)

        await words.aclose()

        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]
        assert await left(simulator)
        await words.aclose()


async def test_aclose_before_the_first_value_sends_nothing() -> None:
    async with served() as (client, simulator):
        words = client.chat("hi").iterate()

        await words.aclose()

        assert not simulator.exchanges


@pytest.mark.parametrize("when", ["begun", "not begun"])
async def test_iteration_that_was_closed_has_ended(when: str) -> None:
    async with served(SILENT) as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        if when == "begun":
            await anext(words)
        await words.aclose()
        sent = len(simulator.exchanges)

        async with asyncio.timeout(2):
            rest = [word async for word in words]

        assert set(rest) <= set(WORDS)
        assert len(simulator.exchanges) == sent


async def test_closing_an_iteration_ends_the_step_that_another_task_waits_in() -> None:
    async with served(SILENT) as (client, _):
        words = client.chat("hi").pipe(text()).iterate()
        got: list[str] = []

        async def read() -> None:
            async for word in words:
                got.append(word)  # noqa: PERF401 - seen while it grows

        reading = asyncio.create_task(read())
        await until(lambda: got == WORDS)
        await words.aclose()
        done, _ = await asyncio.wait([reading], timeout=2)
        reading.cancel()

        assert done  # or it waits for ever


async def test_async_with_disposes_at_its_end() -> None:
    async with served(SILENT) as (client, simulator):
        async with client.chat("hi").pipe(text()).iterate() as words:
            assert await anext(words) == "Once "

        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]
        assert await left(simulator)


async def test_async_with_disposes_when_its_body_raises() -> None:
    async with served(SILENT) as (client, simulator):

        async def fail() -> None:
            async with client.chat("hi").pipe(text()).iterate() as words:
                await anext(words)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()

        assert await left(simulator)


async def test_iteration_has_one_reader() -> None:
    async with served(Reply((0.05, *SAID, chunk(finish="stop")))) as (client, _):
        words = client.chat("hi").pipe(text()).iterate()
        first = asyncio.create_task(anext(words))
        await asyncio.sleep(0)

        with pytest.raises(RuntimeError, match="one reader"):
            await anext(words)

        assert await first == "Once "
        assert [word async for word in words] == WORDS[1:]


async def test_iteration_that_is_dropped_disposes() -> None:
    async with served(SILENT) as (client, simulator):
        words = client.chat("hi").pipe(text()).iterate()
        await anext(words)
        gone = weakref.ref(words)

        del words

        assert gone() is None
        assert await left(simulator)


async def test_iterating_leaves_no_garbage_behind_that_only_a_collector_frees() -> None:
    gc.collect()
    gc.disable()
    try:
        source = Disposals(reactivex.concat(reactivex.from_iterable(range(3)), reactivex.never()))
        async for _ in iterate(source.source):
            break

        assert source.disposed == 1
    finally:
        gc.enable()


@pytest.mark.parametrize(("high", "low"), [(0, 0), (-1, 0), (4, 4), (4, 5), (4, -1)])
async def test_bounds_that_are_none_are_refused(high: int, low: int) -> None:
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
        iterate(reactivex.of(1), high=high, low=low)
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
        await for_each(reactivex.of(1), _nothing, high=high, low=low)


async def _nothing(value: object) -> None:
    pass


async def test_any_observable_is_iterated() -> None:
    assert [n async for n in iterate(reactivex.of(1, 2, 3))] == [1, 2, 3]
    assert [n async for n in iterate(reactivex.empty())] == []


async def test_any_observables_error_is_raised_after_its_values() -> None:
    numbers = iterate(reactivex.concat(reactivex.of(1, 2), reactivex.throw(KeyError("three"))))

    assert [await anext(numbers), await anext(numbers)] == [1, 2]
    with pytest.raises(KeyError, match="three"):
        await anext(numbers)


async def test_subject_that_is_fed_while_its_reader_waits_is_iterated() -> None:
    subject = Subject[int]()
    numbers = iterate(subject)
    first = asyncio.create_task(anext(numbers))
    await asyncio.sleep(0)

    subject.on_next(1)
    subject.on_next(2)
    subject.on_completed()

    assert await first == 1
    assert [n async for n in numbers] == [2]


async def test_reader_that_has_left_is_no_longer_fed() -> None:
    subject = Subject[int]()
    numbers = iterate(subject)
    first = asyncio.create_task(anext(numbers))
    await asyncio.sleep(0)
    subject.on_next(1)
    assert await first == 1

    await numbers.aclose()

    assert not subject.observers


# for_each


async def test_for_each_awaits_one_action_after_the_other() -> None:
    async with served(Reply((*SAID, chunk(finish="stop")))) as (client, _):
        log: list[str] = []

        async def action(word: str) -> None:
            log.append(f"begin {word}")
            for _ in range(3):
                await asyncio.sleep(0)
            log.append(f"end {word}")

        await client.chat("hi").pipe(text()).for_each(action)

        assert log == [f"{what} {word}" for word in WORDS for what in ("begin", "end")]


async def test_for_each_takes_any_observable() -> None:
    got: list[int] = []

    async def action(n: int) -> None:
        got.append(n)

    await for_each(reactivex.of(1, 2, 3), action)

    assert got == [1, 2, 3]


async def test_for_each_raises_the_sources_error_after_its_values() -> None:
    async with served(TRUNCATED) as (client, _):
        got: list[str] = []

        async def action(word: str) -> None:
            got.append(word)

        with pytest.raises(TruncatedStreamError):
            await client.chat("hi").pipe(text()).for_each(action)

        assert got == WORDS


async def test_action_that_raises_disposes_and_is_told() -> None:
    async with served(SILENT) as (client, simulator):
        got: list[str] = []

        async def action(word: str) -> None:
            got.append(word)
            if word == "upon ":
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await client.chat("hi").pipe(text()).for_each(action)

        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]
        assert got == ["Once ", "upon "]
        assert await left(simulator)


@pytest.mark.parametrize("where", ["in the action", "between two values", "before the first value"])
async def test_cancelling_for_each_disposes(where: str) -> None:
    reply = Reply(before=(Act.HANG,)) if where == "before the first value" else SILENT
    async with served(reply) as (client, simulator):
        got: list[str] = []

        async def action(word: str) -> None:
            got.append(word)
            if where == "in the action":
                await asyncio.Event().wait()

        running = asyncio.create_task(client.chat("hi").pipe(text()).for_each(action))
        if where == "in the action":
            await until(lambda: len(got) == 1)
        elif where == "between two values":
            await until(lambda: got == WORDS)
        else:
            await until(lambda: bool(simulator.exchanges))
        running.cancel()

        with pytest.raises(asyncio.CancelledError):
            await running
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"]
        assert await left(simulator)


# await


async def test_await_gives_the_last_value() -> None:
    async with served() as (client, _):
        assert await client.chat("hi").pipe(text()) == " end."
        assert (await client.chat("hi").pipe(completion())).text == STORY


async def test_await_sends_one_request_each_time() -> None:
    async with served() as (client, simulator):
        chunks = client.chat("hi")

        await chunks
        await chunks

        assert len(simulator.exchanges) == 2


async def test_await_raises_what_the_stream_ended_with() -> None:
    async with served(TRUNCATED) as (client, _):
        with pytest.raises(TruncatedStreamError):
            await client.chat("hi")


async def test_await_of_nothing_raises() -> None:
    async with served(EMPTY) as (client, _):
        with pytest.raises(SequenceContainsNoElementsError):
            await client.chat("hi").pipe(text())


async def test_await_works_behind_fluent_operators() -> None:
    async with served() as (client, _):
        last = await client.chat("hi").pipe(text()).map(str.upper).timeout(30.0)

        assert last == " END."


async def test_cancelling_an_await_disposes() -> None:
    async with served(SILENT) as (client, simulator):

        async def ask() -> ChatChunk:
            return await client.chat("hi")

        asking = asyncio.create_task(ask())
        await until(lambda: bool(simulator.exchanges))
        asking.cancel()

        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await left(simulator)


async def test_many_awaits_at_once_are_many_requests() -> None:
    async with served() as (client, simulator):

        async def ask() -> str:
            return (await client.chat("hi").pipe(completion())).text

        assert await asyncio.gather(*(ask() for _ in range(20))) == [STORY] * 20
        assert len(simulator.exchanges) == 20


# run()


def test_run_of_nothing_raises() -> None:
    with (
        Simulator(EMPTY) as simulator,
        OpenRouter("sk-test", base_url=simulator.base_url) as client,
        pytest.raises(SequenceContainsNoElementsError),
    ):
        client.chat("hi").pipe(text()).run()


def test_run_takes_rxpys_argument() -> None:
    with Simulator() as simulator, OpenRouter("sk-test", base_url=simulator.base_url) as client:
        spent = client.chat("hi").pipe(usage()).run(None)

    assert spent.prompt_tokens == 12


# What nobody takes


Faults = list[dict[str, Any]]


def collect_faults() -> Faults:
    faults: Faults = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    return faults


async def settle() -> None:
    """Lets everything that is still to be reported be reported."""
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)


CHAINS: dict[str, Callable[[Observable[Any]], Observable[Any]]] = {
    "nothing": ops.as_observable(),
    "operators": lambda source: source.pipe(text(), ops.map(str), ops.retry(1)),
    "share": ops.share(),
    "a timer": ops.delay(0.001),
}


@pytest.mark.parametrize("chain", CHAINS.values(), ids=[f"behind {name}" for name in CHAINS])
async def test_error_without_on_error_reaches_the_loops_handler_once(
    chain: Callable[[Observable[Any]], Observable[Any]],
) -> None:
    faults = collect_faults()
    async with served(TRUNCATED) as (client, simulator):
        client.chat("hi").pipe(chain).subscribe()
        await left(simulator)
        await until(lambda: bool(faults))
        await settle()

    assert [type(fault["exception"]) for fault in faults] == [TruncatedStreamError]


async def test_error_without_on_error_says_what_to_do() -> None:
    faults = collect_faults()
    async with served(TRUNCATED) as (client, _):
        client.chat("hi").subscribe()
        await until(lambda: bool(faults))

    assert "on_error" in faults[0]["message"]


async def test_on_completed_that_raises_reaches_the_loops_handler_once() -> None:
    faults = collect_faults()
    endings: list[Exception] = []

    def on_completed() -> None:
        raise ZeroDivisionError

    async with served() as (client, _):
        client.chat("hi").subscribe(on_error=endings.append, on_completed=on_completed)
        await until(lambda: bool(faults))
        await settle()
        await client.chat("the client goes on")

    assert [type(fault["exception"]) for fault in faults] == [ZeroDivisionError]
    assert not endings  # one ending, and that was the completion


async def test_on_error_that_raises_reaches_the_loops_handler_once() -> None:
    faults = collect_faults()
    told: list[Exception] = []

    def on_error(error: Exception) -> None:
        told.append(error)
        raise ZeroDivisionError

    async with served(TRUNCATED) as (client, _):
        client.chat("hi").subscribe(on_error=on_error)
        await until(lambda: bool(faults))
        await settle()

    assert [type(fault["exception"]) for fault in faults] == [ZeroDivisionError]
    assert [type(error) for error in told] == [TruncatedStreamError]


async def test_on_next_that_raises_is_its_own_chains_error() -> None:
    faults = collect_faults()
    told: list[Exception] = []

    def on_next(value: ChatChunk) -> None:
        raise ZeroDivisionError

    async with served(SILENT) as (client, simulator):
        client.chat("hi").subscribe(on_next, told.append)
        assert await left(simulator)
        await settle()

    assert [type(error) for error in told] == [ZeroDivisionError]
    assert not faults


async def test_on_next_that_raises_without_on_error_reaches_the_loops_handler_once() -> None:
    faults = collect_faults()

    def on_next(value: ChatChunk) -> None:
        raise ZeroDivisionError

    async with served(SILENT) as (client, simulator):
        client.chat("hi").subscribe(on_next)
        assert await left(simulator)
        await settle()

    assert [type(fault["exception"]) for fault in faults] == [ZeroDivisionError]


async def test_reader_that_was_told_its_error_reports_nothing_to_the_loop() -> None:
    faults = collect_faults()
    async with served(TRUNCATED) as (client, _):
        for _ in range(2):
            with pytest.raises(TruncatedStreamError):
                await client.chat("hi")
            with pytest.raises(TruncatedStreamError):
                await all_of(client.chat("hi"))
        await settle()

    assert not faults


BELOW_A_TIMER: dict[str, Callable[[Observable[ChatChunk]], Observable[Any]]] = {
    "delay": ops.delay(0.01),
    "buffer_with_time": lambda source: source.pipe(ops.buffer_with_time(0.01), ops.filter(bool)),
    "debounce": ops.debounce(0.001),
    "share": ops.share(),
    "retry": ops.retry(3),
}


@pytest.mark.parametrize("operator", BELOW_A_TIMER.values(), ids=BELOW_A_TIMER.keys())
async def test_a_reader_that_raises_is_told_so_once_whatever_is_in_between(
    operator: Callable[[Observable[ChatChunk]], Observable[Any]],
) -> None:
    mistake = ValueError("the reader's own")
    told: list[Exception] = []
    over = asyncio.Event()

    def on_next(_: object) -> None:
        raise mistake

    def on_error(error: Exception) -> None:
        told.append(error)
        over.set()

    async with served(Reply((*answer("Hi")[:-3], Act.HANG))) as (client, simulator):
        client.chat("hi").pipe(operator).subscribe(on_next, on_error)
        await over.wait()
        await simulator.exchanges[0].over.wait()

        assert told == [mistake]
        assert len(simulator.exchanges) == 1  # nobody pays for it again


async def test_a_reader_that_raises_leaves_its_siblings_alone() -> None:
    def raises(_: object) -> None:
        raise ValueError

    async with served(Reply.of(answer("Hi there"))) as (client, simulator):
        shared = client.chat("hi").pipe(text(), ops.share())
        told: list[Exception] = []
        good = asyncio.ensure_future(observe(shared))
        await asyncio.sleep(0)
        shared.subscribe(raises, told.append)

        assert (await good).values == ["Hi", " there"]
        assert [type(error) for error in told] == [ValueError]
        assert len(simulator.exchanges) == 1


async def test_a_reader_that_raises_has_one_ending_though_the_source_goes_on_at_once() -> None:
    def raises(_: object) -> None:
        raise ValueError("once")

    async with served(Reply.of(answer("Hi"))) as (client, _):
        seen: list[object] = []
        over = asyncio.Event()

        def note(what: object) -> None:
            seen.append(what)
            over.set()

        at_once = client.chat("hi").pipe(lambda _: reactivex.of(1, 2, 3))
        at_once.subscribe(raises, note, lambda: note(None))
        await over.wait()
        await asyncio.sleep(0)

        assert [str(what) for what in seen] == ["once"]


async def test_a_reader_that_raises_after_it_has_left_is_told_nothing_more() -> None:
    told: list[Exception] = []
    reported = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.set_result(context["exception"]))
    async with served(Reply.of(answer("Hi"))) as (client, _):

        def leaves_and_raises(_: object) -> None:
            subscription.dispose()
            raise ValueError("too late")

        subscription = client.chat("hi").subscribe(leaves_and_raises, told.append)

        assert str(await reported) == "too late"
        assert told == []


async def test_an_on_completed_that_raises_takes_no_siblings_ending_away() -> None:
    reported = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.set_result(context["exception"]))

    def raises() -> None:
        raise ValueError("at the end")

    async with served(Reply.of(answer("Hi"))) as (client, _):
        shared = client.chat("hi").pipe(text(), ops.share())
        shared.subscribe(lambda _: None, None, raises)

        assert (await observe(shared)).values == ["Hi"]
        assert str(await reported) == "at the end"


async def test_a_reader_that_was_given_up_takes_no_place_from_the_next() -> None:
    queue = Queue[str](10, 5, Overflow.PAUSE)

    async def read() -> list[str]:
        values: list[str] = []
        while not queue.ended or queue.items:
            if queue.items:
                values.append(queue.take())
            else:
                await queue.filled()
        return values

    given_up = asyncio.create_task(read())
    await asyncio.sleep(0)
    queue.on_next("1")
    given_up.cancel()
    assert queue.take() == "1"
    with pytest.raises(RuntimeError, match="one reader"):  # it has not left yet
        await queue.filled()
    await asyncio.wait([given_up])

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    queue.on_next("2")
    queue.on_completed()
    assert await reading == ["2"]
