"""ToolCallIndex: which tool call each piece belongs to, in constant time a piece.

Servers differ in how they mark the pieces of one call: by index, by id, by neither, or by a new index or id on every
piece. The index follows these rules, in this order:

- A piece belongs to the call under its index; without an index, to the call that is open.
- A piece without a name continues a call. Where its index is new, it continues the call of its id, else the open call
  if that has a name.
- A piece with a name begins a call where its index is new, where its id is another one, and where the call under its
  index has arguments and another name.
- A name that comes again is the same name. A name that continues before any arguments is joined: `get_`, `weather`.
- An empty object in front of another object is dropped: some proxies put `{}` before the arguments.

Where two readings are possible and a call that the model did not ask for could result, the index is `ambiguous`, and
no call of the answer may be run.
"""

from __future__ import annotations

import re
from typing import Any

from rxrouter._wire.chunk import ToolCallDelta

# Arguments that may still turn out to be an empty object in front of another one, and those that have.
_is_undecided = re.compile(r"\s*(?:\{\s*(?:\}\s*(?:\{\s*)?)?)?").fullmatch
_empty_object = re.compile(r"\s*\{\s*\}\s*(?=\{\s*[^}\s])").match
_LONGEST_UNDECIDED = 64  # characters


class IndexedCall:
    """One tool call.

    Attributes:
        position: In the order in which the calls began.
        number: The server's index where it has one for each call, otherwise as near to the position as is free.
        index: The last one under which a piece came; None where no piece had any.
        extra: Members of the call that OpenAI's format does not have.
        function_extra: Likewise, of its function.
        undecided: The beginning of the arguments, while it may be an empty object in front of the real one.
        is_decided: Whether it has turned out to be one, or not.
        last: The last piece of the arguments that was more than white space.
    """

    __slots__ = (
        "extra",
        "function_extra",
        "id",
        "index",
        "is_decided",
        "last",
        "name",
        "number",
        "position",
        "type",
        "undecided",
    )

    def __init__(self, position: int, number: int) -> None:
        self.position = position
        self.number = number
        self.index: int | None = None
        self.id = ""
        self.type = ""
        self.name = ""
        self.extra: dict[str, Any] | None = None
        self.function_extra: dict[str, Any] | None = None
        self.undecided = ""
        self.is_decided = False
        self.last = ""

    @property
    def has_arguments(self) -> bool:
        """Whether any have come."""
        return bool(self.last)

    @property
    def is_closed(self) -> bool:
        """Whether the arguments end as an object does."""
        return self.last.rstrip().endswith("}")

    def take(self, piece: ToolCallDelta) -> str:
        """Take the piece's facts, and return the text by which the arguments grow."""
        self.id = self.id or piece.id or ""
        self.type = self.type or piece.type or ""
        if piece.extra:
            self.extra = {**(self.extra or {}), **piece.extra}
        if piece.function.extra:
            self.function_extra = {**(self.function_extra or {}), **piece.function.extra}
        text = piece.function.arguments
        if not text:
            return ""
        if not text.isspace():
            self.last = text
        return text if self.is_decided else self._decide(text)

    def _decide(self, text: str) -> str:
        text = self.undecided + text
        if len(text) <= _LONGEST_UNDECIDED and _is_undecided(text):
            self.undecided = text
            return ""
        self.undecided = ""
        self.is_decided = True
        empty = _empty_object(text)
        return text[empty.end() :] if empty else text


