"""PartialJSON: the value of a JSON document that is still coming, never built twice, never changed in a reader's hands.

The value grows in place, so that a piece costs the same at the end of a large document as at its beginning. What was
emitted is that same value. So before anything of it changes, Python's reference counts tell whether somebody kept it:
only the containers still open can change, and of these the first that anybody else holds, and all below it, are
replaced by shallow copies. Strings need no such care: CPython's own `+=` grows one in place if nobody else has it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from operator import getitem, setitem
from typing import Any

from msgspec.structs import force_setattr

from rxrouter._wire.place import NOWHERE, Place, refusal
from rxrouter._wire.scan import KEEP, PASS, Scanner

# Keys of what grows: in an array, and in the list that holds the whole value.
_LAST, _ROOT = -1, 0

# Where there is no counting, everything counts as held.
_references: Callable[[object], int] = getattr(sys, "getrefcount", lambda _: sys.maxsize)


def _count_of_unheld() -> int:
    """What is counted where nobody but its parent and a path holds a container: 3, in CPython 3.11 to 3.13."""
    holder: list[Any] = [[]]
    return min(max(map(_references, [holder, holder[0]])), 9)


_UNHELD = _count_of_unheld()


class PartialJSON:
    """The growing value of a document of one type.

    Args:
        place: What the document may be.
        ignores_rest: Whether anything may follow the document.
    """

    def __init__(self, place: Place, *, ignores_rest: bool = False) -> None:
        self._growth = _Growth(place)
        self._scanner = Scanner(self._growth, ignores_rest=ignores_rest)

    def skip(self, count: int) -> None:
        """Count so many characters in front of the document."""
        self._scanner.position += count

    def feed(self, piece: str) -> None:
        """Reads on.

        Raises:
            AnswerDecodeError: this is no JSON, or not of the type.
        """
        self._growth.loosen()
        self._scanner.feed(piece)

    def finish(self) -> None:
        """The document is at its end.

        Raises:
            AnswerDecodeError: it is not whole.
        """
        self._growth.loosen()
        self._scanner.finish()

    def tell(self, emit: Callable[[Any], None]) -> None:
        """Emits the value, if it has changed since."""
        growth = self._growth
        if growth.changed:
            growth.changed = False
            emit(growth.holder[0])


def _grow_item(container: Any, key: Any, piece: str) -> None:
    """Makes a string of a list or dict longer: in place, if nobody else has it when it is out of its slot."""
    text = container[key]
    container[key] = None
    text += piece  # on a line of its own: CPython 3.13 fuses this with what follows on the same, and copies
    container[key] = text


def _grow_field(struct: Any, name: str, piece: str) -> None:
    """The same, of a Struct."""
    text = getattr(struct, name)
    force_setattr(struct, name, None)
    text += piece
    force_setattr(struct, name, text)


class _Level:
    """An open container: `key` is where in it something grows, `child` what may be there."""

    __slots__ = ("child", "fields", "get", "grow", "key", "put")

    def __init__(self, place: Place, sign: str) -> None:
        self.get: Callable[[Any, Any], Any] = getitem
        self.put: Callable[[Any, Any, Any], None] = setitem
        self.grow: Callable[[Any, Any, str], None] = _grow_item
        self.key: Any = _LAST
        self.child = place.elements if sign == "[" else place.members
        self.fields = place.fields if sign == "{" else None
        if self.fields is not None:
            self.get, self.put, self.grow = getattr, force_setattr, _grow_field

    def step(self, container: Any, begun: int) -> str:
        """To what grows here, in a path as msgspec writes it; `begun` is 0 if it is not in the array yet."""
        if self.key is _LAST:
            return f"[{len(container) - begun}]"
        if self.key is _ROOT:
            return ""
        return next((f".{key}" for key, (name, _) in (self.fields or {}).items() if name == self.key), "[...]")


class _Growth:
    """The sink that builds the value."""

    def __init__(self, place: Place) -> None:
        self.changed = False
        self.holder: list[Any] = [None]  # of the value
        self._path: list[Any] = [self.holder]  # to what grows, through the open containers
        self._level = _Level(place, "[")
        self._level.key, self._level.child = _ROOT, place
        self._levels = [self._level]

    def loosen(self) -> None:
        """Before anything changes: what others hold of the open containers is left to them."""
        path = self._path
        if sum(map(_references, path)) <= _UNHELD * len(path):
            return
        held = next(at for at, count in enumerate([*map(_references, path)]) if count > _UNHELD)
        for at in range(max(held, 1), len(path)):
            path[at] = copy.copy(path[at])
            level = self._levels[at - 1]
            level.put(path[at - 1], level.key, path[at])

    def begin(self, sign: str) -> int:
        place = self._level.child
        start = place.starts.get(sign)
        if start is None:
            return KEEP if place.wanted else PASS
        self._add(value := start())
        if sign != '"':
            self._path.append(value)
            self._level = _Level(place, sign)
            self._levels.append(self._level)
        return place.wanted

    def key(self, name: str) -> None:
        level = self._level
        if level.fields is None:
            level.key = name
        else:
            level.key, level.child = level.fields.get(name, (name, NOWHERE))

    def text(self, piece: str) -> None:
        level = self._level
        level.grow(self._path[-1], level.key, piece)
        self.changed = True

    def whole(self, raw: str) -> None:
        self._add(self._decoded(raw, 0))

    def end(self, sign: str, raw: str | None) -> None:
        if sign != '"':
            self._path.pop()
            self._levels.pop()
            self._level = self._levels[-1]
        if raw is not None:
            level, container = self._level, self._path[-1]
            value = self._decoded(raw, 1)
            if value != level.get(container, level.key):
                level.put(container, level.key, value)
                self.changed = True

    def _add(self, value: Any) -> None:
        level, container = self._level, self._path[-1]
        if level.key is _LAST:
            container.append(value)
            self.changed = True
        else:
            # A field that begins as its default is nothing new.
            self.changed = self.changed or level.fields is None or value != level.get(container, level.key)
            level.put(container, level.key, value)

    def _decoded(self, raw: str, begun: int) -> Any:
        try:
            return self._level.child.decode(raw)
        except (ValueError, RecursionError) as error:
            outer = [level.step(container, 1) for level, container in zip(self._levels, self._path[:-1], strict=False)]
            raise refusal(error, "".join(outer) + self._level.step(self._path[-1], begun)) from error
