from __future__ import annotations

from weakref import ref

import pytest
import reactivex as rx
from hypothesis import given, strategies as st
from reactivex import Observable, Subject, abc, operators as ops
from reactivex.testing import TestScheduler

from rxrouter import (
    BudgetExceededError,
    ChatChunk,
    ChunkDecodeError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTypeError,
    ContinuationRefusedError,
    EmptyAnswerError,
    GenerationStopped,
    GuardError,
    OpenRouter,
    RouterError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    StreamError,
    TransportError,
    TruncatedStreamError,
)
from rxrouter.operators import Health, fallback, text, timeouts
from tests.operators.support import NoLoop, Notification, chunk, noting, play, play_all, subscribed_scheduler

ROLE, USAGE = chunk({"role": "assistant", "content": ""}), chunk(usage={"total_tokens": 3})
HEL, LO, HI = chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({"content": "Hi"})
FAILURES: list[RouterError] = [
    *[StatusError(status) for status in (401, 402, 403, 404, 408, 413, 429, 500, 502, 503)],
    StatusError(400, message="too long for the model", error_type="context_length_exceeded"),
    StatusError(400, "model_not_found", "no such model"),
    StatusError(400, message="Provider returned error", provider="Nvidia"),
    StatusError(400, message="said to be retryable", retryable=True),
    StreamError(502, "Upstream error"),
    StreamError(None, "the model failed"),
    EmptyAnswerError("stop"),
    TransportError(phase="connect"),
    ConnectTimeoutError(10),
    SilenceTimeoutError(45),
    ContentTypeError("text/html"),
    TruncatedStreamError(),
    ChunkDecodeError("expected `choices`", b"{}"),
]


def falling_back(sources: list[Observable[ChatChunk]]) -> Observable[ChatChunk]:
    return sources[0].pipe(fallback(*sources[1:]))


@pytest.mark.parametrize("error", FAILURES, ids=repr)
def test_fallback_tries_the_next_source_after_whatever_another_may_not_have(error: RouterError) -> None:
    heard, (_, other) = play_all(falling_back, [(1, ROLE), (2, error)], [(1, HI), (2, None)])

    assert heard == [(3, HI), (4, None)]
    assert other == [(2, 4)]


@pytest.mark.parametrize(
    "error",
    [
        ClientClosedError(),
        BudgetExceededError("cost", 1, 2),
        GuardError(),
        ContinuationRefusedError("a tool call had begun"),
        GenerationStopped(),
        SlowReaderError(64),
        StatusError(400),
        StatusError(422, error_type="unprocessable"),
        StatusError(400, "invalid_request_error", "wrong field", error_type="invalid_request_error"),
        StreamError(400, "bad request"),
        StreamError("invalid_request_error", "bad request"),
        StreamError(None, "bad request by its type", "invalid_request_error"),
        ValueError("a callback raised"),
        RuntimeError("a callback raised"),
    ],
    ids=repr,
)
def test_fallback_passes_what_no_other_source_can_help(error: Exception) -> None:
    heard, (_, other) = play_all(falling_back, [(1, error)], [(1, HI)])

    assert heard == [(1, error)]
    assert other == []


