"""Who watches a chain is told of its POSTs, and of no others', however long the context lives."""
# pyright: reportPrivateUsage=false

from __future__ import annotations

import gc
from contextvars import copy_context

import pytest
from reactivex import operators as ops

from rxrouter import ChatChunk
from rxrouter._attempt import Attempt, _watchers, watching
from rxrouter.operators import Operator, budget, continue_from_partial, guard, hedge, meter, timeouts
from tests.support import served


class Watcher:
    def __init__(self) -> None:
        self.seen: list[Attempt] = []

    def see(self, attempt: Attempt) -> None:
        self.seen.append(attempt)


def test_all_who_watch_are_told_the_outermost_first() -> None:
    told: list[str] = []

    with watching(lambda _: told.append("outer")), watching(lambda _: told.append("inner")):
        Attempt().tell()
    Attempt().tell()

    assert told == ["outer", "inner"]


def test_who_is_held_is_told() -> None:
    watcher = Watcher()

    with watching(watcher.see):
        gc.collect()
        Attempt().tell()

    assert len(watcher.seen) == 1


def test_what_nobody_holds_is_neither_told_nor_kept() -> None:
    told: list[Attempt] = []
    watcher = Watcher()
    watcher.seen = told

    with watching(watcher.see):
        later = copy_context()
    del watcher
    gc.collect()

    def go_on() -> None:
        Attempt().tell()
        with watching(told.append):
            assert len(_watchers.get()) == 1

    later.run(go_on)
    assert told == []


WATCHING: dict[str, Operator[ChatChunk, ChatChunk]] = {
    "meter": meter(lambda _: None),
    "timeouts": timeouts(total=60),
    "budget": budget(tokens=10_000),
    "guard": guard(lambda _: None, hold_back=3),
    "hedge": hedge(delay=60),
    "continue_from_partial": continue_from_partial(),
}


@pytest.mark.parametrize("operator", WATCHING.values(), ids=WATCHING)
async def test_those_who_watched_what_was_repeated_are_gone(operator: Operator[ChatChunk, ChatChunk]) -> None:
    watchers: list[int] = []

    def look(_: Attempt) -> None:
        gc.collect()
        watchers.append(sum(watcher() is not None for watcher in _watchers.get()))

    async with served() as (client, _):
        with watching(look):
            chunks = client.chat("hi").pipe(operator, ops.repeat(12))
            await chunks.pipe(ops.to_list())

    assert len(watchers) == 12
    assert max(watchers) <= 4
