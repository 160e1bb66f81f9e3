from __future__ import annotations

from typing import Any

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Observable, Subject, abc
from reactivex.disposable import Disposable

from rxrouter import BudgetExceededError, ChatChunk, Restarted, StreamError, Usage, is_transient
from rxrouter.operators import Spent, budget, completion
from rxrouter.testing import Act, Reply, answer, chunk as event
from rxrouter.testing.answer import GENERATION_ID
from tests.operators.support import Notification, chunk, play, subscribed_scheduler
from tests.support import observe, served


def words(characters: int, **more: Any) -> ChatChunk:
    return chunk({"content": "x" * characters}, **more)


def said(cost: float | None = None, tokens: int | None = None, **more: Any) -> ChatChunk:
    return chunk(usage={"cost": cost, "completion_tokens": tokens}, **more)


def facts(what: Any) -> tuple[str, float, float, bool]:
    assert isinstance(what, BudgetExceededError)
    return what.which, what.limit, what.spent, what.estimated


def test_the_chunk_that_passes_the_limit_is_the_last() -> None:
    first, second, third = words(8), words(4), words(8)

    heard, subscription = play(budget(tokens=2), (1, first), (2, second), (3, third))

    assert heard[:2] == [(1, first), (2, second)]
    assert [(at, facts(what)) for at, what in heard[2:]] == [(2, ("tokens", 2, 3, True))]
    assert subscription == (0, 2)


def test_the_error_says_how_far_it_got() -> None:
    error = play(budget(tokens=1), (1, words(4)), (3, words(4)))[0][-1][1]

    assert (error.chunks_seen, error.elapsed, error.generation_id) == (2, 3, "gen-1")
    assert str(error) == "the budget of 1 tokens is spent: 2 by estimate"
    assert not is_transient(error)


def test_the_word_of_the_server_is_no_estimate() -> None:
    heard, _ = play(budget(cost=0.5), (1, said(cost=0.25)), (2, said(cost=0.75)), (3, words(1)))

    assert [at for at, _ in heard] == [1, 2, 2]
    assert facts(heard[-1][1]) == ("cost", 0.5, 0.75, False)


def test_the_word_of_the_server_replaces_the_estimate() -> None:
    spent = Spent()

    heard, _ = play(budget(tokens=5, spent=spent), (1, words(20)), (2, said(tokens=2)), (3, words(12)), (4, None))

    assert heard[-1] == (4, None)
    assert spent == Spent(tokens=2, estimated_tokens=3)


def test_what_was_spent_to_the_limit_is_not_too_much() -> None:
    assert play(budget(cost=0.5, tokens=2), (1, said(cost=0.5, tokens=2)), (2, None))[0][-1] == (2, None)


def test_sums_of_costs_are_not_too_much_by_rounding() -> None:
    spent = Spent(cost=0.1)

    assert play(budget(cost=0.3, spent=spent), (1, said(cost=0.2)), (2, None))[0][-1] == (2, None)
    assert spent.cost > 0.3


def test_generations_that_follow_one_another_are_all_paid() -> None:
    spent = Spent()

    play(
        budget(cost=9, spent=spent),
        (1, said(cost=0.25, tokens=1)),
        (2, said(cost=0.5, tokens=2, id="gen-2")),
        (3, None),
    )

    assert spent == Spent(cost=0.75, tokens=3)


def test_the_cost_is_estimated_by_a_price() -> None:
    spent = Spent()
    operator = budget(cost=1, price=0.25, spent=spent)

    heard, _ = play(operator, (1, words(8)), (2, said(tokens=3)), (3, words(4)), (4, words(4)))

    assert [at for at, _ in heard] == [1, 2, 3, 4, 4]
    assert facts(heard[-1][1]) == ("cost", 1, 1.25, True)
    assert spent == Spent(tokens=3, estimated_tokens=2, estimated_cost=1.25)


