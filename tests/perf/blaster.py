"""A simulator in a process of its own, that answers as fast as it goes: `python blaster.py`, which prints its URL.

The prompt says what to send: `<chunks> <block>`, where a block is so many bytes, or one event if it is 0; or `hang`,
for two words and then silence.
"""

from __future__ import annotations

import asyncio
from functools import cache

from rxrouter.testing import DONE, Act, Exchange, Recording, Reply, Simulator, chunk

_WORDS = (" the", " of", " and", ",", " stream", " naïve", '"', "\n", " 流", " however", ".", " token")


@cache
def reply(prompt: str) -> Reply:
    """A stream of so many chunks in such blocks."""
    if prompt == "hang":
        return Reply([chunk({"content": "Well, "}), chunk({"content": "…"}), Act.HANG])
    count, block = map(int, prompt.split())
    once = [chunk({"content": word}) for word in _WORDS]
    events = [once[at % len(once)] for at in range(count)]
    usage = {"prompt_tokens": 12, "completion_tokens": count, "total_tokens": count + 12, "cost": 0.0001}
    events += [chunk(finish="stop"), chunk(finish="stop", usage=usage), DONE]
    if not block:
        return Reply(events)
    body = b"".join(events)
    return Reply.of(Recording((body,)).recut([block] * (len(body) // block)))


def answer(exchange: Exchange) -> Reply:
    """What the prompt asks for."""
    return reply(exchange.json["messages"][0]["content"])


async def main() -> None:
    """Serves until it is killed."""
    async with Simulator(answer) as simulator:
        print(simulator.base_url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
