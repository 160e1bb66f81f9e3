from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest
import reactivex as rx
from hypothesis import example, given, strategies as st
from reactivex import Observable, Subject, abc, operators as ops
from reactivex.disposable import Disposable

from rxrouter import ChatChunk, GuardError, Restarted, TruncatedStreamError, is_transient, iterate
from rxrouter.operators import completion, guard, text
from rxrouter.testing import Act, Reply, answer, chunk as event
from rxrouter.testing.answer import GENERATION_ID
from tests.operators.support import chunk, play, subscribed_scheduler
from tests.support import observe, served

Check = Callable[[str], str | None]


def word(content: str, **more: object) -> ChatChunk:
    return chunk({"content": content, **more})


def finish(content: str = "") -> ChatChunk:
    last = word(content)
    last.choices[0].finish_reason = "stop"
    return last


def passes(_: str) -> str | None:
    return None


def cuts(phrase: str) -> Check:
    def check(seen: str) -> None:
        if phrase in seen:
            raise GuardError(f"{phrase!r} is not for you")

    return check


def replaces(phrase: str, by: str, *more: str) -> Check:
    """Until there is none left: what is taken out may bring another together."""

    def check(seen: str) -> str:
        while found := next((one for one in (phrase, *more) if one in seen), None):
            seen = seen.replace(found, by)
        return seen

    return check


def guarded(pieces: Sequence[str], check: Check, hold_back: int) -> tuple[list[str], list[Exception]]:
    """What comes out of texts, and how it ends otherwise than well."""
    out, errors = list[str](), list[Exception]()
    rx.from_iterable(pieces).pipe(guard(check, hold_back=hold_back)).subscribe(out.append, errors.append)
    return out, errors


def contents(values: Sequence[object]) -> str:
    chunks = [value for value in values if isinstance(value, ChatChunk)]
    return "".join(choice.delta.content or "" for one in chunks for choice in one.choices if not choice.index)


def test_the_end_is_held_back_until_more_has_come() -> None:
    first, second, third = word("Hello"), word(" wor"), word("ld")

    heard, subscription = play(guard(passes, hold_back=4), (1, first), (2, second), (3, third), (5, None))

    assert heard == [(2, first), (5, second), (5, third), (5, None)]
    assert all(what is sent for (_, what), sent in zip(heard, (first, second, third), strict=False))
    assert subscription == (0, 5)


def test_a_check_gets_each_new_piece_with_what_is_before_it() -> None:
    seen: list[str] = []

    guarded(["Once", " upon", " a", " time"], seen.append, 3)

    assert seen == ["Once", "nce upon", "pon a", "n a time"]


def test_what_is_cut_is_not_shown_and_the_error_says_how_far_it_got() -> None:
    heard, subscription = play(
        guard(cuts("secret"), hold_back=5), (1, word("It is a ")), (2, word("sec")), (3, word("ret")), (4, word("!"))
    )

    assert [at for at, _ in heard] == [3]
    error = heard[0][1]
    assert isinstance(error, GuardError)
    assert (error.reason, error.chunks_seen, error.elapsed, error.generation_id) == (
        "'secret' is not for you",
        3,
        3,
        "gen-1",
    )
    assert not is_transient(error)
    assert subscription == (0, 3)


def test_a_check_that_raises_ends_the_stream() -> None:
    def check(_: str) -> None:
        raise LookupError

    heard, subscription = play(guard(check, hold_back=2), (1, word("Hello")), (2, word("there")))

    assert [(at, type(what)) for at, what in heard] == [(1, LookupError)]
    assert subscription == (0, 1)


def test_a_check_that_raised_is_not_asked_again() -> None:
    seen: list[str] = []

    def check(piece: str) -> None:
        seen.append(piece)
        raise LookupError

    assert guarded(["a", "b"], check, 1)[0] == []
    assert seen == ["a"]


def test_what_is_replaced_comes_with_the_newest_piece() -> None:
    assert guarded(["It is ", "sh", "ut", " now"], replaces("shut", "***"), 3) == (["It is ", "***", " now"], [])


