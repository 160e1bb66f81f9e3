"""What each generation really cost; also one that was cancelled, and so never said.

Prints:
    completed: its cost is exact, by its own usage
    cancelled: its cost is exact, by OpenRouter's books
"""

import asyncio

from reactivex import operators as ops

from rxrouter import OpenRouter, Receipt
from rxrouter.operators import completion, text
from rxrouter.testing import Simulator

both_are_there = asyncio.Event()
books: list[Receipt] = []


def keep(receipt: Receipt) -> None:
    """Where one would write `receipt.cost` and `receipt.generation_id` into a database."""
    books.append(receipt)
    if len(books) == 2:
        both_are_there.set()


async def main() -> None:
    """One answer to its end, another to its third word."""
    async with Simulator(rate=200) as offline, OpenRouter(base_url=offline.base_url) as client:
        client.receipts.subscribe(keep)
        chunks = client.chat("Tell me a story about AI")
        await chunks.pipe(completion())
        await chunks.pipe(text(), ops.take(3))
        await both_are_there.wait()
    for receipt in books:
        source = "its own usage" if receipt.usage else "OpenRouter's books"
        print(f"{receipt.ended}: its cost is {receipt.status}, by {source}")


asyncio.run(main())
