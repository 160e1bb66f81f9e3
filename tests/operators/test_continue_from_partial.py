from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import reactivex as rx
from reactivex import Observable, abc
from reactivex.testing import TestScheduler

from rxrouter import (
    ChatChunk,
    ChatCompletion,
    ContinuationRefusedError,
    Restarted,
    RetryPolicy,
    StatusError,
    StreamError,
    TransportError,
    Usage,
)
from rxrouter._attempt import Attempt
from rxrouter._wire.request import chat_request
from rxrouter.operators import Meter, Spent, budget, completion, continue_from_partial, meter, retry_transient, text
from tests.operators.support import chunk, play, recorded, subscribed_scheduler

ONE, TWO, THREE = (chunk({"content": word}) for word in ("one", " two", " three"))
SOON = RetryPolicy(first_delay=1, jitter=0)
CUT = TransportError(phase="read")

GoOn = Callable[[ChatCompletion], Observable[ChatChunk]]


def saying(*what: Any) -> Observable[ChatChunk]:
    """A stream of these chunks, and then the error or the end."""
    *chunks, ending = what
    return rx.concat(rx.of(*chunks), rx.empty() if ending is None else rx.throw(ending))


def continued(go_on: GoOn, *first: Any, policy: RetryPolicy = SOON) -> tuple[list[ChatChunk], Exception | None]:
    """What comes of an answer that begins so and is gone on with so."""
    scheduler = TestScheduler()
    chunks: list[ChatChunk] = []
    endings: list[Exception | None] = []
    saying(*first).pipe(continue_from_partial(go_on, policy=policy)).subscribe(
        chunks.append, endings.append, lambda: endings.append(None), scheduler=scheduler
    )
    scheduler.advance_to(500)
    (ending,) = endings
    return chunks, ending


