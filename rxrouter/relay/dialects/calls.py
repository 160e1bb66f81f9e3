"""ToldCalls: the tool calls of an answer as its reader knows them, piece by piece."""

from __future__ import annotations

from rxrouter._wire.chunk import ToolCallDelta


class ToldCall:
    """A tool call: under an id that no other has, though some servers name two by one, or none (WIRE 4.5)."""

    __slots__ = ("id", "name", "received_id", "untold")

    def __init__(self) -> None:
        self.id = ""  # until it is told
        self.name = ""  # until it comes
        self.received_id = ""
        self.untold: list[str] = []  # pieces of its arguments


class ToldCalls:
    """Finds the call of each piece, in constant time; in the order, and by the rules, of `CompletionFold`."""

    def __init__(self) -> None:
        self.all: list[ToldCall] = []
        self.ids: set[str] = set()  # that were told
        self._by_index: dict[int, ToldCall] = {}
        self._by_id: dict[str, ToldCall] = {}

    def add(self, piece: ToolCallDelta) -> ToldCall:
        """The call that has grown by this piece."""
        call = self._call_of(piece)
        if piece.id and not call.received_id:
            call.received_id = piece.id
            self._by_id.setdefault(piece.id, call)
        call.name = call.name or piece.function.name or ""
        if piece.function.arguments:
            call.untold.append(piece.function.arguments)
        return call

    def _call_of(self, piece: ToolCallDelta) -> ToldCall:
        """By index; without one, the last; another id under the same index is another call."""
        last = self.all[-1] if self.all else None
        call = last if piece.index is None else self._by_index.get(piece.index)
        if call is not None and piece.id and call.received_id and piece.id != call.received_id:
            call = self._by_id.get(piece.id)
        if call is None:
            call = ToldCall()
            self.all.append(call)
        if piece.index is not None:
            self._by_index[piece.index] = call
        return call

    def told(self, call: ToldCall) -> ToldCall:
        """The call, which from now on has an id."""
        if not call.id:
            number = len(self.ids)
            call.id = call.received_id or f"call-{number}"
            while call.id in self.ids:
                call.id += f"-{number}"
            self.ids.add(call.id)
        return call
