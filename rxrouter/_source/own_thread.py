"""The thread of a client's own loop, from its start to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from rxrouter._source.resources import Resources


def run_loop(
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]], over: Future[None], resources: Resources
) -> None:
    """Run a loop until its event is set, or a callback exits; then end everything on it.

    As `asyncio.run` does it, but for the default executor's end: at the interpreter's exit that would require a thread,
    and Python 3.12 refuses to start one.

    Args:
        started: Receives the loop, and the event that ends it.
        over: Done when the loop is closed.
        resources: Closed when the loop ends.
    """
    try:
        loop = asyncio.new_event_loop()
    except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for the loop
        started.set_exception(error)
        return
    stop = asyncio.Event()
    loop.call_soon(started.set_result, (loop, stop))
    try:
        # Set by the exit of a callback, too, which ends this loop as it ends one that `asyncio.run` has.
        _run(loop, stop.wait(), stop)
        _run(loop, resources.end(), stop)
        _run(loop, _cancel_all(), stop)
        _run(loop, loop.shutdown_asyncgens(), stop)
    finally:
        resources.readers.close(loop_ends=True)
        loop.close()
        with suppress(Exception):
            over.set_result(None)


def _run(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, object], stop: asyncio.Event) -> None:
    """Run the coroutine to its end; `sys.exit()` and Ctrl-C of a callback set `stop`, and are reported."""
    task = loop.create_task(coroutine, name="rxrouter loop")
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as exit_:
            stop.set()
            message = f"a callback has ended the loop of a client by {type(exit_).__name__}"
            loop.call_exception_handler({"message": message, "exception": exit_})
        except Exception as error:  # noqa: BLE001 - the next step of the ending is no less due
            loop.call_exception_handler({"message": "a step of closing a client raised", "exception": error})


async def _cancel_all() -> None:
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
