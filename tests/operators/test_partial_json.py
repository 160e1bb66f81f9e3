from __future__ import annotations

from typing import Any

import pytest
from msgspec import Struct
from reactivex.subject import Subject

from rxrouter import AnswerDecodeError, ProtocolError, Restarted, is_transient
from rxrouter.operators import partial_json, text
from tests.operators.support import chunk, play, subscribed_scheduler


class Step(Struct):
    do: str
    minutes: int = 0


CUT = "the text ends before the document does"
BEGIN, REST = chunk({"content": '[{"do": "mi'}), chunk({"content": 'x"}]'})


def call(index: int | None, piece: str | None) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": piece}}


def refused(heard: list[Any], tick: int) -> AnswerDecodeError:
    """The error at the end of what was heard."""
    assert heard[-1][0] == tick
    assert isinstance(heard[-1][1], AnswerDecodeError)
    return heard[-1][1]


def test_partial_json_grows_with_the_text() -> None:
    heard, subscription = play(partial_json(), (1, BEGIN), (2, REST), (3, None))

    assert heard == [(1, [{"do": "mi"}]), (2, [{"do": "mix"}]), (3, None)]
    assert subscription == (0, 3)


def test_partial_json_grows_as_the_type() -> None:
    heard, _ = play(partial_json(list[Step]), (1, BEGIN), (2, REST), (3, None))

    assert heard == [(1, [Step("mi")]), (2, [Step("mix")]), (3, None)]


def test_partial_json_reads_strings_and_chunks_alike() -> None:
    chunks = [(1, BEGIN), (2, REST), (3, None)]

    def through_text(source: Any) -> Any:
        return source.pipe(text(), partial_json(list[Step]))

    assert play(through_text, *chunks)[0] == play(partial_json(list[Step]), *chunks)[0]


def test_partial_json_says_a_root_number_at_the_end() -> None:
    heard, _ = play(partial_json(), (1, chunk({"content": "1"})), (2, chunk({"content": "2"})), (3, None))

    assert heard == [(3, 12), (3, None)]


def test_partial_json_of_a_cut_document_is_an_error() -> None:
    heard, subscription = play(partial_json(), (1, BEGIN), (2, None))

    assert heard[0] == (1, [{"do": "mi"}])
    assert (refused(heard, 2).reason, refused(heard, 2).position) == (CUT, 11)
    assert subscription == (0, 2)


def test_partial_json_of_nothing_is_an_error() -> None:
    heard, _ = play(partial_json(), (1, None))

    assert (refused(heard, 1).reason, refused(heard, 1).position) == (CUT, 0)


def test_partial_json_leaves_what_is_no_json_at_once() -> None:
    heard, subscription = play(partial_json(), (1, BEGIN), (2, chunk({"content": 'x"} and'})), (3, REST), (4, None))

    assert heard[:-1] == [(1, [{"do": "mi"}]), (2, [{"do": "mix"}])]
    assert (refused(heard, 2).reason, refused(heard, 2).position) == ("expected a comma or ]", 15)
    assert subscription == (0, 2)


def test_partial_json_leaves_what_is_not_of_the_type_at_once() -> None:
    heard, subscription = play(partial_json(list[Step]), (1, BEGIN), (2, chunk({"content": 'x", "minutes": "1"'})))

    assert refused(heard, 2).reason == "Expected `int`, got `str` - at `$[0].minutes`"
    assert subscription == (0, 2)


def test_partial_json_is_over_before_it_says_so() -> None:
    source: Subject[str] = Subject()
    left: list[bool] = []
    source.pipe(partial_json()).subscribe(on_error=lambda _: left.append(not source.observers))

    source.on_next("no")

    assert left == [True]


def test_an_answer_that_is_no_document_is_not_worth_the_same_request_again() -> None:
    error = refused(play(partial_json(), (1, None))[0], 1)

    assert isinstance(error, ProtocolError)
    assert not is_transient(error)


def test_partial_json_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(partial_json(), (1, BEGIN), (2, error))[0] == [(1, [{"do": "mi"}]), (2, error)]


def test_partial_json_leaves_an_endless_source_when_disposed() -> None:
    assert play(partial_json(), (1, BEGIN), (9, REST), disposed=5) == ([(1, [{"do": "mi"}])], (0, 5))


def test_partial_json_is_of_one_choice() -> None:
    both = chunk({"content": "[1]"}, {"content": '"second"'})

    assert play(partial_json(choice=1), (1, both), (2, None))[0] == [(1, "second"), (2, None)]


@pytest.mark.parametrize("index", [0, 1])
def test_partial_json_is_of_one_tool_call(index: int) -> None:
    chunks = [
        chunk({"content": "I look that up."}),
        chunk({"tool_calls": [call(0, "")]}),
        chunk({"tool_calls": [call(0, '{"n": ')]}),
        chunk({"tool_calls": [call(0, "0}"), call(1, '{"n": ')]}),
        chunk({"tool_calls": [call(0, None), call(1, "1"), call(1, "}")]}),
    ]

    heard, _ = play(partial_json(tool_call=index), *enumerate(chunks, 1), (9, None))

    assert [value for _, value in heard] == [{}, {"n": index}, None]


def test_a_tool_call_without_an_index_is_the_first() -> None:
    heard, _ = play(partial_json(tool_call=0), (1, chunk({"tool_calls": [call(None, '{"n": 0}')]})), (2, None))

    assert heard == [(1, {"n": 0}), (2, None)]


def test_partial_json_begins_anew_with_the_answer() -> None:
    heard, _ = play(partial_json(), (1, BEGIN), (2, Restarted(attempt=2)), (3, chunk({"content": "[2]"})), (4, None))

    assert heard == [(1, [{"do": "mi"}]), (3, [2]), (4, None)]


def test_partial_json_starts_anew_with_each_subscription() -> None:
    operator = partial_json()

    for _ in range(2):
        assert play(operator, (1, chunk({"content": "[1]"})), (2, None))[0] == [(1, [1]), (2, None)]


def test_a_reader_may_feed_the_source_while_it_reads() -> None:
    source: Subject[str] = Subject()
    heard: list[str] = []

    def read(value: list[Any]) -> None:
        if len(value) < 3:
            source.on_next(f"{len(value) + 1}, ")
        heard.append(repr(value))

    source.pipe(partial_json()).subscribe(read)
    source.on_next("[1, ")

    assert heard == ["[1, 2, 3]", "[1, 2]", "[1]"]


def test_partial_json_refuses_a_type_that_is_none_where_it_is_written() -> None:
    with pytest.raises(TypeError):
        partial_json(5)


def test_partial_json_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(partial_json())

    assert reached is given
