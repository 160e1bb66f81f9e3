"""A key that a server quotes, and locals of aiohttp's frames, reach nobody by an error."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from rxrouter import OpenRouter, RouterError, Timeouts
from rxrouter.testing import FAULTS, Act, Reply, Simulator, event
from tests.support import observe

KEY = "sk-or-v1-0123456789abcdef"
PROMPT = "my very private question"
QUOTES = [f"Bearer {KEY}", KEY, f"Bearer {KEY[:18]}...", f"...{KEY[9:]}"]


def error_with(quote: str) -> dict[str, Any]:
    return {
        "code": f"bad_{quote}",
        "message": f"no key {quote} here",
        "metadata": {"raw": [f"{{'Authorization': '{quote}'}}"], quote: 1, "provider_name": quote},
    }


def replies(quote: str) -> dict[str, Reply]:
    error = error_with(quote)
    return {
        "status": Reply.json({"error": error}, 401),
        "page": Reply([f"<p>{quote}</p>".encode()], 502, {"Content-Type": "text/html"}),
        "body": Reply.json({"error": error}),
        "chunk": Reply([event({"error": error})]),
        "no stream": Reply([f"<p>{quote}</p>".encode()], headers={"Content-Type": "text/html"}),
        "no JSON": Reply([f"data: {{{quote}\n\n".encode()]),
        "type": Reply([b"x"], headers={"Content-Type": f"text/{quote.replace(' ', '-')}"}),
    }


async def error_of(reply: Reply, **options: Any) -> RouterError:
    async with Simulator(reply) as simulator, OpenRouter(KEY, base_url=simulator.base_url, **options) as client:
        [error] = (await observe(client.chat(PROMPT))).endings
    assert isinstance(error, RouterError)
    return error


@pytest.mark.parametrize("reply", replies(""))
@pytest.mark.parametrize("quote", QUOTES)
async def test_error_has_no_piece_of_the_key_when_the_server_quotes_it(quote: str, reply: str) -> None:
    error = await error_of(replies(quote)[reply])

    said = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
    assert KEY[9:17] not in said
    assert KEY[-8:] not in said


async def test_error_keeps_all_other_words_when_the_key_is_struck_out() -> None:
    error = await error_of(replies(KEY)["status"])

    assert str(error) == "HTTP 401: no key [key] here"


def chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        if (below := left.pop()) is not None and below not in found:
            found.append(below)
            left += [below.__cause__, below.__context__]
    return found


@pytest.mark.parametrize("fault", ["reset", "cut", "silence", "502", "bad-json"])
async def test_causes_have_no_frames_of_others_when_the_network_fails(fault: str) -> None:
    reply = Reply(before=(Act.RESET,)) if fault == "reset" else FAULTS[fault]("one two three")
    error = await error_of(reply, timeouts=Timeouts(silence=0.2))

    shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    frames = [
        repr(frame.f_locals)
        for below in chain(error)
        for frame, _ in traceback.walk_tb(below.__traceback__)
        if "aiohttp" in frame.f_code.co_filename
    ]
    assert frames == []
    assert KEY not in shown
    assert PROMPT not in shown


async def test_cause_keeps_type_and_text_when_no_connection_stands() -> None:
    async with OpenRouter(KEY, base_url="http://127.0.0.1:9") as client:
        [error] = (await observe(client.chat(PROMPT))).endings

    assert error is not None
    assert error.__cause__ is not None
    assert type(error.__cause__).__name__ == "ClientConnectorError"
    assert "127.0.0.1:9" in str(error.__cause__)
    assert all(below.__traceback__ is None for below in chain(error.__cause__))
