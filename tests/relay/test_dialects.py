"""Dialects, without a server: what they say of any answer, and that readers who are strict can follow."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import reactivex
from hypothesis import given, strategies as st

from rxrouter import (
    ChatChunk,
    Restarted,
    RouterError,
    ServerSentEvent,
    SSEParser,
    StreamError,
    ToolCall,
)
from rxrouter._errors import GenerationStopped
from rxrouter._wire.chunk import Usage, reasoning_of
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators import tool_calls
from rxrouter.relay import AGUI, NDJSON, Encoder, OpenAIChunks, PlainText, UIMessages
from rxrouter.relay.failure import failure_of, unexplained
from rxrouter.sharing._entries import decode, encode
from rxrouter.testing import answer
from tests.operators.support import chunk
from tests.strategies import answers, calls, decoded
from tests.support import SHARED, needs_shared

FAILURE = failure_of(StreamError(502, "boom"), unexplained)
STOPPED = failure_of(GenerationStopped(), unexplained)
QUESTION = {"id": "question", "role": "user", "content": "hello"}
CALL: dict[str, Any] = {"index": 0, "id": "c", "function": {"name": "go", "arguments": "{"}}
SECRET = "org acme-prod-4711"


def agent() -> AGUI:
    return AGUI("thread", "run", messages=[QUESTION])


MAKERS: list[Callable[[], Encoder]] = [OpenAIChunks, NDJSON, PlainText, UIMessages, agent]


def told(encoder: Encoder, chunks: Iterable[ChatChunk]) -> list[bytes]:
    """All payloads; the end, or the error that the dialect made of what it could not say."""
    said = list(encoder.begin())
    try:
        for value in chunks:
            said += encoder.chunk(value)
    except RouterError as error:
        return said + list(encoder.error(failure_of(error, unexplained)) or ())
    return said + list(encoder.end())


def events(said: Sequence[bytes]) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in said if payload != b"[DONE]"]


def last_attempt(chunks: Sequence[ChatChunk]) -> list[ChatChunk]:
    begins = [at for at, value in enumerate(chunks) if isinstance(value, Restarted)]
    return list(chunks[begins[-1] + 1 if begins else 0 :])


def words_of(chunks: Iterable[ChatChunk]) -> str:
    deltas = [choice.delta for value in chunks for choice in value.choices if choice.index == 0]
    return "".join((delta.content or "") + (delta.refusal or "") for delta in deltas)


def thoughts_of(chunks: Iterable[ChatChunk]) -> str:
    return "".join(reasoning_of(choice.delta) or "" for v in chunks for choice in v.choices if choice.index == 0)


def proven(chunks: Sequence[ChatChunk]) -> tuple[list[ToolCall], bool]:
    """What `tool_calls()` releases, and whether all of it was whole."""
    calls, errors = list[ToolCall](), list[Exception]()
    reactivex.from_iterable(chunks).pipe(tool_calls()).subscribe(calls.append, errors.append)
    return calls, not errors


class Page:
    """Reads UI messages as `processUIMessageStream` does: what has not begun can't go on."""

    def __init__(self, said: Sequence[bytes]) -> None:
        self.parts: list[dict[str, Any]] = []
        self.kinds: list[str] = []
        self.shown: dict[str, str] = {}  # of the arguments of calls
        self._open: dict[str, dict[str, Any]] = {}
        for event in events(said):
            self.kinds.append(event["type"])
            self._read(event["type"], event)
        assert not self._open

    def _read(self, kind: str, event: dict[str, Any]) -> None:
        if kind in {"text-start", "reasoning-start"}:
            assert event["id"] not in self._open
            self._open[event["id"]] = part = {"type": kind.removesuffix("-start"), "text": ""}
            self.parts.append(part)
        elif kind in {"text-delta", "reasoning-delta"}:
            self._open[event["id"]]["text"] += event["delta"]
        elif kind in {"text-end", "reasoning-end"}:
            del self._open[event["id"]]
        elif kind == "reset-step":
            self.parts, self._open, self.shown = [], {}, {}
        elif kind == "tool-input-delta":
            assert any(part.get("toolCallId") == event["toolCallId"] for part in self.parts)
            self.shown[event["toolCallId"]] += event["inputTextDelta"]
        elif kind.startswith("tool-input-"):
            self.parts = [part for part in self.parts if part.get("toolCallId") != event["toolCallId"]] + [event]
            if kind == "tool-input-start":
                assert event["toolCallId"] not in self.shown
                self.shown[event["toolCallId"]] = ""

    def text(self, kind: str) -> str:
        return "".join(part["text"] for part in self.parts if part["type"] == kind)

    def calls(self, kind: str) -> list[dict[str, Any]]:
        return [part for part in self.parts if part["type"] == kind]


