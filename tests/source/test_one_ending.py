"""Every subscriber gets exactly one ending, whatever raises, in any callback of any operator, at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from reactivex import Observable, abc, operators as ops
from reactivex.disposable import Disposable

from rxrouter import ChatChunk, OpenRouter, RetryPolicy, iterate
from rxrouter.operators import completion, fallback, hedge, retry_transient, share_generation, text, timeouts
from rxrouter.sharing import Hub
from rxrouter.testing import Act, Reply, Simulator, answer
from tests.support import served, until

MOMENTS = ("subscribe", "next", "error", "completed", "dispose")


class Raised(Exception):  # noqa: N818 - it is what an operator raised
    """The mistake of an operator."""


class RaisedBase(BaseException):
    """The same from a library whose exceptions derive from BaseException, as those of pytest do."""


def raising(moment: str, kind: type[BaseException] = Raised) -> Callable[[Observable[Any]], Observable[Any]]:
    """An operator that passes everything on, and raises at one moment, before it has passed that on."""

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def at(name: str, action: Callable[..., object]) -> Callable[..., None]:
                def callback(*values: Any) -> None:
                    if moment == name:
                        raise kind(name)
                    action(*values)

                return callback

            if moment == "subscribe":
                raise kind("subscribe")
            subscription = source.subscribe(
                at("next", observer.on_next),
                at("error", observer.on_error),
                at("completed", observer.on_completed),
                scheduler=scheduler,
            )
            return Disposable(at("dispose", subscription.dispose))

        return Observable(subscribe)

    return operator


SOON = RetryPolicy(first_delay=0.001, jitter=0)

# The operators of this library between the source and the subscriber; the raising one stands above or below.
PLACES: dict[str, Callable[[Observable[ChatChunk]], Callable[[Observable[Any]], Observable[Any]]]] = {
    "nothing": lambda _: ops.map(lambda value: value),
    "retry": lambda _: retry_transient(SOON),
    "hedge": lambda other: hedge(other, delay=0.2),
    "fallback": fallback,
    "share": lambda _: share_generation(),
    "timeouts": lambda _: timeouts(total=60),
    "completion": lambda _: completion(),
    "flat_map": lambda other: ops.flat_map(lambda _: other),
    "concat": ops.concat,
    "merge": ops.merge,
    "delay": lambda _: ops.delay(0.001),
    "buffer": lambda _: ops.buffer_with_time(0.001),
    "take": lambda _: ops.take(1),
    "rx share": lambda _: ops.share(),
}


@asynccontextmanager
async def asking(*, well: bool) -> AsyncGenerator[tuple[OpenRouter, Simulator, list[Any]]]:
    """A client of a server whose answer ends well, or is cut; the loop's reports are collected."""
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    body = answer("one two three")
    async with (
        Simulator(Reply(body if well else body[:3])) as simulator,
        OpenRouter("sk-test", base_url=simulator.base_url) as client,
    ):
        yield client, simulator, reports


class Endings:
    """What one subscriber received."""

    def __init__(self, source: Observable[Any]) -> None:
        self.all: list[Exception | None] = []
        try:
            source.subscribe(lambda _: None, self.all.append, lambda: self.all.append(None))
        except Raised as raised:
            self.all.append(raised)

    async def over(self) -> None:
        await until(lambda: bool(self.all))


async def by_await(source: Observable[Any]) -> None:
    await source


async def by_async_for(source: Observable[Any]) -> None:
    async for _ in iterate(source):
        pass


async def by_run(source: Any) -> None:
    await asyncio.to_thread(source.run)


def _ignore(_: object) -> None:
    pass


WAYS = {"await": by_await, "async for": by_async_for, "run": by_run}


def chain_of(client: OpenRouter, place: str, moment: str, kind: type[BaseException], *, above: bool) -> Any:
    chat = client.chat("hi", model="m")
    between = PLACES[place](client.chat("again", model="m"))
    bad = raising(moment, kind)
    return chat.pipe(bad, between) if above else chat.pipe(between, bad)


@pytest.mark.parametrize("well", [True, False])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", PLACES)
async def test_subscriber_gets_one_ending_when_an_operator_raises(place: str, moment: str, *, well: bool) -> None:
    for above in (True, False):
        for kind in (Raised, RaisedBase):
            if moment == "subscribe" and kind is RaisedBase:
                # RxPY lets it pass to the caller of `subscribe`, which is this test.
                continue
            async with asking(well=well) as (client, simulator, _):
                seen = Endings(chain_of(client, place, moment, kind, above=above))
                await seen.over()
                for _ in range(20):
                    await asyncio.sleep(0)
                assert len(seen.all) == 1, (above, kind, seen.all)
                for exchange in simulator.exchanges:
                    await exchange.over.wait()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("place", PLACES)
