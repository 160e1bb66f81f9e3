from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given, strategies as st
from reactivex import Subject

from rxrouter import Choice, Delta
from rxrouter._wire.restarted import Restarted
from rxrouter.operators import sentences
from tests.operators.display import (
    Arrival,
    arrivals,
    assert_honest,
    assert_silent_after_leaving,
    chunk_arrivals,
    cut,
    gaps,
    show,
    texts,
)
from tests.operators.support import chunk, subscribed_scheduler

# Each text with | where its sentences end.
ENDS = {
    "stops": "Hello there. |How are you? |Fine!  |Thanks.",
    "several stops": "What?! |No... |Yes!!! |Well… |So",
    "no stop": "no end",
    "decimals": "It is 3.14 or 2.5. |It costs $1.5 million.",
    "versions": "Take v1.2.3. |Then Python 3.12. |Done",
    "addresses": "See https://example.com/a.b?c=d. |Or write to me@example.com. |Bye",
    "titles": "Mr. Smith met Dr. Jones and Prof. J. K. Rowling on St. John St. and left. |Then",
    "abbreviations with dots": "In the U.S. and e.g. France, i.e. Paris. |At 5 p.m. sharp",
    "abbreviations before numbers": "No. 5 is in Fig. 3 on p. 7. |No. |I won't. |On Dec. 24 it was",
    "unknown abbreviation before a small letter": "The dept. of approx. five is here. |Yes",
    "pronoun": "So did I. |Then he left",
    "ellipsis": "Wait... what? |He left... |She stayed.",
    "quotes": '"Hello." |"Bye!" |He said “No.” |Then',
    "speech": '"Really?" he asked. |"Yes!" she said.',
    "brackets": "(See it.) |That (e.g. this) is it. |[Yes.] |So",
    "Markdown": "**Note.** |This is `it.` |_Really?_ |Yes",
    "small letters throughout": "sure. |let me check. |it's fine",
    "no letter before the first dot": "3.14 is pi. and so on. |End",
    "paragraphs": "One\n\n|Two\n \n|Three",
    "blank lines first": "\n\nHello. |You",
    "soft line break": "One line\nand the next. |Three",
    "stop at a line's end": "Really?\n|Yes.\r\n|No",
    "CRLF paragraphs": "One\r\n\r\n|Two",
    "heading": "# One title\n|It begins. |Here\n|## Two\n|End",
    "list": "Take:\n|- one thing\n|- two. |Things\n|* three\n|And then",
    "numbered list": "1. First. |More\n|2. Second\n|10) Tenth\n|a) Letter\n|End",
    "no list": "It was\n1984 was it\n-5 degrees\n#1 hit. |End",
    "Chinese": "你好。|我很好！|“真的？”|他说：「是的。」|走吧……我走。|好",
    "Japanese": "おはよう。|元気？|はい！！|（笑）。|そう",
    "fullwidth and Latin": "你好。|Mr. Smith. |再见！|Bye",
    "Hindi": "हाँ। |मैं हूँ। |ठीक",
    "Arabic": "مرحبا؟ |نعم. |لا",
    "emoji": "Great! |🎉 Yes⁉️ |So",
    "accent on the space": "One. \u0301Two. |Three",
}


def split(text: str) -> list[str]:
    return [value for _, value in show(sentences(), Arrival([(0.0, text)], 1.0)).values]


@pytest.mark.parametrize("marked", ENDS.values(), ids=ENDS.keys())
def test_sentences_end_where_people_end_them(marked: str) -> None:
    assert split(marked.replace("|", "")) == marked.split("|")


@given(arrivals)
def test_sentences_say_all_of_it_once_in_whole_clusters_and_end_as_the_source_does(arrival: Arrival) -> None:
    assert_honest(arrival, show(sentences(), arrival))


runs = st.lists(texts | st.builds(str.__mul__, st.sampled_from("\n .-a。"), st.integers(50, 600)), max_size=6).map(
    "".join
)