def test_a_rewritten_chunk_keeps_all_but_its_text_and_what_quotes_it() -> None:
    said = chunk({"role": "assistant", "content": "a secret"}, model="a/b", usage={"cost": 0.5})
    said.choices[0].logprobs = {"content": [{"token": "secret"}]}
    said.received = b"a secret"

    (_, out), _ = play(guard(replaces("secret", "word"), hold_back=5), (1, said), (2, None))[0]

    choice = out.choices[0]
    assert (out.model, out.usage, choice.delta.role) == ("a/b", said.usage, "assistant")
    assert (choice.delta.content, choice.logprobs) == ("a word", None)
    assert b"secret" not in out.raw
    assert said.choices[0].delta.content == "a secret"


def test_what_a_chunk_loses_to_the_next_is_empty_there() -> None:
    heard, _ = play(guard(replaces("ab", "*"), hold_back=1), (1, word("a")), (2, word("b")), (3, None))

    assert [(at, what.choices[0].delta.content) for at, what in heard[:-1]] == [(2, ""), (3, "*")]


def test_chunks_without_text_keep_their_places() -> None:
    role, usage = chunk({"role": "assistant", "content": ""}), chunk(usage={"cost": 0.5})
    first, last = word("Hello"), word("there")

    heard, _ = play(guard(passes, hold_back=3), (1, role), (2, first), (3, usage), (4, last), (5, None))

    assert heard == [(1, role), (4, first), (4, usage), (5, last), (5, None)]


@pytest.mark.parametrize(
    "other",
    [finish(), chunk({"tool_calls": [{"index": 0, "function": {"name": "weather"}}]}), chunk({"reasoning": "hmm"})],
    ids=["finish", "tool call", "reasoning"],
)
def test_what_ends_a_text_lets_it_go(other: ChatChunk) -> None:
    first = word("Hello")

    heard, _ = play(guard(passes, hold_back=9), (1, first), (2, other), (4, None))

    assert heard == [(2, first), (2, other), (4, None)]


def test_text_behind_an_end_is_held_back_again() -> None:
    first, last = word("a"), word("b")

    heard, _ = play(guard(passes, hold_back=1), (1, first), (2, finish()), (3, last), (9, None))

    assert [at for at, _ in heard] == [2, 2, 9, 9]


def test_what_has_no_text_any_more_does_not_wait() -> None:
    heard, _ = play(guard(lambda _: "", hold_back=3), (1, word("a")), (2, word("b")), (3, None))

    assert [at for at, _ in heard] == [1, 2, 3]


def test_text_in_the_chunk_that_ends_it_is_checked() -> None:
    heard, _ = play(guard(cuts("ab"), hold_back=1), (1, word("a")), (2, finish("b")))

    assert [type(what) for _, what in heard] == [GuardError]


def test_what_has_been_let_go_can_only_be_cut() -> None:
    heard, _ = play(guard(replaces("ab", "*"), hold_back=1), (1, word("a")), (2, finish()), (3, word("b")), (4, None))

    assert contents([what for _, what in heard]) == "a"
    assert [(at, type(what)) for at, what in heard[2:]] == [(3, GuardError)]


def test_each_choice_has_its_own_text() -> None:
    both, first, second = chunk({"content": "a"}, {"content": "c"}), word("b"), chunk({}, {"content": "d"})

    assert [type(what) for _, what in play(guard(cuts("ab"), hold_back=1), (1, both), (2, first))[0]] == [GuardError]
    heard, _ = play(guard(cuts("cb"), hold_back=1), (1, both), (2, first), (3, second), (4, None))
    assert heard == [(3, both), (4, first), (4, second), (4, None)]


def test_a_choice_that_has_ended_does_not_hold_up_another() -> None:
    both, ends, more = chunk({"content": "ab"}, {"content": "c"}), finish(), chunk({}, {"content": "de"})

    heard, _ = play(guard(passes, hold_back=2), (1, both), (2, ends), (3, more), (9, None))

    assert heard == [(3, both), (3, ends), (9, more), (9, None)]


def test_the_text_of_a_new_attempt_is_a_new_text() -> None:
    void, again = Restarted(attempt=2), word("b")

    heard, _ = play(guard(cuts("ab"), hold_back=1), (1, word("a")), (2, void), (3, again), (4, None))

    assert heard[1:] == [(2, void), (4, again), (4, None)]


