"""JSON values of unknown shape, taken for what they should be."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, ClassVar, Self, TypeVar, cast

import msgspec
from msgspec import Struct

T = TypeVar("T")

_WRONG_FIELDS = 8  # that many are passed over in one value
# Members of a chunk that are JSON of any shape, in which null is a value like others.
FREE_FORM = frozenset(
    [
        *("debug", "openrouter_metadata", "alignment", "safeguard_results", "logprobs", "reasoning_details"),
        *("annotations", "images", "audio", "cost_details", "server_tool_use", "server_tool_use_details"),
    ]
)
_PATH = re.compile(r"\.(\w+)|\[(\d+)\]")


# Its own ways to copy, of which its stubs have one.
_struct: Any = Struct


class Beside:
    """Has copies and pickles of a struct keep the slots beside its fields, which no JSON key can set."""

    __slots__ = ()
    _beside: ClassVar[tuple[str, ...]] = ()

    def __copy__(self) -> Self:
        """Return another value with the same parts."""
        copy: Self = _struct.__copy__(self)
        copy.__setstate__(self._state())
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        """Give pickle and deepcopy the fields and the slots."""
        return (*_struct.__reduce__(self)[:2], self._state())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the slots."""
        for name, value in state.items():
            setattr(self, name, value)

    def _state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._beside if hasattr(self, name)}


class Received(Beside):
    """Holds the bytes a value was decoded from; a slot beside the struct's fields, so no JSON key can set it."""

    __slots__ = ("received",)
    _beside = __slots__
    received: bytes

    @property
    def raw(self) -> bytes:
        """The JSON as received, byte for byte, unknown fields included; of a value made by hand, its JSON."""
        try:
            return self.received
        except AttributeError:
            return msgspec.json.encode(self)


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is an array, else an empty one."""
    # Redundant to mypy, needed by pyright.
    return cast("list[Any]", value) if isinstance(value, list) else []  # type: ignore[redundant-cast]


def without_nulls(value: Any) -> Any:
    """Return the value without the null members of its objects, at any depth but in members of free form."""
    if isinstance(value, list):
        return [without_nulls(x) for x in as_list(value)]
    if isinstance(value, dict):
        members = as_object(value).items()
        return {k: v if k in FREE_FORM else without_nulls(v) for k, v in members if v is not None}
    return value


def converted(value: Any, kind: type[T], vital: Collection[str] = ()) -> T:
    """The value as that type, without fields of the wrong type; it is taken apart for that.

    Args:
        value: Built from JSON, and nobody else's.
        kind: A struct whose fields have defaults.
        vital: Fields that no value can do without.

    Raises:
        msgspec.ValidationError: a vital field is wrong, or too many are.
    """
    for _ in range(_WRONG_FIELDS):
        try:
            return msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError as error:
            path = [name or int(index) for name, index in _PATH.findall(str(error).rpartition(" - at `$")[2])]
            names = [step for step in path if isinstance(step, str)]
            if not names or names[-1] in vital:
                raise
            holder = value
            for step in path[:-1]:
                holder = holder[step]
            del holder[path[-1]]  # the field, or the one element of a list
    return msgspec.convert(value, kind, strict=False)
