"""Empty answers: the model finished, and there is nothing in it."""

from __future__ import annotations

from collections.abc import Iterable

from rxrouter._errors import EmptyAnswerError
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.finish_reasons import cutting_reason, is_completing


def empty_answer(values: Iterable[object]) -> EmptyAnswerError | None:
    """Return the error for a finished answer whose chunks have no content; None where its finish explains that.

    A finish by length or by a filter explains it, and so does a reason that this library does not have.

    Args:
        values: All of a stream that has completed; none of them has content.
    """
    chunks = [value for value in values if isinstance(value, ChatChunk)]
    choices = [choice for chunk in chunks for choice in chunk.choices]
    finishes = [choice.finish_reason for choice in choices if choice.finish_reason]
    natives = [choice.native_finish_reason for choice in choices]
    if not finishes or not all(map(is_completing, finishes)) or cutting_reason(natives):
        return None
    error = EmptyAnswerError(finishes[-1], next((chunk.usage for chunk in reversed(chunks) if chunk.usage), None))
    error.generation_id = next((chunk.id for chunk in chunks if chunk.id), None)
    error.chunks_seen = len(chunks)
    return error