# Sentences that begin with a small letter behind this and that, and are longer than what decisions look back to.
openings = st.lists(st.sampled_from([*"\"'“([*_-\n ", "1. ", "\n\n1. ", "# ", "the", "The"]), max_size=6).map("".join)
long = st.builds(
    "{}{}{}end{}{}".format,
    openings,
    st.sampled_from(["the ", "The ", "3 "]),
    st.builds(str.__mul__, st.just("word "), st.integers(8, 20)),
    st.sampled_from(["! ", ". ", "!\n", "\n- "]),
    st.sampled_from(["and then? more", "And\n- so. on", "1. and\nmore"]),
)
in_pieces = long.flatmap(cut) | long.map(list)


@example(list('"the ' + "word " * 16 + "end! and then? more"))
@example(list("\n\n1. foo\nbar"))
@given((texts | runs | st.sampled_from(list(ENDS.values()))).flatmap(cut) | in_pieces)
def test_sentences_are_the_same_however_the_text_was_cut(pieces: list[str]) -> None:
    arrival = Arrival([(float(at), piece) for at, piece in enumerate(pieces)], len(pieces))

    assert [value for _, value in show(sentences(), arrival).values] == split("".join(pieces))


@given(arrivals, st.integers(1, 4), gaps)
def test_sentences_are_silent_after_they_were_left(arrival: Arrival, values: int, at: float) -> None:
    assert_silent_after_leaving(sentences(), arrival, values, at)


@given(chunk_arrivals)
def test_sentences_of_chunks_are_the_text_of_the_first_choice(arrival: Arrival) -> None:
    values = [value for _, value in arrival.values if not isinstance(value, Restarted)]
    content = "".join(part.delta.content or "" for value in values for part in value.choices if part.index == 0)

    shown = show(sentences(), Arrival([(at, value) for at, value in arrival.values if value in values], arrival.end))

    assert shown.text == content


@pytest.mark.parametrize(
    ("pieces", "when"),
    [
        (["Hi", ".", " ", "How"], 3),
        (["Hi. How"], 0),
        (["One", "\n", "\n", "Two"], 3),
        (["- one", "\n", "-", " two"], 3),
        (["- one", "\nTw", "o"], 1),
        (["你好。", "我"], 1),
    ],
)
def test_a_sentence_is_emitted_as_soon_as_the_text_goes_on(pieces: list[str], when: float) -> None:
    arrival = Arrival([(float(at), piece) for at, piece in enumerate(pieces)], 99.0)

    assert show(sentences(), arrival).values[0][0] == when


@pytest.mark.parametrize("run", ["\n", ".", " ", "-", "a\n", "...\n"])
def test_a_run_without_end_is_not_held_as_one_decision(run: str) -> None:
    arrival = Arrival([(0.0, "Hi. "), *((float(at), run) for at in range(1, 2_000))], 2_000.0)

    assert_honest(arrival, show(sentences(), arrival))


def test_a_tool_call_and_a_finish_reason_end_a_sentence() -> None:
    call = chunk({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]})
    finish = msgspec.structs.replace(chunk({}), choices=[Choice(0, Delta(content="d."), "stop")])
    values = [(0.0, chunk({"content": "Let me look"})), (1.0, call), (2.0, chunk({"content": "Foun"})), (3.0, finish)]

    assert show(sentences(), Arrival(values, 9.0)).values == [(1.0, "Let me look"), (3.0, "Found.")]


def test_the_unfinished_sentence_is_dropped_when_the_answer_begins_anew() -> None:
    begun, again = chunk({"content": "Hi. How a"}), chunk({"content": "Hello. You"})

    shown = show(sentences(), Arrival([(0.0, begun), (1.0, Restarted(attempt=2)), (2.0, again)], 3.0))

    assert [value for _, value in shown.values] == ["Hi. ", "Hello. ", "You"]


def test_sentences_keep_their_order_when_one_makes_the_source_say_more() -> None:
    source = Subject[str]()
    got: list[str] = []

    def on_next(value: str) -> None:
        got.append(value)
        if len(got) == 1:
            source.on_next(" Three. Four")

    source.pipe(sentences()).subscribe(on_next)
    source.on_next("One. Two.")
    source.on_completed()

    assert got == ["One. ", "Two. ", "Three. ", "Four"]


def test_sentences_hand_the_scheduler_up() -> None:
    given_scheduler, reached = subscribed_scheduler(sentences())

    assert reached is given_scheduler
