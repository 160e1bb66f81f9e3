"""A model that is none: it answers without a key and without a network, and fails when it is asked to."""

from collections import Counter
from collections.abc import Iterator

from rxrouter.testing import COMMENT, STORY, Act, Exchange, Reply, Step, answer

THOUGHTS = "They want a story. It should be short, the sea should be in it, and it should say when it ends."
MARKUP = (
    "Markup is text here: <b>bold</b> <img src=x onerror=alert(1)> </p><script>alert(2)</script> &amp; that is all."
)


class Storyteller:
    """Goes by the words of the last question; what fails `once` gets well when the same is asked again."""

    def __init__(self) -> None:
        self._asked = Counter[bytes]()

    def __call__(self, exchange: Exchange) -> Reply:
        """What a `Simulator` wants to know."""
        self._asked[exchange.body] += 1
        first = self._asked[exchange.body] % 2 == 1
        *before, question = [m["content"] for m in exchange.json["messages"] if m["role"] == "user"]
        asked = question.lower()
        remembered = f"Before, you asked: “{before[-1]}”. " if before else ""
        events = answer(remembered + (MARKUP if "markup" in asked else STORY), reasoning=THOUGHTS, cost=0.00042)
        if "busy" in asked and first:
            return Reply.error(429, "Rate limit exceeded", headers={"Retry-After": "1"})
        if "fail" in asked:
            return Reply.error(502, "Provider returned error")
        if "cut" in asked and first:
            return Reply((*_paced(events[: len(events) // 2]), Act.CUT))
        return Reply(tuple(_paced(events)))


def _paced(events: list[bytes]) -> Iterator[Step]:
    """Some thirty words a second, with pauses, as models have them."""
    for number, event in enumerate(events):
        yield 0.4 if event == COMMENT or number % 23 == 22 else 0.03
        yield event
