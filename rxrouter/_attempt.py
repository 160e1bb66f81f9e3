"""What is known of a POST beside its values: the source notes it, operators far below it look."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeAlias, cast
from weakref import ref

from rxrouter._wire.request import ChatRequest

# What watches; a method only as long as there is its object: a source that is subscribed where another has ended, as
# `repeat` and `concat` do it, is subscribed in that one's context, whose watchers are not wanted any more.
_Watcher: TypeAlias = Callable[[], "Callable[[Attempt], None] | None"]
AT_ONCE = 16  # POSTs that an operator looks after at a time; nobody hedges with more

_watchers: ContextVar[tuple[_Watcher, ...]] = ContextVar("rxrouter_watchers", default=())


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
            if (watch := watcher()) is not None:
                watch(self)


@contextmanager
def watching(watcher: Callable[[Attempt], None]) -> Generator[None]:
    """Has `watcher` called with each POST, as it begins, of what is subscribed inside, or later by what was.

    Any number of operators away: a source runs in the context in which it was subscribed, and so do the timers and
    tasks by which `retry` and its like subscribe again. A method is called only while there is somebody else who holds
    its object, as a subscription holds its operator's state.
    """
    others = (other for other in _watchers.get() if other() is not None)
    token = _watchers.set((*others, _weakly(watcher)))
    try:
        yield
    finally:
        _watchers.reset(token)


def _weakly(watcher: Callable[[Attempt], None]) -> _Watcher:
    try:
        owner = ref(cast("Any", watcher).__self__)
    except (AttributeError, TypeError):  # a function, or a method of what can't be held so
        return lambda: watcher
    name = watcher.__name__
    return lambda: getattr(owner(), name, None)