def test_an_error_comes_behind_all_text() -> None:
    error, first = TruncatedStreamError(), word("Hel")

    assert play(guard(passes, hold_back=9), (1, first), (2, error))[0] == [(2, first), (2, error)]


def test_nothing_held_back_holds_nothing_back() -> None:
    first = word("a")

    assert play(guard(passes, hold_back=0), (1, first), (5, None))[0] == [(1, first), (5, None)]


@pytest.mark.parametrize("verdict", [True, False, asyncio.sleep], ids=repr)
def test_a_verdict_that_is_none_is_refused(verdict: object) -> None:
    out, errors = guarded(["a"], lambda _: verdict, 1)  # type: ignore[arg-type, return-value] # pyright: ignore[reportArgumentType]

    assert out == []
    assert [type(one) for one in errors] == [TypeError]


def test_holding_back_less_than_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="hold_back"):
        guard(passes, hold_back=-1)


def test_the_source_is_left_before_the_error_is_told() -> None:
    order: list[str] = []

    def endless(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        chunks.subscribe(observer)
        return Disposable(lambda: order.append("left"))

    chunks = Subject[ChatChunk]()
    Observable(endless).pipe(guard(cuts("x"), hold_back=1)).subscribe(
        on_error=lambda error: order.append(type(error).__name__)
    )
    chunks.on_next(word("x"))

    assert order == ["left", "GuardError"]


def test_guard_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(guard(passes, hold_back=1), (1, word("abc")), (2, word("d")), (9, word("e")), disposed=5)

    assert ([at for at, _ in heard], subscription) == ([2], (0, 5))


def test_guard_starts_anew_with_each_subscription() -> None:
    pieces = rx.of("a", "b").pipe(guard(cuts("ba"), hold_back=1))
    heard: list[str] = []

    for _ in range(2):
        pieces.subscribe(heard.append)

    assert heard == ["a", "b"] * 2


def test_guard_hands_the_scheduler_up() -> None:
    given_one, reached = subscribed_scheduler(guard(passes, hold_back=1))

    assert reached is given_one


def test_what_is_held_stays_small_however_much_is_replaced() -> None:
    longest = 0

    def check(seen: str) -> str:
        nonlocal longest
        longest = max(longest, len(seen))
        return "".join("*" if sign.isdigit() else sign for sign in seen)

    out, _ = guarded([str(number % 10) for number in range(5_000)], check, 8)

    assert "".join(out) == "*" * 5_000
    assert longest == 9


letters = st.text("ab", max_size=4)
phrases = st.text("abc", min_size=1, max_size=4)


@given(st.lists(st.text(max_size=6)), st.integers(0, 9))
def test_what_passes_is_exactly_what_came(pieces: list[str], hold_back: int) -> None:
    out, errors = guarded(pieces, passes, hold_back)

    assert (out, errors) == (pieces, [])


@given(st.lists(letters), phrases, st.integers(0, 2))
@example(["a", "a", "b", "b"], "ab", 0)
def test_a_phrase_that_is_cut_never_comes_out_however_it_comes_in(pieces: list[str], phrase: str, more: int) -> None:
    out, errors = guarded(pieces, cuts(phrase), len(phrase) - 1 + more)

    shown, whole = "".join(out), "".join(pieces)
    assert phrase not in shown
    assert whole.startswith(shown)
    assert bool(errors) == (phrase in whole)


@given(st.lists(letters), st.lists(phrases, min_size=1, max_size=3), st.sampled_from(["", "*", "a"]), st.integers(0, 2))
@example(["a", "a", "b", "b"], ["ab"], "", 0)
@example(["ab", "zz", "Qc"], ["abc", "zzQ"], "", 0)
def test_phrases_that_are_replaced_never_come_out_however_they_come_in(
    pieces: list[str], phrases: list[str], by: str, more: int
) -> None:
    by = by if by not in phrases else "*"
    out, errors = guarded(pieces, replaces(phrases[0], by, *phrases[1:]), max(map(len, phrases)) - 1 + more)

    assert not any(phrase in "".join(out) for phrase in phrases)
    assert all(isinstance(error, GuardError) for error in errors)


@given(st.lists(letters), phrases, st.integers(0, 2))
def test_a_phrase_that_is_masked_is_masked_and_all_else_is_as_it_came(
    pieces: list[str], phrase: str, more: int
) -> None:
    out, errors = guarded(pieces, replaces(phrase, "*" * len(phrase)), len(phrase) - 1 + more)

    shown, whole = "".join(out), "".join(pieces)
    assert errors == []
    assert len(shown) == len(whole)
    assert all(a in (b, "*") for a, b in zip(shown, whole, strict=True))
    assert ("*" in shown) == (phrase in whole)


things = st.lists(st.one_of(letters.map(word), st.sampled_from([chunk({}), chunk({"reasoning": "hm"}), finish()])))


@given(things, phrases, st.booleans())
def test_of_chunks_no_phrase_comes_out_and_no_chunk_is_lost(chunks: list[ChatChunk], phrase: str, cut: bool) -> None:  # noqa: FBT001
    check = cuts(phrase) if cut else replaces(phrase, "*")
    heard, _ = play(guard(check, hold_back=len(phrase) - 1), *enumerate(chunks, 1), (500, None))

    *values, ending = [what for _, what in heard]
    assert phrase not in contents(values)
    if ending is None:
        assert len(values) == len(chunks)
    else:
        assert isinstance(ending, GuardError)
        assert phrase in contents(chunks)


async def test_the_server_sees_the_cut() -> None:
    words = [event({"content": piece}) for piece in ("The ", "key ", "is ", "s", "k-", "1234")]
    async with served(Reply((*words, Act.HANG))) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(guard(cuts("sk-"), hold_back=2), completion()))
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None
    error = seen.endings[0]
    assert isinstance(error, GuardError)
    assert error.partial.text == "The key "
    assert (error.chunks_seen, error.generation_id) == (5, GENERATION_ID)