@pytest.mark.parametrize(
    "content",
    [
        {"content": "a"},
        {"reasoning": "hm"},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"refusal": "no"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"images": [{"type": "image_url"}]},
        {"audio": {"data": "x"}},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_fallback_never_follows_content_with_another_answer(content: dict[str, object]) -> None:
    shown, error = chunk(content), TransportError(phase="read")

    heard, (_, other) = play_all(falling_back, [(1, ROLE), (2, shown), (3, error)], [(1, HI)])

    assert heard == [(2, ROLE), (2, shown), (3, error)]
    assert other == []


def test_fallback_asks_the_sources_that_on_chooses() -> None:
    def build(sources: list[Observable[ChatChunk]]) -> Observable[ChatChunk]:
        return sources[0].pipe(fallback(*sources[1:], on=lambda error: isinstance(error, StatusError | ValueError)))

    for error in (StatusError(400), ValueError("from a function below")):
        assert play_all(build, [(1, error)], [(1, HI), (2, None)])[0] == [(2, HI), (3, None)]
    cut = TransportError(phase="read")
    assert play_all(build, [(1, cut)], [(1, HI)]) == ([(1, cut)], [[(0, 1)], []])


def test_fallback_ends_with_what_on_raises() -> None:
    error, raised = StatusError(502), LookupError("a bug")

    def on(_: Exception) -> bool:
        raise raised

    heard, (_, other) = play_all(lambda sources: sources[0].pipe(fallback(sources[1], on=on)), [(1, error)], [(1, HI)])

    assert (heard, other) == ([(1, raised)], [])
    assert raised.__cause__ is error


def test_a_refusal_has_the_attempts_before_it_when_another_source_was_asked() -> None:
    first, refused = StatusError(502), StatusError(400)

    heard, (*_, third) = play_all(falling_back, [(1, first)], [(1, refused)], [(1, HI)])

    assert (heard, third) == ([(2, refused)], [])
    assert refused.attempts == (first,)


def test_fallback_tells_nothing_of_a_source_that_failed() -> None:
    heard, _ = play_all(
        falling_back,
        [(1, ROLE), (2, USAGE), (3, StatusError(502))],
        [(1, ROLE), (2, HEL), (3, LO), (4, USAGE), (5, None)],
    )

    assert [id(what) for _, what in heard[:-1]] == [id(what) for what in (ROLE, HEL, LO, USAGE)]
    assert [at for at, _ in heard] == [5, 5, 6, 7, 8]


def test_fallback_ends_with_the_last_source_and_what_that_one_said() -> None:
    errors = StatusError(429), StatusError(502), StatusError(404)

    heard, _ = play_all(
        falling_back,
        [(1, ROLE), (2, errors[0])],
        [(1, errors[1])],
        [(1, USAGE), (2, errors[2])],
    )

    assert heard == [(5, USAGE), (5, errors[2])]
    assert errors[2].attempts == errors[:2]
    assert errors[0].attempts == ()


def test_fallback_says_on_a_late_error_too_what_was_before() -> None:
    first, late = StatusError(502), TransportError(phase="read")

    heard, _ = play_all(falling_back, [(1, first)], [(1, HI), (2, late)])

    assert heard[-1] == (3, late)
    assert late.attempts == (first,)


def test_fallback_counts_the_attempts_within_its_sources() -> None:
    errors = [StatusError(500 + at) for at in range(4)]
    errors[1].attempts = (errors[0],)
    errors[3].attempts = (errors[2],)

    play_all(falling_back, [(1, errors[1])], [(1, errors[3])])

    assert errors[3].attempts == tuple(errors[:3])


def test_the_same_error_again_does_not_grow() -> None:
    error = StatusError(502)
    chain = rx.throw(error).pipe(fallback(rx.throw(error), rx.throw(error)))

    for _ in range(5):
        chain.subscribe(on_error=lambda _: None)

    assert error.attempts == ()


def test_fallback_of_an_answer_without_content_is_that_answer() -> None:
    heard, (_, other) = play_all(falling_back, [(1, ROLE), (2, USAGE), (3, None)], [(1, HI)])

    assert heard == [(3, ROLE), (3, USAGE), (3, None)]
    assert other == []


def test_fallback_works_on_what_is_made_of_chunks() -> None:
    def build(sources: list[Observable[ChatChunk]]) -> Observable[str]:
        words, other = (source.pipe(text()) for source in sources)
        return words.pipe(ops.to_list(), ops.map("".join), fallback(other))

    heard, _ = play_all(build, [(1, HEL), (2, TransportError(phase="read"))], [(1, HI), (2, LO), (3, None)])

    assert heard == [(3, "Hi"), (4, "lo"), (5, None)]


def test_fallback_holds_no_more_than_it_has_to() -> None:
    source, heard, errors = Subject[ChatChunk](), list[ChatChunk](), list[Exception]()
    source.pipe(fallback(rx.of(HI))).subscribe(heard.append, errors.append)

    for _ in range(1000):
        source.on_next(ROLE)
    assert heard == []
    source.on_next(ROLE)
    source.on_error(StatusError(502))

    assert heard == [ROLE] * 1001
    assert len(errors) == 1


def test_fallback_takes_sources_that_fail_while_they_are_subscribed() -> None:
    heard = list[ChatChunk]()
    down = [rx.throw(StatusError(502)) for _ in range(3)]

    down[0].pipe(fallback(*down[1:], rx.of(HI))).subscribe(heard.append)

    assert heard == [HI]


def test_fallback_tells_nothing_more_to_who_has_left() -> None:
    heard = list[ChatChunk]()

    rx.of(ROLE, HEL, LO).pipe(fallback(rx.of(HI)), ops.take(1)).subscribe(heard.append)

    assert heard == [ROLE]


def test_fallback_leaves_whatever_runs_when_disposed() -> None:
    heard, windows = play_all(falling_back, [(1, StatusError(502))], [(2, HI), (9, LO)], disposed=5)

    assert (heard, windows) == ([(3, HI)], [[(0, 1)], [(1, 5)]])


def test_fallback_starts_no_source_for_who_has_left() -> None:
    scheduler, started = TestScheduler(), list[str]()

    def subscribe(observer: abc.ObserverBase[ChatChunk], _: abc.SchedulerBase | None) -> abc.DisposableBase:
        started.append("other")
        return rx.never().subscribe(observer)

    source: Observable[ChatChunk] = scheduler.create_cold_observable()
    subscription = source.pipe(fallback(Observable(subscribe))).subscribe(scheduler=scheduler)
    subscription.dispose()
    subscription.dispose()
    scheduler.start()

    assert started == []


@pytest.mark.parametrize(
    ("again_after", "tried"), [(5, ["other"]), (10, ["source", "other"])], ids=["in the cooldown", "after it"]
)
def test_fallback_leaves_out_a_source_in_its_cooldown(again_after: int, tried: list[str]) -> None:
    scheduler, log = TestScheduler(), list[str]()

    def named(name: str, what: Observable[ChatChunk]) -> Observable[ChatChunk]:
        return noting(lambda: log.append(name), what)

    chain = named("source", rx.throw(StatusError(502))).pipe(fallback(named("other", rx.of(HI)), cooldown=10))
    chain.subscribe(scheduler=scheduler)
    scheduler.advance_by(again_after)
    assert log == ["source", "other"]
    log.clear()
    chain.subscribe(scheduler=scheduler)
    scheduler.advance_by(1)

    assert log == tried


def test_fallback_in_the_cooldown_of_all_tries_the_one_first_that_failed_longest_ago() -> None:
    scheduler, log = TestScheduler(), list[str]()
    down: Observable[ChatChunk] = rx.throw(StatusError(502))

    def source(name: str, *answers: tuple[float, Observable[ChatChunk]]) -> Observable[ChatChunk]:
        """Answers one subscription after the other, each after so many seconds."""
        rest = iter(answers)

        def answer(_: abc.SchedulerBase) -> Observable[ChatChunk]:
            after, what = next(rest)
            return rx.timer(after).pipe(ops.flat_map(what))

        return noting(lambda: log.append(name), rx.defer(answer))

    chain = source("a", (9, down), (1, down), (1, down)).pipe(
        fallback(source("b", (1, down), (1, rx.of(HI)), (1, down)), source("c", (1, down), (1, down)), cooldown=50)
    )

    def subscribe(*_: object) -> abc.DisposableBase:
        return chain.subscribe(on_error=lambda _: None, scheduler=scheduler)

    for at in (1.0, 2.0, 20.0):
        scheduler.schedule_absolute(at, subscribe)
    scheduler.advance_to(19)  # a failed at 3, and at 10 again; b at 4, c at 5
    log.clear()
    scheduler.advance_to(30)

    assert log == ["b", "c", "a"]


class Tried:
    """Chains of named sources, of which some are down, and who was asked."""

    def __init__(self) -> None:
        self.scheduler, self.log = TestScheduler(), list[str]()
        self.down = {"a"}

    def source(self, name: str) -> Observable[ChatChunk]:
        def answer(_: abc.SchedulerBase) -> Observable[ChatChunk]:
            self.log.append(name)
            return rx.throw(StatusError(502)) if name in self.down else rx.of(HI)

        return rx.defer(answer)

    def asked(self, chain: Observable[ChatChunk]) -> list[str]:
        self.log.clear()
        chain.subscribe(on_error=lambda _: None, scheduler=self.scheduler)
        self.scheduler.advance_by(1)
        return list(self.log)


def test_chains_share_cooldowns_when_they_are_given_one_health() -> None:
    tried, health = Tried(), Health(cooldown=10)
    a, b, c = map(tried.source, "abc")
    one, another = a.pipe(fallback(b, health=health)), c.pipe(fallback(a, b, health=health))
    alone = a.pipe(fallback(b, health=Health(cooldown=10)))

    assert tried.asked(one) == ["a", "b"]
    assert tried.asked(one) == ["b"]
    tried.down.add("c")
    assert tried.asked(another) == ["c", "b"]
    assert tried.asked(alone) == ["a", "b"]
    tried.scheduler.advance_by(10)
    assert tried.asked(one) == ["a", "b"]


@pytest.mark.parametrize("prompts", [("one", "one"), ("one", "another")], ids=["the same", "another"])
def test_a_source_is_one_model_of_one_client_when_chains_are_made_anew(prompts: tuple[str, str]) -> None:
    client = OpenRouter("k", base_url="http://127.0.0.1:1")
    health = Health(cooldown=10)
    first, again = (client.chat(prompt, model="small").pipe(timeouts(total=9)) for prompt in prompts)
    others = (
        client.chat("one", model="large"),
        OpenRouter("k2", base_url="http://127.0.0.1:1").chat("one", model="small"),
    )

    health.failed(first, 100)

    assert health.order([again, *others], 109) == [1, 2]
    assert health.order([again, *others], 110) == [0, 1, 2]


def test_health_is_bounded_when_every_source_is_another_one() -> None:
    health, sources = Health(cooldown=10), [rx.of(HI) for _ in range(1001)]
    for source in sources:
        health.failed(source, 100)

    assert health.order([sources[0], sources[1], sources[-1]], 101) == [0]


def test_health_shows_its_cooldown() -> None:
    assert repr(Health(cooldown=2.5)) == "Health(cooldown=2.5)"
    assert Health().cooldown == 30.0


def test_health_keeps_no_source_alive() -> None:
    health, source = Health(), rx.of(HI)
    health.failed(source, 100)
    gone = ref(source)

    del source

    assert gone() is None


def test_without_a_cooldown_every_subscription_begins_with_the_first_source() -> None:
    log = list[str]()
    down: Observable[ChatChunk] = rx.throw(StatusError(502))
    chain = noting(lambda: log.append("source"), down).pipe(fallback(rx.of(HI)))

    for _ in range(3):
        chain.subscribe(lambda _: None)

    assert log == ["source"] * 3


def test_fallback_alone_is_the_source() -> None:
    error = StatusError(502)

    assert play(fallback(), (1, ROLE), (2, error))[0] == [(2, ROLE), (2, error)]


def test_a_source_that_is_none_is_refused() -> None:
    with pytest.raises(TypeError, match="Observables, not list"):
        fallback([rx.of(HI)])  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_a_cooldown_that_is_none_is_refused() -> None:
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="cooldown must be a number of seconds >= 0"):
            fallback(cooldown=wrong)
        with pytest.raises(ValueError, match="cooldown must be a number of seconds >= 0"):
            Health(cooldown=wrong)
    with pytest.raises(ValueError, match=r"cooldown must be an argument of Health"):
        fallback(health=Health(), cooldown=3)


