"""What is known of a POST beside its values: the source notes it, operators far below it look."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

_watchers: ContextVar[tuple[Callable[[Attempt], None], ...]] = ContextVar("rxrouter_watchers", default=())


class Attempt:
    """One POST; times are the scheduler's clock in seconds, None for what has not happened."""

    __slots__ = ("began", "first_comment", "generation_id", "headers", "last_comment")

    def __init__(self) -> None:
        self.began: float | None = None
        self.headers: float | None = None
        self.first_comment: float | None = None
        self.last_comment: float | None = None
        self.generation_id: str | None = None

    def comment(self, now: float) -> None:
        """A keep-alive has come: the connection lives, though the model is silent."""
        self.last_comment = now
        if self.first_comment is None:
            self.first_comment = now

    def tell(self) -> None:
        """Shows this attempt to all who watch the chain that it belongs to."""
        for watcher in _watchers.get():
            watcher(self)


@contextmanager
def watching(watcher: Callable[[Attempt], None]) -> Generator[None]:
    """Has `watcher` called with each POST, as it begins, of what is subscribed inside, or later by what was.

    Any number of operators away: a source runs in the context in which it was subscribed, and so do the timers and
    tasks by which `retry` and its like subscribe again.
    """
    token = _watchers.set((*_watchers.get(), watcher))
    try:
        yield
    finally:
        _watchers.reset(token)