async def test_waiting_ends_when_an_operator_raises(place: str, moment: str, way: str) -> None:
    for above in (True, False):
        async with asking(well=True) as (client, _, _reports):
            if way == "run":
                # `run()` waits on another thread than the loop's.
                client_loop_chain = chain_of(client, place, moment, Raised, above=above)
                client_loop_chain.subscribe(_ignore, _ignore).dispose()
            with_error = None
            try:
                await WAYS[way](chain_of(client, place, moment, Raised, above=above))
            except Exception as error:  # noqa: BLE001 - any error is an ending
                with_error = error
            assert moment in {"error", "dispose"} or with_error is not None or place in {"take", "hedge"}


async def test_subscriber_gets_an_error_when_an_operator_gets_values_of_another_kind() -> None:
    async with asking(well=True) as (client, _, _reports):
        seen = Endings(client.chat("hi", model="m").pipe(completion(), text()))  # pyright: ignore[reportArgumentType] # the mistake
        await seen.over()

    assert isinstance(seen.all[0], AttributeError)


@pytest.mark.parametrize("kind", [Raised, RaisedBase])
@pytest.mark.parametrize("moment", ["next", "completed", "dispose"])
async def test_other_readers_of_a_shared_answer_get_their_ending_when_a_chain_raises(
    moment: str, kind: type[BaseException]
) -> None:
    async with asking(well=True) as (client, simulator, _), Hub() as hub:
        shared = client.chat("hi", model="m").pipe(share_generation())
        for source in (shared, hub.start("k", client.chat("hub", model="m"))):
            before = Endings(source)
            bad = Endings(source.pipe(raising(moment, kind)))
            worse = Endings(source.pipe(ops.take(1), raising(moment, kind)))
            after = Endings(source)
            whole = await source.pipe(completion())
            for seen in (before, after, bad, worse):
                await seen.over()
                assert len(seen.all) == 1
            assert (before.all, after.all, whole.state) == ([None], [None], "complete")
        assert len(simulator.exchanges) == 2


@pytest.mark.parametrize("kind", [Raised, RaisedBase, asyncio.CancelledError])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_every_reader_gets_an_ending_when_an_operator_above_the_sharing_raises(
    moment: str, kind: type[BaseException]
) -> None:
    async with asking(well=True) as (client, _, _reports), Hub() as hub:
        for source in (
            client.chat("hi", model="m").pipe(raising(moment, kind), share_generation()),
            hub.start("k", client.chat("hub", model="m").pipe(raising(moment, kind))),
        ):
            readers = [Endings(source), Endings(source), Endings(source.pipe(completion()))]
            for seen in readers:
                await seen.over()
                assert len(seen.all) == 1
        assert (await hub.status("k")).state == ("completed" if moment in {"error", "dispose"} else "failed")


async def test_request_is_closed_when_disposing_its_chain_raises() -> None:
    reports: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with served(Reply([*answer("one two")[:2], Act.HANG])) as (client, simulator):
        subscription = client.chat("hi", model="m").pipe(raising("dispose")).subscribe(lambda _: None)
        await until(lambda: bool(simulator.exchanges))
        subscription.dispose()
        await simulator.exchanges[0].over.wait()

    assert [type(report["exception"]) for report in reports] == [Raised]


async def test_a_callback_that_raises_ends_its_own_chain_when_it_was_subscribed_in_a_callback_of_another() -> None:
    """The inner chain runs in the context of the outer one, but is not a part of it."""
    async with asking(well=True) as (client, _, reports):
        inner: list[Any] = []

        def fail() -> None:
            raise Raised

        def subscribe_once(_: Any) -> None:
            if not inner:
                inner.append(client.chat("inner", model="m").subscribe(lambda _: None, on_completed=fail))

        outer: list[Exception | None] = []
        client.chat("outer", model="m").subscribe(subscribe_once, outer.append, lambda: outer.append(None))
        await until(lambda: bool(outer) and bool(reports))

    assert outer == [None]
    assert [type(report["exception"]) for report in reports] == [Raised]


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("way", WAYS)
async def test_waiting_ends_by_an_error_when_a_function_raises_the_end_of_an_iterator(
    way: str, kind: type[Exception]
) -> None:
    def take_the_next(_: object) -> None:
        raise kind

    async with asking(well=True) as (client, _, reports):
        with pytest.raises(RuntimeError) as raised:
            await WAYS[way](client.chat("hi", model="m").pipe(ops.map(take_the_next)))

    assert isinstance(raised.value.__cause__, kind)
    assert reports == []


async def test_subscriber_gets_one_ending_when_an_answer_that_is_over_comes_at_once_and_disposing_raises() -> None:
    async with asking(well=True) as (client, _, reports):
        shared = client.chat("hi", model="m").pipe(share_generation())
        await shared
        seen = Endings(shared.pipe(ops.take(1), raising("dispose")))
        await seen.over()

    assert seen.all == [None]
    assert [type(report["exception"]) for report in reports] == [Raised]
