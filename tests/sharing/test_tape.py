"""A tape, without a log: its first ending is its only one."""

from __future__ import annotations

import asyncio

import pytest
from reactivex import Observer

from rxrouter import ChatChunk, StreamError
from rxrouter._errors import ClientClosedError, RouterError
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators._fanout import FanoutReader
from rxrouter.sharing.tape import Tape
from tests.sharing.support import word


@pytest.mark.parametrize("second", [None, ClientClosedError("later")], ids=str)
@pytest.mark.parametrize("first", [None, StreamError(502)], ids=str)
async def test_a_tape_keeps_its_first_ending_when_it_is_ended_again(
    first: RouterError | None, second: RouterError | None
) -> None:
    over: list[RouterError | None] = []
    tape = Tape(on_over=lambda: over.append(tape.error))
    tape.on_next(word(1))

    tape.end(first)
    tape.end(second)

    assert over == [first]
    values, endings = list[ChatChunk](), list[Exception | None]()
    late = Observer[ChatChunk](values.append, endings.append, lambda: endings.append(None))
    tape.read(FanoutReader(late, LoopScheduler(asyncio.get_running_loop())), 0)
    assert (len(values), endings, tape.error) == (1, [first], first)
