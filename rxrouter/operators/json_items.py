"""json_items(): the elements of an array that the model is still writing, each as soon as it is whole."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.items import JSONItems, steps_of
from rxrouter._wire.place import place_of
from rxrouter.operators._document import of_document
from rxrouter.operators._types import Operator

T = TypeVar("T")


@overload
def json_items(
    path: str = "", *, type: None = None, choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, Any]: ...


@overload
def json_items(
    path: str = "", *, type: type[T], choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, T]: ...


@overload
def json_items(
    path: str = "", *, type: Any, choice: int = 0, tool_call: int | None = None, find: bool = False
) -> Operator[str | ChatChunk, Any]: ...


def json_items(
    path: str = "",
    *,
    type: Any = None,  # noqa: A002 - msgspec's word
    choice: int = 0,
    tool_call: int | None = None,
    find: bool = False,
) -> Operator[str | ChatChunk, Any]:
    """Take the elements out of an array of a JSON document as they come: work on the first while the last is written.

    Marble:
        source         -a-b-c-d-|
        json_items()   ---B-C-D-|

    Args:
        path: A JSON Pointer to the array, such as `/data/items`; the document itself by default, or with `/`.
        type: What each element is: any type that msgspec knows; JSON as it comes, without one.
        choice: Which of the `n` answers, of chunks; strings are pieces of the document themselves.
        tool_call: The index of the tool call whose arguments are the document, instead of the answer's text. Where a
            server gives several calls one index, or no index, it is their position.
        find: Find the document in a text with other things around it: thoughts or a sentence before it, a fence
            (```json), words behind it. It is then an object or an array; anything is found in a fence.
    Emits: each element once, when it closes; nothing else of the document is kept. After a `Restarted` the document,
        and with it the elements, begin anew.
    Errors: the source's; `AnswerDecodeError` at once where this is no JSON or an element is not of its type, and at
        the end of the document if it is cut, or has no array there.
    Cancels: the source, on dispose, and before an `AnswerDecodeError`.
    Source: RFC 6901 for the path.
    """
    steps = steps_of(path)
    place = place_of(type)
    return of_document(lambda: JSONItems(steps, place, ignores_rest=find), choice, tool_call, find=find)
