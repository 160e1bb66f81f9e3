"""What real servers sent, through a real client: every recorded answer, in blocks of every size."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from rxrouter import (
    ChatChunk,
    ChatCompletion,
    IncompleteToolCallError,
    RouterError,
    StatusError,
    StreamError,
    TruncatedStreamError,
)
from rxrouter.operators import completion, snapshots, tool_calls
from rxrouter.testing import Recording, Reply
from tests.support import SHARED, Observed, needs_shared, observe, served

pytestmark = needs_shared

FOLDER = SHARED / "recordings"
FAILED = ["openrouter_stream_error_minimax_1", "openrouter_error_first_event_venice_1", "groq_tool_use_failed_error_1"]
FIELDS = {"gpustack_error_field_tail_1"}  # its error comes under a field name that SSE does not know


JSON = dict[str, Any]


# An independent reading of a recording, from the JSON alone


def read(path: Path) -> bytes:
    return path.read_bytes()


def data_of(body: bytes) -> Iterator[str]:
    for block in body.decode().replace("\r\n", "\n").split("\n\n"):
        lines = [line.removeprefix("data:").removeprefix(" ") for line in block.split("\n") if line.startswith("data:")]
        if lines:
            yield "\n".join(lines)


def objects_of(body: bytes) -> list[JSON]:
    return [cast("JSON", json.loads(data)) for data in data_of(body) if data.startswith("{")]


def one(value: Any) -> JSON:
    return cast("JSON", value or {})


def many(value: Any) -> list[JSON]:
    return cast("list[JSON]", value or [])


def is_chat(path: Path) -> bool:
    choices = (many(value.get("choices")) for value in objects_of(path.read_bytes()))
    return any("delta" in choice for choice in next(filter(None, choices), ()))


def parts_of(content: Any) -> tuple[str, str]:
    """Text and thoughts of a content, which may be in parts."""
    if not isinstance(content, list):
        return content or "", ""
    words, thoughts = "", ""
    for part in many(content):
        words += part.get("text", "")
        thoughts += "".join(thought["text"] for thought in many(part.get("thinking")))
    return words, thoughts


def fold(body: bytes) -> JSON:
    """The answer's facts, in the form of `facts`."""
    choices: dict[int, JSON] = {}
    usage: JSON = {}
    for value in objects_of(body):
        usage = one(value.get("usage")) or one(one(value.get("x_groq")).get("usage")) or usage
        for choice in many(value.get("choices")):
            new: JSON = {"text": "", "reasoning": "", "refusal": "", "calls": {}, "finish": None, "images": 0}
            at = choices.setdefault(choice.get("index", 0), new)
            delta = one(choice.get("delta"))
            words, thoughts = parts_of(delta.get("content"))
            details = "".join(d.get("text") or d.get("summary") or "" for d in many(delta.get("reasoning_details")))
            at["text"] += words
            at["reasoning"] += delta.get("reasoning") or delta.get("reasoning_content") or thoughts or details
            at["refusal"] += delta.get("refusal") or ""
            at["images"] += len(many(delta.get("images")))
            at["finish"] = choice.get("finish_reason") or at["finish"]
            for piece in many(delta.get("tool_calls")):
                function = one(piece.get("function"))
                call = at["calls"].setdefault(piece["index"], ["", "", ""])
                call[0] = call[0] or piece.get("id") or ""
                call[1] = call[1] or function.get("name") or ""
                call[2] += function.get("arguments") or ""
    for at in choices.values():
        at["calls"] = list(at["calls"].values())
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def facts(whole: ChatCompletion) -> list[JSON]:
    return [
        {
            "text": choice.text,
            "reasoning": choice.reasoning,
            "refusal": choice.refusal,
            "calls": [
                [call.id, call.function.name, call.function.arguments]
                for call in choice.tool_calls or choice.partial_tool_calls
            ],
            "finish": choice.finish_reason,
            "images": len(choice.images),
        }
        for choice in whole.choices
    ]


