from __future__ import annotations

from reactivex import operators as ops

from rxrouter import FunctionDelta, ToolCallDelta
from rxrouter.operators import tool_call_deltas
from tests.operators.support import chunk, play, subscribed_scheduler

NAME = chunk({"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]})
TWO = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}, {"index": 1, "id": "c2"}]})
NAMED = ToolCallDelta(0, "c1", "function", FunctionDelta("f", ""))


def test_tool_call_deltas_emits_each_piece_as_the_wire_has_it() -> None:
    heard, subscription = play(tool_call_deltas(), (1, NAME), (2, chunk({"content": "x"})), (3, TWO), (4, None))

    assert heard == [
        (1, NAMED),
        (3, ToolCallDelta(0, function=FunctionDelta(arguments="{}"))),
        (3, ToolCallDelta(1, "c2")),
        (4, None),
    ]
    assert subscription == (0, 4)


def test_tool_call_deltas_of_nothing_is_nothing() -> None:
    assert play(tool_call_deltas(), (1, None))[0] == [(1, None)]


def test_tool_call_deltas_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(tool_call_deltas(), (1, NAME), (2, error))[0] == [(1, NAMED), (2, error)]


def test_tool_call_deltas_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(tool_call_deltas(), (1, NAME), (9, NAME), disposed=5)

    assert (heard, subscription) == ([(1, NAMED)], (0, 5))


def test_tool_call_deltas_is_of_one_choice() -> None:
    both = chunk({"tool_calls": [{"id": "first"}]}, {"tool_calls": [{"id": "second"}]})

    assert play(tool_call_deltas(choice=1), (1, both), (2, None))[0] == [(1, ToolCallDelta(id="second")), (2, None)]


def test_tool_call_deltas_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(tool_call_deltas())

    assert reached is given


def test_tool_call_deltas_stop_within_a_chunk_when_their_reader_leaves() -> None:
    heard, subscription = play(lambda source: tool_call_deltas()(source).pipe(ops.take(1)), (1, TWO), (5, TWO))

    assert [at for at, _ in heard] == [1, 1]
    assert subscription == (0, 1)
