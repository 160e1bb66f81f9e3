"""A forked process that uses a client of its parent for one answer, and exits."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import warnings
from collections.abc import Callable
from typing import Any

_CHILD_SECONDS = 30  # until a child that hangs is killed


async def in_a_child(work: Callable[[], Any], leave: Callable[[], None]) -> Any:
    """Fork, and return the value of `work` there, as JSON brings it here.

    Args:
        work: Runs in the child.
        leave: Closes in the child the listening sockets of the parent.
    """
    result = os.memfd_create("result")
    try:
        child = _fork(work, leave, result)
        status = await _exit_status(child)
        assert status == 0, f"a child ended with {status}: {os.pread(result, 10_000, 0).decode()}"
        return json.loads(os.pread(result, os.fstat(result).st_size, 0))
    finally:
        os.close(result)


def _fork(work: Callable[[], Any], leave: Callable[[], None], result: int) -> int:
    with warnings.catch_warnings():
        # Of a fork beside threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.alarm(_CHILD_SECONDS)
        leave()
        os.write(result, json.dumps(work()).encode())
        code = 0
    except BaseException as error:  # noqa: BLE001 - the parent receives it
        os.write(result, repr(error).encode())
    finally:
        os._exit(code)


async def _exit_status(child: int) -> int:
    """Return when the child has exited; no thread waits for it."""
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    descriptor = os.pidfd_open(child)
    loop.add_reader(descriptor, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        if not over.is_set():
            os.kill(child, signal.SIGKILL)
        status = _reaped(child)
    return os.waitstatus_to_exitcode(status)


def _reaped(child: int) -> int:
    """Return the status of a process that has exited, or is about to."""
    return os.waitpid(child, 0)[1]