class Client:
    """Reads AG-UI as `verifyEvents` does, and keeps the messages."""

    def __init__(self, said: Sequence[bytes]) -> None:
        self.messages = {"question": "hello"}
        self._open: set[tuple[str, str]] = set()
        self.all = events(said)
        assert self.all[0]["type"] == "RUN_STARTED"
        self.last = self.all[-1]["type"]
        for event in self.all[1:]:
            self._read(event["type"], event)
        assert self.last == "RUN_ERROR" or not self._open

    def _read(self, kind: str, event: dict[str, Any]) -> None:
        thing, _, what = kind.rpartition("_")
        if thing in {"TEXT_MESSAGE", "REASONING", "REASONING_MESSAGE", "TOOL_CALL"}:
            one = thing, event.get("toolCallId") or event["messageId"]
            if what == "START":
                assert one not in self._open
                self._open.add(one)
            else:
                assert one in self._open
                if what == "END":
                    self._open.remove(one)
            if what == "CONTENT":
                self.messages[one[1]] = self.messages.get(one[1], "") + event["delta"]
        elif kind == "MESSAGES_SNAPSHOT":
            assert not self._open
            self.messages = {message["id"]: message["content"] for message in event["messages"]}


@given(answers)
def test_the_same_answer_is_said_the_same_way(chunks: list[ChatChunk]) -> None:
    for make in MAKERS:
        assert told(make(), chunks) == told(make(), chunks)


@given(answers)
def test_what_has_been_in_a_log_is_said_the_same_way(chunks: list[ChatChunk]) -> None:
    for make in MAKERS:
        assert told(make(), chunks) == told(make(), [decode(encode(value)) for value in chunks])


@given(answers)
def test_a_page_shows_what_the_last_attempt_said(chunks: list[ChatChunk]) -> None:
    page, rest = Page(told(UIMessages(), chunks)), last_attempt(chunks)
    assert page.text("text") == words_of(rest)
    assert page.text("reasoning") == thoughts_of(rest)
    assert page.kinds[-1] == ("finish" if proven(chunks)[1] else "error")


@given(answers)
def test_a_page_runs_what_tool_calls_releases_and_nothing_else(chunks: list[ChatChunk]) -> None:
    page = Page(told(UIMessages(), chunks))
    released, whole = proven(chunks)
    available = page.calls("tool-input-available")
    assert [(part["toolName"], part["input"]) for part in available] == [
        (call.name, json.loads(call.arguments)) for call in released
    ]
    assert bool(page.calls("tool-input-error")) is not whole
    ids = [part["toolCallId"] for part in available]
    assert len(set(ids)) == len(ids)


@given(answers)
def test_a_client_of_ag_ui_shows_what_the_last_attempt_said(chunks: list[ChatChunk]) -> None:
    client, rest = Client(told(agent(), chunks)), last_attempt(chunks)
    if client.last == "RUN_FINISHED":
        assert client.messages.get("run-answer", "") == words_of(rest)
        assert client.messages.get("run-answer-reasoning", "") == thoughts_of(rest)


