from __future__ import annotations

import pytest
from msgspec import Struct
from reactivex import operators as ops
from reactivex.subject import Subject

from rxrouter import AnswerDecodeError, Restarted
from rxrouter.operators import json_items
from tests.operators.support import chunk, play, subscribed_scheduler


class Step(Struct):
    do: str


BEGIN, REST = chunk({"content": '{"n": [0], "steps": [{"do": "mi'}), chunk({"content": 'x"}, {"do": "wait"}]}'})


def test_json_items_emits_each_element_when_it_closes() -> None:
    heard, subscription = play(json_items("/steps"), (1, BEGIN), (2, REST), (3, None))

    assert heard == [(2, {"do": "mix"}), (2, {"do": "wait"}), (3, None)]
    assert subscription == (0, 3)


def test_json_items_emits_elements_of_the_type() -> None:
    heard, _ = play(json_items("/steps", type=Step), (1, BEGIN), (2, REST), (3, None))

    assert heard == [(2, Step("mix")), (2, Step("wait")), (3, None)]


@pytest.mark.parametrize("path", ["", "/"])
def test_json_items_of_a_document_that_is_the_array(path: str) -> None:
    heard, _ = play(json_items(path), (1, chunk({"content": "[1, 2"})), (2, chunk({"content": "]"})), (3, None))

    assert heard == [(1, 1), (2, 2), (3, None)]


def test_json_items_that_a_reader_causes_come_in_order() -> None:
    source = Subject[str]()
    heard: list[int] = []

    def on_next(item: int) -> None:
        heard.append(item)
        if item == 1:
            source.on_next("3,4]")

    source.pipe(json_items()).subscribe(on_next)
    source.on_next("[1,2,")

    assert heard == [1, 2, 3, 4]


def test_json_items_of_a_cut_document_is_an_error() -> None:
    heard, _ = play(json_items(), (1, chunk({"content": "[1, 2"})), (2, None))

    assert heard[0] == (1, 1)
    assert isinstance(heard[1][1], AnswerDecodeError)
    assert (heard[1][0], heard[1][1].position) == (2, 5)


def test_json_items_of_nothing_is_an_error() -> None:
    ((at, error),) = play(json_items(), (1, None))[0]

    assert at == 1
    assert isinstance(error, AnswerDecodeError)


def test_json_items_emits_what_closed_before_what_is_refused() -> None:
    piece = chunk({"content": '{"steps": [{"do": "mix"}, {"do": 1}]}'})
    heard, subscription = play(json_items("/steps", type=Step), (1, piece), (2, REST))

    assert heard[0] == (1, Step("mix"))
    assert (heard[1][0], heard[1][1].reason) == (1, "Expected `str`, got `int` - at `$.steps[1].do`")
    assert subscription == (0, 1)


def test_json_items_leaves_in_the_middle_of_a_piece() -> None:
    source: Subject[str] = Subject()
    heard: list[int] = []
    source.pipe(json_items(), ops.take(2)).subscribe(heard.append)

    source.on_next("[1, 2, 3, 4]")

    assert heard == [1, 2]
    assert not source.observers


def test_json_items_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(json_items(), (1, chunk({"content": "[1, 2"})), (2, error))[0] == [(1, 1), (2, error)]


def test_json_items_leaves_an_endless_source_when_disposed() -> None:
    assert play(json_items("/steps"), (1, BEGIN), (9, REST), disposed=5) == ([], (0, 5))


def test_json_items_is_of_one_choice_or_of_one_tool_call() -> None:
    both = chunk({"content": "[1]"}, {"tool_calls": [{"index": 1, "function": {"arguments": "[2]"}}]})

    assert play(json_items(), (1, both), (2, None))[0] == [(1, 1), (2, None)]
    assert play(json_items(choice=1, tool_call=1), (1, both), (2, None))[0] == [(1, 2), (2, None)]


def test_json_items_begins_anew_with_the_answer() -> None:
    one = chunk({"content": "[1, "})

    heard, _ = play(
        json_items(), (1, one), (2, Restarted(attempt=2)), (3, one), (4, chunk({"content": "2]"})), (5, None)
    )

    assert heard == [(1, 1), (3, 1), (4, 2), (5, None)]


def test_json_items_refuses_a_path_that_is_none_where_it_is_written() -> None:
    with pytest.raises(ValueError, match="is no JSON Pointer"):
        json_items("steps")


def test_json_items_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(json_items())

    assert reached is given


def test_json_items_finds_the_document_in_a_text_by_choice() -> None:
    heard, _ = play(json_items("/a", find=True), (1, 'Sure:\n```json\n{"a": [1'), (2, ", 2]}\n```\nDone {"), (3, None))

    assert heard == [(2, 1), (2, 2), (3, None)]
