"""Any answer, however odd, is well said in every dialect; and any Last-Event-ID gets what is missing, or a refusal."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any, NamedTuple

import aiohttp
import pytest
import reactivex as rx
from aiohttp import web
from hypothesis import assume, given, strategies as st

from rxrouter import ChatChunk, Restarted, ServerSentEvent, SSEParser, StreamError
from rxrouter.relay import AGUI, NDJSON, Dialect, Failure, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.aiohttp import respond
from rxrouter.sharing import Hub, MemoryLog
from tests.strategies import answers, bodies, decoded

NUMBERED: dict[str, Dialect] = {
    "openai": OpenAIChunks,
    "ui": UIMessages,
    "agui": lambda: AGUI("t", "r", messages=[{"id": "q", "role": "user", "content": "?"}]),
}
FAILURES = [Failure(502, "upstream_failed", "It\nfailed."), Failure(409, "stopped", "It was stopped.")]
PLACE = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,6}))?")


def spaced(body: dict[str, Any], line_end: str) -> ChatChunk:
    """A chunk whose JSON came with line ends in it."""
    chunk = decoded(body)
    chunk.received = json.dumps(body, indent=1).replace("\n", line_end).encode()
    return chunk


odd_answers = answers | st.lists(st.builds(spaced, bodies, st.sampled_from(["\n", "\r", "\r\n"])), max_size=4)
endings = st.sampled_from([None, *FAILURES])


def said(dialect: Dialect, chunks: Iterable[ChatChunk], failure: Failure | None) -> bytes | None:
    """The body; None if it breaks off."""
    encoder = dialect()
    frame = encoder.framing.frame
    body = b"".join(frame(payload) for payload in encoder.begin())
    for chunk in chunks:
        try:
            payloads = list(encoder.chunk(chunk))
        except Exception:  # noqa: BLE001 - what a dialect can't say ends the answer with an error, whichever
            failure = FAILURES[0]
            break
        body += b"".join(map(frame, payloads)) + encoder.framing.comment()
    last = encoder.end() if failure is None else encoder.error(failure)
    return None if last is None else body + b"".join(map(frame, last))


def events(body: bytes | None) -> list[str]:
    """The data of all events, of which none is unfinished."""
    assert body is not None
    assert body.endswith(b"\n\n")
    return [event.data for event in SSEParser().feed(body) if isinstance(event, ServerSentEvent)]


def first_choices(chunks: Iterable[ChatChunk]) -> Iterator[Any]:
    return (choice.delta for chunk in chunks for choice in chunk.choices if choice.index == 0)


def text_of(chunks: Iterable[ChatChunk]) -> str:
    """What is shown of the first choice when all is over."""
    text = ""
    for chunk in chunks:
        if isinstance(chunk, Restarted):
            text = ""
        text += "".join((delta.content or "") + (delta.refusal or "") for delta in first_choices([chunk]))
    return text


def says(value: Any, raw: Any) -> bool:
    """Whether it is the chunk, or that with what its JSON left out because it is the default."""
    if value == raw:
        return True
    choices = [said | choice for said, choice in zip(value["choices"], raw.get("choices", []), strict=True)]
    return bool(value == value | raw | {"choices": choices})


@given(odd_answers, endings)
def test_openai_chunks_are_json_events_and_end_as_they_should(chunks: list[ChatChunk], failure: Failure | None) -> None:
    # The finish of a choice with calls waits for the end, and may change: tests/relay/test_dialects.py.
    assume(not any(choice.delta.tool_calls for chunk in chunks for choice in chunk.choices))
    *data, done = events(said(OpenAIChunks, chunks, failure))

    values: list[Any] = [json.loads(each) for each in data]
    kept = next((at for at, chunk in enumerate(chunks) if isinstance(chunk, Restarted)), len(chunks))
    assert done == "[DONE]"
    assert all(says(value, json.loads(chunk.raw)) for value, chunk in zip(values[:kept], chunks, strict=False))
    told = FAILURES[0] if kept < len(chunks) else failure
    assert [value["error"]["type"] for value in values[kept:]] == ([] if told is None else [told.code])


@given(odd_answers, endings)
def test_ndjson_is_a_value_a_line(chunks: list[ChatChunk], failure: Failure | None) -> None:
    body = said(NDJSON, chunks, failure)

    assert body is not None
    assert body.endswith(b"\n") or not body
    values = [json.loads(line) for line in body.split(b"\n") if line]
    expected: list[Any] = [
        {"restarted": {"attempt": chunk.attempt}} if isinstance(chunk, Restarted) else json.loads(chunk.raw)
        for chunk in chunks
    ]
    assert values[: len(chunks)] == expected
    assert ["error" in value for value in values[len(chunks) :]] == ([] if failure is None else [True])


@given(odd_answers, endings)
def test_plain_text_is_the_text_or_breaks_off(chunks: list[ChatChunk], failure: Failure | None) -> None:
    body = said(PlainText, chunks, failure)

    whole = failure is None and not any(isinstance(chunk, Restarted) for chunk in chunks)
    assert body == (text_of(chunks).encode() if whole else None)


class Message:
    """What AI SDK makes of a UI message stream, and what it would complain of."""

    def __init__(self, data: list[str]) -> None:
        *events, done = data
        assert done == "[DONE]"
        self.text = ""
        self._open: dict[str, str] = {}
        self._parts = set[str]()
        self._calls: dict[str, str] = {}
        self.last = ""
        for event in events:
            value = json.loads(event)
            assert self.last not in {"finish", "error", "abort"}
            self.last = value["type"]
            getattr(self, "_" + self.last.replace("-", "_"), self._other)(value)
        assert not self._open
        assert [json.loads(event)["type"] for event in events[:2]] == ["start", "start-step"]

    def _begin(self, kind: str, part: str) -> None:
        assert not self._open
        assert part not in self._parts
        self._parts.add(part)
        self._open[part] = kind

    def _text_start(self, value: dict[str, Any]) -> None:
        self._begin("text", value["id"])

    def _reasoning_start(self, value: dict[str, Any]) -> None:
        self._begin("reasoning", value["id"])

    def _text_delta(self, value: dict[str, Any]) -> None:
        assert self._open[value["id"]] == "text"
        self.text += value["delta"]

    def _reasoning_delta(self, value: dict[str, Any]) -> None:
        assert self._open[value["id"]] == "reasoning"

    def _text_end(self, value: dict[str, Any]) -> None:
        assert self._open.pop(value["id"]) == "text"

    def _reasoning_end(self, value: dict[str, Any]) -> None:
        assert self._open.pop(value["id"]) == "reasoning"

    def _tool_input_start(self, value: dict[str, Any]) -> None:
        assert value["toolCallId"] not in self._calls
        assert value["toolName"]
        self._calls[value["toolCallId"]] = ""

    def _tool_input_delta(self, value: dict[str, Any]) -> None:
        self._calls[value["toolCallId"]] += value["inputTextDelta"]

    def _tool_input_available(self, value: dict[str, Any]) -> None:
        assert json.loads(self._calls[value["toolCallId"]] or "{}") == value["input"]
        assert isinstance(value["input"], dict)

    def _tool_input_error(self, value: dict[str, Any]) -> None:
        assert value["errorText"]

    def _other(self, value: dict[str, Any]) -> None:
        if value["type"] == "reset-step":
            self.text = ""
            self._open.clear()
            self._calls.clear()
            return
        assert value["type"] in {
            *("start", "start-step", "finish-step", "finish", "error", "abort"),
            *("source-url", "file", "data-usage"),
        }


@given(odd_answers, endings)
def test_ui_messages_nest_and_say_the_text(chunks: list[ChatChunk], failure: Failure | None) -> None:
    message = Message(events(said(UIMessages, chunks, failure)))

    assert message.text == text_of(chunks)
    if failure is not None:
        assert message.last == ("abort" if failure.code == "stopped" else "error")
    elif any(delta.tool_calls for delta in first_choices(chunks)):
        assert message.last in {"finish", "error"}  # a call that may be cut is no good end
    else:
        assert message.last == "finish"


class Run:
    """What AG-UI's client makes of a run, and what its `verifyEvents` insists on."""

    def __init__(self, data: list[str]) -> None:
        self.text = ""
        self.last = ""
        self._open: dict[tuple[str, str], bool] = {}
        values: list[dict[str, Any]] = [json.loads(event) for event in data]
        assert values[0]["type"] == "RUN_STARTED"
        for value in values:
            assert self.last not in {"RUN_FINISHED", "RUN_ERROR"}
            self.last = value["type"]
            self._take(self.last, value)
        assert self.last == "RUN_ERROR" or not self._open

    def _take(self, kind: str, value: dict[str, Any]) -> None:
        thing, _, step = kind.rpartition("_")
        if kind == "MESSAGES_SNAPSHOT":
            self.text = ""
        elif step in {"START", "END", "CONTENT", "ARGS"} and thing:
            key = thing, value["toolCallId"] if thing == "TOOL_CALL" else value["messageId"]
            assert (key in self._open) is (step != "START"), f"{kind} of {key}"
            if step == "START":
                self._open[key] = True
                assert value.get("toolCallName", True)
            elif step == "END":
                del self._open[key]
            elif thing == "TEXT_MESSAGE":
                assert value["delta"]
                self.text += value["delta"]
        else:
            assert kind in {"RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "CUSTOM"}


@given(odd_answers, endings)
def test_ag_ui_events_nest_and_say_the_text(chunks: list[ChatChunk], failure: Failure | None) -> None:
    run = Run(events(said(NUMBERED["agui"], chunks, failure)))

    if run.last == "RUN_FINISHED":
        assert run.text == text_of(chunks)
        assert failure is None or failure.code == "stopped"


class Frame(NamedTuple):
    """An event with the place that its id is; without one it has none."""

    place: tuple[int, int] | None
    data: str


def frames(body: bytes) -> list[Frame]:
    parser, ids = SSEParser(), list[Frame]()
    for event in parser.feed(body):
        if isinstance(event, ServerSentEvent):
            ids.append(Frame(place_of(event.id), event.data))
    return ids


def place_of(event_id: str) -> tuple[int, int] | None:
    match = PLACE.fullmatch(event_id)
    return None if match is None else (int(match[1]), int(match[2] or 0))


class Relay:
    """A server with one hub, and a browser; each answer has its own key."""

    def __init__(self) -> None:
        self._keys = count()

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Relay]:
        async def answer(request: web.Request) -> web.StreamResponse:
            dialect, key = request.path.split("/")[1:]
            return await respond(request, None, hub=self._hub, key=key, dialect=NUMBERED[dialect])

        async with Hub(MemoryLog(keep_count=4)) as self._hub, aiohttp.ClientSession() as self._session:
            runner = web.AppRunner(application := web.Application())
            application.router.add_get("/{tail:.*}", answer)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self._url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            yield self
            await runner.cleanup()

    async def tell(self, chunks: list[ChatChunk], error: Exception | None) -> str:
        """Begins an answer, and returns its key when it is all there."""
        key = str(next(self._keys))
        source = rx.from_iterable(chunks)
        over = asyncio.Event()
        whole = source if error is None else rx.concat(source, rx.throw(error))
        self._hub.start(key, whole).subscribe(on_error=lambda _: over.set(), on_completed=over.set)
        await over.wait()
        return key

    async def get(self, dialect: str, key: str, last_event_id: str | None = None) -> tuple[int, bytes]:
        headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
        async with self._session.get(f"{self._url}/{dialect}/{key}", headers=headers) as response:
            return response.status, await response.read()