def words(chunks: list[ChatChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_the_rest_follows_what_was_cut() -> None:
    partials: list[ChatCompletion] = []

    def go_on(partial: ChatCompletion) -> Observable[ChatChunk]:
        partials.append(partial)
        return saying(TWO, THREE, None)

    chunks, ending = continued(go_on, ONE, TWO, CUT)

    assert words(chunks) == "one two three"
    assert ending is None
    assert [(partial.text, partial.state) for partial in partials] == [("one two", "truncated")]


def test_each_cut_is_gone_on_from_all_that_was_shown() -> None:
    rests = {"one": (TWO, CUT), "one two": (chunk({"content": "two three"}), None)}
    asked: list[str] = []

    def go_on(partial: ChatCompletion) -> Observable[ChatChunk]:
        asked.append(partial.text)
        return saying(*rests[partial.text])

    chunks, ending = continued(go_on, ONE, CUT)

    assert (words(chunks), ending, asked) == ("one two three", None, ["one", "one two"])


def test_a_continuation_that_fails_before_content_is_asked_for_again() -> None:
    rests = [(chunk({"role": "assistant"}), StatusError(502)), (TWO, None)]
    asked: list[str] = []

    def go_on(partial: ChatCompletion) -> Observable[ChatChunk]:
        asked.append(partial.text)
        return saying(*rests.pop(0))

    chunks, ending = continued(go_on, ONE, CUT)

    assert (words(chunks), ending, asked) == ("one two", None, ["one", "one"])


def test_a_cut_inside_the_echo_loses_and_doubles_nothing() -> None:
    rests = [(ONE, CUT), (ONE, TWO, None)]

    chunks, ending = continued(lambda partial: saying(*rests.pop(0)), ONE, chunk({"content": " and a half"}), CUT)

    assert words(chunks) == "one and a halfone two"  # the second does not go on, it begins anew: that is no echo
    assert ending is None


def test_chunks_keep_the_id_of_their_own_generation() -> None:
    chunks, _ = continued(lambda _: saying(chunk({"content": " two"}, id="gen-2"), None), ONE, CUT)

    assert [chunk.id for chunk in chunks] == ["gen-1", "gen-2"]


def test_usage_is_summed_over_the_attempts_that_have_said_it() -> None:
    late = StreamError(503, usage=Usage(prompt_tokens=10, completion_tokens=5, cost=0.5, cost_details={"upstream": 1}))
    last = chunk(
        {"content": " two"},
        usage={"prompt_tokens": 11, "cost": 0.25, "is_byok": True, "cost_details": {"upstream": 2, "x": 1}},
    )

    chunks, _ = continued(lambda _: saying(last, None), ONE, late)

    usage = chunks[-1].usage
    assert usage == Usage(
        prompt_tokens=21, completion_tokens=5, cost=0.75, is_byok=True, cost_details={"upstream": 3, "x": 1}
    )


def test_usage_that_was_never_said_is_not_made_up() -> None:
    last = chunk({"content": " two"}, usage={"cost": 0.25})

    assert continued(lambda _: saying(last, None), ONE, CUT)[0][-1] is last
    assert continued(lambda _: saying(TWO, None), ONE, CUT)[0][-1].usage is None


def test_usage_said_as_it_grows_counts_once_per_attempt() -> None:
    running = [chunk({"content": f" {n}"}, usage={"completion_tokens": n}) for n in (1, 2, 3)]

    chunks, _ = continued(lambda _: saying(*running, None), ONE, *running, CUT)

    assert [chunk.usage.completion_tokens for chunk in chunks if chunk.usage] == [1, 2, 3, 4, 5, 6]


def paid(chain: Observable[ChatChunk]) -> tuple[float | None, float, int, Usage | None]:
    """What the meter and the budget behind a chain say that it cost, its tokens, and the usage of the answer."""
    scheduler, spent = TestScheduler(), Spent()
    meters: list[Meter] = []
    answers: list[ChatCompletion] = []
    chain.pipe(meter(meters.append), budget(cost=9, spent=spent), completion()).subscribe(
        answers.append, lambda _: None, scheduler=scheduler
    )
    scheduler.advance_to(500)
    return meters[-1].cost, spent.cost, spent.tokens, answers[0].usage if answers else None


def billing(text: str, id: str | None, cost: float, tokens: int) -> ChatChunk:  # noqa: A002 - the field's name
    return chunk({"content": text}, id=id, usage={"cost": cost, "completion_tokens": tokens})


def failing(id: str | None, cost: float, tokens: int) -> StreamError:  # noqa: A002 - the field's name
    error = StreamError(502, usage=Usage(cost=cost, completion_tokens=tokens))
    error.generation_id = id
    return error


def test_usage_that_is_summed_is_not_added_again() -> None:
    first = billing("one", "gen-1", 0.25, 1)
    second = billing(" two", "gen-2", 0.25, 1), billing(" three", "gen-2", 0.5, 2)

    cut = paid(saying(first, CUT).pipe(continue_from_partial(lambda _: saying(*second, None), policy=SOON)))
    billed = paid(
        saying(ONE, failing("gen-1", 0.25, 1)).pipe(continue_from_partial(lambda _: saying(*second, None), policy=SOON))
    )

    assert cut == billed == (0.75, 0.75, 3, Usage(cost=0.75, completion_tokens=3))


def test_usage_of_generations_without_ids_is_not_added_again() -> None:
    rest = saying(billing(" two", None, 0.5, 2), None)

    for first in ((billing("one", None, 0.25, 1), CUT), (chunk({"content": "one"}, id=None), failing(None, 0.25, 1))):
        chain = saying(*first).pipe(continue_from_partial(lambda _: rest, policy=SOON))
        assert paid(chain)[0] == 0.75


def test_all_that_was_billed_before_giving_up_is_paid_once() -> None:
    policy = RetryPolicy(attempts=3, first_delay=1, jitter=0)
    two = chunk({"content": " two"}, id="gen-2")
    rests = [(two, failing("gen-2", 0.5, 2)), (billing(" three", "gen-3", 0.75, 2), failing("gen-3", 1, 3))]

    chain = saying(ONE, failing("gen-1", 0.25, 1)).pipe(
        continue_from_partial(lambda _: saying(*rests.pop(0)), policy=policy)
    )

    assert paid(chain)[:3] == (1.75, 1.75, 6)


@pytest.mark.parametrize("ids", [("gen-1", "gen-2", "gen-3"), (None, None, None)], ids=["named", "unnamed"])
@pytest.mark.parametrize("content", ["", "x"], ids=["before content", "after content"])
def test_what_attempts_of_a_retry_were_billed_is_paid_once_when_it_gives_up(
    content: str, ids: tuple[str | None, ...]
) -> None:
    rows = [(chunk({"content": content}, id=name), failing(name, 0.25, 1)) for name in ids]
    policy = RetryPolicy(first_delay=1, jitter=0, after_content="restart")

    chain = rx.defer(lambda _: saying(*rows.pop(0))).pipe(retry_transient(policy))

    assert paid(chain)[:3] == (0.75, 0.75, 3)


def test_what_a_void_attempt_used_is_not_in_the_usage_of_the_new_answer() -> None:
    thought = chunk({"reasoning": "hm"}, id="gen-1")
    rows = [(thought, failing("gen-1", 0.25, 1)), (billing("one", "gen-2", 0.5, 2), None)]

    chain = rx.defer(lambda _: saying(*rows.pop(0))).pipe(
        retry_transient(RetryPolicy(first_delay=1, jitter=0, after_content="continue"))
    )

    assert paid(chain) == (0.75, 0.75, 3, Usage(cost=0.5, completion_tokens=2))


@pytest.mark.parametrize("asked", [{"n": 2}, {"n": 1, "extra": {"n": 2}}], ids=["n", "extra's n"])
def test_several_answers_are_not_continued_though_only_one_has_begun(asked: dict[str, Any]) -> None:
    def begin(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        Attempt(chat_request("hi", asked)).tell()
        return saying(ONE, CUT).subscribe(observer)

    scheduler = TestScheduler()
    errors: list[Exception] = []
    Observable(begin).pipe(continue_from_partial(lambda _: rx.never(), policy=SOON)).subscribe(
        on_error=errors.append, scheduler=scheduler
    )
    scheduler.advance_to(50)

    (error,) = errors
    assert isinstance(error, ContinuationRefusedError)
    assert error.reason == "it is several answers"


def test_while_there_is_no_text_it_begins_anew() -> None:
    scheduler = TestScheduler()
    rows = [(chunk({"reasoning": "hm"}), CUT), (chunk({"reasoning": "so"}), ONE, None)]
    answers: list[ChatCompletion] = []

    chain = rx.defer(lambda _: saying(*rows.pop(0))).pipe(retry_transient(RetryPolicy(after_content="continue")))
    chain.pipe(completion()).subscribe(answers.append, scheduler=scheduler)
    scheduler.advance_to(50)

    assert [(answer.reasoning, answer.text) for answer in answers] == [("so", "one")]


def test_what_is_refused_says_what_cut_it() -> None:
    call = chunk({"tool_calls": [{"index": 0, "id": "call_1", "function": {"name": "rm", "arguments": "{"}}]})
    cut = TransportError(phase="read")
    cut.generation_id, cut.elapsed, cut.chunks_seen = "gen-1", 2.5, 2

    chunks, error = continued(lambda _: rx.never(), ONE, call, cut)

    assert len(chunks) == 2
    assert isinstance(error, ContinuationRefusedError)
    assert (error.reason, error.__cause__, error.attempts) == ("a tool call had begun", cut, (cut,))
    assert (error.generation_id, error.elapsed, error.chunks_seen) == ("gen-1", 2.5, 2)
    assert not error.transient


def test_an_answer_that_had_come_to_its_end_is_not_continued() -> None:
    finish = chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])

    _, error = continued(lambda _: rx.never(), ONE, finish, StreamError(502))

    assert isinstance(error, ContinuationRefusedError)
    assert error.reason == "it had come to its end"


def test_without_a_request_of_its_own_a_source_is_not_continued() -> None:
    heard, _ = play(continue_from_partial(policy=SOON), (1, ONE), (2, CUT))

    assert isinstance(heard[-1][1], ContinuationRefusedError)
    assert heard[-1][1].reason == "its source is not one chat request with messages"


def test_what_does_not_pass_by_itself_is_no_reason_to_go_on() -> None:
    error = StatusError(401)

    assert continued(lambda _: rx.never(), ONE, error) == ([ONE], error)


def test_what_go_on_raises_is_the_end() -> None:
    def broken(_: ChatCompletion) -> Observable[ChatChunk]:
        raise LookupError("mine")

    chunks, error = continued(broken, ONE, CUT)

    assert chunks == [ONE]
    assert isinstance(error, LookupError)


def test_the_policys_after_content_is_not_asked() -> None:
    for after_content in ("fail", "restart", "continue"):
        policy = RetryPolicy(first_delay=1, after_content=after_content)
        chunks, ending = continued(lambda _: saying(TWO, None), ONE, CUT, policy=policy)

        assert (words(chunks), ending) == ("one two", None)
        assert not any(isinstance(chunk, Restarted) for chunk in chunks)


def test_the_rest_is_left_with_the_reader() -> None:
    left: list[str] = []

    def subscribe(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        observer.on_next(TWO)

        class Leaving(abc.DisposableBase):
            def dispose(self) -> None:
                left.append("rest")

        return Leaving()

    scheduler = TestScheduler()
    heard: list[str] = []
    rest = Observable(subscribe)
    subscription = (
        saying(ONE, CUT)
        .pipe(continue_from_partial(lambda _: rest, policy=SOON), text())
        .subscribe(heard.append, scheduler=scheduler)
    )
    scheduler.advance_to(5)
    subscription.dispose()

    assert (heard, left) == (["one", " two"], ["rest"])


def test_continue_from_partial_leaves_an_endless_source_when_disposed() -> None:
    assert play(continue_from_partial(), (1, ONE), (9, TWO), disposed=5) == ([(1, ONE)], (0, 5))


def test_continue_from_partial_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(continue_from_partial())

    assert reached is given


def test_a_mark_of_another_retry_passes() -> None:
    mark = Restarted(attempt=2)
    scheduler = TestScheduler()
    cold: Observable[ChatChunk] = scheduler.create_cold_observable(
        [recorded(1, ONE), recorded(2, mark), recorded(3, TWO)]
    )
    heard: list[ChatChunk] = []
    cold.pipe(continue_from_partial()).subscribe(heard.append, scheduler=scheduler)
    scheduler.advance_to(5)

    assert heard == [ONE, mark, TWO]


STOP = chunk(choices=[{"delta": {}, "finish_reason": "stop"}])


def test_an_answer_is_begun_anew_when_it_was_empty() -> None:
    scheduler, left, heard = TestScheduler(), [saying(STOP, None), saying(ONE, STOP, None)], list[ChatChunk]()
    source = rx.defer(lambda _: left.pop(0))
    source.pipe(continue_from_partial(lambda _: rx.empty(), policy=SOON)).subscribe(heard.append, scheduler=scheduler)
    scheduler.advance_to(50)

    assert heard == [ONE, STOP]


def test_an_answer_is_whole_when_there_is_nothing_to_go_on_with() -> None:
    chunks, ending = continued(lambda _: saying(STOP, None), ONE, CUT)

    assert (words(chunks), ending) == ("one", None)
