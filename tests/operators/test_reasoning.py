from __future__ import annotations

from typing import Any

import pytest

from rxrouter import ChatChunk
from rxrouter.operators import reasoning
from tests.operators.support import chunk, play, subscribed_scheduler

DETAIL = {"type": "reasoning.text", "text": "hm", "index": 0}


@pytest.mark.parametrize(
    "thought",
    [
        chunk({"reasoning": "hm", "reasoning_details": [DETAIL]}),
        chunk({"reasoning": "hm", "reasoning_content": "hm"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"reasoning_details": [DETAIL]}),
        chunk({"reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]}),
    ],
    ids=["mirrored", "two names", "other name", "details alone", "summary alone"],
)
def test_reasoning_is_said_once_wherever_it_is(thought: ChatChunk) -> None:
    assert play(reasoning(), (1, thought), (2, None))[0] == [(1, "hm"), (2, None)]


@pytest.mark.parametrize(
    "other",
    [chunk({"content": "Hi"}), chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]}), chunk({})],
    ids=["text", "encrypted", "empty"],
)
def test_reasoning_skips_what_shows_none(other: ChatChunk) -> None:
    assert play(reasoning(), (1, other), (2, None))[0] == [(2, None)]


def test_reasoning_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(reasoning(), (1, chunk({"reasoning": "hm"})), (2, error))[0] == [(1, "hm"), (2, error)]


def test_reasoning_leaves_an_endless_source_when_disposed() -> None:
    assert play(reasoning(), (9, chunk({"reasoning": "hm"})), disposed=5) == ([], (0, 5))


def test_reasoning_is_of_one_choice() -> None:
    both = chunk({"reasoning": "first"}, {"reasoning": "second"})

    assert play(reasoning(choice=1), (1, both), (2, None))[0] == [(1, "second"), (2, None)]


def test_reasoning_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(reasoning())

    assert reached is given


@pytest.mark.parametrize("think", [True, "reasoning"])
def test_reasoning_emits_thoughts_of_its_own_member_and_by_choice_those_in_the_text(think: Any) -> None:
    own, inside = chunk({"reasoning": "hm, "}), chunk({"content": "<think>no</think>Hi"})

    assert play(reasoning(think=think), (1, own), (2, inside), (3, None))[0] == [(1, "hm, "), (2, "no"), (3, None)]
    assert play(reasoning(), (1, own), (2, inside), (3, None))[0] == [(1, "hm, "), (3, None)]


def test_reasoning_refuses_another_word_for_think_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="think must be"):
        reasoning(think="no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the test's subject