async def test_leaving_closes_the_socket() -> None:
    async with served(Reply((*answer("Hello there")[:4], Act.HANG))) as (client, simulator):
        async for _ in client.chat("hi").pipe(text(), guard(passes, hold_back=3)):
            break
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None


async def moderated(piece: str) -> str:
    """Takes longer for what comes first, as moderation does."""
    await asyncio.sleep(0.01 / len(piece))
    if "bad" in piece:
        raise GuardError("moderation")
    return piece


def slowly(piece: str) -> Observable[str]:
    return rx.defer(lambda _: rx.from_future(asyncio.ensure_future(moderated(piece))))


async def test_a_check_that_has_to_be_awaited_has_its_place_behind_concat_map() -> None:
    async with served(Reply(answer("a bad word"))) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(text(), ops.concat_map(slowly)))

        assert len(simulator.exchanges) == 1
    assert (seen.values, [type(one) for one in seen.endings]) == (["a"], [GuardError])


async def test_a_check_that_has_to_be_awaited_has_its_place_in_an_async_for() -> None:
    shown: list[str] = []

    async def show(pieces: Observable[str]) -> None:
        async for piece in iterate(pieces):
            shown.append(await moderated(piece))  # noqa: PERF401 - as a user writes it

    async with served(Reply((event({"content": "a"}), event({"content": " bad"}), Act.HANG))) as (client, simulator):
        with pytest.raises(GuardError):
            await show(client.chat("hi").pipe(text()))
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None
    assert shown == ["a"]


def test_a_choice_that_says_nothing_more_does_not_hold_up_another() -> None:
    silent, one, two = chunk({}, {"content": "x"}), chunk({"content": "one "}), chunk({"content": "two"})
    silent.choices = silent.choices[1:]

    heard, _ = play(guard(passes, hold_back=3), (1, silent), (2, one), (3, two), (9, None))

    assert heard == [(3, one), (9, two), (9, silent), (9, None)]


def test_what_is_of_no_choice_comes_behind_what_came_before_it() -> None:
    both, usage, more = chunk({"content": "a"}, {"content": "b"}), chunk(usage={"cost": 0.5}), chunk({"content": "cd"})
    usage.choices = []

    heard, _ = play(guard(passes, hold_back=2), (1, both), (2, usage), (3, more), (9, None))

    assert heard == [(9, both), (9, usage), (9, more), (9, None)]
