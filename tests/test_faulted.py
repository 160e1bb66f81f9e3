"""Generations with random faults at random places, in virtual time: each ends once, with the exact text or an error."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import Callable

import pytest
from reactivex import operators as ops

from rxrouter import ChatChunk, ChatCompletion, Limiter, OpenRouter, Restarted, RetryPolicy, RouterError
from rxrouter.operators import completion, limit, retry_transient, timeouts
from rxrouter.operators._retry_policy import AfterContent
from rxrouter.testing import COMMENT, Act, Exchange, Reply, Simulator, Step, VirtualLoop, answer, chunk
from tests.support import Observed

TEXT = " ".join(f"{word}{at}" for at, word in enumerate(("once", "naïve", "流式", "🚀", "sea,\n\n", "words") * 4))
AFTER_CONTENT: list[AfterContent] = ["fail", "restart", "restart", "continue", "continue"]
COMMENTS: list[Step] = [COMMENT, 2.0] * 1_000  # longer than any clock here
AT_ONCE = 50

Fault = Callable[[random.Random, list[bytes]], Reply]


def paced(chance: random.Random, blocks: list[bytes], *end: Step) -> Reply:
    """The blocks with pauses between them that no clock minds, and then what ends them."""
    pauses = chance.choice([[0.0], [0.0, 1.0], [0.3, 4.0, 9.0]])
    return Reply([step for block in blocks for step in (chance.choice(pauses), block)] + list(end))


def offsets(body: bytes) -> list[list[int]]:
    """Where a body can be cut, by what is cut: comments, characters, the framing, the JSON, its last events."""
    done, finish = body.rindex(b"data: [DONE]"), body.rindex(b"data: {", 0, body.rindex(b"data: {"))
    return [
        list(range(len(COMMENT))),
        [at for at in range(1, len(body)) if body[at] & 0xC0 == 0x80],
        [at for at in range(1, len(body)) if body[at - 1 : at] == b"\n" or body[at : at + 1] == b"\n"],
        [at + n for at in range(len(body)) if body.startswith(b"data: ", at) for n in range(6)],
        list(range(1, finish)),
        list(range(finish, done)),
        list(range(done, len(body) + 1)),
    ]


def cut(chance: random.Random, events: list[bytes]) -> Reply:
    body = b"".join(events)
    at = chance.choice(chance.choice([places for places in offsets(body) if places]))
    blocks = [body[:at]] if chance.random() < 0.5 else re.split(rb"(?<=\n\n)", body[:at])
    return paced(chance, blocks, *chance.choice([(0.01, Act.CUT), (0.01, Act.RESET), ()]))


def some(chance: random.Random, events: list[bytes]) -> list[bytes]:
    return events[: chance.randrange(len(events))]


def late(chance: random.Random, events: list[bytes]) -> Reply:
    code = chance.choice([429, 502, 503])
    finish = chance.choice([None, "error"])
    return paced(chance, [*some(chance, events), chunk(finish=finish, error={"code": code, "message": "x"})])


def limited(chance: random.Random, _: list[bytes]) -> Reply:
    return Reply.error(429, "Rate limit exceeded", headers={"Retry-After": str(chance.choice([0, 1, 7, 30, 90]))})


FAULTS: dict[str, Fault] = {
    "cut": cut,
    "cut before the headers": lambda chance, _: Reply(before=[chance.choice([0.0, 3.0]), Act.CUT]),
    "429": limited,
    "502": lambda chance, _: Reply.error(chance.choice([500, 502, 503, 529]), "Provider returned error"),
    "late error": late,
    "stall": lambda chance, events: paced(chance, some(chance, events), Act.HANG),
    "stall before the headers": lambda _, __: Reply(before=[Act.HANG]),
    "comments only": lambda chance, events: paced(chance, some(chance, events), *COMMENTS),
    "empty": lambda chance, events: Reply(chance.choice([[], [COMMENT], [chunk({"content": ""})]])),
    "refused for good": lambda chance, _: Reply.error(chance.choice([400, 401, 402, 404]), "No"),
}


class Generation:
    """One answer: what the server does each time it is asked, what the reader wants, and what it gets."""

    def __init__(self, seed: int) -> None:
        self.chance = chance = random.Random(seed)
        self.policy = RetryPolicy(
            attempts=chance.randint(1, 8),
            after_content=chance.choice(AFTER_CONTENT),
            count_anew=chance.random() < 0.2,
            random=chance.random,
        )
        self.faults = [chance.choice(list(FAULTS)) for _ in range(chance.choice([0, 1, 1, 2, 2, 3, 5]))]
        self.leaves = chance.uniform(0, 60) if chance.random() < 0.1 else None  # after so many seconds
        self.asked = 0
        self.continued = False  # the server was sent the beginning of its answer
        self.text = ""  # as chunk by chunk it was shown
        self.marks = 0
        self.seen = Observed[ChatCompletion]()

    def reply(self, exchange: Exchange) -> Reply:
        last = exchange.json["messages"][-1]
        said = last["content"] if last["role"] == "assistant" else ""
        assert TEXT.startswith(said)
        self.continued |= bool(said)
        begin = len(said)
        if said and self.chance.random() < 0.5:  # an echo, from the beginning of some word
            begin = self.chance.choice([0, *(at for at in range(begin) if TEXT[at] == " ")])
        events = answer(TEXT[begin:], cost=0.001)
        self.asked += 1
        if self.asked <= len(self.faults):
            return FAULTS[self.faults[self.asked - 1]](self.chance, events)
        return paced(self.chance, events)

    def show(self, value: ChatChunk) -> None:
        if isinstance(value, Restarted):
            self.text = ""
            self.marks += 1
        for choice in value.choices:
            self.text += choice.delta.content or ""

    async def run(self, client: OpenRouter, limiter: Limiter, seed: str) -> None:
        chain = client.chat(seed).pipe(
            timeouts(first_content=20, content=10),
            limit(limiter),  # a permit for each attempt
            retry_transient(self.policy),
            ops.do_action(self.show),
            timeouts(total=900),
            completion(),
        )
        subscription = chain.subscribe(self.seen.on_next, self.seen.on_error, self.seen.on_completed)
        if self.leaves is None:
            await self.seen.over.wait()
        else:
            await asyncio.sleep(self.leaves)
            await subscription.aclose()

    def check(self) -> str:
        """How it ended, if it kept the promises."""
        endings = self.seen.endings
        if self.leaves is not None and not endings:
            assert self.seen.values == []
            assert TEXT.startswith(self.text)
            return "left"
        assert len(endings) == 1
        error = endings[0]
        assert self.asked <= self.policy.attempts or self.policy.count_anew
        assert not self.marks or self.policy.after_content == "restart"
        assert not self.continued or self.policy.after_content == "continue"
        if error is None:
            (whole,) = self.seen.values
            assert self.text == whole.text == TEXT
            return "restarted" if self.marks else "continued" if self.continued else "completed"
        assert isinstance(error, RouterError)
        assert self.seen.values == []
        assert TEXT.startswith(self.text)
        assert error.partial.text == self.text
        return "failed"


async def run_all(count: int) -> Counter[str]:
    """Runs so many, some at a time, and finds nothing left behind."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    timers = loop.timers
    endings = Counter[str]()
    limiter = Limiter(streams=20)
    for first in range(0, count, AT_ONCE):
        generations = {str(seed): Generation(seed) for seed in range(first, min(count, first + AT_ONCE))}

        def reply(exchange: Exchange, generations: dict[str, Generation] = generations) -> Reply:
            return generations[exchange.json["messages"][0]["content"]].reply(exchange)

        async with Simulator(reply) as simulator, OpenRouter(base_url=simulator.base_url) as client:
            await asyncio.gather(*(generation.run(client, limiter, seed) for seed, generation in generations.items()))
            assert [task for task in asyncio.all_tasks() if task.get_name() == "rxrouter request"] == []
            for exchange in simulator.exchanges:
                await exchange.over.wait()
        for seed, generation in generations.items():
            try:
                endings[generation.check()] += 1
            except AssertionError as error:
                raise AssertionError(f"seed {seed}: {generation.faults}, {generation.policy}: {error}") from error
        await asyncio.sleep(1)
        assert loop.connections == 0
        assert loop.timers == timers
        assert (limiter.running, limiter.waiting) == (0, 0)
    return endings


@pytest.mark.virtual
async def test_faulted_generations_end_once_and_say_what_is_true() -> None:
    endings = await run_all(200)

    assert min(endings[how] for how in ("completed", "restarted", "continued", "failed", "left")) > 5


@pytest.mark.virtual
@pytest.mark.long
async def test_ten_thousand_faulted_generations_end_once_and_say_what_is_true() -> None:
    endings = await run_all(10_000)

    assert endings.total() == 10_000
    assert min(endings[how] for how in ("completed", "restarted", "continued", "failed", "left")) > 300