def test_fallback_refuses_what_is_no_predicate_and_no_health() -> None:
    with pytest.raises(TypeError, match="on must be a function of an error, got tuple"):
        fallback(on=(StatusError,))  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="health must be a Health"):
        fallback(health={})  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]


def test_fallback_hands_the_scheduler_up() -> None:
    given, reached = subscribed_scheduler(fallback())

    assert reached is given


says = st.lists(st.sampled_from([ROLE, USAGE, HEL, LO]), max_size=4)
ends = st.sampled_from([None, "fails", "closed"])


@given(st.lists(st.tuples(says, ends), min_size=1, max_size=5))
def test_an_answer_behind_fallback_is_the_answer_of_one_source(
    answers: list[tuple[list[ChatChunk], str | None]],
) -> None:
    errors = [{"fails": StatusError(502), "closed": ClientClosedError(), None: None}[end] for _, end in answers]
    sources: list[list[Notification]] = [
        [*((1, what) for what in said), (2, error)] for (said, _), error in zip(answers, errors, strict=True)
    ]
    heard, windows = play_all(falling_back, *sources)

    chosen = next(
        (at for at, (said, end) in enumerate(answers) if end != "fails" or HEL in said or LO in said), len(answers) - 1
    )
    assert [what for _, what in heard] == [*answers[chosen][0], errors[chosen]]
    assert [len(window) for window in windows] == [1] * (chosen + 1) + [0] * (len(answers) - chosen - 1)
    if (error := errors[chosen]) is not None and not isinstance(error, ClientClosedError):
        assert error.attempts == tuple(errors[:chosen])


def test_fallback_goes_on_where_a_source_can_t_be_subscribed() -> None:
    heard, _ = play_all(
        lambda sources: sources[0].pipe(fallback(NoLoop(RuntimeError()), sources[1])),
        [(3, StatusError(502))],
        [(1, HI), (2, None)],
    )

    assert heard[0][1] is HI
    assert heard[-1][1] is None


def test_fallback_tells_why_the_last_source_can_t_be_subscribed() -> None:
    for error in (RuntimeError("no loop"), LookupError("no more"), ClientClosedError()):
        assert play(fallback(NoLoop(error)), (3, StatusError(502)))[0] == [(3, error)]