@given(answers)
def test_a_run_of_ag_ui_finishes_only_if_all_calls_are_whole(chunks: list[ChatChunk]) -> None:
    if any(isinstance(value, Restarted) for value in chunks):
        return
    client = Client(told(agent(), chunks))
    released, whole = proven(chunks)
    assert (client.last == "RUN_FINISHED") is whole
    if whole:
        assert len(client.all[-1]["outcome"].get("pendingToolCallIds", [])) == len(released)


@given(answers)
def test_text_is_the_text(chunks: list[ChatChunk]) -> None:
    if not any(isinstance(value, Restarted) for value in chunks):
        assert b"".join(told(PlainText(), chunks)) == words_of(chunks).encode()


@given(answers)
def test_chunks_are_bytes_as_received(chunks: list[ChatChunk]) -> None:
    plain = [value for value in chunks if not isinstance(value, Restarted)]
    for value in plain:
        value.received = b" " + value.raw
    calls = any(choice.delta.tool_calls for value in plain for choice in value.choices)
    # The finish of a choice with calls waits, and may change; the rest is sent as it came.
    assert calls or told(OpenAIChunks(), plain) == [*(value.raw for value in plain), b"[DONE]"]
    assert told(NDJSON(), plain) == [value.raw for value in plain]


@pytest.mark.parametrize("make", [OpenAIChunks, PlainText, lambda: AGUI("t", "r")])
def test_what_cannot_be_taken_back_is_refused_with_its_cause(make: Callable[[], Encoder]) -> None:
    cause = StreamError(502)
    encoder = make()
    encoder.begin()
    with pytest.raises(StreamError) as caught:
        encoder.chunk(Restarted(attempt=2, cause=cause))
    assert caught.value is cause
    with pytest.raises(RouterError):
        encoder.chunk(Restarted(attempt=2))


def test_ag_ui_takes_nothing_back_once_a_call_has_begun() -> None:
    encoder = agent()
    encoder.chunk(chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "go", "arguments": '{"'}}]}))
    with pytest.raises(RouterError):
        encoder.chunk(Restarted(attempt=2))


def test_lines_say_that_what_was_before_is_void() -> None:
    assert NDJSON().chunk(Restarted(attempt=2)) == (b'{"restarted":{"attempt":2}}',)


@pytest.mark.parametrize("make", MAKERS)
def test_an_error_may_come_at_any_moment(make: Callable[[], Encoder]) -> None:
    pieces: list[dict[str, Any]] = [
        {"reasoning": "hm"},
        {"content": "word"},
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "go", "arguments": "{"}}]},
    ]
    for failure in (FAILURE, STOPPED):
        for count in range(len(pieces) + 1):
            encoder = make()
            said = [*encoder.begin()]
            for piece in pieces[:count]:
                said += encoder.chunk(chunk(piece))
            said += encoder.error(failure) or ()
            if isinstance(encoder, UIMessages):
                assert Page(said).kinds[-1] == ("abort" if failure is STOPPED else "error")
                assert len(Page(said).calls("tool-input-error")) == (count == 3 and failure is FAILURE)
            elif isinstance(encoder, AGUI):
                cancelled = failure is STOPPED and count < 3
                assert Client(said).last == ("RUN_FINISHED" if cancelled else "RUN_ERROR")
            elif not isinstance(encoder, PlainText):
                assert any("error" in event for event in events(said))


def test_calls_of_one_id_are_told_apart() -> None:
    pieces = [{"index": n, "id": "same", "function": {"name": "go", "arguments": "{}"}} for n in range(2)]
    page = Page(told(UIMessages(), [chunk({"tool_calls": pieces}), answered("tool_calls")]))
    assert [part["toolCallId"] for part in page.calls("tool-input-available")] == ["same", "same-1"]


def answered(finish: str | None, native: str | None = None) -> ChatChunk:
    value = chunk({})
    value.choices[0].finish_reason = finish
    value.choices[0].native_finish_reason = native
    return value


