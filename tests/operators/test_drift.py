"""What servers may send tomorrow passes through every operator: keys nobody knows, new reasons, null everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, IncompleteToolCallError, RetryPolicy
from rxrouter.operators import (
    Operator,
    audio,
    budget,
    citations,
    coalesce,
    completion,
    fallback,
    guard,
    images,
    meter,
    reasoning,
    record_marbles,
    refusal,
    retry_transient,
    sentences,
    share_generation,
    smooth,
    snapshots,
    text,
    timeouts,
    tool_call_deltas,
    tool_calls,
    usage,
)
from tests.operators.support import play
from tests.strategies import answers

OPERATORS: dict[str, Callable[[], Operator[ChatChunk, Any]]] = {
    "text": text,
    "reasoning": reasoning,
    "refusal": refusal,
    "tool_call_deltas": tool_call_deltas,
    "tool_calls": tool_calls,
    "citations": citations,
    "images": images,
    "audio": audio,
    "usage": usage,
    "completion": completion,
    "snapshots": snapshots,
    "coalesce": coalesce,
    "smooth": smooth,
    "sentences": sentences,
    "timeouts": lambda: timeouts(total=10_000),
    # An answer without content that has finished is asked for again by default.
    "retry_transient": lambda: retry_transient(RetryPolicy(retry_empty=False)),
    "fallback": fallback,
    "meter": meter,
    "budget": lambda: budget(tokens=10**9),
    "guard": lambda: guard(lambda _: None, hold_back=3),
    "share_generation": share_generation,
    "record_marbles": lambda: record_marbles(lambda _: None),
}


@pytest.mark.parametrize("name", OPERATORS)
@given(data=st.data())
def test_drift_passes(name: str, data: st.DataObject) -> None:
    chunks = data.draw(answers)

    heard, _ = play(OPERATORS[name](), *enumerate(chunks), (len(chunks), None))

    *told, (at, ending) = heard
    for _, value in told:
        assert value is not None
        assert repr(value)  # what is lazy can be looked at
    assert at == len(chunks)
    assert ending is None or (name == "tool_calls" and isinstance(ending, IncompleteToolCallError))
