"""JSON values of unknown shape, taken for what they should be."""

from __future__ import annotations

from typing import Any, cast


def as_object(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """The value if it is an array, else an empty one."""
    # Redundant to mypy, needed by pyright.
    return cast("list[Any]", value) if isinstance(value, list) else []  # type: ignore[redundant-cast]


def without_nulls(value: Any) -> Any:
    """The value without the null members of its objects, at any depth."""
    if isinstance(value, list):
        return [without_nulls(x) for x in as_list(value)]
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in as_object(value).items() if v is not None}
    return value
