# pyright: reportPrivateUsage=false
"""A program that uses a client, forks, and goes on in both processes; tests/source/test_forks.py watches its server.

A child exits as a process does that has been forked by `os.fork`: with the interpreter's finalizers.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import aiohttp
from reactivex import operators as ops

from rxrouter import Limiter, OpenRouter
from rxrouter.operators import share_generation, text
from rxrouter.sharing import Hub
from rxrouter.testing import Simulator

CHILD_SECONDS = 20
SOON = 2.0  # seconds, for what has nothing to wait for

URL = sys.argv[2]
CLIENT = OpenRouter("sk-test", base_url=URL)


def say(who: str) -> None:
    sys.stdout.write(f"{who} is done\n")
    sys.stdout.flush()


def words(client: OpenRouter = CLIENT, prompt: str = "hi") -> str:
    return "".join(client.chat(prompt).pipe(text(), ops.to_list()).run())


async def words_here(client: OpenRouter = CLIENT) -> str:
    return "".join([word async for word in client.chat("hi").pipe(text())])


def refused(use: Callable[[], object]) -> None:
    """Check that it raises a RuntimeError, at once."""
    began = time.monotonic()
    try:
        use()
    except RuntimeError as error:
        assert time.monotonic() - began < SOON
        message = str(error)
    else:
        raise AssertionError("no RuntimeError")
    assert "forked" in message, message


class Child:
    """A forked process; it exits when the work is done."""

    def __init__(self, work: Callable[[], object], leave: Callable[[int], object] = sys.exit) -> None:
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            signal.alarm(CHILD_SECONDS)
            work()
            gc.collect()
            say("child")
            leave(0)

    def join(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"the child ended with {status}"


class Story:
    """A stream of the parent that is held in the middle by the server."""

    def __init__(self, client: OpenRouter = CLIENT, chunks: Any = None) -> None:
        self.words: list[str] = []
        self.endings: list[Exception | None] = []
        self.begun, self.over = threading.Event(), threading.Event()
        self.chunks = chunks or client.chat("held")
        self.subscription = self.chunks.pipe(text()).subscribe(self._next, self._end, self._end)
        assert self.begun.wait(10)

    def _next(self, word: str) -> None:
        self.words.append(word)
        self.begun.set()

    def _end(self, error: Exception | None = None) -> None:
        self.endings.append(error)
        self.over.set()

    def finish(self, client: OpenRouter = CLIENT) -> None:
        """Let the server go on, and check that the answer arrives whole."""
        words(client, "go on")
        assert self.over.wait(10)
        assert ("".join(self.words), self.endings) == ("Once upon a time.", [None]), (self.words, self.endings)


def with_an_idle_connection() -> None:
    words()
    Child(words).join()
    words()


def with_a_stream() -> None:
    story = Story()

    def work() -> None:
        words()
        story.subscription.dispose()
        assert len(story.words) == 1
        CLIENT.close()

    Child(work).join()
    story.finish()


def with_a_stream_that_the_child_drops() -> None:
    clients = [OpenRouter("sk-test", base_url=URL)]
    stories = [Story(clients[0])]

    def work() -> None:
        stories.clear()
        clients.clear()
        gc.collect()
        words()

    Child(work).join()
    stories[0].finish(clients[0])
    clients[0].close()


def with_a_paused_stream() -> None:
    stopped, go_on = threading.Event(), threading.Event()
    story = Story()

    async def read() -> int:
        async def action(_: object) -> None:
            stopped.set()
            await asyncio.to_thread(go_on.wait)

        await CLIENT.chat("long").for_each(action, high=2, low=1)
        return 1

    reading = threading.Thread(target=asyncio.run, args=(read(),))
    reading.start()
    assert stopped.wait(10)
    Child(words).join()
    go_on.set()
    reading.join()
    story.finish()


def on_the_clients_own_thread() -> None:
    joined: list[Child] = []

    def fork(_: object) -> None:
        if not joined:
            joined.append(Child(words, leave=os._exit))

    CLIENT.chat("hi").pipe(ops.do_action(fork)).run()
    joined[0].join()
    words()


def in_a_loop_of_the_child() -> None:
    words()

    async def use() -> None:
        assert await words_here()
        await CLIENT.chat("hi")
        await CLIENT.chat("hi").for_each(_nothing)
        await CLIENT.aclose()

    Child(lambda: asyncio.run(use())).join()
    words()


async def _nothing(_: object) -> None:
    pass


def inside_a_loop() -> None:
    async def use() -> None:
        async with OpenRouter("sk-test", base_url=URL) as client:
            await words_here(client)
            sys.stdout.flush()
            child = os.fork()
            if not child:
                signal.alarm(CHILD_SECONDS)
                code = 1
                try:
                    refused(client.chat("hi").run)
                    refused(client.chat("hi").subscribe)
                    refused(lambda: asyncio.run(words_here(client)))
                    refused(lambda: asyncio.run(client.chat("hi").for_each(_nothing)))
                    client.close()
                    asyncio.run(client.aclose())
                    say("child")
                    code = 0
                finally:
                    os._exit(code)
            _, status = await asyncio.to_thread(os.waitpid, child, 0)
            assert status == 0
            await words_here(client)

    asyncio.run(use())


def between_two_loops() -> None:
    asyncio.run(words_here())
    Child(lambda: asyncio.run(words_here())).join()
    asyncio.run(words_here())


def beside_a_loop_that_stands_still() -> None:
    with asyncio.Runner() as runner:
        runner.run(words_here())
        Child(lambda: refused(CLIENT.chat("hi").run)).join()
        runner.run(words_here())
        runner.run(CLIENT.aclose())


def with_a_given_session() -> None:
    async def use() -> None:
        async with aiohttp.ClientSession() as session:
            client = OpenRouter("sk-test", base_url=URL, session=session)
            await words_here(client)
            sys.stdout.flush()
            child = os.fork()
            if not child:
                code = 1
                try:
                    refused(client.chat("hi").run)
                    say("child")
                    code = 0
                finally:
                    os._exit(code)
            assert (await asyncio.to_thread(os.waitpid, child, 0))[1] == 0
            await words_here(client)

    asyncio.run(use())


def with_a_hub() -> None:
    hub = Hub()
    hub.start("key", CLIENT.chat("hi")).run()

    def work() -> None:
        refused(lambda: hub.start("another", CLIENT.chat("hi")))
        refused(hub.follow("key").run)
        refused(lambda: asyncio.run(hub.status("key")))
        asyncio.run(hub.aclose())
        Hub().start("key", CLIENT.chat("hi")).run()

    Child(work).join()
    hub.start("another", CLIENT.chat("hi")).run()
    asyncio.run(hub.aclose())


def with_a_limiter() -> None:
    limiter = Limiter(1)
    client = OpenRouter("sk-test", base_url=URL, limiter=limiter)
    story = Story(client)
    waiting = client.chat("hi").subscribe(on_error=print)

    def work() -> None:
        assert words(client)
        assert (limiter.running, limiter.waiting) == (0, 0)

    with limiter._lock:  # as another thread may hold it
        child = Child(work)
    child.join()
    waiting.dispose()
    story.finish()


def with_locks_held() -> None:
    words()
    home = CLIENT._home
    with home._lock, home.readers._lock:
        child = Child(words)
    child.join()
    words()


def with_a_shared_generation() -> None:
    shared = CLIENT.chat("held").pipe(share_generation())
    story = Story(chunks=shared)

    def work() -> None:
        words(prompt="go on")
        assert "".join(shared.pipe(text(), ops.to_list()).run()) == "Once upon a time."

    Child(work).join()
    story.finish()


def with_receipts() -> None:
    receipts: list[object] = []
    CLIENT.receipts.subscribe(receipts.append)
    words()

    def work() -> None:
        receipts.clear()
        own: list[object] = []
        got = threading.Event()

        def take(receipt: object) -> None:
            own.append(receipt)
            got.set()

        CLIENT.receipts.subscribe(take)
        words()
        assert got.wait(10)
        assert (len(own), receipts) == (1, [])

    Child(work).join()


def twice() -> None:
    words()

    def work() -> None:
        words()
        Child(words).join()
        words()

    Child(work).join()
    words()


def with_a_simulator() -> None:
    with Simulator() as simulator:
        client = OpenRouter("sk-test", base_url=simulator.base_url)
        words(client)
        sys.stdout.flush()
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0
            words(client)
            client.close()
    if not child:
        say("child")
        sys.exit(0)


def by_multiprocessing() -> None:
    words()
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_print_words)
    process.start()
    process.join(CHILD_SECONDS)
    assert process.exitcode == 0
    with context.Pool(2) as pool:
        assert len(pool.map(words_of, ["one", "two"])) == 2
    words()


def words_of(prompt: str) -> str:
    return words(prompt=prompt)


def _print_words() -> None:
    words()
    say("child")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    CLIENT.close()
    say("parent")
