"""JSONItems: the elements of one array of a JSON document that is still coming, and nothing else of it."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from typing import Any

from rxrouter._errors import AnswerDecodeError
from rxrouter._wire.place import Place, refusal
from rxrouter._wire.scan import FOLLOW, KEEP, PASS, Scanner

# Where a container is before its first key or element.
_BEFORE: dict[str, str | int] = {"{": "", "[": -1}

_is_pointer = re.compile(r"(?:/(?:[^~/]|~[01])*)*").fullmatch


def steps_of(path: str) -> list[str]:
    """The steps of a JSON Pointer (RFC 6901); here `/` is the whole document, too.

    Raises:
        ValueError: it is no pointer.
    """
    if not _is_pointer(path):
        raise ValueError(f"{path!r} is no JSON Pointer: its steps begin with /, and ~ is written ~0, / in a step ~1")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]] if path != "/" else []


class JSONItems:
    """Pieces of a document in, whole elements of the array at a path out.

    Args:
        steps: Of the path.
        place: What each element may be.
        ignores_rest: Whether anything may follow the document.
    """

    def __init__(self, steps: list[str], place: Place, *, ignores_rest: bool = False) -> None:
        self._sink = _Items(steps, place)
        self._scanner = Scanner(self._sink, ignores_rest=ignores_rest)

    def skip(self, count: int) -> None:
        """Count so many characters in front of the document."""
        self._scanner.position += count

    def feed(self, piece: str) -> None:
        """Reads on.

        Raises:
            AnswerDecodeError: this is no JSON, an element is not of its type, or the document has no such array.
        """
        self._scanner.feed(piece)
        self._require_array()

    def finish(self) -> None:
        """The text is at its end.

        Raises:
            AnswerDecodeError: the document is not, or has no such array.
        """
        self._scanner.finish()
        self._require_array()

    def tell(self, emit: Callable[[Any], None]) -> None:
        """Emits the elements that have closed since."""
        items = self._sink.items
        while items:  # one by one: the reader may make the source say more meanwhile
            emit(items.popleft())

    def _require_array(self) -> None:
        if self._scanner.done and not self._sink.found:
            raise AnswerDecodeError(f"there is no array at `${self._sink.where}`", self._scanner.position)


class _Items:
    """The sink that follows the path, and takes what is in the array at its end."""

    def __init__(self, steps: list[str], place: Place) -> None:
        self.items: deque[Any] = deque()
        self.found = False
        self.where = "".join(f".{step}" for step in steps)
        self._steps = steps
        self._decode = place.decode
        self._at: list[str | int] = []  # where each followed container is: at a key, or at an index

    def begin(self, sign: str) -> int:
        depth = len(self._at)
        if depth and isinstance(self._at[-1], int):
            self._at[-1] += 1
        if depth > len(self._steps):
            return KEEP
        if depth and str(self._at[-1]) != self._steps[depth - 1]:
            return PASS
        is_end = depth == len(self._steps)
        if sign not in _BEFORE or (is_end and sign == "{"):
            return PASS
        self.found = self.found or is_end
        self._at.append(_BEFORE[sign])
        return FOLLOW

    def key(self, name: str) -> None:
        self._at[-1] = name

    def text(self, _piece: str) -> None:
        """No string is followed."""

    def end(self, _sign: str, _raw: str | None) -> None:
        self._at.pop()

    def whole(self, raw: str) -> None:
        try:
            self.items.append(self._decode(raw))
        except (ValueError, RecursionError) as error:
            raise refusal(error, f"{self.where}[{self._at[-1]}]") from error
