"""ToldCalls: the tool calls of an answer as its reader knows them, piece by piece."""

from __future__ import annotations

from rxrouter._wire.chunk import ToolCallDelta
from rxrouter._wire.tool_call_index import IndexedCall, ToolCallIndex


class ToldCall:
    """A tool call, under an id that no other call has, though some servers give two calls one id, or none."""

    __slots__ = ("_indexed", "id", "pieces", "started")

    def __init__(self, indexed: IndexedCall) -> None:
        self._indexed = indexed
        self.id = ""  # until it is sent
        self.started = False
        self.pieces: list[str] = []  # of its arguments, not sent yet

    @property
    def name(self) -> str:
        """The function's name; it may come late, or in pieces before the arguments."""
        return self._indexed.name

    @property
    def received_id(self) -> str:
        """The server's id; "" where it has given none."""
        return self._indexed.id

    def take_pieces(self) -> str:
        """Return the arguments that were not sent yet."""
        text = "".join(self.pieces)
        self.pieces.clear()
        return text

    def take_all(self) -> str:
        """Likewise at the end of the answer, with the beginning that was held back."""
        text = self.take_pieces() + self._indexed.undecided
        self._indexed.undecided = ""
        return text


class ToldCalls:
    """Assigns ids, and collects the pieces of each call, by the rules of `ToolCallIndex`."""

    def __init__(self) -> None:
        self.all: list[ToldCall] = []
        self.ids: set[str] = set()  # that were sent
        self._index = ToolCallIndex()

    def add(self, piece: ToolCallDelta) -> ToldCall | None:
        """Return the call that has grown by this piece; None if it is not known yet."""
        found = self._index.add(piece)
        if found is None:
            return None
        indexed, arguments = found
        if indexed.position == len(self.all):
            self.all.append(ToldCall(indexed))
        call = self.all[indexed.position]
        if arguments:
            call.pieces.append(arguments)
        return call

    def told(self, call: ToldCall) -> ToldCall:
        """Return the call, which from now on has an id."""
        if not call.id:
            number = len(self.ids)
            call.id = call.received_id or f"call-{number}"
            while call.id in self.ids:
                call.id += f"-{number}"
            self.ids.add(call.id)
        return call
