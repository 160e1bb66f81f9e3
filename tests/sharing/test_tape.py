"""A tape, without a log: its first ending is its only one."""

from __future__ import annotations

import asyncio

import pytest

from rxrouter import StreamError
from rxrouter._errors import ClientClosedError, RouterError
from rxrouter._source.loop import LoopScheduler
from rxrouter.operators._fanout import FanoutReader
from rxrouter.sharing.tape import Tape
from tests.sharing.support import word
from tests.support import Observed


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
    late = Observed[object]()
    tape.read(FanoutReader(late, LoopScheduler(asyncio.get_running_loop())), 0)
    await late.over.wait()
    assert (len(late.values), late.endings, tape.error) == (1, [first], first)
