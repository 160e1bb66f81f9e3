from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading

import msgspec
import pytest
from hypothesis import given

from rxrouter import (
    ChatChunk,
    ChatCompletion,
    Restarted,
    RouterError,
    StreamError,
    TransportError,
    TruncatedStreamError,
)
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import completion, snapshots
from tests.operators.support import chunk, finished, play, subscribed_scheduler
from tests.strategies import answers

HEL, LO, USAGE = chunk({"content": "Hel"}), finished({"content": "lo"}), chunk(usage={"cost": 0.5})


def kept(*chunks: ChatChunk) -> list[ChatCompletion]:
    """All snapshots, none looked at before the last has come."""
    heard, _ = play(snapshots(), *enumerate(chunks), (len(chunks), None))
    return [what for _, what in heard[:-1]]


def test_snapshots_emit_the_answer_so_far_and_at_the_end_the_whole() -> None:
    heard, subscription = play(snapshots(), (1, HEL), (2, LO), (3, USAGE), (4, None))

    assert [(at, answer.text, answer.state) for at, answer in heard[:-1]] == [
        (1, "Hel", "streaming"),
        (2, "Hello", "streaming"),
        (3, "Hello", "streaming"),
        (4, "Hello", "complete"),
    ]
    assert heard[-1] == (4, None)
    assert subscription == (0, 4)


def test_the_last_snapshot_is_the_completion() -> None:
    chunks = (HEL, LO, USAGE)
    whole = play(completion(), *enumerate(chunks), (3, None))[0][0][1]

    assert kept(*chunks)[-1] == whole


@given(answers)
def test_a_snapshot_is_the_fold_of_the_chunks_before_it_whenever_it_is_read(chunks: list[ChatChunk]) -> None:
    folds: list[ChatCompletion] = []
    fold = CompletionFold()
    for one in chunks:
        fold.add(one)
        folds.append(fold.completion("streaming"))

    late = kept(*chunks)[:-1]

    assert late == folds
    assert [answer.text for answer in reversed(late)] == [answer.text for answer in reversed(folds)]
    assert late == folds


def test_a_snapshot_is_a_completion_in_every_way() -> None:
    early = kept(HEL, LO)[0]
    plain = ChatCompletion(id="gen-1", choices=early.choices, state="streaming")

    assert isinstance(early, ChatCompletion)
    assert (early == plain, plain == early, early != ChatCompletion()) == (True, True, True)
    for same in (copy.copy(early), copy.deepcopy(early), pickle.loads(pickle.dumps(early))):
        assert same == plain
    for encode in (msgspec.json.encode, msgspec.to_builtins, dataclasses.asdict):
        assert encode(kept(HEL, LO)[0]) == encode(plain)
    assert dataclasses.replace(kept(HEL, LO)[0], model="a/b") == dataclasses.replace(plain, model="a/b")
    assert repr(early).startswith("ChatCompletion(")
    with pytest.raises(AttributeError):
        _ = early.nothing  # type: ignore[attr-defined] # pyright: ignore[reportAttributeAccessIssue]


def test_snapshots_may_be_read_on_another_thread_while_the_answer_goes_on() -> None:
    fold = CompletionFold()
    taken: list[tuple[int, ChatCompletion]] = []
    wrong: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            for length, answer in taken[-20:]:
                if answer.text != "x" * length:
                    wrong.append(length)

    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    threads = [threading.Thread(target=read) for _ in range(2)]
    try:
        for thread in threads:
            thread.start()
        for length in range(1, 3000):
            fold.add(chunk({"content": "x"}))
            taken.append((length, fold.snapshot()))
    finally:
        over.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(patience)

    assert wrong == []


def test_snapshots_of_an_empty_answer_are_one() -> None:
    assert play(snapshots(), (1, None))[0] == [(1, ChatCompletion(state="truncated")), (1, None)]


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (TruncatedStreamError(), "truncated"),
        (TransportError(phase="read"), "truncated"),
        (StreamError(502, "Upstream error"), "failed"),
    ],
)
def test_snapshots_put_what_came_on_the_error(error: RouterError, state: str) -> None:
    heard, _ = play(snapshots(), (1, HEL), (2, error))

    assert heard[-1] == (2, error)
    assert (error.partial.text, error.partial.state) == ("Hel", state)


def test_snapshots_begin_anew_with_a_new_attempt() -> None:
    first, void, again, _ = kept(HEL, Restarted(attempt=2), LO)

    assert [first.text, void.text, again.text] == ["Hel", "", "lo"]
    assert void.choices == []


def test_snapshots_leave_an_endless_source_when_disposed() -> None:
    heard, subscription = play(snapshots(), (1, HEL), (9, LO), disposed=5)

    assert ([answer.text for _, answer in heard], subscription) == (["Hel"], (0, 5))


def test_snapshots_start_anew_with_each_subscription() -> None:
    operator = snapshots()

    for _ in range(2):
        assert play(operator, (1, HEL), (2, None))[0][0][1].text == "Hel"


def test_snapshots_hand_the_scheduler_up() -> None:
    given_one, reached = subscribed_scheduler(snapshots())

    assert reached is given_one
