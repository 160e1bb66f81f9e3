"""Create a stream, and process it with an observer.

Prints:
    Once upon a time …
    complete: stop, 108 tokens
"""

from threading import Event

from reactivex.abc import ObserverBase

from rxrouter import ChatChunk, OpenRouter
from rxrouter.testing import STORY, Simulator

over = Event()
words: list[str] = []


class Reader(ObserverBase[ChatChunk]):
    """What to do with each chunk, and at either end."""

    def on_next(self, value: ChatChunk) -> None:
        words.extend(choice.delta.content or "" for choice in value.choices)
        if value.usage is not None:
            print("".join(words)[:16], "…")
            print(f"complete: {value.choices[0].finish_reason}, {value.usage.completion_tokens} tokens")

    def on_error(self, error: Exception) -> None:
        print(f"failed: {error}")
        over.set()

    def on_completed(self) -> None:
        over.set()


with Simulator() as offline, OpenRouter(base_url=offline.base_url) as client:  # with a key: OpenRouter() alone
    chunks = client.chat("Tell me a story about AI", model="qwen/qwen3-235b-a22b-07-25:free")
    chunks.subscribe(Reader())  # this sends the request; before it, nothing is billed
    over.wait()
    assert "".join(words) == STORY
