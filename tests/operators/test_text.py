from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import operators as ops

from rxrouter import Restarted
from rxrouter.operators import completion, reasoning, text
from rxrouter.testing import Reply, answer
from tests.operators.support import chunk, play, subscribed_scheduler
from tests.support import served

HEL, LO = chunk({"content": "Hel"}), chunk({"content": "lo"})
ROLE, THOUGHT, USAGE = (
    chunk({"role": "assistant", "content": ""}),
    chunk({"reasoning": "hm"}),
    chunk(usage={"cost": 1.0}),
)


def test_text_emits_the_content_when_it_comes_and_skips_what_has_none() -> None:
    heard, subscription = play(text(), (1, ROLE), (2, THOUGHT), (3, HEL), (4, LO), (5, USAGE), (6, None))

    assert heard == [(3, "Hel"), (4, "lo"), (6, None)]
    assert subscription == (0, 6)


def test_text_of_nothing_is_nothing() -> None:
    assert play(text(), (1, None))[0] == [(1, None)]


def test_text_passes_the_error_on() -> None:
    error = ValueError("cut")

    assert play(text(), (1, HEL), (2, error))[0] == [(1, "Hel"), (2, error)]


def test_text_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(text(), (1, HEL), (9, LO), disposed=5)

    assert (heard, subscription) == ([(1, "Hel")], (0, 5))


def test_text_is_of_one_choice() -> None:
    both = chunk({"content": "first"}, {"content": "second"})

    assert play(text(choice=1), (1, both), (2, None))[0] == [(1, "second"), (2, None)]


def test_text_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(text())

    assert reached is given


def thoughts_and_words(pieces: list[str]) -> tuple[str, str]:
    """What `reasoning()` and `text()` emit where thoughts stand in the text."""
    chunks: list[Any] = [(at, chunk({"content": piece})) for at, piece in enumerate(pieces, 1)]
    texts = [
        [value for _, value in play(operator, *chunks, (len(pieces) + 1, None))[0][:-1]]
        for operator in (reasoning(think="reasoning"), text(think="reasoning"))
    ]
    assert all(all(emitted) for emitted in texts)
    return "".join(texts[0]), "".join(texts[1])


SPLITS = {
    "<think>hm</think>Hello": ("hm", "Hello"),
    " \n<think>\nhm\n</think>\n\nHello <think>x</think>": ("\nhm\n", "Hello <think>x</think>"),
    "<Thinking>hm</think></Thinking> Hello": ("hm</think>", "Hello"),
    "<think></think>Hello": ("", "Hello"),
    "<think>hm </thi": ("hm </thi", ""),
    "<think>a<b</thin</think>c": ("a<b</thin", "c"),
    "Hello <think>hm</think>": ("", "Hello <think>hm</think>"),
    "  <thi": ("", "  <thi"),
    " <thunk>": ("", " <thunk>"),
    "<": ("", "<"),
    "": ("", ""),
    " " * 300 + "<think>hm</think>": ("", " " * 300 + "<think>hm</think>"),
}


@pytest.mark.parametrize(("whole", "split"), SPLITS.items())
def test_text_leaves_thoughts_out_by_choice(whole: str, split: tuple[str, str]) -> None:
    assert thoughts_and_words([whole]) == thoughts_and_words(list(whole)) == split
    assert "".join(v for _, v in play(text(), (1, chunk({"content": whole})), (2, None))[0][:-1]) == whole


@given(st.sampled_from([whole for whole in SPLITS if len(whole) < 100]), st.lists(st.integers(0, 99), max_size=5))
def test_text_splits_thoughts_off_alike_when_the_text_is_cut_anywhere(whole: str, cuts: list[int]) -> None:
    ends = sorted(min(cut, len(whole)) for cut in cuts)
    pieces = [whole[a:b] for a, b in zip([0, *ends], [*ends, len(whole)], strict=True)]

    assert thoughts_and_words(pieces) == SPLITS[whole]


def test_text_without_thoughts_emits_what_it_held_before_an_error_and_forgets_it_when_the_answer_begins_anew() -> None:
    error = ValueError("cut")
    begun, again = chunk({"content": "<thi"}), chunk({"content": "<think>a</think>b"})

    assert play(text(think="reasoning"), (1, begun), (2, error))[0] == [(2, "<thi"), (2, error)]
    assert play(text(think="reasoning"), (1, begun), (2, Restarted(attempt=2)), (3, again), (4, None))[0] == [
        (3, "b"),
        (4, None),
    ]


def test_text_refuses_another_word_for_what_thoughts_are() -> None:
    with pytest.raises(ValueError, match='think must be "text" or "reasoning", got \'no\''):
        text(think="no")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType] - the test's subject


async def test_text_and_the_partial_answer_of_its_error_come_of_one_request_when_completion_is_merged() -> None:
    body = answer("one two three")
    words: list[str] = []
    partials: list[Any] = []
    async with served(Reply(body[:4])) as (client, simulator):

        def views(chunks: rx.Observable[Any]) -> rx.Observable[str]:
            return rx.merge(chunks.pipe(completion(), ops.ignore_elements()), chunks.pipe(text()))

        both = client.chat("hi", model="m").pipe(ops.publish(views))
        over = asyncio.Event()

        def on_error(error: Any) -> None:
            partials.append(error.partial)
            over.set()

        both.subscribe(words.append, on_error)
        await over.wait()
        assert len(simulator.exchanges) == 1

    assert words
    assert [partial.text for partial in partials] == ["".join(words)]