def assert_same(whole: ChatCompletion, body: bytes) -> None:
    expected = fold(body)
    assert facts(whole) == expected["choices"]
    assert (whole.usage is None) == (not expected["usage"])
    if whole.usage is not None:
        told: JSON = msgspec.to_builtins(whole.usage)
        numbers = {name: value for name, value in expected["usage"].items() if isinstance(value, (int, float))}
        assert {name: told[name] for name in numbers if name in whole.usage.__struct_fields__} == {
            name: value for name, value in numbers.items() if name in whole.usage.__struct_fields__
        }


CHATS = [path for path in sorted([*FOLDER.glob("*.sse"), *FOLDER.glob("derived/*.sse")]) if is_chat(path)]
ANSWERS = [path for path in CHATS if path.stem not in FAILED and path.stem not in FIELDS]
BY_SIZE = [pytest.param(path, marks=() if path.stat().st_size < 20_000 else pytest.mark.long) for path in ANSWERS]

every_answer = pytest.mark.parametrize("path", ANSWERS, ids=lambda path: path.stem)


def at_random(recording: Recording, seed: int) -> Recording:
    """The same in blocks of 1 to 700 bytes."""
    sizes = random.Random(seed)
    return recording.recut(sizes.choice([1, 2, 3, 10, 60, 700]) for _ in range(len(recording.body)))


async def fold_of(recording: Recording) -> ChatCompletion:
    async with served(Reply.of(recording)) as (client, _):
        return await client.chat("hi").pipe(completion())


async def ending_of(recording: Recording) -> Observed[ChatChunk]:
    async with served(Reply.of(recording)) as (client, _):
        return await observe(client.chat("hi"))


def test_the_recordings_are_those_of_the_index() -> None:
    assert len(ANSWERS) > 50
    assert {path.stem for path in FOLDER.rglob("*.sse")} > {*FAILED, *FIELDS}


@every_answer
async def test_a_recorded_answer_folds_to_what_its_json_says(path: Path) -> None:
    recording = Recording.load(path)

    whole = await fold_of(recording)

    assert_same(whole, recording.body)


@pytest.mark.parametrize("path", BY_SIZE, ids=lambda path: path.stem)
async def test_a_recorded_answer_byte_by_byte_is_the_same(path: Path) -> None:
    recording = Recording.load(path)

    whole = await fold_of(recording.bytewise())

    assert_same(whole, recording.body)


@every_answer
async def test_a_recorded_answer_cut_anywhere_is_the_same(path: Path) -> None:
    recording = Recording.load(path)

    for seed in range(2):
        whole = await fold_of(at_random(recording, seed))

        assert_same(whole, recording.body)


@every_answer
async def test_the_last_snapshot_of_a_recorded_answer_is_its_completion(path: Path) -> None:
    recording = Recording.load(path)

    async with served(Reply.of(recording)) as (client, _):
        last = await client.chat("hi").pipe(snapshots())

    assert_same(last, recording.body)
    assert last == await fold_of(recording)


CUT = {"openrouter_tool_truncated_length_normalised_1"}  # finish reason "tool_calls", native "length"


@every_answer
async def test_tool_calls_releases_just_the_recorded_calls_that_are_whole(path: Path) -> None:
    recording = Recording.load(path)
    expected = [call for choice in fold(recording.body)["choices"][:1] for call in choice["calls"]]

    async with served(Reply.of(recording)) as (client, _):
        seen = await observe(client.chat("hi").pipe(tool_calls()))

    received = [[call.id, call.name, call.arguments] for call in seen.values]
    (ending,) = seen.endings
    if path.stem in CUT:
        assert isinstance(ending, IncompleteToolCallError)
        assert received == []
        assert [[call.id, call.name, call.arguments] for call in ending.calls] == expected != []
    else:
        assert ending is None
        assert received == [[*call[:2], call[2] or "{}"] for call in expected]
        assert all(isinstance(json.loads(call.arguments), dict) for call in seen.values)


@every_answer
async def test_every_recorded_chunk_arrives_with_its_bytes(path: Path) -> None:
    recording = Recording.load(path)

    seen = await ending_of(recording)

    sent = [data.encode() for data in data_of(recording.body) if data.startswith("{")]
    assert [chunk.raw for chunk in seen.values] == sent
    assert seen.endings == [None]


