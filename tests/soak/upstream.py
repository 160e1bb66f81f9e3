"""Questions, and the server's side of each: an answer, or what a seed has go wrong with it."""

from __future__ import annotations

import json
import random
from collections import Counter

import msgspec
from reactivex import Observable, operators as ops, timer

from rxrouter import ChatChunk, ServerSentEvent, SSEParser
from rxrouter.testing import FAULTS, Act, Exchange, Reply, Step, answer

_WORDS = ("once", "naïve", "流式", "🚀", "sea,\n\n", "words", "\tend.")
_PAUSES = (0.0, 0.0, 0.001, 0.004, 0.02)  # seconds before each block
_AT_ONCE = ("split", "comments")  # many blocks, and pauses of their own
_LONG = 0.03  # of the answers are so long that they fill what a socket holds for who doesn't read
_WELL = 0.45  # of the requests are answered as they should

#: With these faults, and with none, the answer is all there.
_COMPLETE = ("split", "no-done", "cut-after-finish", "cut-tool-call")


class Question:
    """One question: what the server says each time that it is asked, and what the whole of it would be."""

    def __init__(self, name: str, chance: random.Random, done: Counter[str]) -> None:
        self.name = name
        self.replies: list[str] = []  # to each request: the fault, and how much of the text it was sent
        self.whole: str | None = None  # what a reader has that was told of completion; None if nobody may be told
        self.is_cut = False  # by an operator, where a relay reads it
        self.finished = False  # whether the source of a cut chain has completed before the cut
        self._chance = chance
        self._done = done
        self._long = chance.random() < _LONG
        words = 1_500 if self._long else chance.randrange(150)
        self.text = " ".join(f"{chance.choice(_WORDS)}{at}" for at in range(words))

    def __repr__(self) -> str:
        return f"question {self.name}, replies {self.replies}"

    def reply(self, exchange: Exchange) -> Reply:
        """The answer, or the rest of it if its beginning was sent with the question; with a fault, or without."""
        last = exchange.json["messages"][-1]
        said: str = last["content"] if last["role"] == "assistant" else ""
        assert self.begins_with(said)
        begin = len(said)
        fault = None if self._chance.random() < _WELL else self._chance.choice([*FAULTS])
        if (
            said and fault != "cut-tool-call" and self._chance.random() < 0.5
        ):  # an echo, from the beginning of some word
            begin = self._chance.choice([0, *(at for at in range(begin) if self.text[at : at + 1] == " ")])
        if fault == "split" and (self._long or begin > len(self.text)):
            fault = "cut"
        rest = self.text[begin:]
        reply = Reply(answer(rest)) if fault is None else FAULTS[fault](rest)
        if fault is None or fault in _COMPLETE:
            self.whole = said[:begin] + _said(reply)
        else:
            self.whole = None
        self._done[f"upstream: {fault or 'well'}"] += 1
        self.replies.append(f"{fault or 'well'} from {begin} after {len(said)}")
        if fault == "429":
            reply = msgspec.structs.replace(reply, headers={**reply.headers, "Retry-After": self._chance.choice("01")})
        pause = 0.0 if self._long or fault in _AT_ONCE else self._chance.choice(_PAUSES)
        return msgspec.structs.replace(reply, steps=_paced(reply, pause)) if pause else reply

    def cut(self, chunks: Observable[ChatChunk]) -> Observable[ChatChunk]:
        """Return the chain with an operator that completes it at some chunk, or after some time."""

        def finish() -> None:
            self.finished = True

        noted = chunks.pipe(ops.do_action(on_completed=finish))
        if self._chance.random() < 0.5:
            return noted.pipe(ops.take_until(timer(self._chance.choice([0.01, 0.05, 0.2]))))
        left = iter(range(self._chance.choice([1, 5, 20, 60])))
        return noted.pipe(ops.take_while(lambda _: next(left, None) is not None))

    def begins_with(self, read: str) -> bool:
        """Whether that is no more, and nothing else, than the server may have said."""
        return (self.text + _BEHIND_A_SPLIT).startswith(read)


def _paced(reply: Reply, pause: float) -> list[Step]:
    return [part for step in reply.steps for part in ((pause, step) if isinstance(step, bytes) else (step,))]


def _said(reply: Reply) -> str:
    """The text in its body."""
    parser = SSEParser()
    events = [each for step in reply.steps if isinstance(step, bytes) for each in parser.feed(step)]
    data = [event.data for event in events if isinstance(event, ServerSentEvent) and event.data != "[DONE]"]
    deltas = [choice["delta"] for each in data for choice in json.loads(each)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


_BEHIND_A_SPLIT = _said(FAULTS["split"](""))

GONE = Reply(before=(Act.CUT,))
"""To a request whose asker is gone."""
