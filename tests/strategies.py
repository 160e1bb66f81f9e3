"""Chunks as servers may send them: unknown keys, new reasons, null wherever null can be, pieces in any order."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from rxrouter import ChatChunk, Restarted
from rxrouter._wire.chunk import decode_odd

words = st.text(max_size=4) | st.sampled_from(["Hel", "lo", " ", "👩‍💻", "。"])
unknown = st.dictionaries(
    st.sampled_from(["x_new", "reasoning_v2", "cached"]), st.none() | st.integers() | words, max_size=1
)


def null_or(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def objects(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with any of these fields, each of which may be null, and with others that nobody knows."""
    known = st.fixed_dictionaries({}, optional={name: null_or(field) for name, field in fields.items()})
    return st.tuples(known, unknown).map(lambda both: {**both[0], **both[1]})


details = objects(
    type=st.sampled_from(["reasoning.text", "reasoning.summary", "reasoning.encrypted", "reasoning.new"]),
    index=st.integers(0, 1),
    text=words,
    summary=words,
    data=words,
    signature=words,
    format=words,
)
calls = objects(
    index=st.integers(0, 2),
    id=st.sampled_from(["", "c1", "c2"]),
    type=st.sampled_from(["function", "new"]),
    function=objects(name=st.sampled_from(["", "f", "g"]), arguments=st.sampled_from(["", "{}", '{"a":', "1}"])),
)
deltas = objects(
    role=st.sampled_from(["assistant", ""]),
    content=words,
    reasoning=words,
    reasoning_content=words,
    refusal=words,
    reasoning_details=st.lists(details, max_size=2),
    tool_calls=st.lists(calls, max_size=2),
    annotations=st.lists(
        objects(type=words, url_citation=objects(url=words, title=words, start_index=st.integers())), max_size=2
    ),
    images=st.lists(objects(type=words, index=st.integers(0, 1), image_url=objects(url=words)), max_size=1),
    audio=objects(id=words, data=words, transcript=words, expires_at=st.integers()),
)
reasons = st.sampled_from(["stop", "tool_calls", "length", "a_new_reason", "STOP", ""])
choices = objects(
    index=st.integers(0, 1),
    delta=deltas,
    finish_reason=reasons,
    native_finish_reason=reasons,
    logprobs=objects(content=st.lists(objects(token=words, logprob=st.floats(-9, 0)), max_size=2), tokens=st.none()),
)
usages = objects(prompt_tokens=st.integers(0, 9), completion_tokens=st.integers(0, 9), cost=st.floats(0, 1))
bodies = objects(
    id=st.just("gen-1"),
    provider=st.just("P"),
    model=st.sampled_from(["", "a/b"]),
    created=st.integers(0, 9),
    choices=st.lists(choices, max_size=2),
    usage=usages,
    service_tier=words,
    system_fingerprint=words,
)


def decoded(body: dict[str, Any]) -> ChatChunk:
    data = json.dumps(body).encode()
    try:
        return msgspec.json.decode(data, type=ChatChunk)
    except msgspec.ValidationError:
        return decode_odd(data)


chunks = bodies.map(decoded)
"""One chunk of any kind."""

answers = st.lists(chunks | st.builds(Restarted, attempt=st.integers(2, 3)), max_size=12)
"""The chunks of a stream, with what a retry puts between."""
