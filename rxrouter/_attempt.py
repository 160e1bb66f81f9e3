"""What is known of a POST beside its values: the source notes it, operators far below it look."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from rxrouter._wire.request import ChatRequest

_watchers: ContextVar[tuple[Callable[[Attempt], None], ...]] = ContextVar("rxrouter_watchers", default=())


class Attempt:
    """One POST; times are the scheduler's clock in seconds, None for what has not happened."""

    __slots__ = (
        "began",
        "continues",
        "first_comment",
        "generation_id",
        "headers",
        "last_comment",
        "on_comment",
        "paused",
        "request",
        "resumed",
    )

    def __init__(self, request: ChatRequest | None = None, *, continues: bool = False) -> None:
        self.request = request  # None of another dialect's
        self.continues = continues  # it goes on with an answer that was cut
        self.began: float | None = None
        self.headers: float | None = None
        self.first_comment: float | None = None
        self.last_comment: float | None = None
        self.on_comment: tuple[Callable[[], None], ...] = ()
        self.generation_id: str | None = None
        self.paused = False  # a reader that is behind holds the socket: the silence is ours
        self.resumed: float | None = None  # when that was last over

    def comment(self, now: float) -> None:
        """A keep-alive has come: the connection lives, though the model is silent."""
        self.last_comment = now
        if self.first_comment is None:
            self.first_comment = now
        for tell in self.on_comment:
            tell()

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