@given(st.lists(st.lists(calls, max_size=3), max_size=8), st.sampled_from(["tool_calls", "length"]))
def test_what_is_shown_of_calls_is_what_was_folded(pieces: list[list[Any]], finish: str) -> None:
    chunks = [decoded({"choices": [{"delta": {"tool_calls": several}}]}) for several in pieces]
    fold = CompletionFold()
    for value in chunks:
        fold.add(value)
    page = Page(told(UIMessages(), [*chunks, answered(finish)]))
    named = [call.arguments for call in fold.completion("streaming").partial_tool_calls if call.name]
    assert sorted(page.shown.values()) == sorted(named)


def test_pieces_of_one_call_in_one_chunk_are_one_event() -> None:
    pieces = [{"index": 0, "id": "c", "function": {"name": "go", "arguments": text}} for text in ('{"a":', "1", "}")]
    page = Page(told(UIMessages(), [chunk({"tool_calls": pieces}), answered("tool_calls")]))
    assert page.kinds.count("tool-input-delta") == 1
    assert page.calls("tool-input-available")[0]["input"] == {"a": 1}


def test_two_choices_of_one_index_are_one_answer() -> None:
    value = chunk({"tool_calls": [CALL]}, {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]})
    value.choices[1].index = 0
    assert Page(told(UIMessages(), [value, answered("tool_calls")])).calls("tool-input-available")[0]["input"] == {}


def work(encoder: Encoder, chunks: Sequence[ChatChunk]) -> int:
    """How many functions are called to say this."""
    count = 0

    def called(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(called)
    try:
        for value in chunks:
            encoder.chunk(value)
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("make", [UIMessages, agent])
def test_a_piece_costs_the_same_however_much_there_was_before(make: Callable[[], Encoder], monkeypatch: Any) -> None:
    begin, piece = {"index": 0, "id": "c", "function": {"name": "go"}}, {"index": 0, "function": {"arguments": "{"}}
    one = [chunk({"tool_calls": [begin]}), *[chunk({"tool_calls": [piece]})] * 400]
    many = [chunk({"tool_calls": [{**begin, "index": n, "id": f"c{n}"}]}) for n in range(400)]
    reads = 0
    read = CompletionFold.completion

    def counted(fold: CompletionFold) -> Any:  # it joins all that was received
        nonlocal reads
        reads += 1
        return read(fold)

    monkeypatch.setattr(CompletionFold, "completion", counted)
    for chunks in (one, many):
        assert work(make(), chunks) < 2.1 * work(make(), chunks[:200])
    assert reads == 0


@pytest.mark.parametrize(
    ("arguments", "finish", "native"),
    [
        ('{"to":', "length", None),
        ("{}", None, None),
        ("{}", "tool_calls", "length"),
        ('{"to":', "tool_calls", None),
    ],
)
def test_a_page_that_sends_results_by_itself_sends_no_cut_call(arguments: str, finish: Any, native: Any) -> None:
    call = {**CALL, "function": {"name": "go", "arguments": arguments}}
    page = Page(told(UIMessages(), [chunk({"tool_calls": [call]}), answered(finish, native)]))
    assert page.kinds[-2:] == ["tool-input-error", "error"]


def test_a_page_that_sends_results_by_itself_sends_no_call_that_was_stopped() -> None:
    encoder = UIMessages()
    call = {**CALL, "function": {"name": "go", "arguments": '{"to":'}}
    said = [*encoder.begin(), *encoder.chunk(chunk({"tool_calls": [call]})), *encoder.error(STOPPED)]
    assert Page(said).kinds[-2:] == ["tool-input-delta", "abort"]


@pytest.mark.parametrize("make", [UIMessages, agent])
@pytest.mark.parametrize("finish", ["tool_calls", f"{SECRET} error"])
def test_a_cut_call_is_told_in_words_of_ours(make: Callable[[], Encoder], finish: str) -> None:
    said = told(make(), [chunk({"tool_calls": [CALL]}), answered(finish, f"{SECRET}: over limit")])
    assert SECRET not in b"".join(said).decode()
    assert any("errorText" in event or event["type"] == "RUN_ERROR" for event in events(said))


@pytest.mark.parametrize("make", [OpenAIChunks, NDJSON])
@pytest.mark.parametrize(
    ("choice", "more"),
    [
        ({}, {"error": {"code": 502, "message": SECRET}}),
        ({"error": {"code": 502, "message": SECRET}}, {}),
        ({"finish_reason": "error", "native_finish_reason": SECRET}, {}),
    ],
)
def test_content_in_an_error_s_chunk_is_told_without_the_error(
    make: Callable[[], Encoder], choice: dict[str, Any], more: dict[str, Any]
) -> None:
    body = {"id": "g", "choices": [{"index": 0, "delta": {"content": "lo"}, **choice}], **more}
    value = decoded(body)
    value.received = json.dumps(body).encode()
    (event,) = events(list(make().chunk(value)))
    assert SECRET not in str(event)
    assert event["choices"][0]["delta"] == {"content": "lo"}
    assert event["choices"][0].get("finish_reason") is None
    assert "error" not in event


def test_a_chunk_that_nobody_sent_has_all_that_sdks_insist_on() -> None:
    head = {"id": "gen-1", "object": "chat.completion.chunk", "created": 0, "model": ""}
    choice = {"index": 0, "delta": {"content": "x"}, "finish_reason": None}
    encoder = OpenAIChunks()
    assert events(list(encoder.chunk(chunk({"content": "x"})))) == [{**head, "choices": [choice]}]
    assert events(list(encoder.chunk(ChatChunk(usage=Usage(cost=1.0))))) == [
        {**head, "id": "", "choices": [], "usage": {"cost": 1.0}}
    ]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("stop", "stop"), ("length", "length"), ("content_filter", "content-filter"), ("new", "other")],
)
def test_a_page_is_told_why_the_answer_ended(reason: str, finish: str) -> None:
    (*_, event) = events(told(UIMessages("message"), [chunk({"content": "x"}, model="m"), answered(reason)]))
    assert event["finishReason"] == finish
    assert event["messageMetadata"] == {"model": "m", "generationId": "gen-1"}