@pytest.mark.parametrize("name", FAILED)
@pytest.mark.parametrize("cut", ["recorded", "bytewise", "random"])
async def test_a_recorded_error_ends_its_stream(name: str, cut: str) -> None:
    recording = Recording.load(FOLDER / f"{name}.sse")
    if cut != "recorded":
        recording = recording.bytewise() if cut == "bytewise" else at_random(recording, 1)

    seen = await ending_of(recording)

    error = seen.endings[0]
    assert type(error) is StreamError
    (told,) = [one(value["error"]) for value in objects_of(recording.body) if "error" in value]
    assert (error.code, error.message) == (told["code"], told["message"])
    bodies = [value for value in objects_of(recording.body) if "error" not in value]
    assert [msgspec.json.decode(chunk.raw) for chunk in seen.values] == bodies


async def test_the_usage_of_a_recorded_error_chunk_is_kept() -> None:
    recording = Recording.load(FOLDER / "openrouter_stream_error_minimax_1.sse")

    seen = await ending_of(recording)

    error = seen.endings[0]
    assert isinstance(error, StreamError)
    assert error.usage.total_tokens == objects_of(recording.body)[-1]["usage"]["total_tokens"]


@pytest.mark.parametrize("name", sorted(FIELDS))
async def test_a_recorded_error_field_is_a_stream_error_behind_the_answer_so_far(name: str) -> None:
    recording = Recording.load(FOLDER / f"derived/{name}.sse")

    async with served(Reply.of(recording)) as (client, _):
        seen = await observe(client.chat("hi").pipe(completion()))

    error = seen.endings[0]
    assert type(error) is StreamError
    assert error.message.startswith("failed to decode")
    assert_same(error.partial, recording.body)


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
async def test_the_beginning_of_a_recording_is_never_a_success(share: float) -> None:
    recording = Recording.load(FOLDER / "openrouter_glm45_comments_84kB_1.sse")
    beginning = Recording((recording.body[: int(len(recording.body) * share)],))

    seen = await ending_of(beginning)

    assert type(seen.endings[0]) is TruncatedStreamError


# Recorded error bodies


def told(body: bytes) -> str:
    """The message of an error body, in the shapes of the servers that were recorded."""
    value: Any = json.loads(body)
    value = one(many(value)[0] if isinstance(value, list) else value)
    error: Any = value.get("error", value)
    return error if isinstance(error, str) else one(error).get("message") or one(error)["detail"]


PAUSES = {"azure_429_retry_after": 1.0, "openrouter_429_free_models_per_min": 0.0}
ERRORS = [path.with_name(f"{path.name.removesuffix('.meta.json')}.json") for path in FOLDER.glob("errors/*.meta.json")]


@pytest.mark.parametrize("path", sorted(ERRORS), ids=lambda path: path.stem)
async def test_a_recorded_error_body_is_told(path: Path) -> None:
    body, meta = read(path), json.loads(read(path.with_suffix(".meta.json")))

    async with served(Reply([body], meta["status"], meta["headers"])) as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    if meta["status"] == 200 and "error" not in json.loads(body):
        # A whole completion as JSON is the answer.
        assert error is None
        assert len(seen.values) == 1
        return
    assert isinstance(error, RouterError)
    if meta["status"] != 200:
        assert type(error) is StatusError
        assert error.status == meta["status"]
        assert error.message == told(body)
        assert error.retry_after == PAUSES.get(path.stem)
    else:
        assert type(error) is StreamError
        assert error.message == told(body)


async def test_the_metadata_of_a_recorded_error_body_is_kept() -> None:
    body = read(FOLDER / "errors/openrouter_403_provider_returned_error_country.json")

    async with served(Reply.json(body, 403)) as (client, _):
        seen = await observe(client.chat("hi"))

    error = seen.endings[0]
    assert isinstance(error, StatusError)
    assert error.metadata == json.loads(body)["error"]["metadata"]
    assert error.provider == json.loads(body)["error"]["metadata"]["provider_name"]
