from __future__ import annotations

from typing import Any

import pytest

from rxrouter import (
    ChatChunk,
    FunctionCall,
    IncompleteToolCallError,
    Restarted,
    StreamError,
    ToolCall,
    TruncatedStreamError,
    is_transient,
)
from rxrouter.operators import tool_calls
from tests.operators.support import chunk, play, subscribed_scheduler


def piece(index: int = 0, arguments: str | None = None, **more: Any) -> ChatChunk:
    function = {"name": more.pop("name", None), "arguments": arguments}
    return chunk({"tool_calls": [{"index": index, "function": function, **more}]})


def finish(reason: str | None, native: str | None = None) -> ChatChunk:
    chunk = piece()
    chunk.choices[0].delta.tool_calls = ()
    chunk.choices[0].finish_reason, chunk.choices[0].native_finish_reason = reason, native
    return chunk


NAME, OSLO = piece(name="weather", id="c1"), piece(arguments='{"in": "Oslo"}')
CALL = ToolCall("c1", function=FunctionCall("weather", '{"in": "Oslo"}'))


def ended(*chunks: ChatChunk) -> tuple[list[ToolCall], Exception | None]:
    """The calls that were released, and how it ended."""
    heard, _ = play(tool_calls(), *enumerate(chunks), (len(chunks), None))
    return [what for _, what in heard[:-1]], heard[-1][1]


def test_tool_calls_are_released_when_the_answer_is_complete() -> None:
    heard, subscription = play(tool_calls(), (1, NAME), (2, OSLO), (3, finish("tool_calls", "tool_use")), (4, None))

    assert heard == [(4, CALL), (4, None)]
    assert subscription == (0, 4)


@pytest.mark.parametrize(
    "reason",
    [
        *("stop", "STOP", "tool_calls", "function_call", "end_turn", "tool_use", "eos", "eos_token", "COMPLETE"),
        *("tool_call", "TOOL_CALL", "tool-calls", "Tool-Calls", "toolCalls", "function_calls", "FUNCTION_CALLS"),
        *("tool-use", "endTurn", "stop-sequence"),
    ],
)
def test_a_finish_reason_that_completes_is_proof(reason: str) -> None:
    assert ended(NAME, OSLO, finish(reason)) == ([CALL], None)


@pytest.mark.parametrize(
    ("reasons", "told"),
    [
        ([], "no finish reason"),
        ([("length", None)], "'length'"),
        ([("tool_calls", "length")], "'length'"),
        ([("tool_calls", "MAX_TOKENS")], "'MAX_TOKENS'"),
        ([("tool_calls", "max_output_tokens")], "'max_output_tokens'"),
        ([("tool_calls", "model_context_window_exceeded")], "'model_context_window_exceeded'"),
        ([("tool_calls", "MALFORMED_FUNCTION_CALL")], "'MALFORMED_FUNCTION_CALL'"),
        ([("stop", "SAFETY")], "'SAFETY'"),
        ([("content_filter", None)], "'content_filter'"),
        ([("error", None)], "'error'"),
        ([("perhaps", None)], "no finish reason that completes among ['perhaps']"),
        ([(None, "stop")], "no finish reason that completes among ['stop']"),
        ([("tool_calls", "truncated")], "'truncated'"),
        ([("stop", "insufficient_system_resource")], "'insufficient_system_resource'"),
        ([("stop", "OTHER")], "'OTHER'"),
        ([("length", "length"), ("stop", "stop")], "'length'"),
        ([("tool_calls", None), ("stop", "length")], "'length'"),
        ([(None, "length"), ("tool_calls", None)], "'length'"),
    ],
)
def test_any_word_of_a_cut_is_doubt(reasons: list[tuple[str | None, str | None]], told: str) -> None:
    released, error = ended(NAME, OSLO, *(finish(*reason) for reason in reasons))

    assert released == []
    assert isinstance(error, IncompleteToolCallError)
    assert told in error.reason
    assert error.calls == (CALL,)
    assert error.finish_reasons == tuple(word for reason in reasons for word in reason if word)
    assert (error.partial.tool_calls, error.partial.partial_tool_calls) == ([], [CALL])
    assert error.partial.state == ("incomplete" if any(word for word, _ in reasons) else "truncated")
    assert error.generation_id == "gen-1"
    assert not is_transient(error)


