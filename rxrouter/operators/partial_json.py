"""partial_json(): the growing value of a JSON document that the model is still writing."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.partial import PartialJSON
from rxrouter._wire.place import place_of
from rxrouter.operators._document import of_document
from rxrouter.operators._types import Operator

T = TypeVar("T")


@overload
def partial_json(
    type: None = None, *, choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, Any]: ...


@overload
def partial_json(
    type: type[T], *, choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, T]: ...


@overload
def partial_json(
    type: Any, *, choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, Any]: ...


def partial_json(
    type: Any = None,  # noqa: A002 - msgspec's word
    *,
    choice: int = 0,
    tool_call: int | None = None,
    find: bool = False,
) -> Operator[str | ChatChunk, Any]:
    """Read a JSON document as it comes: structured output, or the arguments of a tool call, to be shown in the making.

    What can't be told yet is left out: a key without the beginning of its value, a number that may go on, half an
    escape. With a type, plain strings, arrays, objects and Structs grow, the latter as instances; everything else
    (numbers, dates, enums, unions, constrained strings, Structs with `__post_init__` ...) appears when it is whole.
    A field that has not come has its default; without one, what is empty of its type ("", [], {}, a Struct of such,
    None if that is allowed), and None where there is no such thing. What is whole is what msgspec makes of it.

    Marble:
        source           -a-b-c-d-|
        partial_json()   -A-B-C-D-|

    Args:
        type: What the document is: any type that msgspec knows; JSON as it comes, without one.
        choice: Which of the `n` answers, of chunks; strings are pieces of the document themselves.
        tool_call: The index of the tool call whose arguments are the document, instead of the answer's text. Where a
            server gives several calls one index, or no index, it is their position.
        find: Find the document in a text with other things around it: thoughts or a sentence before it, a fence
            (```json), words behind it. It is then an object or an array; anything is found in a fence.
    Emits: the value each time it has changed; the last one is that of `json.loads`, or of `msgspec.json.decode`.
        Values are for reading: they share what has not changed. One that is kept never changes, at the price of a
        copy of what is still open in it, the string that grows and each open array and object, with the next piece;
        so who keeps each, if only the last, pays for the document's length. After a `Restarted` it begins anew.
    Errors: the source's; `AnswerDecodeError` at once where this is no such document, and at the end if it is cut.
    Cancels: the source, on dispose, and before an `AnswerDecodeError`.
    Source: reading the whole text anew with each piece is quadratic: 4.0 s for 24 kB of arguments (PEERS P19).
    """
    place = place_of(type)
    return of_document(lambda: PartialJSON(place, ignores_rest=find), choice, tool_call, find=find)
