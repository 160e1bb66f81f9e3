"""Async tests without a plugin, Hypothesis profiles, and leak checks around every test."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import signal
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.loops import use_loop, virtual_loop

use_loop(os.environ.get("RXROUTER_TEST_LOOP", "asyncio"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # So it is in a job that a shell runs in the background; the programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile(
    "ci",
    max_examples=300,
    deadline=None,
    derandomize=True,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Of the benchmarks; see tests/perf/conftest.py."""
    parser.addoption("--perf-save", metavar="FILE", help="keep what the benchmarks measured")
    parser.addoption("--perf-compare", metavar="FILE", help="show it beside what was kept")


# Far beyond the need of any test: a hang becomes a failure that has the place. Benchmarks take what they take.
TEST_SECONDS = 120
VIRTUAL_SECONDS = 1e6


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine function in a loop of its own; tasks that it leaves behind fail it."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    test = pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names})
    virtual = pyfuncitem.get_closest_marker("virtual") is not None
    with asyncio.Runner(loop_factory=virtual_loop if virtual else None) as runner:
        runner.run(_without_leaks(test, time_limit(pyfuncitem)))
    return True


def time_limit(item: pytest.Item) -> float | None:
    """Return the seconds that a test may take; None for a benchmark."""
    if item.get_closest_marker("perf") is not None:
        return None
    return TEST_SECONDS if item.get_closest_marker("virtual") is None else VIRTUAL_SECONDS


async def _without_leaks(test: Coroutine[Any, Any, None], seconds: float | None) -> None:
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context))
    async with asyncio.timeout(seconds):
        await test
    for _ in range(3):  # callbacks of what was closed last
        await asyncio.sleep(0)
    left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    assert not left, f"tasks left running: {left}"
    assert not faults, f"the loop's exception handler was called: {faults}"


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """A test that ends with more threads than it began with has lost one; so has one that started a timer thread."""
    before = set(threading.enumerate())
    yield
    if _new_threads(before):
        gc.collect()  # a client that was dropped unclosed ends its thread when it is collected
    left = _new_threads(before)
    assert not left, f"threads left running: {left}"


def _new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before and not _pool(thread)]


def _pool(thread: threading.Thread) -> bool:
    return thread.name.startswith(("asyncio_", "ThreadPoolExecutor"))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, URL or proxy of the machine reaches a test."""
    for name in (*(n for n in os.environ if n.lower().endswith("_proxy")), "OPENROUTER_API_KEY", "OPENROUTER_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
