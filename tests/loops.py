"""The event loop of a test run, as RXROUTER_TEST_LOOP names it: asyncio, uvloop, or asyncio with eager tasks."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module

from rxrouter.testing import VirtualLoop

LOOPS = ("asyncio", "uvloop", "eager")


def tasks_are_eager() -> bool:
    """Return whether a task of this run begins where it is created."""
    return os.environ.get("RXROUTER_TEST_LOOP") == "eager"


def use_loop(name: str) -> None:
    """Make this the loop of every test, and of each client that starts a loop of its own.

    Raises:
        ValueError: the name is not one of `LOOPS`.
    """
    if name not in LOOPS:
        raise ValueError(f"RXROUTER_TEST_LOOP must be one of {', '.join(LOOPS)}, got {name!r}")
    # Policies are deprecated from Python 3.14 on, and the only way to the loops that a client starts for itself.
    if name == "uvloop":
        asyncio.set_event_loop_policy(import_module("uvloop").EventLoopPolicy())  # pyright: ignore[reportDeprecated]
    if name == "eager":
        asyncio.set_event_loop_policy(_EagerPolicy())  # pyright: ignore[reportDeprecated]


def virtual_loop() -> asyncio.AbstractEventLoop:
    """Return a new loop in virtual time, whose tasks begin as those of the other loops do."""
    loop = VirtualLoop()
    return _with_eager_tasks(loop) if tasks_are_eager() else loop


class _EagerPolicy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _with_eager_tasks(super().new_event_loop())


def _with_eager_tasks(loop: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    # It is new in Python 3.12.
    loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - see above
    return loop