@pytest.mark.parametrize(
    "reasons", [[("tool_calls", None), ("tool_calls", "STOP")], [("tool_calls", None), ("stop", "STOP")]]
)
def test_reasons_that_repeat_and_change_are_as_good(reasons: list[tuple[str | None, str | None]]) -> None:
    assert ended(NAME, OSLO, *(finish(*reason) for reason in reasons)) == ([CALL], None)


@pytest.mark.parametrize("arguments", ['{"in": "Os', "{", "[1]", "7", '"x"', "null", "{}{}", "{} x", "[" * 100_000])
def test_arguments_that_are_no_whole_object_are_never_released(arguments: str) -> None:
    released, error = ended(NAME, piece(arguments=arguments), finish("tool_calls"))

    assert released == []
    assert isinstance(error, IncompleteToolCallError)
    assert [call.arguments for call in error.calls] == [arguments]
    assert error.reason == "arguments that are no JSON object"


@pytest.mark.parametrize("arguments", ["", "{}", None])
def test_a_tool_without_parameters_has_an_empty_object(arguments: str | None) -> None:
    assert ended(NAME, piece(arguments=arguments), finish("tool_calls"))[0] == [
        ToolCall("c1", function=FunctionCall("weather", arguments or "{}"))
    ]


def test_a_call_without_a_name_is_never_released() -> None:
    released, error = ended(piece(id="c1", arguments="{}"), finish("tool_calls"))

    assert released == []
    assert isinstance(error, IncompleteToolCallError)


def test_tool_calls_releases_no_call_when_one_of_the_answer_is_cut() -> None:
    cut = piece(1, '{"in": ', name="weather", id="c2")

    released, error = ended(NAME, OSLO, cut, finish("tool_calls"))

    assert released == []
    assert isinstance(error, IncompleteToolCallError)
    assert [call.id for call in error.calls] == ["c1", "c2"]
    assert str(error) == "2 tool calls without proof of being whole: arguments that are no JSON object"


def test_parallel_calls_come_in_order() -> None:
    other = piece(1, "{}", name="now", id="c2")

    released, error = ended(NAME, other, OSLO, finish("tool_calls"))

    assert (released, error) == ([CALL, ToolCall("c2", function=FunctionCall("now", "{}"))], None)


def test_tool_calls_of_an_answer_without_calls_are_none_whatever_its_finish() -> None:
    assert ended(chunk({"content": "Sunny."}), finish("length")) == ([], None)


def test_tool_calls_of_nothing_are_nothing() -> None:
    assert play(tool_calls(), (1, None))[0] == [(1, None)]


@pytest.mark.parametrize("error", [TruncatedStreamError(), StreamError(502, "Upstream error")])
def test_tool_calls_pass_the_error_on_with_what_was_received(error: StreamError | TruncatedStreamError) -> None:
    heard, _ = play(tool_calls(), (1, NAME), (2, OSLO), (3, finish("tool_calls")), (4, error))

    assert heard == [(4, error)]
    assert (error.partial.tool_calls, error.partial.partial_tool_calls) == ([], [CALL])


def test_tool_calls_of_an_attempt_that_is_void_are_forgotten() -> None:
    again = piece(name="now", id="c9", arguments="{}")

    released, error = ended(NAME, OSLO, finish("length"), Restarted(attempt=2), again, finish("tool_calls"))

    assert (released, error) == ([ToolCall("c9", function=FunctionCall("now", "{}"))], None)


def test_tool_calls_are_of_one_choice() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "now"}}]}
    both = chunk({"content": "Sunny."}, call)
    both.choices[0].finish_reason, both.choices[1].finish_reason = "length", "tool_calls"

    assert play(tool_calls(choice=1), (1, both), (2, None))[0] == [
        (2, ToolCall("c1", function=FunctionCall("now", "{}"))),
        (2, None),
    ]


def test_tool_calls_leave_an_endless_source_when_disposed() -> None:
    assert play(tool_calls(), (1, NAME), (9, OSLO), disposed=5) == ([], (0, 5))


def test_tool_calls_hand_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(tool_calls())

    assert reached is given
