"""Collect an answer in a buffer that several threads read while it grows.

Prints:
    reader 0 saw a prefix of the story
    reader 1 saw a prefix of the story
    the whole story has 554 characters
"""

from threading import Event, Thread

from rxrouter import OpenRouter
from rxrouter.operators import text
from rxrouter.testing import STORY, Simulator


class Buffer:
    """Pieces are appended on the client's loop thread; joining a copy of the list needs no lock."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.over = Event()

    def __str__(self) -> str:
        return "".join(self.pieces.copy())


def read(buffer: Buffer, name: int, told: list[str]) -> None:
    """Looks into the buffer until the stream is over."""
    while not buffer.over.wait(0.001):
        assert STORY.startswith(str(buffer))
    told.append(f"reader {name} saw a prefix of the story")


buffer, told = Buffer(), list[str]()
with Simulator(rate=2000) as offline, OpenRouter(base_url=offline.base_url) as client:
    threads = [Thread(target=read, args=(buffer, name, told)) for name in range(2)]
    client.chat("Tell me a story about AI").pipe(text()).subscribe(
        buffer.pieces.append, lambda error: buffer.over.set(), buffer.over.set
    )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(*sorted(told), f"the whole story has {len(str(buffer))} characters", sep="\n")
