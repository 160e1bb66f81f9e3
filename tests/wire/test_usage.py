"""One usage of all that a stream says of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from rxrouter import ChatChunk, Choice, Usage
from rxrouter._wire.chunk import CompletionTokensDetails, PromptTokensDetails, decode_odd
from rxrouter._wire.fold import CompletionFold
from rxrouter._wire.usage import merged_usage, with_usage

WHOLE = Usage(3, 2, 5, cost=0.5)


@pytest.mark.parametrize(
    ("first", "then", "merged"),
    [
        pytest.param(None, None, None, id="none"),
        pytest.param(None, Usage(), Usage(), id="only an empty one"),
        pytest.param(WHOLE, None, WHOLE, id="nothing more"),
        pytest.param(WHOLE, Usage(), WHOLE, id="empty"),
        pytest.param(WHOLE, Usage(0, 0, 0, cost=0.0), WHOLE, id="zeros"),
        pytest.param(Usage(0, 0, 0), WHOLE, WHOLE, id="zeros first"),
        pytest.param(Usage(3, 1, 4), Usage(3, 9, 12), Usage(3, 9, 12), id="counting"),
        pytest.param(Usage(3), Usage(None, 2), Usage(3, 2), id="halves"),
        pytest.param(Usage(3, 0, 3), Usage(0, 2, 2), Usage(3, 2, 5), id="halves with totals"),
        pytest.param(Usage(3, 2, 5), Usage(cost=0.5), WHOLE, id="the cost behind the counts"),
        pytest.param(
            Usage(3, prompt_tokens_details=PromptTokensDetails(cached_tokens=1, audio_tokens=2)),
            Usage(
                None,
                2,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=0),
                completion_tokens_details=CompletionTokensDetails(4),
            ),
            Usage(
                3,
                2,
                prompt_tokens_details=PromptTokensDetails(cached_tokens=1, audio_tokens=2),
                completion_tokens_details=CompletionTokensDetails(4),
            ),
            id="details",
        ),
    ],
)
def test_two_usages_are_what_both_say(first: Usage | None, then: Usage | None, merged: Usage | None) -> None:
    assert merged_usage(first, then) == merged


def test_a_sum_of_generations_replaces_what_it_sums() -> None:
    total = Usage(1, 1, 2)
    total.parts = (("a", Usage(1)),)

    assert merged_usage(WHOLE, total) is total


@pytest.mark.parametrize("empty", [Usage(), Usage(0, 0, 0)])
def test_a_fold_keeps_a_usage_when_an_empty_one_follows(empty: Usage) -> None:
    fold = CompletionFold()
    for usage in (Usage(3, 0, 3), Usage(0, 2, 2), empty):
        fold.add(ChatChunk(choices=[Choice()], usage=usage))

    assert fold.completion().usage == Usage(3, 2, 5)


def test_a_chunk_with_another_usage_keeps_its_unknown_members() -> None:
    chunk = decode_odd(b'{"id": "c", "new": {"x": 1}, "usage": {"prompt_tokens": 0}}')

    changed = with_usage(chunk, WHOLE)

    assert changed.usage == WHOLE
    assert json.loads(changed.raw) == {
        "id": "c",
        "new": {"x": 1},
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.5},
    }
    assert chunk.usage == Usage(0)


counts = st.none() | st.integers(0, 5)
usages = st.builds(
    Usage,
    counts,
    counts,
    counts,
    cost=st.none() | st.floats(0, 1),
    prompt_tokens_details=st.none() | st.builds(PromptTokensDetails, counts, counts),
)


@given(usages, usages)
def test_no_number_is_lost_or_made_up(first: Usage, then: Usage) -> None:
    merged = merged_usage(first, then)

    assert merged is not None
    for name in ("prompt_tokens", "completion_tokens", "cost"):
        assert (getattr(merged, name) or 0) == (getattr(then, name) or getattr(first, name) or 0)
    assert merged_usage(merged, merged) == merged
    assert merged_usage(merged, Usage()) == merged