Beside = Callable[[Callable[[Relay], Coroutine[Any, Any, None]]], None]


@pytest.fixture(scope="module")
def beside_a_relay() -> Iterator[Beside]:
    """Has a coroutine function run beside a relay that all examples use."""
    with asyncio.Runner() as runner:
        serving = Relay().serving()
        relay = runner.run(serving.__aenter__())
        yield lambda browse: runner.run(browse(relay))
        runner.run(serving.__aexit__(None, None, None))


@given(
    chunks=odd_answers,
    error=st.sampled_from([None, StreamError(503)]),
    dialect=st.sampled_from([*NUMBERED]),
    cuts=st.lists(st.floats(0, 1), max_size=3),
)
def test_who_comes_back_gets_exactly_what_is_missing(
    beside_a_relay: Beside, chunks: list[ChatChunk], error: Exception | None, dialect: str, cuts: list[float]
) -> None:
    async def come_back(relay: Relay) -> None:
        key = await relay.tell(chunks, error)
        status, body = await relay.get(dialect, key)
        if status != 200:
            assert "error" in json.loads(body)
            return
        told = frames(body)
        places = [frame.place for frame in told if frame.place is not None]
        assert len(places) == len(told)
        assert places == sorted(set(places))
        for cut in [*cuts, 1.0]:
            at = round(cut * (len(told) - 1))
            entries, more = places[at]
            status, body = await relay.get(dialect, key, f"{entries}.{more}" if more else f"{entries}")
            assert (status, frames(body)) == ((200, told[at + 1 :]) if at + 1 < len(told) else (204, []))

    beside_a_relay(come_back)


