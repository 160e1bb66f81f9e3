"""No operator of RxPY turns an unproven answer into a complete one, and those that pass it whole keep its proof."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
import reactivex as rx
import reactivex.operators
from hypothesis import HealthCheck, given, settings, strategies as st
from reactivex import Observable, operators as ops
from reactivex.scheduler import ImmediateScheduler

from rxrouter import ChatChunk, ChatCompletion
from rxrouter.operators import completion, share_generation, snapshots, tool_calls
from rxrouter.relay import AGUI, NDJSON, Encoder, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.answer import Answer
from rxrouter.relay.failure import unexplained
from rxrouter.sharing import Hub
from rxrouter.testing import Act, Reply, answer
from tests.support import served

Operator = Callable[[Observable[Any]], Observable[Any]]

WHOLE = answer("one two", comments=0, tool_calls=[("go", '{"to": "Oslo"}')])
SECOND = 0.5  # of virtual time; the server hangs for longer


def has_text(value: Any) -> bool:
    return any(choice.delta.content for choice in value.choices)


def gathered(chunks: tuple[Any, ...], chunk: Any) -> tuple[Any, ...]:
    return (*chunks, chunk)


def late(seconds: float = 5 * SECOND) -> Observable[Any]:
    return rx.timer(seconds)


# How each operator is applied to chunks; several ways where an operator can end a stream in several.
WAYS: dict[str, list[Operator]] = {
    "amb": [ops.amb(rx.never()), ops.amb(late())],
    "as_observable": [ops.as_observable()],
    "buffer": [ops.buffer(late()), ops.buffer(rx.empty())],
    "buffer_when": [ops.buffer_when(late)],
    "buffer_toggle": [ops.buffer_toggle(rx.of(1), lambda _: late())],
    "buffer_with_count": [ops.buffer_with_count(2), ops.buffer_with_count(2, 1)],
    "buffer_with_time": [ops.buffer_with_time(SECOND)],
    "buffer_with_time_or_count": [ops.buffer_with_time_or_count(SECOND, 2)],
    "catch": [ops.catch(rx.empty()), ops.catch(lambda _, source: source.pipe(ops.take(1)))],
    "combine_latest": [ops.combine_latest(rx.of(1)), ops.combine_latest(late())],
    "zip_latest": [ops.zip_latest(rx.of(1)), ops.zip_latest(late())],
    "concat": [ops.concat(rx.empty())],
    "concat_all": [lambda source: source.pipe(ops.map(rx.of), ops.concat_all())],
    "concat_map": [ops.concat_map(rx.of)],
    "debounce": [ops.debounce(SECOND)],
    "throttle_with_timeout": [ops.throttle_with_timeout(SECOND)],
    "default_if_empty": [ops.default_if_empty()],
    "delay_subscription": [ops.delay_subscription(SECOND)],
    "delay_with_mapper": [ops.delay_with_mapper(lambda _: late(SECOND))],
    "dematerialize": [lambda source: source.pipe(ops.materialize(), ops.dematerialize())],
    "delay": [ops.delay(SECOND)],
    "distinct": [ops.distinct(lambda chunk: chunk.raw)],
    "distinct_until_changed": [ops.distinct_until_changed(lambda chunk: chunk.raw)],
    "do": [ops.do(rx.Observer())],
    "do_action": [ops.do_action(lambda _: None)],
    "do_while": [ops.do_while(lambda _: False)],
    "element_at": [ops.element_at(1)],
    "element_at_or_default": [ops.element_at_or_default(1)],
    "exclusive": [lambda source: source.pipe(ops.map(rx.of), ops.exclusive())],
    "expand": [ops.expand(lambda _: rx.empty())],
    "filter": [ops.filter(has_text), ops.filter(lambda _: True)],
    "filter_indexed": [ops.filter_indexed(lambda _, index: index < 2)],
    "finally_action": [ops.finally_action(lambda: None)],
    "find": [ops.find(lambda value, _, __: has_text(value))],
    "first": [ops.first(), ops.first(has_text)],
    "first_or_default": [ops.first_or_default()],
    "flat_map": [ops.flat_map(rx.of)],
    "flat_map_indexed": [ops.flat_map_indexed(lambda value, _: rx.of(value))],
    "flat_map_latest": [ops.flat_map_latest(rx.of)],
    "fork_join": [ops.fork_join(rx.of(1))],
    "group_by": [ops.group_by(has_text)],
    "group_by_until": [ops.group_by_until(has_text, None, lambda _: late())],
    "group_join": [ops.group_join(rx.of(1), lambda _: rx.never(), lambda _: rx.never())],
    "ignore_elements": [ops.ignore_elements()],
    "join": [ops.join(rx.of(1), lambda _: rx.never(), lambda _: rx.never())],
    "last": [ops.last()],
    "last_or_default": [ops.last_or_default()],
    "map": [ops.map(lambda chunk: chunk)],
    "map_indexed": [ops.map_indexed(lambda chunk, _: chunk)],
    "materialize": [ops.materialize()],
    "max_by": [ops.max_by(lambda chunk: len(chunk.raw))],
    "merge": [ops.merge(rx.empty()), ops.merge(late())],
    "merge_all": [lambda source: source.pipe(ops.map(rx.of), ops.merge_all())],
    "min_by": [ops.min_by(lambda chunk: len(chunk.raw))],
    "multicast": [lambda source: source.pipe(ops.multicast(rx.Subject()), ops.ref_count())],
    "observe_on": [ops.observe_on(ImmediateScheduler())],
    "on_error_resume_next": [ops.on_error_resume_next(rx.empty()), ops.on_error_resume_next(late())],
    "pairwise": [ops.pairwise()],
    "partition": [lambda source: rx.merge(*source.pipe(ops.partition(has_text)))],
    "partition_indexed": [lambda source: rx.merge(*source.pipe(ops.partition_indexed(lambda _, i: i < 2)))],
    "publish": [
        lambda source: source.pipe(ops.publish(), ops.ref_count()),
        ops.publish(lambda shared: shared.pipe(ops.take(2))),
    ],
    "publish_value": [lambda source: source.pipe(ops.publish_value(None), ops.ref_count())],
    "reduce": [ops.reduce(gathered, ())],
    "ref_count": [lambda source: source.pipe(ops.publish(), ops.ref_count(), ops.take(2))],
    "repeat": [ops.repeat(2)],
    "replay": [lambda source: source.pipe(ops.replay(), ops.ref_count())],
    "retry": [ops.retry(2)],
    "sample": [ops.sample(SECOND), ops.sample(rx.of(1))],
    "scan": [ops.scan(lambda _, chunk: chunk)],
    "share": [ops.share(), lambda source: source.pipe(ops.share(), ops.take(2))],
    "single": [ops.single(lambda chunk: chunk.usage is not None)],
    "single_or_default": [ops.single_or_default(lambda chunk: chunk.usage is not None)],
    "single_or_default_async": [ops.single_or_default_async(has_default=True)],
    "skip": [ops.skip(1)],
    "skip_last": [ops.skip_last(1)],
    "skip_last_with_time": [ops.skip_last_with_time(SECOND)],
    "skip_until": [ops.skip_until(rx.of(1)), ops.skip_until(late())],
    "skip_until_with_time": [ops.skip_until_with_time(SECOND)],
    "skip_while": [ops.skip_while(lambda chunk: not has_text(chunk))],
    "skip_while_indexed": [ops.skip_while_indexed(lambda _, index: index < 1)],
    "skip_with_time": [ops.skip_with_time(SECOND)],
    "slice": [ops.slice(0, 2), ops.slice(0, None, 1)],
    "start_with": [ops.start_with()],
    "subscribe_on": [ops.subscribe_on(ImmediateScheduler())],
    "switch_latest": [lambda source: source.pipe(ops.map(rx.of), ops.switch_latest())],
    "switch_map": [ops.switch_map(rx.of)],
    "switch_map_indexed": [ops.switch_map_indexed(lambda value, _: rx.of(value))],
    "take": [ops.take(1), ops.take(3), ops.take(5)],
    "take_last": [ops.take_last(2)],
    "take_last_buffer": [ops.take_last_buffer(2)],
    "take_last_with_time": [ops.take_last_with_time(100 * SECOND)],
    "take_until": [ops.take_until(late(SECOND)), ops.take_until(rx.of(1))],
    "take_until_with_time": [ops.take_until_with_time(SECOND)],
    "take_while": [ops.take_while(has_text), ops.take_while(has_text, inclusive=True)],
    "take_while_indexed": [ops.take_while_indexed(lambda _, index: index < 3)],
    "take_with_time": [ops.take_with_time(SECOND)],
    "tap": [ops.tap(lambda _: None)],
    "throttle_first": [ops.throttle_first(SECOND)],
    "throttle_with_mapper": [ops.throttle_with_mapper(lambda _: late(SECOND))],
    "timestamp": [ops.timestamp()],
    "timeout": [ops.timeout(SECOND, rx.empty()), ops.timeout(SECOND, rx.of(1))],
    "timeout_with_mapper": [ops.timeout_with_mapper(late(SECOND), lambda _: late(SECOND), rx.empty())],
    "time_interval": [ops.time_interval()],
    "to_dict": [ops.to_dict(lambda chunk: chunk.raw)],
    "to_iterable": [ops.to_iterable()],
    "to_list": [ops.to_list()],
    "while_do": [ops.while_do(lambda _: False)],
    "window": [ops.window(late()), ops.window(rx.empty())],
    "window_when": [ops.window_when(late)],
    "window_toggle": [ops.window_toggle(rx.of(1), lambda _: late())],
    "window_with_count": [ops.window_with_count(2)],
    "window_with_time": [ops.window_with_time(SECOND)],
    "window_with_time_or_count": [ops.window_with_time_or_count(SECOND, 2)],
    "with_latest_from": [ops.with_latest_from(rx.of(1))],
    "zip": [ops.zip(rx.of(1, 2, 3)), ops.zip(rx.interval(SECOND))],
    "zip_with_iterable": [ops.zip_with_iterable(range(3))],
    "zip_with_list": [ops.zip_with_list(range(3))],
}

LEFT_OUT = {
    "all": "emits a truth value",
    "average": "emits a number",
    "contains": "emits a truth value",
    "count": "emits a number",
    "find_index": "emits a number",
    "is_empty": "emits a truth value",
    "max": "chunks have no order",
    "min": "chunks have no order",
    "pluck": "takes dicts",
    "pluck_attr": "emits attributes of a chunk",
    "sequence_equal": "emits a truth value",
    "some": "emits a truth value",
    "starmap": "takes tuples",
    "starmap_indexed": "takes tuples",
    "sum": "emits a number",
    "to_future": "returns a future",
    "to_marbles": "emits text",
    "to_set": "chunks have no hash",
}

# The ways that pass every chunk, once and in order.
KEEPING = [
    *("as_observable", "buffer_with_count", "buffer_with_time", "buffer_with_time_or_count", "concat", "concat_all"),
    *("concat_map", "default_if_empty", "delay_subscription", "dematerialize", "delay", "do"),
    *("do_action", "do_while", "finally_action", "flat_map", "flat_map_indexed", "group_by", "map", "map_indexed"),
    *("materialize", "merge", "merge_all", "multicast", "observe_on", "partition", "publish", "reduce", "replay"),
    *("retry", "scan", "share", "start_with", "subscribe_on", "take_last_with_time", "tap", "timestamp"),
    *("to_list", "to_iterable", "window_with_count", "window_with_time", "window_with_time_or_count"),
]


def at_once(values: Iterable[Any]) -> Observable[Any]:
    """Without a turn of the loop between the values, in which others could pass them."""
    return rx.from_iterable(values, scheduler=ImmediateScheduler())


def flattened(value: Any) -> Observable[Any]:
    """The chunks of whatever an operator has made of them."""
    if isinstance(value, ChatChunk):
        return at_once([value])
    if isinstance(value, Observable):
        # Redundant to mypy, needed by pyright; so below.
        window = cast("Observable[Any]", value)  # type: ignore[redundant-cast]
        return window.pipe(ops.map(flattened), ops.merge_all())
    if isinstance(value, dict):
        return at_once(cast("dict[str, Any]", value).values())
    # Notifications, time stamps, intervals.
    if hasattr(value, "value"):
        return flattened(value.value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        values = cast("Iterable[Any]", value)  # type: ignore[redundant-cast]
        return at_once(chunk for chunk in values if isinstance(chunk, ChatChunk))
    return rx.empty()


def applied(operator: Operator) -> Operator:
    return lambda source: source.pipe(operator, ops.map(flattened), ops.merge_all())


ENCODERS: list[Callable[[], Encoder]] = [
    OpenAIChunks,
    UIMessages,
    lambda: AGUI("thread", "run", messages=[]),
    NDJSON,
    PlainText,
]


class Seen:
    """What every kind of reader received of one chain."""

    def __init__(self) -> None:
        self.completions: list[ChatCompletion] = []
        self.calls: list[Any] = []
        self.completed_reads = 0
        self.states: list[str] = []
        self.good_ends: list[str] = []


async def read_by_all(chain: Callable[[], Observable[ChatChunk]]) -> Seen:
    """Read a chain by folds, by sharing, by a hub and by relays, until everything that may happen has happened."""
    seen = Seen()
    answers: list[tuple[str, Answer]] = []
    async with Hub() as hub:

        def ignore(_: Any) -> None:
            pass

        subscriptions = [
            chain().pipe(completion()).subscribe(seen.completions.append, ignore),
            chain().pipe(snapshots()).subscribe(seen.completions.append, ignore),
            chain().pipe(share_generation(), completion()).subscribe(seen.completions.append, ignore),
            chain().pipe(tool_calls()).subscribe(seen.calls.append, ignore),
            hub.start("k", chain()).pipe(completion()).subscribe(seen.completions.append, ignore),
        ]
        for make in ENCODERS:
            encoder = make()
            reading = Answer(encoder, explain=unexplained, keep_alive=1e6, after=None)
            reading.start(chain, lambda: None)
            reading.open()
            answers.append((type(encoder).__name__, reading))
        await asyncio.sleep(60)
        seen.states.append((await hub.status("k")).state)
        for subscription in subscriptions:
            subscription.dispose()
    for name, reading in answers:
        frames = b"".join(reading.take())
        if reading.ended and not reading.broken and reading.failure is None and _ends_well(name, frames):
            seen.good_ends.append(name)
        reading.leave()
    return seen


def _ends_well(name: str, frames: bytes) -> bool:
    if name == "OpenAIChunks":
        return b"[DONE]" in frames and b'"error":{' not in frames
    if name == "UIMessages":
        return b'"type":"finish"' in frames
    if name == "AGUI":
        return b"RUN_FINISHED" in frames and b'"cancelled"' not in frames and b"RUN_ERROR" not in frames
    if name == "NDJSON":
        return b'"error":{' not in frames
    return True


def _unreported(_: object, __: object) -> None:
    pass


async def seen_of(operator: Operator, body: list[Any], ending: Any) -> Seen:
    # A relay reports errors of operators, such as "more than one element", to the loop.
    asyncio.get_running_loop().set_exception_handler(_unreported)
    reply = Reply([*body, *([] if ending is None else [ending])])
    async with served(reply) as (client, _):
        return await read_by_all(lambda: client.chat("hi", model="m").pipe(applied(operator)))


def assert_unproven(seen: Seen, what: str) -> None:
    assert {answer_.state for answer_ in seen.completions} <= {"streaming", "stopped", "truncated"}, what
    assert not [call for answer_ in seen.completions for call in answer_.tool_calls], what
    assert seen.calls == [], what
    assert seen.states != ["completed"], what
    assert seen.good_ends == [], what


# Events whose prefix has no finish reason; behind that, the end of the body is proof by itself.
UNFINISHED = next(at for at, event in enumerate(WHOLE) if b'"finish_reason":"' in event)
ENDINGS = {"hangs": Act.HANG, "ends": None, "resets": Act.RESET}
ALL_WAYS = [(name, number) for name, ways in WAYS.items() for number in range(len(ways))]


def test_table_has_every_operator_of_rxpy() -> None:
    module = reactivex.operators
    public = {
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and not name.startswith("_") and value.__module__ == module.__name__
    }
    assert public == WAYS.keys() | LEFT_OUT.keys()
    assert not WAYS.keys() & LEFT_OUT.keys()


@pytest.mark.virtual
@pytest.mark.parametrize(("name", "number"), ALL_WAYS)
async def test_operator_makes_no_unproven_answer_complete(name: str, number: int) -> None:
    for ending, act in ENDINGS.items():
        for count in (1, UNFINISHED):
            seen = await seen_of(WAYS[name][number], WHOLE[:count], act)
            assert_unproven(seen, f"{name} {number}: {count} events, then the server {ending}")


# The ways that complete while the server still has to send something.
CUTTING = [
    "take",
    "first",
    "element_at",
    "find",
    "slice",
    "take_until",
    "take_with_time",
    "take_while",
    "zip",
    "ref_count",
]


@pytest.mark.virtual
@pytest.mark.parametrize("name", CUTTING)
async def test_operator_that_ends_a_stream_early_makes_the_answer_stopped(name: str) -> None:
    seen = await seen_of(WAYS[name][0], WHOLE[:UNFINISHED], Act.HANG)

    assert_unproven(seen, name)
    assert "stopped" in {answer_.state for answer_ in seen.completions}
    assert seen.states == ["stopped"]


@pytest.mark.virtual
@pytest.mark.parametrize("name", KEEPING)
async def test_operator_that_keeps_all_chunks_keeps_the_proof(name: str) -> None:
    seen = await seen_of(WAYS[name][0], list(WHOLE), None)

    assert {answer_.state for answer_ in seen.completions} <= {"streaming", "complete"}
    assert sum(answer_.state == "complete" for answer_ in seen.completions) == 4
    assert [call.name for call in seen.calls] == ["go"]
    assert seen.states == ["completed"]
    assert len(seen.good_ends) == len(ENCODERS)


@pytest.mark.virtual
@pytest.mark.long
@pytest.mark.parametrize(("name", "number"), ALL_WAYS)
async def test_operator_makes_no_unproven_answer_complete_at_any_prefix(name: str, number: int) -> None:
    for ending, act in ENDINGS.items():
        for count in range(UNFINISHED + 1):
            seen = await seen_of(WAYS[name][number], WHOLE[:count], act)
            assert_unproven(seen, f"{name} {number}: {count} events, then the server {ending}")


@pytest.mark.virtual
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chain=st.lists(st.sampled_from(ALL_WAYS), min_size=2, max_size=4),
    count=st.integers(0, UNFINISHED),
    ending=st.sampled_from(sorted(ENDINGS)),
)
def test_chain_of_operators_makes_no_unproven_answer_complete(
    chain: list[tuple[str, int]], count: int, ending: str
) -> None:
    from rxrouter.testing import VirtualLoop  # noqa: PLC0415 - the loop of this property alone

    def operator(source: Observable[Any]) -> Observable[Any]:
        for name, number in chain:
            source = source.pipe(applied(WAYS[name][number]))
        return source

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        seen = runner.run(seen_of(operator, WHOLE[:count], ENDINGS[ending]))
    assert_unproven(seen, f"{chain}")
