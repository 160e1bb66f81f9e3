"""One reader of a stream, which checks that nothing comes after the ending."""

from __future__ import annotations

import asyncio

from rxrouter import ChatChunk, Restarted


class Seen:
    """What one reader was told; it complains of a word behind the end."""

    def __init__(self) -> None:
        self.text = ""
        self.read = 0
        self.endings: list[Exception | None] = []
        self.over = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def show(self, value: ChatChunk) -> None:
        assert not self.endings
        self.read += 1
        if isinstance(value, Restarted):
            self.text = ""
        self.text += said(value)

    def end(self, error: Exception | None = None) -> None:
        self.endings.append(error)
        self._loop.call_soon_threadsafe(self.over.set)


def said(chunk: ChatChunk) -> str:
    """Return the text in a chunk."""
    return "".join(choice.delta.content or "" for choice in chunk.choices)
