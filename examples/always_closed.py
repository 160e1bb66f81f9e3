"""A consumer that raises closes its stream: nothing to defer, nothing to forget.

Prints:
    async for: LookupError, and the server saw us leave
    observer: ZeroDivisionError in on_error, and the server saw us leave
"""

import asyncio

from rxrouter import OpenRouter
from rxrouter.operators import text
from rxrouter.testing import Simulator


async def main() -> None:
    """Once in a loop, once in an observer; the server has more to say both times."""
    async with Simulator(rate=100) as offline, OpenRouter(base_url=offline.base_url) as client:
        words = client.chat("Tell me a story about AI").pipe(text())

        try:
            async for word in words:
                raise LookupError(word)
        except LookupError:
            await offline.exchanges[0].over.wait()
            print("async for: LookupError, and the server saw us leave")

        failed = asyncio.get_running_loop().create_future()
        words.subscribe(lambda word: print(1 // (len(word) - len(word))), failed.set_result)
        error = await failed
        await offline.exchanges[1].over.wait()
        print(f"observer: {type(error).__name__} in on_error, and the server saw us leave")


asyncio.run(main())
