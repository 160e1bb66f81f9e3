"""What a process holds, as numbers that must not grow."""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_PROC = Path("/proc/self")  # where there is none, what it tells is 0
_PAGE = 4096


@dataclass(frozen=True)
class Sample:
    """The numbers at one time."""

    seconds: float
    rss_mb: float
    kblocks: float  # of memory that Python has given out, in thousands
    tasks: int
    timers: int
    cancelled: int  # timers that were, and wait in the loop's heap for being thrown out
    sockets: int
    fds: int
    threads: int
    children: int  # processes
    keys: int  # in Redis

    @classmethod
    def now(cls, began: float, keys: int) -> Sample:
        loop: Any = asyncio.get_running_loop()
        timers: list[asyncio.TimerHandle] = loop._scheduled
        cancelled = sum(timer.cancelled() for timer in timers)
        files = _files()
        return cls(
            seconds=time.monotonic() - began,
            rss_mb=rss() / 1e6,
            kblocks=sys.getallocatedblocks() / 1e3,
            tasks=len(asyncio.all_tasks()),
            timers=len(timers) - cancelled,
            cancelled=cancelled,
            sockets=sum(file.startswith("socket:") for file in files),
            fds=len(files),
            threads=sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate()),
            children=_children(),
            keys=keys,
        )


HELD = ("tasks", "timers", "sockets", "fds", "threads", "children", "keys")
"""What must be as at the beginning when all is closed."""

#: By which part, and by how much in addition, the last quarter's median may be above the third's: the load is drawn.
_TOLERANCE = {"rss_mb": (0.05, 4), "kblocks": (0.10, 40), "tasks": (0.25, 25), "timers": (0.30, 40)}
_OTHERS = (0.30, 25)


def growth(samples: Sequence[Sample]) -> dict[str, tuple[float, float, bool]]:
    """Of each number the median in the third and in the last quarter, and whether that is flat."""
    rows = [asdict(sample) for sample in samples]
    quarter = len(rows) // 4
    found: dict[str, tuple[float, float, bool]] = {}
    for name in rows[0]:
        if name not in {"seconds", "cancelled"}:
            third, last = (
                statistics.median(row[name] for row in part)
                for part in (rows[-2 * quarter : -quarter], rows[-quarter:])
            )
            part, more = _TOLERANCE.get(name, _OTHERS)
            found[name] = third, last, last <= third * (1 + part) + more
    return found


def table(samples: Sequence[Sample], rows: int = 24) -> str:
    """Some of the samples, evenly chosen."""
    every = max(1, -(-len(samples) // rows))
    names = list(asdict(samples[0]))
    lines = ["".join(f"{name:>10s}" for name in names)]
    lines += ["".join(f"{value:10.0f}" for value in asdict(sample).values()) for sample in samples[::every]]
    return "\n".join(lines)


def rss() -> int:
    """Bytes of memory that this process has; 0 where nobody tells."""
    file = _PROC / "statm"
    return int(file.read_text().split()[1]) * _PAGE if file.exists() else 0


def _children() -> int:
    """Return the number of child processes, those included that have exited and that nothing has waited for."""
    return sum(len(file.read_text().split()) for file in _PROC.glob("task/*/children"))


def _files() -> list[str]:
    folder = _PROC / "fd"
    found: list[str] = []
    for file in folder.iterdir() if folder.exists() else ():
        try:
            found.append(str(file.readlink()))
        except FileNotFoundError:  # what listed the folder
            continue
    return found
