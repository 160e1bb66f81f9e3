"""Half a surrogate pair in a request is refused where it is written, by its place, and without the text."""

from __future__ import annotations

from typing import Any

import pytest

from rxrouter import ChatRequest, OpenRouter

HALF = "private\ud83d question"
USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"messages": [USER, {"role": "user", "content": HALF}]}, "messages[1].content must be text"),
        ({"messages": [USER | {"content": [{"type": "text", "text": HALF}]}]}, "messages[0].content[0].text must"),
        ({"prompt": HALF}, "prompt must be text"),
        ({"messages": [USER], "user": HALF}, "user must be text"),
        ({"messages": [USER], "extra": {"deep": [{HALF: 1}]}}, "extra.deep[0] must have names"),
        ({"messages": [USER | {"name": HALF}]}, "messages[0].name must"),
    ],
)
def test_half_a_surrogate_pair_is_refused_by_its_place_when_a_request_is_built(
    fields: dict[str, Any], place: str
) -> None:
    for build in (lambda: ChatRequest(**fields), lambda: OpenRouter("k").chat(**fields)):
        with pytest.raises(ValueError, match="half a surrogate pair") as caught:
            build()
        assert str(caught.value).startswith(place)
        assert type(caught.value) is ValueError
        assert "private" not in str(caught.value)
        assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_half_a_surrogate_pair_is_refused_when_events_are_asked_for() -> None:
    with pytest.raises(ValueError, match=r"^input\[0\] must be text, got half a surrogate pair at character 7$"):
        OpenRouter("k").events("/responses", {"input": [HALF]})


def test_whole_pairs_are_sent_when_they_are_whole() -> None:
    assert "🚀".encode() in ChatRequest(messages=[USER | {"content": "🚀"}]).encode()
