"""Relay an answer to browsers: who loses the connection comes back for the rest, and it is paid once.

Prints:
    lost after: Once upon a time,
    the rest:   there was a stream that ended.
    1 request, 1 bill
"""

import asyncio
import json
from secrets import token_urlsafe

import aiohttp
from aiohttp import web

from rxrouter import OpenRouter, ServerSentEvent, SSEParser
from rxrouter.relay.aiohttp import respond, shutdown
from rxrouter.sharing import Hub
from rxrouter.testing import Reply, Simulator, answer

ANSWER = "Once upon a time, there was a stream that ended."


def words(body: bytes) -> tuple[str, str]:
    """The text of a body, and the id of its last event, which an EventSource sends when it comes back."""
    events = [item for item in SSEParser().feed(body) if isinstance(item, ServerSentEvent)]
    chunks = [json.loads(event.data) for event in events if event.data != "[DONE]"]
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]), events[-1].id


async def main() -> None:
    """A model, a server between, and a browser."""
    async with (
        Simulator(Reply.of(answer(ANSWER))) as model,
        OpenRouter(base_url=model.base_url) as client,
        Hub() as hub,
    ):

        async def answers(request: web.Request) -> web.StreamResponse:
            return await respond(request, client.chat("A story"), hub=hub, key=request.match_info["key"])

        app = web.Application()
        app.router.add_get("/answers/{key}", answers)
        app.on_shutdown.append(shutdown)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/answers/{token_urlsafe()}"
        async with aiohttp.ClientSession() as browser:
            async with browser.get(url) as response:
                first, last_id = words(
                    await response.content.readuntil(b'time,"') + await response.content.readuntil(b"\n\n")
                )
            print("lost after:", first)
            async with browser.get(url, headers={"Last-Event-ID": last_id}) as response:
                print("the rest:  ", words(await response.read())[0].strip())
        print(len(model.exchanges), "request, 1 bill")
        await runner.cleanup()


asyncio.run(main())