class ToolCallIndex:
    """The tool calls of one choice of one answer.

    Attributes:
        calls: All that have begun, in order.
    """

    def __init__(self) -> None:
        self.calls: list[IndexedCall] = []
        self._open: IndexedCall | None = None  # to which the last piece belonged
        self._by_index: dict[int, IndexedCall] = {}
        self._by_id: dict[str, IndexedCall] = {}
        self._numbers: set[int] = set()
        self._free = 0  # no number below is free, from the position of the last call on
        # Pieces that have neither a name nor arguments: of a call that begins, if one under their index has a name.
        self._heads: dict[int, ToolCallDelta] = {}
        # Pieces that came again with the name of a call that seems whole: another call begins if arguments follow.
        self._repeated: dict[int, ToolCallDelta] = {}
        self._has_strays = False  # arguments under an index or an id of their own
        self._is_ambiguous = False

    @property
    def ambiguous(self) -> bool:
        """Whether the pieces can be read as other calls."""
        if self._is_ambiguous:
            return True
        if self._has_strays:
            return not all(call.has_arguments for call in self.calls)
        return any(head.id for head in self._heads.values())

    def plainly_continued(self, piece: ToolCallDelta) -> IndexedCall | None:
        """Return the call to whose arguments this piece adds its own, and nothing else; None where `add` must look."""
        call = self._open
        function = piece.function
        text = function.arguments
        if (
            not text
            or call is None
            or piece.index != call.index
            or not call.is_decided
            or piece.id
            or piece.type
            or function.name
            or piece.extra
            or function.extra
            or piece.ambiguous
            or self._repeated
        ):
            return None
        if not text.isspace():
            call.last = text
        return call

    def add(self, piece: ToolCallDelta) -> tuple[IndexedCall, str] | None:
        """Return the call of this piece and the text by which its arguments grow; None if its call is not known yet."""
        if piece.ambiguous:
            self._is_ambiguous = True
        call = self._named(piece) if piece.function.name else self._nameless(piece)
        if call is None:
            return None
        self._open = call
        if piece.index is not None:
            call.index = piece.index
            self._by_index[piece.index] = call
        text = call.take(piece)
        if call.id:
            self._by_id.setdefault(call.id, call)
        return call, text

    def _begin(self, name: str, index: int | None) -> IndexedCall:
        position = len(self.calls)
        if index is None or index in self._numbers or self._has_strays:
            self._free = max(self._free, position)
            while self._free in self._numbers:
                self._free += 1
            index = self._free
        self._numbers.add(index)
        call = IndexedCall(position, index)
        call.name = name
        self.calls.append(call)
        return call

    def _at(self, piece: ToolCallDelta) -> IndexedCall | None:
        return self._open if piece.index is None else self._by_index.get(piece.index)

    def _nameless(self, piece: ToolCallDelta) -> IndexedCall | None:
        call = self._at(piece)
        arguments = piece.function.arguments
        if call is not None and not _differ(call.id, piece.id):
            return self._restarted(call, arguments) if self._repeated and arguments else call
        known = self._by_id.get(piece.id) if piece.id else None
        if known is not None:
            return known
        if call is None:
            call = self._open
            if call is None or not call.name:
                return self._begin("", piece.index)
            if not arguments and piece.index is not None:
                self._heads[piece.index] = piece
                return None
        if arguments:
            self._has_strays = True
            self._is_ambiguous = self._is_ambiguous or (call.is_closed and not arguments.isspace())
        return call

    def _restarted(self, call: IndexedCall, arguments: str) -> IndexedCall:
        """Return the call that these arguments begin, if its name has come before them; else the call."""
        again = self._repeated.pop(call.position, None)
        if again is None or not call.is_closed or not arguments.lstrip().startswith("{"):
            return call
        self._is_ambiguous = self._is_ambiguous or bool(call.undecided)
        begun = self._begin(call.name, again.index)
        begun.take(again)
        return begun

    def _named(self, piece: ToolCallDelta) -> IndexedCall:
        name = piece.function.name or ""
        call = self._at(piece)
        known = self._by_id.get(piece.id) if piece.id else None
        if call is None:
            return self._under_new_index(piece, name, known)
        if _differ(call.id, piece.id):
            # Under one index, a server may give each piece of one call an id of its own, and the whole name.
            if known is None and call.name == name and piece.index is not None and not call.has_arguments:
                self._is_ambiguous = True
            return known or self._begin(name, piece.index)
        if not call.name:
            call.name = name
            return call
        return self._under_known_id(call, piece, name)

    def _under_known_id(self, call: IndexedCall, piece: ToolCallDelta, name: str) -> IndexedCall:
        has_same_id = bool(piece.id) and piece.id == call.id
        if not call.has_arguments and call.name != name:
            return self._joined_or_begun(call, piece, name, has_same_id=has_same_id)
        if has_same_id:
            return call
        return self._repeats(call, piece, name) if call.name == name else self._begin(name, piece.index)

    def _under_new_index(self, piece: ToolCallDelta, name: str, known: IndexedCall | None) -> IndexedCall:
        if known is not None and known.name == name and not known.is_closed:
            if known.has_arguments:
                return known
            self._is_ambiguous = True
        call = self._begin(name, piece.index)
        head = None if piece.index is None else self._heads.pop(piece.index, None)
        if head is not None:
            call.take(head)
        return call

    def _repeats(self, call: IndexedCall, piece: ToolCallDelta, name: str) -> IndexedCall:
        """Return the call, or another of the same name: one begins where an object has ended and another begins."""
        arguments = (piece.function.arguments or "").lstrip()
        if not call.is_closed:
            return call
        if not arguments:
            self._repeated[call.position] = piece
            return call
        if not arguments.startswith("{"):
            return call
        self._is_ambiguous = self._is_ambiguous or bool(call.undecided)
        return self._begin(name, piece.index)

    def _joined_or_begun(self, call: IndexedCall, piece: ToolCallDelta, name: str, *, has_same_id: bool) -> IndexedCall:
        """Return the call with more of its name, or another: no arguments have come that would tell them apart."""
        looks_continued = piece.id is None and not piece.type and bool(call.id or call.type)
        if has_same_id or looks_continued or (call.id and not piece.id):
            # The whole name so far may have come again, with more.
            self._is_ambiguous = (
                self._is_ambiguous or name.startswith(call.name) or not (has_same_id or looks_continued)
            )
            call.name += name
            return call
        self._is_ambiguous = True
        return self._begin(name, piece.index)


def _differ(one: str | None, other: str | None) -> bool:
    return bool(one and other) and one != other
