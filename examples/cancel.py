"""Cancel after a time limit, and by hand: either way the socket closes, and the model stops.

Prints:
    out of time: the server saw us leave
    enough: Once upon a
    enough: the server saw us leave
"""

import asyncio

from reactivex import operators as ops

from rxrouter import OpenRouter
from rxrouter.operators import text
from rxrouter.testing import Simulator


async def main() -> None:
    """Both on one server, which takes all day: a word a second."""
    async with Simulator(rate=1) as offline, OpenRouter(base_url=offline.base_url) as client:
        try:
            await client.chat("Tell me a story about AI").pipe(text(), ops.timeout(0.2))
        except Exception as error:  # RxPY's own timeout raises a bare Exception
            assert str(error) == "Timeout"
        await offline.exchanges[-1].over.wait()
        print("out of time: the server saw us leave")

    async with Simulator(rate=100) as offline, OpenRouter(base_url=offline.base_url) as client:
        words: list[str] = []
        enough = asyncio.Event()

        def on_next(word: str) -> None:
            words.append(word)
            if len(words) == 3:
                enough.set()

        subscription = client.chat("Tell me a story about AI").pipe(text()).subscribe(on_next)
        await enough.wait()
        await subscription.aclose()  # or dispose(), which does not wait for the socket
        print("enough:", "".join(words))
        await offline.exchanges[-1].over.wait()
        print("enough: the server saw us leave")


asyncio.run(main())
