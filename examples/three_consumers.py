"""Three consumers of one stream: the screen, a file, and a meter; one request, one bill.

The file is slow, and keeps neither of the others waiting.

Prints:
    The screen shows it, the file keeps it, the meter counts it.
    file:  60 characters, all of them
    meter: 12 tokens, 0.0054 credits
    1 request
"""

import asyncio
import tempfile

from rxrouter import OpenRouter
from rxrouter.operators import meter, text
from rxrouter.sharing import share_generation
from rxrouter.testing import Reply, Simulator, answer

ANSWER = "The screen shows it, the file keeps it, the meter counts it."


async def main() -> None:
    """Subscribes all three before the first word comes; who comes later gets what was missed."""
    reply = Reply.of(answer(ANSWER, cost=0.0054), rate=200)
    async with Simulator(reply) as offline, OpenRouter(base_url=offline.base_url) as client:
        chunks = client.chat("What is sharing good for?").pipe(share_generation())

        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:

            async def keep(words: str) -> None:
                await asyncio.sleep(0.02)  # a disk far away
                file.write(words)

            chunks.pipe(text()).subscribe(lambda words: print(words, end=""), on_completed=print)
            keeping = asyncio.create_task(chunks.pipe(text()).for_each(keep))
            spent = await chunks.pipe(meter())
            await keeping

            file.seek(0)
            kept = file.read()
        assert kept == ANSWER
        assert spent.usage is not None
        print(f"file:  {len(kept)} characters, all of them")
        print(f"meter: {spent.usage.completion_tokens} tokens, {spent.cost} credits")
        print(f"{len(offline.exchanges)} request")


asyncio.run(main())
