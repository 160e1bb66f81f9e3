"""What servers may send tomorrow passes through every operator: keys nobody knows, new reasons, null everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, IncompleteToolCallError
from rxrouter.operators import (
    Operator,
    audio,
    citations,
    completion,
    images,
    reasoning,
    refusal,
    snapshots,
    text,
    tool_call_deltas,
    tool_calls,
    usage,
)
from tests.operators.support import play
from tests.strategies import answers

OPERATORS = [
    text,
    reasoning,
    refusal,
    tool_call_deltas,
    tool_calls,
    citations,
    images,
    audio,
    usage,
    completion,
    snapshots,
]


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.__name__)
@given(data=st.data())
def test_drift_passes(operator: Callable[[], Operator[ChatChunk, Any]], data: st.DataObject) -> None:
    chunks = data.draw(answers)

    heard, _ = play(operator(), *enumerate(chunks), (len(chunks), None))

    *told, (at, ending) = heard
    for _, value in told:
        assert value is not None
        assert repr(value)  # what is lazy can be looked at
    assert at == len(chunks)
    assert ending is None or (operator is tool_calls and isinstance(ending, IncompleteToolCallError))
