"""The ways in which a client is closed, or not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from rxrouter import OpenRouter


async def _drop(client: OpenRouter) -> None:
    pass


async def _close(client: OpenRouter) -> None:
    client.close()


async def _close_cancelled(client: OpenRouter) -> None:
    closing = asyncio.ensure_future(client.aclose())
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)
    closing.cancel()
    with suppress(asyncio.CancelledError):
        await closing
    await client.aclose()


CLOSINGS: dict[str, Callable[[OpenRouter], Awaitable[None]]] = {
    "aclose": OpenRouter.aclose,
    "close": _close,
    "cancelled aclose": _close_cancelled,
    "dropped": _drop,
}
