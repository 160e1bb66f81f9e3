"""A browser: reads a relayed answer in its dialect, leaves, stalls, comes back, and knows what it has been told."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import aiohttp

from rxrouter import ServerSentEvent, SSEParser

_TEXTS = {"text-delta", "TEXT_MESSAGE_CONTENT"}
_BAD = {"error", "abort", "RUN_ERROR"}
_GOOD = {"finish", "RUN_FINISHED"}
_VOID = {"reset-step", "MESSAGES_SNAPSHOT"}
_STALL = 1.2  # seconds; longer than the relay waits for it
_VISITS = 200

#: Those whose frames have ids; the others get all of it again.
NUMBERED = ("openai", "ui", "agui")


class Screen:
    """What one browser shows of one answer.

    Args:
        url: Of the relay.
        dialect: What it reads.
        kept: Whether the answer is in a hub, so that coming back is worth it.
    """

    def __init__(self, url: str, dialect: str, *, kept: bool, chance: random.Random, done: Counter[str]) -> None:
        self.text = ""
        self.ending: str | None = None  # "good", "bad" or "gone"
        self.known = False  # the relay has begun it
        self._url = url
        self._dialect = dialect
        self._kept = kept
        self._chance = chance
        self._done = done
        self._last_id = ""
        self._ids = set[str]()
        self._plain = b""
        self._told: deque[str] = deque(maxlen=6)  # by the last visits

    async def watch(self, session: aiohttp.ClientSession) -> None:
        """Until it is told an end, or has left for good."""
        for _ in range(_VISITS):
            try:
                await self._visit(session)
            except (aiohttp.ClientError, ConnectionError) as error:
                self._done["browsers: cut off"] += 1
                self._told.append(repr(error))
            if self.known and not self.ending and (not self._kept or self._chance.random() < 0.2):
                self.ending = "gone"
            if self.ending:
                return
            await asyncio.sleep(self._chance.uniform(0.05, 0.4))
            self._done["browsers: came back"] += 1
        raise AssertionError(f"a browser of {self._url} came back so often and has no end: {[*self._told]}")

    async def _visit(self, session: aiohttp.ClientSession) -> None:
        if self._dialect not in NUMBERED:
            self.text, self._plain = "", b""
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        url = self._url if self.known else f"{self._url}?begin"
        async with session.get(url, headers=headers) as response:
            self._told.append(f"{response.status} {'' if response.status == 200 else await response.text()}")
            if response.status == 200:
                self.known = True
                if await self._read(response):
                    assert self.ending or self._dialect not in NUMBERED, "the body ended, and the answer had no end"
                    self.ending = self.ending or "good"
                else:
                    response.close()
            elif response.status == 204:
                assert self._dialect == "plain", f"nothing is missing, but the end of {self._last_id}"
                self.ending = "good"
            elif response.status != 503:
                assert "error" in await response.json()
                self.ending = "bad"
            elif not self._kept:
                self.ending = "bad"

    async def _read(self, response: aiohttp.ClientResponse) -> bool:
        """Reads to the end of the body; False if it leaves before."""
        parser, line = SSEParser(), b""
        leaves, stalls = self._chance.random() < 0.02, self._chance.random() < 0.02
        async for block in response.content.iter_any():
            if leaves or (stalls and self._chance.random() < 0.2):
                await asyncio.sleep(_STALL if stalls else self._chance.uniform(0, 0.2))
                self._done["browsers: stalled" if stalls else "browsers: left"] += 1
                stalls = False
            if leaves:
                return False
            leaves = self._chance.random() < 0.02
            if self._dialect == "plain":
                self._plain += block
                self.text = self._plain.decode(errors="ignore")
            elif self._dialect == "ndjson":
                *lines, line = (line + block).split(b"\n")
                for each in filter(None, lines):
                    self._see(json.loads(each))
            else:
                for event in parser.feed(block):
                    if isinstance(event, ServerSentEvent):
                        self._hear(event)
        return True

    def _hear(self, event: ServerSentEvent) -> None:
        if event.id and event.id != self._last_id:
            assert event.id not in self._ids, f"twice: {event.id}"
            self._ids.add(event.id)
            self._last_id = event.id
        if event.data == "[DONE]":
            self.ending = self.ending or "good"
        else:
            self._see(json.loads(event.data))

    def _see(self, value: dict[str, Any]) -> None:
        kind = value.get("type")
        choices: list[dict[str, Any]] = value.get("choices", [])
        text = value["delta"] if kind in _TEXTS else "".join(each["delta"].get("content") or "" for each in choices)
        assert not (text and self.ending), "a word behind the end"
        if kind in _BAD or "error" in value:
            assert self.ending is None
            self.ending = "bad"
        elif kind in _GOOD:
            assert self.ending is None
            self.ending = "good" if value.get("outcome", {}).get("type") != "cancelled" else "bad"
        elif kind in _VOID or "restarted" in value:
            self.text = ""
        self.text += text


async def stop(session: aiohttp.ClientSession, url: str) -> None:
    """Asks the relay to stop an answer; it may be over, or the relay away."""
    with suppress(aiohttp.ClientError, ConnectionError):
        async with session.post(url) as response:
            assert response.status in {204, 404, 503}
