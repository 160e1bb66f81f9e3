"""Restarted: the news, in a stream of chunks, that what came before is void."""

from __future__ import annotations

from rxrouter._wire.chunk import ChatChunk


class Restarted(ChatChunk):
    """The answer begins anew: a retry after content had come; what was shown of this answer is to be taken back.

    It is a chunk without choices, so what only selects passes over it, and folds look for it
    only where a chunk has none.
    """

    attempt: int = 0  # that now begins; the second is 2
    cause: Exception | None = None  # what the one before ended with
