"""Everything at once: clients, hubs, a relay and browsers on a server that does all that servers do wrong."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from typing import Any, Self, TypeVar
from weakref import WeakSet

import aiohttp
from aiohttp import web
from reactivex import Observable, operators as ops

from rxrouter import (
    ChatChunk,
    Limiter,
    OpenRouter,
    RetryPolicy,
    RouterError,
    Subscription,
    iterate,
)
from rxrouter.operators import completion, fallback, limit, retry_transient, share_generation, timeouts
from rxrouter.operators._retry_policy import AfterContent
from rxrouter.relay import AGUI, NDJSON, Dialect, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.aiohttp import respond, stop
from rxrouter.sharing import Hub, MemoryLog
from rxrouter.sharing.redis import RedisLog
from rxrouter.testing import Exchange, Reply, Simulator
from tests.sharing.redis_server import RedisServer
from tests.soak import screen
from tests.soak.child import in_a_child
from tests.soak.closings import CLOSINGS
from tests.soak.gauges import Sample
from tests.soak.raising import Raising, subscribe_raising
from tests.soak.relay import Relay, small_connector
from tests.soak.screen import Screen
from tests.soak.seen import Seen, said
from tests.soak.upstream import GONE, Question

T = TypeVar("T")

AT_ONCE = 30  # that work at the same time
LEASE = 1.0  # seconds, as all here
KEEP = 2.0
TOTAL = 5.0  # of an answer, retries included
GRACE = 0.5  # for what runs when the time is over
LIMIT = 90.0  # what is not over by then has no end; every clock here is far below

AFTER_CONTENT: list[AfterContent] = ["fail", "restart", "continue"]
DIALECTS: dict[str, Dialect] = {
    "openai": OpenAIChunks,
    "ui": UIMessages,
    "agui": lambda: AGUI("thread", "run", messages=[]),
    "ndjson": NDJSON,
    "plain": PlainText,
}


class Soak:
    """The servers, the hubs, the clients, and those who use them; `async with`, then `run`."""

    def __init__(self, seed: int, server: RedisServer) -> None:
        self.done = Counter[str]()
        self.samples: list[Sample] = []
        self.dropped = WeakSet[OpenRouter]()  # unclosed; those that are not yet collected
        self._chance = random.Random(seed)
        self._server = server
        self._server_up = True
        self._closing = False
        self._questions: dict[str, Question] = {}
        self._number = 0
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        enter = self._stack.enter_async_context
        self._simulator = await enter(Simulator(self._reply))
        self._client = await enter(OpenRouter("k", base_url=self._simulator.base_url))
        self._threaded = await enter(OpenRouter("k", base_url=self._simulator.base_url))
        with suppress(RouterError):
            # Its first use, where no loop runs: it has its own thread from now on.
            await asyncio.to_thread(self._threaded.chat("nothing").run)
        self._limiter = Limiter(streams=AT_ONCE // 2)
        self._memory = await enter(Hub(MemoryLog(keep_seconds=KEEP, keep_count=20)))
        options: dict[str, Any] = {"namespace": "soak", "lease": LEASE, "keep": KEEP, "outage": 10.0}
        self._here = await enter(Hub(RedisLog(self._server.url, **options)))
        self._there = await enter(Hub(RedisLog(self._server.url, **options)))
        self._browser = await enter(aiohttp.ClientSession(connector=small_connector()))
        self._relay = Relay(self._respond, self._stop)
        await enter(self._relay)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def run(self, seconds: float, every: float) -> None:
        """Works for so long, sampling now and then; then it closes the client under what is still running."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(self._restart_redis()),
                group.create_task(self._restart_relay()),
                group.create_task(self._sample(began, every)),
            ]
            workers = [group.create_task(self._work(began + seconds)) for _ in range(AT_ONCE)]
            await asyncio.wait(workers, timeout=seconds + GRACE)
            self._closing = True
            await self._client.aclose()
            await asyncio.wait(workers)
            for helper in helpers:
                helper.cancel()
        assert (self._limiter.running, self._limiter.waiting) == (0, 0)

    def sample(self, began: float) -> Sample:
        """The numbers now; the server is asked if it is there."""
        keys = self._server.ask("DBSIZE") if self._server_up else b""
        last = self.samples[-1].keys if self.samples else 0
        return Sample.now(began, int(keys[1:]) if keys.startswith(b":") else last)

    async def _sample(self, began: float, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            self._simulator.exchanges.clear()
            gc.collect()
            self.samples.append(self.sample(began))

    # What the upstream and the relay do

    def _reply(self, exchange: Exchange) -> Reply:
        question = self._questions.get(exchange.json["messages"][0]["content"])
        return GONE if question is None else question.reply(exchange)

    def _chain(self, question: Question, *, retries: bool = True) -> Observable[ChatChunk]:
        policy = RetryPolicy(
            attempts=self._chance.randint(1, 4),
            first_delay=0.01,
            max_delay=0.1,
            max_retry_after=0.5,
            after_content=self._chance.choice(AFTER_CONTENT),
            random=self._chance.random,
        )
        once = self._client.chat(question.name).pipe(timeouts(first_content=0.8, content=0.5), limit(self._limiter))
        again = once.pipe(retry_transient(policy)) if retries else once
        routed = again.pipe(fallback(once)) if self._chance.random() < 0.3 else again
        return routed.pipe(timeouts(total=TOTAL))

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        name, place = request.match_info["name"], request.match_info["place"]
        question = self._questions.get(name)
        if question is None or self._closing:
            return web.json_response({"error": {}}, status=404)
        hub = {"here": self._here, "there": self._there, "memory": self._memory}.get(place)
        chain = self._chain(question)
        return await respond(
            request,
            (question.cut(chain) if question.is_cut else chain) if hub is None or "begin" in request.query else None,
            hub=hub,
            key=name if hub else None,
            dialect=DIALECTS[request.match_info["dialect"]],
            prime=self._chance.choice([0.0, 0.1, 2.0]),
            keep_alive=0.2,
            send_timeout=0.5,
            coalesce=self._chance.choice([None, None, 0.02]) if hub is None else None,
        )

    async def _stop(self, request: web.Request) -> web.StreamResponse:
        hub = self._memory if request.match_info["place"] == "memory" else self._there
        return await stop(hub, request.match_info["name"])

    async def _restart_redis(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(1, 6))
            self._server_up = False
            killed = self._chance.random() < 0.7
            try:
                self._server.kill() if killed else self._server.pause()
                await asyncio.sleep(self._chance.uniform(0, 0.8))
            finally:
                self._server.start() if killed else self._server.resume()
                self._server_up = True
            self.done["restarts: Redis killed" if killed else "restarts: Redis stopped for a while"] += 1

    async def _restart_relay(self) -> None:
        while True:
            await asyncio.sleep(self._chance.uniform(1, 6))
            await self._relay.stop()
            await asyncio.sleep(self._chance.uniform(0, 0.5))
            await self._relay.start()
            self.done["restarts: relay"] += 1

    # What the users do

    async def _work(self, until: float) -> None:
        uses: list[Callable[[Question], Awaitable[None]]] = [
            *(self._observed, self._observed, self._pulled, self._shared_in_memory, self._shared_on_redis),
            *(self._in_a_browser, self._in_a_browser),
            *(self._on_another_thread, self._forked, self._closed, self._closed),
            *(self._raising_beside_others, self._raising_beside_others, self._cut, self._cut_in_a_browser),
        ]
        while time.monotonic() < until:
            self._number += 1
            question = Question(str(self._number), self._chance, self.done)
            self._questions[question.name] = question
            use = self._chance.choice(uses)
            try:
                async with asyncio.timeout(LIMIT):
                    await use(question)
            except (AssertionError, TimeoutError) as error:
                raise AssertionError(f"{use.__name__} of {question}: {error!r}") from error
            finally:
                del self._questions[question.name]
            self.done["generations"] += 1

    async def _observed(self, question: Question) -> None:
        """A chain with all that a client has, cancelled at some time or seen to its end."""
        seen = Seen()
        texts: list[str] = []
        chain = self._chain(question).pipe(ops.do_action(seen.show), completion())
        left = await self._observe(chain, seen, lambda whole: texts.append(whole.text))
        self._check("observed", question, seen, left=left)
        error = seen.endings[0] if seen.endings else None
        if isinstance(error, RouterError):
            assert error.partial.text == seen.text
        assert texts == ([seen.text] if seen.endings == [None] else [])

    async def _pulled(self, question: Question) -> None:
        """A slow loop over the chunks, which may break."""
        seen = Seen()
        left = await self._pull(self._chain(question), seen)
        self._check("pulled", question, seen, left=left)

    async def _shared_in_memory(self, question: Question) -> None:
        await self._shared(question, "hub in memory", self._memory, self._memory)

    async def _shared_on_redis(self, question: Question) -> None:
        await self._shared(question, "hub on Redis", self._here, self._there)

    async def _shared(self, question: Question, name: str, here: Hub, there: Hub) -> None:
        """One generation, readers that come, go and come back in two hubs, and now and then a stop."""
        here.start(question.name, self._chain(question))
        await here.status(question.name)
        readers = [self._reader(question, name, self._chance.choice([here, there])) for _ in range(4)]
        await asyncio.gather(*readers, self._perhaps(there.stop(question.name)))

    async def _reader(self, question: Question, name: str, hub: Hub) -> None:
        await asyncio.sleep(self._chance.choice([0, 0, 0.1, 0.5]))
        seen = Seen()
        while True:
            chunks = hub.follow(question.name, after=seen.read)
            if self._chance.random() < 0.3:
                left = await self._pull(chunks, seen)
            else:
                left = await self._observe(chunks, seen, seen.show)
            if not left or self._chance.random() < 0.3:
                break
            self.done[f"{name}: came back"] += 1
        self._check(name, question, seen, left=left)

    async def _on_another_thread(self, question: Question) -> None:
        """A chain of a client with its own thread, read here."""
        seen = Seen()
        left = await self._pull(self._once(self._threaded, question.name), seen)
        self._check("own thread", question, seen, left=left)

    async def _forked(self, question: Question) -> None:
        """A child that uses the client with the thread, on which other streams run here."""

        def work() -> list[Any]:
            texts: list[str] = []
            chunks = self._once(self._threaded, question.name).pipe(ops.map(said))
            try:
                chunks.pipe(ops.do_action(texts.append)).run()
            except RouterError as error:
                return ["".join(texts), type(error).__name__]
            return ["".join(texts), None]

        text, error = await in_a_child(work, self._relay.leave_to_parent)
        assert question.begins_with(text)
        assert error or text == question.whole, f"{text!r} is not {question.whole!r}"
        self.done[f"fork: {error or 'completed'}"] += 1

    async def _closed(self, question: Question) -> None:
        """A client that is closed, or dropped, while chains stream, pause before a retry, and wait for a permit."""
        limiter = Limiter(streams=3)
        client = OpenRouter("k", base_url=self._simulator.base_url, limiter=limiter)
        way = self._chance.choice([*CLOSINGS])
        threaded = self._chance.random() < 0.3
        if threaded:
            with suppress(RouterError):
                await asyncio.to_thread(client.chat("nothing").run)
        # A pause that outlasts the test, but for a client that is never closed.
        delay = 0.2 if way == "dropped" else 2 * LIMIT
        policy = RetryPolicy(attempts=2, first_delay=delay, max_delay=delay, jitter=0)
        questions = [self._ask(question.name, at) for at in range(8)]
        readers = [(each, Seen()) for each in questions]
        for each, seen in readers:
            self._once(client, each.name).pipe(retry_transient(policy)).subscribe(seen.show, seen.end, seen.end)
        await asyncio.sleep(self._chance.choice([0, 0, 0.005, 0.02, 0.1, 0.4]))
        opened = sum(not seen.endings for _, seen in readers)
        self.done["closings: chains that wait for a permit"] += limiter.waiting
        self.done["closings: chains with a permit"] += limiter.running
        self.done["closings: chains that pause"] += opened - limiter.waiting - limiter.running
        await CLOSINGS[way](client)
        if way == "dropped":
            self.dropped.add(client)
        del client
        late = sum(not seen.endings for _, seen in readers)
        assert way in {"close", "dropped"} or not late, f"{way}: {late} chains have no ending"
        for each, seen in readers:
            await seen.over.wait()
            self.done[f"closings: {way}: {self._check_text(each, seen)}"] += 1
            del self._questions[each.name]
        assert (limiter.running, limiter.waiting) == (0, 0), f"{way}: {limiter}"
        self.done[f"closings: {way}{', own thread' if threaded else ''}"] += 1

    def _ask(self, name: str, at: int) -> Question:
        """Return one of several questions that are asked at the same time."""
        question = Question(f"{name}.{at}", self._chance, self.done)
        self._questions[question.name] = question
        return question

    async def _raising_beside_others(self, question: Question) -> None:
        """One generation for several readers, some of which raise; or an operator above all of them raises."""
        above = Raising(self._chance) if self._chance.random() < 0.2 else None
        chain = self._chain(question)
        place, shared = self._one_of_three(question, chain if above is None else chain.pipe(above.operator))
        calm = [Seen() for _ in range(3)]
        for seen in calm:
            shared.subscribe(seen.show, seen.end, seen.end)
        raising = [(Raising(self._chance), Seen()) for _ in range(3)]
        for each, seen in raising:
            if self._chance.random() < 0.5:
                shared.pipe(each.operator).subscribe(seen.show, seen.end, seen.end)
            else:
                subscribe_raising(shared, each, seen)
        for seen in (*calm, *(seen for _, seen in raising)):
            await seen.over.wait()
        await asyncio.sleep(0)
        for seen in calm:
            if above is not None and above.raised and above.moment != "dispose":
                [error] = seen.endings
                assert error is not None, f"{above} above, and the generation is complete"
                self.done[f"raising in {place}: ended by an operator above"] += 1
            else:
                self._check(f"raising in {place}: sibling", question, seen, left=False)
        for each, seen in raising:
            assert len(seen.endings) == 1, f"{each}: {seen.endings}"
            self.done[f"raising in {place}: {each if each.raised else 'not reached'}"] += 1

    def _one_of_three(self, question: Question, chunks: Observable[ChatChunk]) -> tuple[str, Observable[ChatChunk]]:
        """Return a place where the chunks are shared, and the chunks as they are read from it."""
        place = self._chance.choice(["share_generation", "hub in memory", "hub on Redis"])
        if place == "share_generation":
            return place, chunks.pipe(share_generation())
        hub = self._memory if place == "hub in memory" else self._here
        return place, hub.start(question.name, chunks)

    async def _cut(self, question: Question) -> None:
        """A chain that an operator ends before its source, above a completion or a hub."""
        place = self._chance.choice(["completion", "hub in memory", "hub on Redis"])
        seen = Seen()
        chunks = question.cut(self._chain(question))
        states: list[str] = []
        if place == "completion":
            whole = chunks.pipe(ops.do_action(seen.show), completion())
            whole.subscribe(lambda whole: states.append(whole.state), seen.end, seen.end)
        else:
            hub = self._memory if place == "hub in memory" else self._here
            hub.start(question.name, chunks).subscribe(seen.show, seen.end, seen.end)
        await seen.over.wait()
        [error] = seen.endings
        assert question.begins_with(seen.text)
        if error is None and question.finished:
            assert seen.text == question.whole, f"{seen.text!r} is not {question.whole!r}"
            self.done[f"cut above {place}: not reached"] += 1
        elif error is None:
            assert place == "completion", "a hub calls a cut generation complete"
            assert states != ["complete"], "a cut answer is complete"
            self.done[f"cut above {place}: {''.join(states) or 'no value'}"] += 1
        else:
            assert isinstance(error, RouterError), repr(error)
            self.done[f"cut above {place}: {type(error).__name__}"] += 1

    async def _cut_in_a_browser(self, question: Question) -> None:
        """A chain that an operator ends before its source, above a relay."""
        question.is_cut = True
        ending = await self._watched(question)
        assert ending != "good" or question.finished, "a relay calls a cut answer complete"
        cut = "" if question.finished else ", cut"
        self.done[f"cut above relay: {ending}{cut}"] += 1

    def _once(self, client: OpenRouter, name: str) -> Observable[ChatChunk]:
        return client.chat(name).pipe(timeouts(first_content=0.8, content=0.5, total=TOTAL))

    async def _observe(self, source: Observable[T], seen: Seen, show: Callable[[T], None]) -> bool:
        """Subscribes until the end, or until a random moment; whether that came first."""
        subscription = source.subscribe(show, seen.end, seen.end)
        if self._chance.random() < 0.75:
            await seen.over.wait()
        else:
            with suppress(TimeoutError):
                await asyncio.wait_for(seen.over.wait(), self._chance.choice([0, 0.01, 0.1, 0.5]))
            assert isinstance(subscription, Subscription)
            await subscription.aclose()
        return not seen.endings

    async def _pull(self, chunks: Observable[ChatChunk], seen: Seen) -> bool:
        """Reads slowly until the end, or until a random chunk; whether that came first."""
        leaves = 0.05 if self._chance.random() < 0.2 else 0.0
        async with iterate(chunks, high=4, low=1) as values:
            try:
                async for value in values:
                    seen.show(value)
                    if self._chance.random() < 0.1:
                        await asyncio.sleep(self._chance.choice([0, 0.001, 0.02]))
                    if self._chance.random() < leaves:
                        return True
                seen.end()
            except RouterError as error:
                seen.end(error)
        return False

    async def _perhaps(self, stopping: Coroutine[Any, Any, None]) -> None:
        """A stop, now and then."""
        if self._chance.random() < 0.9:
            stopping.close()
            return
        await asyncio.sleep(self._chance.uniform(0, 0.5))
        with suppress(RouterError):  # it is forgotten already
            await stopping
        self.done["stops"] += 1

    async def _in_a_browser(self, question: Question) -> None:
        self.done[f"browser: {await self._watched(question)}"] += 1

    async def _watched(self, question: Question) -> str | None:
        """Show the answer in a browser; return how it ended there."""
        place = self._chance.choice(["nowhere", "memory", "here", "there"])
        dialect = self._chance.choice([*DIALECTS])
        url = f"{self._relay.url}/{place}/{dialect}/{question.name}"
        shown = Screen(url, dialect, kept=place != "nowhere", chance=self._chance, done=self.done)
        stopping = screen.stop(self._browser, url) if place != "nowhere" else asyncio.sleep(0)
        await asyncio.gather(shown.watch(self._browser), self._perhaps(stopping))
        assert question.begins_with(shown.text), f"{dialect} {place}: {shown.text!r} is not of {question.text!r}"
        if shown.ending == "good":
            assert shown.text == question.whole, f"{dialect} {place}: {shown.text!r} is not {question.whole!r}"
        return shown.ending

    def _check(self, name: str, question: Question, seen: Seen, *, left: bool) -> None:
        """One ending, or none for who has left; the beginning of the answer, or all of it for who was told so."""
        if left and not seen.endings:
            assert question.begins_with(seen.text), f"{seen.text!r} is not of {question.text!r}"
            self.done[f"{name}: left"] += 1
        else:
            self.done[f"{name}: {self._check_text(question, seen)}"] += 1

    def _check_text(self, question: Question, seen: Seen) -> str:
        """Check the one ending, and the text before it; return the ending's name."""
        assert question.begins_with(seen.text), f"{seen.text!r} is not of {question.text!r}"
        [error] = seen.endings
        if error is None:
            assert seen.text == question.whole, f"{seen.text!r} is not {question.whole!r}"
            return "completed"
        assert isinstance(error, RouterError), repr(error)
        return type(error).__name__