header_texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=20)
digits = st.from_regex(r"[0-9]{1,14}(\.[0-9]{0,8})?", fullmatch=True)
event_ids = header_texts | digits | st.sampled_from(["1.0", "0", "", "٣"])


@given(
    chunks=answers.filter(bool),
    error=st.sampled_from([None, StreamError(503)]),
    dialect=st.sampled_from([*NUMBERED]),
    event_id=event_ids | st.builds("{}.{}".format, st.integers(0, 12), st.integers(0, 5)),
)
def test_any_last_event_id_is_refused_or_gets_each_frame_behind_it_once(
    beside_a_relay: Beside, chunks: list[ChatChunk], error: Exception | None, dialect: str, event_id: str
) -> None:
    async def ask(relay: Relay) -> None:
        key = await relay.tell(chunks, error)
        first, body = await relay.get(dialect, key)
        told = frames(body)
        status, body = await relay.get(dialect, key, event_id)
        place = place_of(event_id.strip()) or ((0, 0) if not event_id.strip() else None)
        if place is None:
            assert status == 400
        elif first != 200:  # so nobody was given an id
            assert status in {200, 204, 400, 503, first}  # 503 is the error itself, behind what made it 502
        elif status == 200:
            assert frames(body) == [frame for frame in told if frame.place and frame.place > place]
        elif status == 204:
            assert told[-1].place == place
        else:
            assert status >= 400  # what the answer ended with, or a place that it never reached
            assert "error" in json.loads(body)
            assert told[-1].place is not None
            assert told[-1].place < place

    beside_a_relay(ask)
