"""One process of several: makes generations, or reads one, as its arguments say; tells its parent a line at a time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

import reactivex as rx
from reactivex import Observable, abc, operators as ops

from rxrouter import ChatChunk, OpenRouter
from rxrouter.sharing import Hub
from rxrouter.sharing.redis import RedisLog
from tests.sharing.support import facts, word
from tests.support import proven


def say(**told: Any) -> None:
    print(json.dumps(told), flush=True)  # noqa: T201 - to the parent


def counted(key: str, source: Observable[ChatChunk]) -> Observable[ChatChunk]:
    """Tells when it is subscribed, and when it is left, or over."""

    def subscribe(observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        say(subscribed=key)
        return source.pipe(ops.finally_action(lambda: say(left=key))).subscribe(observer, scheduler=scheduler)

    return rx.create(subscribe)


async def make(hub: Hub, keys: list[str], count: int, rate: float) -> None:
    """Makes a generation of so many words under each key."""
    source = proven(rx.interval(1 / rate).pipe(ops.take(count), ops.map(_word)))
    endings = [asyncio.Event() for _ in keys]
    for key, over in zip(keys, endings, strict=True):
        hub.start(key, counted(key, source)).pipe(ops.finally_action(over.set)).subscribe(on_error=_ignore)
    for over in endings:
        await over.wait()


async def ask(hub: Hub, key: str, base_url: str) -> None:
    """Makes a generation of what a server says."""
    async with OpenRouter("sk-test", base_url=base_url) as client:
        over = asyncio.Event()
        hub.start(key, counted(key, client.chat("hi"))).subscribe(on_error=lambda _: over.set(), on_completed=over.set)
        await over.wait()


def _word(number: int) -> ChatChunk:
    return word(number + 1)


def _ignore(_: Exception) -> None:
    pass


async def read(hub: Hub, key: str, after: int) -> None:
    """Reads a generation, and tells what it was."""
    digest, count, over = hashlib.sha256(), 0, asyncio.get_running_loop().create_future()

    def note(chunk: ChatChunk) -> None:
        nonlocal count
        count += 1
        digest.update(chunk.raw)
        if count == 1:
            say(reading=key)

    hub.follow(key, after=after).subscribe(note, over.set_result, lambda: over.set_result(None))
    ending = await over
    partial = getattr(ending, "partial", None)
    if ending is not None:
        ending.partial = None
    say(count=count, digest=digest.hexdigest(), ending=repr(facts(ending)), text=partial and partial.text)


async def main(url: str, namespace: str, lease: str, role: str, *arguments: str) -> None:
    async with Hub(RedisLog(url, namespace=namespace, lease=float(lease))) as hub:
        say(ready=role)
        if role == "make":
            await make(hub, arguments[0].split(","), int(arguments[1]), float(arguments[2]))
        elif role == "ask":
            await ask(hub, *arguments)
        else:
            await read(hub, arguments[0], int(arguments[1]))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
