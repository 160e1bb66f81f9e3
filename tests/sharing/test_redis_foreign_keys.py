"""Keys of a RedisLog that hold something else than a generation: each question ends with LogLostError."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import from_iterable

from rxrouter._errors import LogLostError
from rxrouter.sharing import Hub
from tests.sharing.conftest import redis_logs
from tests.sharing.redis_server import RedisServer
from tests.sharing.support import Reader, Source, word
from tests.support import proven

CHUNK = word(1).raw.decode()

# Commands that leave something under the key KEY.
FOREIGN: dict[str, list[tuple[str, ...]]] = {
    "a string": [("SET", "KEY", "x")],
    "a list": [("RPUSH", "KEY", "x")],
    "a hash": [("HSET", "KEY", "by", "x")],
    "an empty stream": [("XADD", "KEY", "7-1", "by", "x"), ("XDEL", "KEY", "7-1")],
    "a stream of one field": [("XADD", "KEY", "7-0", "a", "b")],
    "a stream of two fields": [("XADD", "KEY", "7-1", "a", "b", "c", "d")],
    "a stream of chunks": [("XADD", "KEY", "7-1", "0", CHUNK)],
    "a stream with an ending alone": [("XADD", "KEY", "8-0", "end", "null")],
    "a generation behind a foreign entry": [
        ("XADD", "KEY", "6-0", "a", "b"),
        ("XADD", "KEY", "7-0", "by", "node 0"),
        ("XADD", "KEY", "7-1", "0", CHUNK),
    ],
    "a foreign entry behind a generation": [
        ("XADD", "KEY", "7-0", "by", "node 0"),
        ("XADD", "KEY", "7-1", "0", CHUNK),
        ("XADD", "KEY", "9-4", "a", "b"),
    ],
    "a foreign ending behind a generation": [
        ("XADD", "KEY", "7-0", "by", "node 0"),
        ("XADD", "KEY", "7-1", "0", CHUNK),
        ("XADD", "KEY", "9-0", "end", "null"),
    ],
    "an ending that is damaged": [("XADD", "KEY", "7-0", "by", "node 0"), ("XADD", "KEY", "8-0", "end", '{"text":5}')],
    "a gap before the ending": [
        ("XADD", "KEY", "7-0", "by", "node 0"),
        ("XADD", "KEY", "7-2", "0", CHUNK),
        ("XADD", "KEY", "8-0", "end", "null"),
    ],
    "a gap": [("XADD", "KEY", "7-0", "by", "node 0"), ("XADD", "KEY", "7-2", "0", CHUNK)],
    "a chunk that is damaged": [
        ("XADD", "KEY", "7-0", "by", "node 0"),
        ("XADD", "KEY", "7-1", "0", "[1]"),
    ],
}

# These begin as a generation does, so that `start` joins them, and `stop` may end them.
BEGUN = {name for name, commands in FOREIGN.items() if commands[0][3:] == ("by", "node 0")}


async def _read(chunks: Any) -> None:
    error = await Reader(chunks).until_over()
    assert error is not None
    raise error


QUESTIONS: dict[str, Callable[[Hub], Any]] = {
    "start": lambda hub: _read(hub.start("k", proven(from_iterable([word(1)])))),
    "follow": lambda hub: _read(hub.follow("k")),
    "status": lambda hub: hub.status("k"),
    "stop": lambda hub: hub.stop("k"),
}


# `stop` looks at the beginning only, and `status` decodes no chunk.
CASES = [
    (foreign, question)
    for foreign in FOREIGN
    for question in QUESTIONS
    if not (question == "stop" and foreign in BEGUN) and (foreign, question) != ("a chunk that is damaged", "status")
]


@pytest.mark.parametrize(("foreign", "question"), CASES)
async def test_a_key_that_holds_no_generation_is_a_lost_log(server: RedisServer, foreign: str, question: str) -> None:
    namespace = secrets.token_hex(4)
    name = f"{{{namespace}}}:log:k"
    for command in FOREIGN[foreign]:
        assert not server.ask(*(name if part == "KEY" else part for part in command)).startswith(b"-")
    before = server.ask("XLEN", name)
    async with Hub(redis_logs(server, namespace=namespace)()) as hub:
        with pytest.raises(LogLostError):
            await QUESTIONS[question](hub)

    if foreign not in BEGUN:
        assert server.ask("XLEN", name) == before


async def test_a_foreign_key_ends_no_sibling(server: RedisServer) -> None:
    namespace = secrets.token_hex(4)
    server.ask("XADD", f"{{{namespace}}}:log:foreign", "7-0", "a", "b")
    async with Hub(redis_logs(server, namespace=namespace)()) as hub:
        source = Source()
        good = Reader(hub.start("good", source.chunks))
        foreign = Reader(hub.start("foreign", Source().chunks))
        assert isinstance(await foreign.until_over(), LogLostError)
        source.say(2)
        source.end()

        assert await good.until_over() is None
