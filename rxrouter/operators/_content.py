"""Content: what the clocks wait for, and what makes a retry visible."""

from __future__ import annotations

from rxrouter._wire.chunk import ChatChunk, has_content
from rxrouter._wire.sse import Comment


def is_content(value: object) -> bool:
    """Whether a value carries anything of the answer.

    A chunk does by its deltas; of what else may be in a stream all but comments and empty texts.
    """
    if isinstance(value, ChatChunk):
        for choice in value.choices:  # noqa: SIM110 - asked with every chunk: any() with its generator takes twice as long
            if has_content(choice.delta):
                return True
        return False
    return value != "" and not isinstance(value, Comment)
