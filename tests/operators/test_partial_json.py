from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st
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


def found(pieces: list[str], **options: Any) -> Any:
    """The last value, or the error's text and position."""
    heard, _ = play(partial_json(**options), *enumerate(pieces, 1), (len(pieces) + 1, None))
    ended = heard[-1][1]
    return (str(ended), ended.position) if isinstance(ended, AnswerDecodeError) else heard[-2][1]


REFUSED, NOT_FOUND = "the answer's text was refused at character", "there is no JSON document in the text"
FOUND: dict[str, Any] = {
    '{"a": [1]}': {"a": [1]},
    '\ufeff{"a": 1}': {"a": 1},
    'Sure! Here it is: {"a": "}"} Anything else? {"b": 2}': {"a": "}"},
    '```json\n{"a": 1}\n```\nThat is it.': {"a": 1},
    "\ufeffHere:\n```JSON\n [1, 2]\n```": [1, 2],
    '```json {"a": 1}```': {"a": 1},
    '```json\n"word"\n```': "word",
    "```json\n12\n```": 12,
    '```\n{"a": 1}\n```': {"a": 1},
    '<think>I could say {"no": 1}</think>\n{"a": 1}': {"a": 1},
    "As in [1], {name} and [x](y), it is\n[2, 3]": [2, 3],
    'First:\n```python\nx = {"no": 1}\n```\nthen\n```json\n{"a": 1}\n```': {"a": 1},
    '- [ ] write it\n{ "a": 1 }': {"a": 1},
    '[{"a": 1}] and more': [{"a": 1}],
    'It is `{"a": 1}`.': {"a": 1},
    "No JSON here [1] {x} `": (
        "the answer's text was refused at character 22: there is no JSON document in the text",
        22,
    ),
    "": (f"{REFUSED} 0: {NOT_FOUND}", 0),
}


@pytest.mark.parametrize(("whole", "value"), FOUND.items())
def test_partial_json_finds_the_document_in_a_text_by_choice(whole: str, value: Any) -> None:
    assert found([whole], find=True) == found(list(whole), find=True) == value


@given(st.sampled_from([*FOUND]), st.lists(st.integers(0, 99), max_size=5))
def test_partial_json_finds_the_same_document_when_the_text_is_cut_anywhere(whole: str, cuts: list[int]) -> None:
    ends = sorted(min(cut, len(whole)) for cut in cuts)

    assert found([whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)], find=True) == FOUND[whole]


def test_partial_json_counts_the_characters_in_front_of_a_document() -> None:
    assert found(['Sure: {"a": x}'], find=True)[1] == 12
    assert found(['\ufeff{"a": x}'])[1] == 7


def test_partial_json_skips_a_bom_and_refuses_a_sentence_by_default() -> None:
    assert found(['\ufeff{"a": 1}']) == {"a": 1}
    assert found(["\ufeff", '{"a": 1}']) == {"a": 1}
    assert found(['Sure: {"a": 1}'])[1] == 0
    assert found(['{"a": 1} \ufeff'])[1] == 9
