"""Several streams at once, under a limit.

Prints:
    5 answers, never more than 2 streams at once
"""

import asyncio

import reactivex as rx
from reactivex import operators as ops

from rxrouter import ChatCompletion, OpenRouter, iterate
from rxrouter.operators import completion
from rxrouter.testing import Exchange, Reply, Simulator, answer

PROMPTS = ["a haiku", "a limerick", "a sonnet", "an ode", "a ballad"]


async def main() -> None:
    """Asks for five poems; `merge` subscribes, and so sends, the next when one has completed."""
    most = 0

    def count(_: Exchange) -> Reply:
        nonlocal most
        most = max(most, sum(not exchange.over.is_set() for exchange in offline.exchanges))
        return Reply.of(answer("Roses are red"), rate=500)

    async with Simulator(count) as offline, OpenRouter(base_url=offline.base_url) as client:
        poems = rx.from_iterable([client.chat(prompt).pipe(completion()) for prompt in PROMPTS])
        answers: list[ChatCompletion] = [
            whole async for whole in iterate(poems.pipe(ops.merge(max_concurrent=2)), high=16, low=4)
        ]
        assert all(whole.text == "Roses are red" for whole in answers)
        print(f"{len(answers)} answers, never more than {most} streams at once")


asyncio.run(main())