def test_a_cost_that_is_said_replaces_its_estimate() -> None:
    spent = Spent()

    play(budget(cost=9, price=0.25, spent=spent), (1, words(8)), (2, said(cost=0.125)), (3, words(4)), (4, None))

    assert (spent.cost, spent.estimated_cost) == (0.125, 0.25)


def test_everything_that_a_model_says_counts() -> None:
    call = {"index": 0, "function": {"name": "wthr", "arguments": '{"in": "Oslo"}  '}}
    every = chunk(
        {"content": "four", "reasoning": "four", "refusal": "four", "tool_calls": [call]}, {"content": "four"}
    )
    spent = Spent()

    play(budget(tokens=99, spent=spent), (1, every), (2, None))

    assert spent.estimated_tokens == 4 + 5


def test_a_counter_of_ones_own_is_asked() -> None:
    asked: list[str] = []

    def count(text: str) -> int:
        asked.append(text)
        return 1

    heard, _ = play(budget(tokens=2, count=count), (1, words(40)), (2, words(50)), (3, words(60)))

    assert asked == ["x" * 40, "x" * 50, "x" * 60]
    assert facts(heard[-1][1]) == ("tokens", 2, 3, True)


def test_a_counter_that_raises_ends_the_stream() -> None:
    heard, subscription = play(budget(tokens=2, count=lambda _: 1 // 0), (1, words(4)), (2, words(4)))

    assert [(at, type(what)) for at, what in heard] == [(1, ZeroDivisionError)]
    assert subscription == (0, 1)


def test_a_void_attempt_was_paid_for() -> None:
    failed = StreamError(502, "Upstream error", usage=Usage(cost=0.25))
    spent = Spent()
    source: list[Notification] = [
        (1, words(8)),
        (2, Restarted(attempt=2, cause=failed)),
        (3, words(4)),
        (4, said(cost=0.5, tokens=1)),
        (5, None),
    ]

    heard, _ = play(budget(cost=1, spent=spent), *source)

    assert heard == source
    assert spent == Spent(cost=0.75, tokens=1, estimated_tokens=2)


def test_what_a_failed_stream_says_that_it_cost_is_spent() -> None:
    error = StreamError(502, "Upstream error", usage=Usage(cost=0.25, completion_tokens=3))
    spent = Spent()

    assert play(budget(cost=0.1, spent=spent), (1, words(4)), (2, error))[0][-1] == (2, error)
    assert spent == Spent(cost=0.25, tokens=3)


def test_a_budget_is_shared_by_what_was_spent() -> None:
    spent = Spent()
    operator = budget(tokens=5, spent=spent)

    assert play(operator, (1, words(16)), (2, None))[0][-1] == (2, None)
    heard, _ = play(operator, (1, words(4)), (2, words(4)), (3, words(4)))

    assert facts(heard[-1][1]) == ("tokens", 5, 6, True)
    assert spent.estimated_tokens == 6


def test_without_spent_each_subscription_has_its_own() -> None:
    operator = budget(tokens=2)

    for _ in range(2):
        assert play(operator, (1, words(8)), (2, None))[0][-1] == (2, None)


def test_what_nobody_got_is_not_spent() -> None:
    spent = Spent()

    rx.of(words(8), words(8), words(8)).pipe(budget(tokens=3, spent=spent)).subscribe(on_error=lambda _: None)

    assert spent.estimated_tokens == 4


@pytest.mark.parametrize(
    ("limits", "spent"),
    [
        ({"cost": 0.5}, Spent(cost=0.5)),
        ({"cost": 0.8}, Spent(cost=0.7 + 0.1)),
        ({"tokens": 5}, Spent(tokens=3, estimated_tokens=2)),
    ],
    ids=["cost", "rounded", "tokens"],
)
def test_where_nothing_is_left_nothing_is_subscribed(limits: dict[str, Any], spent: Spent) -> None:
    endings: list[Exception] = []

    source: Observable[ChatChunk] = rx.throw(AssertionError("subscribed"))
    source.pipe(budget(**limits, spent=spent)).subscribe(on_error=endings.append)

    assert [type(one) for one in endings] == [BudgetExceededError]


@pytest.mark.parametrize(
    "limits", [{}, {"cost": 0}, {"tokens": -1}, {"cost": float("nan")}, {"cost": 1, "price": -1}], ids=repr
)
def test_a_budget_that_is_none_is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"budget|number"):
        budget(**limits)  # type: ignore[arg-type]


def test_the_source_is_left_before_the_error_is_told() -> None:
    order: list[str] = []

    def endless(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        chunks.subscribe(observer)
        return Disposable(lambda: order.append("left"))

    chunks = Subject[ChatChunk]()
    Observable(endless).pipe(budget(tokens=1)).subscribe(on_error=lambda error: order.append(type(error).__name__))
    chunks.on_next(words(8))

    assert order == ["left", "BudgetExceededError"]


def test_budget_leaves_an_endless_source_when_disposed() -> None:
    heard, subscription = play(budget(tokens=9), (1, words(4)), (9, words(4)), disposed=5)

    assert ([at for at, _ in heard], subscription) == ([1], (0, 5))


def test_budget_hands_the_scheduler_up() -> None:
    given_one, reached = subscribed_scheduler(budget(tokens=9))

    assert reached is given_one


@given(st.lists(st.tuples(st.text(max_size=30), st.none() | st.integers(0, 40)), max_size=20), st.integers(1, 60))
def test_nothing_passes_behind_the_chunk_that_is_known_to_pass_the_limit(
    source: list[tuple[str, int | None]], limit: int
) -> None:
    told, since, over = 0, 0, len(source)  # the same sums, in the plainest way
    for number, (text, tokens) in enumerate(source):
        told, since = (told, since + len(text)) if tokens is None else (tokens, 0)
        if told + since // 4 > limit:
            over = number
            break
    chunks = [chunk({"content": text}, usage=None if n is None else {"completion_tokens": n}) for text, n in source]

    heard, _ = play(budget(tokens=limit), *enumerate(chunks, 1), (99, None))

    assert [what for _, what in heard[:-1]] == chunks[: over + 1]
    if over < len(source):
        assert facts(heard[-1][1]) == ("tokens", limit, told + since // 4, told <= limit)
    else:
        assert heard[-1] == (99, None)


async def test_the_server_sees_that_the_budget_is_spent() -> None:
    async with served(Reply((event({"content": "word "}), 0.001) * 5_000)) as (client, simulator):
        seen = await observe(client.chat("hi").pipe(budget(tokens=20), completion()))
        exchange = simulator.exchanges[0]
        await exchange.over.wait()

        assert exchange.left_at is not None
    error = seen.endings[0]
    assert isinstance(error, BudgetExceededError)
    assert error.partial.text == "word " * 17
    assert (error.chunks_seen, error.generation_id) == (17, GENERATION_ID)


async def test_a_conversation_that_has_spent_its_budget_sends_nothing_more() -> None:
    spent = Spent()
    async with served(Reply(answer("Hi", cost=0.3))) as (client, simulator):
        chunks = client.chat("hi").pipe(budget(cost=0.5, spent=spent))
        whole = await chunks.pipe(completion())
        too_much = await observe(chunks)
        refused = await observe(chunks)

        assert len(simulator.exchanges) == 2
    assert whole.text == "Hi"
    assert [facts(seen.endings[0]) for seen in (too_much, refused)] == [("cost", 0.5, 0.6, False)] * 2
    assert len(too_much.values) == 3
    assert refused.values == []


async def test_leaving_closes_the_socket() -> None:
    async with served(Reply((*answer("Hello")[:3], Act.HANG))) as (client, simulator):
        async for _ in client.chat("hi").pipe(budget(cost=1)):
            break
        await simulator.exchanges[0].over.wait()

        assert simulator.exchanges[0].left_at is not None
