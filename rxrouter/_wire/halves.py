"""Join the halves of surrogate pairs that gateways of UTF-16 cut between two chunks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rxrouter._wire.json import as_list, as_object

_TEXTS = ("content", "reasoning", "reasoning_content", "refusal")
REPLACEMENT = "\ufffd"

# Which text of an answer: its choice, its member of the delta, and the index of its tool call, if it is of one.
Place = tuple[Any, str, Any]


class Halves:
    """First halves, each of which waits for the next piece of its text."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[Place, str] = {}

    def __bool__(self) -> bool:
        return bool(self._held)

    def join(self, chunk: dict[str, Any]) -> bool:
        """Give the held halves to the texts of this chunk, hold those at their ends; return whether a text changed.

        A half becomes U+FFFD when other text follows it, or when its choice finishes without more text.

        Args:
            chunk: The JSON of a chunk, in its usual shape; its texts are replaced.
        """
        changed = False
        for choice in map(as_object, as_list(chunk.get("choices"))):
            index = choice.get("index", 0)
            speaks = any(holder[name] for _, holder, name in _places(choice, index))
            for place, holder, name in _places(choice, index):
                text = self._held.pop(place, "") + holder[name]
                if text and "\ud800" <= text[-1] <= "\udbff":
                    self._held[place] = text[-1]
                    text = text[:-1]
                if text != holder[name]:
                    holder[name] = whole(text)
                    changed = True
            if choice.get("finish_reason") and not speaks:
                left = [place for place in self._held if place[0] == index]
                for place in left:
                    self._give_up(choice, place)
                changed = changed or bool(left)
        return changed

    def release(self) -> list[dict[str, Any]]:
        """The choices that say what is still held: each half as U+FFFD."""
        choices: list[dict[str, Any]] = []
        for place in [*self._held]:
            choice: dict[str, Any] = {"index": place[0]}
            self._give_up(choice, place)
            choices.append(choice)
        return choices

    def _give_up(self, choice: dict[str, Any], place: Place) -> None:
        del self._held[place]
        _, name, call = place
        if not isinstance(choice.get("delta"), dict):
            choice["delta"] = {}
        delta = as_object(choice["delta"])
        if name == "arguments":
            piece: dict[str, Any] = {"function": {"arguments": REPLACEMENT}}
            if call is not None:
                piece["index"] = call
            delta["tool_calls"] = [*as_list(delta.get("tool_calls")), piece]
        else:
            delta[name] = REPLACEMENT + (delta.get(name) or "")


def whole(text: str) -> str:
    """The text with its pairs joined, and U+FFFD for each half that is alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def without_halves(value: Any) -> Any:
    """The JSON value with whole texts only, at any depth."""
    if isinstance(value, str):
        return value if value.isascii() else whole(value)
    if isinstance(value, list):
        return [without_halves(item) for item in as_list(value)]
    if isinstance(value, dict):
        return {without_halves(k): without_halves(v) for k, v in as_object(value).items()}
    return value


def _places(choice: dict[str, Any], index: Any) -> Iterator[tuple[Place, dict[str, Any], str]]:
    """Each text of a choice: its place, and where it stands."""
    delta = as_object(choice.get("delta"))
    for name in _TEXTS:
        if isinstance(delta.get(name), str):
            yield (index, name, None), delta, name
    for call in map(as_object, as_list(delta.get("tool_calls"))):
        function = as_object(call.get("function"))
        if isinstance(function.get("arguments"), str):
            yield (index, "arguments", call.get("index")), function, "arguments"