def test_a_page_is_told_no_reason_that_nobody_gave() -> None:
    (*_, event) = events(told(UIMessages(), [chunk({"content": "x"})]))
    assert "finishReason" not in event


def received(body: bytes) -> list[ChatChunk]:
    """The chunks of a body."""
    items = SSEParser().feed(body)
    return [
        decoded(json.loads(item.data)) for item in items if isinstance(item, ServerSentEvent) and item.data[0] == "{"
    ]


def test_the_simulator_s_answer_reaches_every_reader() -> None:
    chunks = received(b"".join(answer("Hello, world.", reasoning="Hm.", tool_calls=[("go", '{"a": 1}')])))
    assert Page(told(UIMessages(), chunks)).text("text") == "Hello, world."
    assert Client(told(agent(), chunks)).messages["run-answer"] == "Hello, world."


# The finish reason makes a client run the calls, so it waits until they are proven.

GO = decoded({"choices": [{"delta": {"tool_calls": [CALL]}}]})
GO_ON = decoded({"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]}}]})
BILL = ChatChunk(usage=Usage(cost=1.0))


def finishes(payloads: list[bytes]) -> list[str | None]:
    return [choice["finish_reason"] for event in events(payloads) for choice in event["choices"]]


def test_openai_chunks_sends_the_finish_of_whole_calls_as_received_when_the_answer_is_proven() -> None:
    chunks = [GO, GO_ON, answered("tool_calls"), BILL]
    encoder = OpenAIChunks()

    sent = [list(encoder.chunk(value)) for value in chunks]

    assert [len(payloads) for payloads in sent] == [1, 1, 0, 0]
    assert [*chain.from_iterable(sent), *encoder.end()] == told(Waiting(), chunks)


class Waiting(OpenAIChunks):
    """One that does not wait."""

    def _holds(self, chunk: ChatChunk) -> bool:  # noqa: ARG002 - it holds nothing
        return False


@pytest.mark.parametrize(
    "chunks",
    [
        [GO, answered("tool_calls")],
        [GO, GO_ON, answered("tool_calls", "length")],
        [GO, GO_ON, answered("length")],
        [GO, GO_ON, answered("stop", "MALFORMED_FUNCTION_CALL")],
        [GO, GO_ON],
    ],
    ids=["half", "native length", "length", "malformed", "no finish"],
)
def test_openai_chunks_ends_cut_calls_by_length_when_the_stream_completes(chunks: list[ChatChunk]) -> None:
    payloads = told(OpenAIChunks(), [*chunks, BILL])

    assert [finish for finish in finishes(payloads[:-1]) if finish] == ["length"]
    assert payloads[-1] == b"[DONE]"


def test_openai_chunks_sends_no_finish_of_calls_when_the_stream_fails() -> None:
    encoder = OpenAIChunks()
    payloads = [payload for value in (GO, GO_ON, answered("tool_calls")) for payload in encoder.chunk(value)]
    payloads += encoder.error(FAILURE)

    assert [finish for finish in finishes(payloads[:-1]) if finish] == ["error"]


@given(st.integers(0, 8))
def test_openai_chunks_gives_a_reader_that_resumes_the_same_frames(after: int) -> None:
    chunks = [chunk({"content": "Hm. "}), GO, GO_ON, answered("tool_calls"), BILL]
    whole = told(OpenAIChunks(), chunks)
    encoder = OpenAIChunks()
    sent: list[bytes] = []
    for number, value in enumerate(chunks):
        if number < after:
            encoder.skip(value)
        else:
            sent += encoder.chunk(value)

    assert [*sent, *encoder.end()] == whole[min(after, 3) :]


OTHER = ("responses", "error", "messages")  # dialects of the recordings that are not relayed
RECORDINGS = [
    path
    for path in sorted((SHARED / "recordings").glob("openrouter_*_1.sse"))
    if not any(o in path.name for o in OTHER)
]


@needs_shared
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_a_recording_reaches_every_reader(recording: Path) -> None:
    chunks = received(recording.read_bytes())
    page, client = Page(told(UIMessages(), chunks)), Client(told(agent(), chunks))
    assert page.text("text") == words_of(chunks) == client.messages.get("run-answer", "")
    assert page.text("reasoning") == thoughts_of(chunks) == client.messages.get("run-answer-reasoning", "")
    assert (client.last == "RUN_FINISHED") is proven(chunks)[1]


@pytest.mark.parametrize("make", [OpenAIChunks, NDJSON])
def test_unknown_members_of_a_call_stand_where_they_stood_in_a_chunk_that_stands_for_many(
    make: Callable[[], OpenAIChunks | NDJSON],
) -> None:
    signed = {**CALL, "extra_content": {"google": {"thought_signature": "x"}}}
    signed["function"] = {"name": "go", "arguments": '{"a":1}', "k": None, "v": 2}
    fold = CompletionFold()
    fold.add(decoded({"id": "gen-1", "choices": [{"index": 0, "delta": {"tool_calls": [signed]}}]}))
    (whole,) = fold.chunks()

    (line,) = make().chunk(whole)

    (piece,) = json.loads(line)["choices"][0]["delta"]["tool_calls"]
    assert (piece["extra_content"], piece["function"]["v"]) == (signed["extra_content"], 2)
    assert not [name for name in (*piece, *piece["function"]) if name.startswith("_")]
    again = CompletionFold()
    again.add(decoded(json.loads(line)))
    assert again.completion().choices == fold.completion().choices
