"""What a POST is to go on from: an operator far below it says so, the source looks."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from rxrouter._wire.request import ChatRequest

_continuation: ContextVar[Continuation | None] = ContextVar("rxrouter_continuation", default=None)


class Continuation:
    """The beginning of the answer to a request; it is over as soon as something has come of it.

    For what is subscribed then inherits the context, too: a `repeat` asks for a new answer, not for more of this one.
    """

    __slots__ = ("over", "request", "text")

    def __init__(self, request: ChatRequest, text: str) -> None:
        self.request = request
        self.text = text
        self.over = False


@contextmanager
def continuing(continuation: Continuation) -> Generator[None]:
    """Has the sources that are subscribed inside, or later by what was, go on from there if they ask the same."""
    token = _continuation.set(continuation)
    try:
        yield
    finally:
        _continuation.reset(token)


def continued(request: ChatRequest | None) -> ChatRequest | None:
    """What to send instead of this request, to go on with its answer; None if there is no answer to go on with."""
    continuation = _continuation.get()
    if request is None or continuation is None or continuation.over or continuation.request != request:
        return None
    return request.continued(continuation.text)
