"""python -m examples.chat_app: simulated as it stands; OPENROUTER_API_KEY and REDIS_URL make it real."""

import logging
import os
from contextlib import AsyncExitStack

from aiohttp import web

from examples.chat_app.app import application
from examples.chat_app.offline import Storyteller
from rxrouter import OpenRouter
from rxrouter.sharing import Hub, Log, MemoryLog
from rxrouter.testing import Simulator

DAY = 86_400.0  # seconds that an answer is kept


async def opened() -> web.Application:
    """The application, and all that is to be closed with it."""
    stack = AsyncExitStack()
    if "OPENROUTER_API_KEY" in os.environ or "OPENROUTER_BASE_URL" in os.environ:
        client, model = OpenRouter(), os.environ.get("MODEL", "openrouter/auto")
    else:
        offline = await stack.enter_async_context(Simulator(Storyteller()))
        client, model = OpenRouter(base_url=offline.base_url), "simulated/storyteller"
    hub = Hub(_log())
    await stack.enter_async_context(client)
    await stack.enter_async_context(hub)
    app = application(client, hub, model)

    async def close(_: web.Application) -> None:
        await stack.aclose()

    app.on_cleanup.append(close)
    return app


def _log() -> Log:
    if "REDIS_URL" not in os.environ:
        return MemoryLog(keep_seconds=DAY)
    from rxrouter.sharing.redis import RedisLog  # noqa: PLC0415 - an extra

    return RedisLog(os.environ["REDIS_URL"], namespace="chat_app", keep=DAY)


logging.basicConfig()
# No access log: the keys of answers are in it.
web.run_app(
    opened(), host=os.environ.get("HOST", "127.0.0.1"), port=int(os.environ.get("PORT", "8080")), access_log=None
)
