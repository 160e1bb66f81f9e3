# pyright: reportPrivateUsage=false
"""The life of a client against a model: nothing waits for ever, nothing is left open, each subscription ends once."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from reactivex import Observable, operators as ops

from rxrouter import ClientClosedError, Limiter, OpenRouter, RetryPolicy
from rxrouter.operators import limit, retry_transient, text, timeouts
from rxrouter.testing import Act, Exchange, Reply, Simulator, answer, chunk
from tests.source.test_dispose import open_sockets

SECONDS = 10.0  # what takes longer waits for ever
PATIENT = RetryPolicy(first_delay=3600.0, max_delay=3600.0)
SHORT = Reply.of(answer("Hi"))


def reply(exchange: Exchange) -> Reply:
    prompt = exchange.json["messages"][0]["content"] if exchange.method == "POST" else ""
    if prompt == "silent":
        return Reply((chunk({"content": "word "}), Act.HANG))
    if prompt == "busy":
        return Reply.error(503, "Overloaded.")
    return Reply(before=(Act.HANG,)) if prompt == "unanswered" else SHORT


Chain = Callable[[OpenRouter, Limiter], Observable[Any]]
CHAINS: dict[str, Chain] = {
    "short": lambda client, _: client.chat("short").pipe(text()),
    "silent": lambda client, _: client.chat("silent").pipe(timeouts(total=3600.0)),
    "unanswered": lambda client, _: client.chat("unanswered"),
    "retry": lambda client, _: client.chat("busy").pipe(retry_transient(PATIENT)),
    "limit": lambda client, limiter: client.chat("silent").pipe(limit(limiter)),
    "delay": lambda client, _: client.chat("short").pipe(ops.delay(3600.0)),
    "shared": lambda client, _: client.chat("silent").pipe(ops.share()),
}


class Seen:
    """A subscription, as its subscriber and the model have it."""

    def __init__(self, ends_well: bool) -> None:  # noqa: FBT001
        self.ends_well = ends_well
        self.endings: list[Exception | None] = []
        self.disposed = False
        self.subscription: Any = None

    def end(self, error: Exception | None = None) -> None:
        self.endings.append(error)


class Lives(RuleBasedStateMachine):
    """One client on loops of its user's, one after the other, or on a thread of its own; and what its server sees."""

    forks = False

    def __init__(self) -> None:
        super().__init__()
        self.simulator = Simulator(reply)
        self.simulator.__enter__()
        self.limiter = Limiter(1)
        self.client = OpenRouter("sk-test", base_url=self.simulator.base_url)
        self.runner: asyncio.Runner | None = None
        self.seen: list[Seen] = []
        self.closed = False

    @initialize(apart=st.booleans())
    def begin(self, apart: bool) -> None:  # noqa: FBT001
        self.apart = apart
        if apart:
            self.client.models().run()

    def teardown(self) -> None:
        self.close()
        self.end_loop()
        self.check()
        self.simulator.__exit__(None, None, None)

    def on_loop(self, action: Callable[[], Any], turns: int = 0) -> Any:
        """Do it where the client is at home, and let some turns pass."""

        async def act() -> Any:
            async with asyncio.timeout(SECONDS):
                result = action()
                if asyncio.iscoroutine(result):
                    result = await result
                for _ in range(turns):
                    await asyncio.sleep(0)
                return result

        if self.apart:
            loop = self.client._home.bound
            if self.closed or loop is None or not loop.is_running():
                return asyncio.run(act())
            return asyncio.run_coroutine_threadsafe(act(), loop).result(SECONDS)
        if self.runner is None:
            self.runner = asyncio.Runner()
        return self.runner.run(act())

    @rule(name=st.sampled_from(sorted(CHAINS)), turns=st.integers(0, 12), elsewhere=st.booleans())
    def subscribe(self, name: str, turns: int, elsewhere: bool) -> None:  # noqa: FBT001
        seen = Seen(ends_well=name == "short")
        self.seen.append(seen)

        def subscribe() -> None:
            try:
                seen.subscription = CHAINS[name](self.client, self.limiter).subscribe(
                    lambda _: None, seen.end, seen.end
                )
            except ClientClosedError as error:
                seen.end(error)

        if elsewhere and self.apart:
            subscribe()
        else:
            self.on_loop(subscribe, turns)

    @precondition(lambda self: any(seen.subscription for seen in self.seen))
    @rule(which=st.integers(0, 20), waits=st.booleans())
    def dispose(self, which: int, waits: bool) -> None:  # noqa: FBT001
        found = [seen for seen in self.seen if seen.subscription]
        seen = found[which % len(found)]
        seen.disposed = seen.disposed or not seen.endings
        if waits:
            self.on_loop(seen.subscription.aclose)
        else:
            seen.subscription.dispose()

    @rule()
    def close(self) -> None:
        self.closed = True
        if self.apart:
            self.client.close()
        else:
            self.on_loop(self.client.close)
            self.on_loop(self.client.aclose)
        self.expect_all_ended()

    @rule(turn=st.integers(0, 12))
    def aclose_cancelled(self, turn: int) -> None:
        self.closed = True

        async def cancel() -> None:
            closing = asyncio.ensure_future(self.client.aclose())
            for _ in range(turn):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait([closing])
            await self.client.aclose()

        asyncio.run(cancel()) if self.apart else self.on_loop(cancel)
        self.expect_all_ended()

    @rule()
    def end_loop(self) -> None:
        """Shut the user's loop down; the next use is on another one."""
        if self.runner is not None:
            self.runner.close()
            self.runner = None
            self.expect_all_ended()

    @precondition(lambda self: self.apart and not self.closed)
    @rule()
    def exit_in_a_callback(self) -> None:
        loop, thread = self.client._home.bound, self.client._home._thread
        assert loop is not None
        assert thread is not None

        def leave() -> None:
            raise SystemExit

        loop.call_soon_threadsafe(loop.set_exception_handler, _ignore)  # which the exit is reported to
        loop.call_soon_threadsafe(leave)
        thread.join(SECONDS)
        assert not thread.is_alive()
        self.expect_all_ended()
        self.client.models().run()

    @precondition(lambda self: self.forks and self.apart and not self.closed)
    @rule()
    def fork(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
            child = os.fork()
        if not child:
            signal.alarm(int(SECONDS))
            try:
                for seen in self.seen:
                    if seen.subscription:
                        seen.subscription.dispose()
                worked = self.client.chat("short").pipe(text()).run() == "Hi"
                self.client.close()
                gc.collect()
                os._exit(0 if worked else 1)
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    def expect_all_ended(self) -> None:
        for seen in self.seen:
            assert seen.disposed or len(seen.endings) == 1, (seen.endings, seen.disposed)
        assert not open_sockets(self.simulator)
        assert (self.limiter.running, self.limiter.waiting) == (0, 0)

    @invariant()
    def check(self) -> None:
        for seen in self.seen:
            assert len(seen.endings) <= 1
            for error in seen.endings:
                assert error is None or isinstance(error, ClientClosedError), error
                assert error is not None or seen.ends_well


def _ignore(_: asyncio.AbstractEventLoop, __: dict[str, Any]) -> None:
    pass


def live(examples: int, steps: int, *, forks: bool = False) -> None:
    class Machine(Lives):
        pass

    Machine.forks = forks
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks
        ),
    )


def test_client_ends_everything_once_whatever_is_done_with_it() -> None:
    live(60, 12)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_client_ends_everything_once_whatever_is_done_with_it_and_its_forks() -> None:
    live(15, 10, forks=sys.platform != "win32")


@pytest.mark.long
def test_client_ends_everything_once_in_long_lives() -> None:
    live(2_000, 40)


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_client_ends_everything_once_in_long_lives_with_forks() -> None:
    live(300, 30, forks=True)
