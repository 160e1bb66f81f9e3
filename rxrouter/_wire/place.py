"""Place: what may stand at one place of a document of a known type, and what of it can be shown before it is whole.

Plain strings, arrays, objects with any keys and Structs grow, as `str`, `list`, `dict` and instances of the Struct;
everything else appears when it is whole: unions, constrained strings, dates, enums, sets, dataclasses, and Structs that
would notice (msgspec makes no instance without its `__post_init__`, and one with `cache_hash` keeps what it was).

What is whole is decoded from its own text by msgspec, and is thereby in every respect what msgspec makes of it. With
each declared container around it a text is decoded once more: depth times the nanoseconds a character that it takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from json import JSONDecoder
from types import NoneType, UnionType
from typing import Annotated, Any, Union, cast, get_args, get_origin

from msgspec import NODEFAULT, UnsetType, inspect
from msgspec.json import Decoder
from msgspec.structs import FieldInfo, fields

from rxrouter._wire.scan import FOLLOW, KEEP, PASS

Start = Callable[[], Any]

_raw_decode = JSONDecoder().raw_decode

# What msgspec quotes of the text: a value that is no member of an enum, the name of an unknown field.
_QUOTATION = re.compile(r"(Invalid (?:enum )?value|unknown field) .*", re.DOTALL)


def _decoded(raw: str) -> Any:
    return _raw_decode(raw)[0]


def _none() -> None:
    return None


class Place:
    """What may be at one place of a document; made by `place_of`."""

    def __init__(self, decode: Callable[[str], Any], wanted: int) -> None:
        self.decode = decode  # a whole value, from its text
        self.wanted = wanted  # from the scanner, of a value that grows
        self.starts: dict[str, Start] = {}  # what grows here, by the sign with which it begins
        self.empty: Start = _none  # what stands in a Struct until something comes
        self.elements = self.members = self  # of an array; of an object, under any key
        self.fields: dict[str, tuple[str, Place]] | None = None  # of a Struct: attribute and place, by the key

    def grow(self, sign: str, start: Start) -> None:
        """Has values that begin with this sign grow."""
        self.starts[sign] = self.empty = start


ANY = Place(_decoded, FOLLOW)  # without a declared type, values grow as json.loads would make them
ANY.starts = {'"': str, "[": list, "{": dict}
NOWHERE = Place(_decoded, PASS)  # of fields that a Struct does not have


def place_of(declared: Any) -> Place:
    """The place of a document of this type; of any document, for None.

    Raises:
        TypeError: it is no type that msgspec knows.
    """
    return ANY if declared is None else _Places().place(declared)


def refusal(error: Exception, where: str) -> ValueError:
    """What a decoder said of a value, with the path from the root of the document, and without words of the text."""
    said, at, path = str(error).rpartition(" - at `$")
    said = _QUOTATION.sub(r"\1", said if at else path)
    return ValueError(f"{said} - at `${where}{path if at else '`'}")


class _Places:
    """The places of one document's type; those of a Struct are made once, because it may contain itself."""

    def __init__(self) -> None:
        self._structs: dict[Any, tuple[dict[str, tuple[str, Place]], Start]] = {}

    def place(self, declared: Any) -> Place:
        """The place of a value of this type."""
        place = Place(Decoder(declared).decode, FOLLOW | KEEP)
        info, may_be_none = _info(declared)
        bare = _bare(declared)
        arguments = get_args(bare) or (Any, Any)
        if info in _ANYTHING:
            return ANY
        if info == _STRING:
            place.grow('"', str)
        elif isinstance(info, inspect.ListType | inspect.VarTupleType):
            place.elements = self.place(arguments[0])
            place.grow("[", list)
        elif isinstance(info, inspect.DictType) and info.key_type in _KEYS:
            place.members = self.place(arguments[1])
            place.grow("{", dict)
        elif isinstance(info, inspect.StructType) and not info.array_like and not _would_notice(info.cls):
            place.fields, start = self._struct(bare)
            place.grow("{", start)
        if may_be_none:
            place.empty = _none
        return place

    def _struct(self, bare: Any) -> tuple[dict[str, tuple[str, Place]], Start]:
        if bare not in self._structs:
            places: dict[str, tuple[str, Place]] = {}
            empties: dict[str, Start] = {}
            self._structs[bare] = places, partial(_blank, get_origin(bare) or bare, empties)
            for field in fields(bare):
                child = self.place(field.type)
                places[field.encode_name] = field.name, child
                empties[field.name] = _default(field) or child.empty
        return self._structs[bare]


_STRING = inspect.StrType()
_ANYTHING = (inspect.AnyType(), inspect.CustomType(object))
_KEYS = (_STRING, inspect.AnyType())


def _info(declared: Any) -> tuple[inspect.Type, bool]:
    """What msgspec says of the type without None; and whether it may be None."""
    info, may_be_none = inspect.type_info(declared), False
    while isinstance(info, inspect.Metadata | inspect.UnionType):
        inner = [info.type] if isinstance(info, inspect.Metadata) else _without_none(info)
        if len(inner) > 1:
            break
        may_be_none = may_be_none or isinstance(info, inspect.UnionType)
        info = inner[0]
    return info, may_be_none


def _without_none(union: inspect.UnionType) -> list[inspect.Type]:
    return [x for x in union.types if not isinstance(x, inspect.NoneType)]


def _bare(declared: Any) -> Any:
    """The type without None, and without what only names or annotates it."""
    while True:
        arguments = [x for x in get_args(declared) if x not in (NoneType, UnsetType)]
        if get_origin(declared) in {Annotated, Union, UnionType}:
            declared = arguments[0]
        elif alias := getattr(declared, "__supertype__", None) or getattr(declared, "__value__", None):
            declared = alias  # of a NewType, or `type X = ...`
        else:
            return declared


def _would_notice(struct: Any) -> bool:
    """Whether a Struct checks itself when it is made, or keeps a hash of what it was."""
    struct = get_origin(struct) or struct
    return hasattr(struct, "__post_init__") or struct.__struct_config__.cache_hash


def _default(field: FieldInfo) -> Start | None:
    """How the default of a field is made, if it has one."""
    if field.default_factory is not NODEFAULT:
        return cast(Start, field.default_factory)
    return None if field.default is NODEFAULT else lambda: field.default


def _blank(struct: Callable[..., Any], empties: dict[str, Start]) -> Any:
    """An instance to which nothing has come yet."""
    return struct(**{name: empty() for name, empty in empties.items()})
