"""Turn the JSON of a chunk in any shape that servers send into the shape that `ChatChunk` has.

Nothing here runs for the chunks that the strict decoder takes and that have content: the shapes below cost time only
where they occur.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from rxrouter._wire.halves import Halves, without_halves
from rxrouter._wire.json import FREE_FORM, as_list, as_object
from rxrouter._wire.lenient_calls import adopt_function_call, set_members_apart

LARGEST = 2**53
"""The largest number that is taken: beyond it JSON's numbers are not exact, and no count or price is."""

_BOM = "\ufeff"
# Texts that stand for the absence of a finish reason: a null that became text on its way.
_NO_REASON = {"", "null", "none", "nil", "undefined", "unspecified", "finish_reason_unspecified"}
# Members that hold the text of a thought, or of a part of content.
_INSIDE = ("text", "content", "thinking", "summary", "reasoning")
_THOUGHTS = ("thinking", "thought", "reasoning", "reasoning.text", "reasoning_content")
_CALL = {"function", "id", "index", "name", "type", "arguments"}
_TEXTS = ("id", "provider", "model", "object", "system_fingerprint", "service_tier", "user_id")
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_OTHER_COUNTS = {"input_tokens": "prompt_tokens", "output_tokens": "completion_tokens"}
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_OBJECTS = ("cost_details", "server_tool_use_details", "server_tool_use")
_MAY_HAVE_HALVES = re.compile(rb"\\u[dD][89abAB]|\\u[dD][c-fC-F]")
# Members that matter where the strict decoder has found no content, or no usage.
_ELSEWHERE = re.compile(rb'"(?:message|text)"\s*:|"usage"\s*:\s*\{')


class Written(str):
    """A number as the source writes it: 0.10 stays 0.10."""

    __slots__ = ()


def is_no_reason(reason: str) -> bool:
    """Return whether the text stands for the absence of a finish reason."""
    return reason.lower() in _NO_REASON


def may_say_more(data: bytes) -> bool:
    """Whether JSON without content, or without usage, may have it in another place."""
    return _ELSEWHERE.search(data) is not None


def normalised(data: bytes, halves: Halves | None = None) -> tuple[Any, bool]:
    """Return the JSON value in the shape of a chunk, and whether `halves` have changed its texts.

    Args:
        data: JSON, as received; what is no UTF-8 is replaced.
        halves: Takes halves of surrogate pairs that wait for the next chunk; without it they are replaced.

    Raises:
        ValueError: it is no JSON.
        RecursionError: it is nested too deeply.
    """
    value: Any = _loads(data.decode(errors="replace").removeprefix(_BOM))
    if isinstance(value, list):
        value = _united(as_list(value))
    if isinstance(value, dict):
        _reshape(as_object(value))
    plain: Any = _plain(value)
    changed = halves is not None and halves.join(as_object(plain))
    return (without_halves(plain) if _MAY_HAVE_HALVES.search(data) else plain), changed


def _constant(_: str) -> None:
    """Read NaN and the infinities, as Python's json writes them, as null."""


_lenient: Callable[[str], Any] = json.JSONDecoder(
    parse_float=Written, parse_int=Written, parse_constant=_constant, strict=False
).decode


def _loads(text: str) -> Any:
    try:
        return _lenient(text)
    except ValueError:
        msgspec.json.decode(text.encode(errors="replace"))  # refuses it in the words that a path is made of
        raise


def _united(values: list[Any]) -> Any:
    """One object of a list of chunks (Google's way of an array); the list where it is something else."""
    chunks = [as_object(value) for value in values]
    if not chunks or not all(isinstance(chunk.get("choices"), list) for chunk in chunks):
        return values
    merged: dict[str, Any] = {}
    for chunk in chunks:
        merged |= chunk
    return merged | {"choices": [choice for chunk in chunks for choice in as_list(chunk["choices"])]}


def _reshape(chunk: dict[str, Any]) -> None:
    choices = chunk.get("choices")
    if isinstance(choices, dict) and any(name in choices for name in ("delta", "message", "text")):
        chunk["choices"] = choices = [as_object(choices)]
    usages = [chunk.get("usage"), as_object(chunk.get("x_groq")).get("usage")]
    for item in as_list(choices):
        choice = as_object(item)
        usages += [choice.get("usage"), as_object(choice.get("delta")).get("usage")]
        _reshape_choice(choice)
    _keep(chunk, _TEXTS, str)
    _keep(chunk, ("openrouter_metadata", "debug"), dict)
    if "created" in chunk:
        chunk["created"] = _number(chunk["created"])
    _reshape_usage(chunk, [as_object(usage) for usage in usages if isinstance(usage, dict)])


def _reshape_choice(choice: dict[str, Any]) -> None:
    delta, message = as_object(choice.get("delta")), choice.get("message")
    if isinstance(message, dict) and not delta:
        # Beside a delta that has members a message repeats the answer so far (Perplexity).
        delta = choice["delta"] = as_object(message)
    elif not delta and not choice.get("delta") and "text" in choice:
        delta = choice["delta"] = {}
    if isinstance(choice.get("text"), str | dict | list) and not delta.get("content"):
        delta["content"] = choice["text"]
    choice["finish_reason"] = _reason(choice.get("finish_reason"))
    _keep(choice, ("native_finish_reason",), str)
    if delta:
        _reshape_delta(delta)


def _reason(reason: Any) -> Any:
    if isinstance(reason, dict):
        reason = as_object(reason).get("type") or as_object(reason).get("reason")
    return reason if isinstance(reason, str) and not isinstance(reason, Written) and not is_no_reason(reason) else None


def _reshape_delta(delta: dict[str, Any]) -> None:
    _keep(delta, ("role",), str)
    _keep(delta, ("audio",), dict)
    for name in ("reasoning_details", "annotations", "images"):
        if delta.get(name) is not None:
            items: list[Any] = [delta[name]] if isinstance(delta[name], dict) else as_list(delta[name])
            delta[name] = [item for item in items if isinstance(item, dict)]
    for name in ("reasoning", "reasoning_content", "refusal"):
        text = delta.get(name)
        if isinstance(text, Written):
            delta[name] = str(text)
        elif not isinstance(text, str):
            delta[name] = "".join(_texts(text)) or None
    adopt_function_call(delta)
    delta["tool_calls"] = _calls(delta["tool_calls"]) if delta.get("tool_calls") else None
    _reshape_content(delta)


def _reshape_content(delta: dict[str, Any]) -> None:
    content = delta.get("content")
    if isinstance(content, list | dict):
        _reshape_parts(delta, [content] if isinstance(content, dict) else as_list(content))
    elif isinstance(content, bool):
        # A token that a gateway has read as JSON; beside other content false says that there is no text.
        other = any(delta.get(name) for name in ("reasoning", "reasoning_content", "refusal", "tool_calls"))
        delta["content"] = None if other else json.dumps(content)
    elif isinstance(content, Written):
        delta["content"] = str(content)


def _reshape_parts(delta: dict[str, Any], parts: list[Any]) -> None:
    """Sort content in parts (Mistral) into text, thoughts and pictures."""
    words, thoughts, images = list[str](), list[str](), list[Any]()
    for part in parts:
        holder = as_object(part)
        thinks = holder.get("type") in _THOUGHTS or "thinking" in holder
        if thinks:
            thoughts += _texts(holder.get("thinking") or holder.get("text") or holder.get("reasoning"))
        elif "image_url" in holder:
            images.append(holder)
        else:
            words += _texts(holder.get("text") if holder else part, inside=())
    delta["content"] = "".join(words)
    if not delta.get("reasoning"):
        delta["reasoning"] = "".join(thoughts)
    if images:
        delta["images"] = [*as_list(delta.get("images")), *images]


def _texts(value: Any, inside: Iterable[str] = _INSIDE) -> list[str]:
    """The texts that a value is, or holds in its parts."""
    if isinstance(value, str):
        return [] if isinstance(value, Written) else [value]
    if isinstance(value, list):
        return [text for item in as_list(value) for text in _texts(item)] if inside else []
    if not isinstance(value, dict):
        return []
    holder = as_object(value)
    return next((texts for name in inside if (texts := _texts(holder.get(name)))), list[str]())


def _calls(calls: Any) -> Any:
    """The tool calls as a list, of one object (by itself or under its index) also; other values stay as they are."""
    if isinstance(calls, dict):
        members = as_object(calls)
        calls = [members] if _CALL & members.keys() else list(members.values())
    if isinstance(calls, list):
        calls = [call for call in as_list(calls) if call is not None]
        for call in calls:
            if isinstance(call, dict):
                _reshape_call(as_object(call))
    return calls


def _reshape_call(call: dict[str, Any]) -> None:
    if call.get("function") is None and ("name" in call or "arguments" in call):
        call["function"] = {name: call[name] for name in ("name", "arguments") if name in call}
    for holder, name in ((call, "id"), (call, "type"), (as_object(call.get("function")), "name")):
        if isinstance(holder.get(name), Written):
            holder[name] = str(holder[name])
    _keep(call, ("id", "type"), str)
    function = as_object(call.get("function"))
    arguments = function.get("arguments")
    if isinstance(arguments, dict | list) or arguments is True or isinstance(arguments, Written):
        function["arguments"] = _json_of(arguments)
    elif arguments is False:
        del function["arguments"]
    set_members_apart(call)


def _json_of(value: Any) -> str:
    """JSON text, with each number as it was written."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, dict):
        members = (f"{json.dumps(k, ensure_ascii=False)}: {_json_of(v)}" for k, v in as_object(value).items())
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json_of, as_list(value)))}]"
    return json.dumps(value, ensure_ascii=False)


def _reshape_usage(chunk: dict[str, Any], usages: list[dict[str, Any]]) -> None:
    """Keep the first usage that says something, from whichever place, without numbers that can't be."""
    for usage in usages:
        _clean_usage(usage)
    said = next((usage for usage in usages if any(usage.get(name) for name in (*_COUNTS, "cost"))), None)
    if said is not None:
        chunk["usage"] = said
    elif not isinstance(chunk.get("usage"), dict):
        chunk.pop("usage", None)


def _clean_usage(usage: dict[str, Any]) -> None:
    for other, name in _OTHER_COUNTS.items():
        if other in usage and usage.get(name) is None:
            usage[name] = usage[other]
    cost = usage.get("cost")
    if isinstance(cost, dict):  # itemised by Perplexity
        usage["cost_details"] = cost
        usage["cost"] = as_object(cost).get("total_cost")
    usage["cost"] = _number(usage.get("cost"))
    for name in _COUNTS:
        usage[name] = _count(usage.get(name))
    _keep(usage, _OBJECTS, dict)
    _keep(usage, _DETAILS, dict)
    for name in _DETAILS:
        details = as_object(usage.get(name))
        for detail in details:
            details[detail] = _count(details[detail])
    if usage.get("is_byok") not in (True, False, "true", "false"):
        usage["is_byok"] = None


def _number(value: Any) -> int | float | None:
    """The number between 0 and 2^53 that a value is, or says as text; else None."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        number = _numeral(value) if isinstance(value, str) else value
    except ValueError:
        return None
    if number is None or not 0 <= number <= LARGEST:
        return None
    return int(number) if isinstance(number, int) or number.is_integer() else number


def _count(value: Any) -> int | None:
    number = _number(value)
    return number if isinstance(number, int) else None


def _keep(holder: dict[str, Any], names: Iterable[str], kind: type) -> None:
    """Drop the members of another type."""
    for name in names:
        value = holder.get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, Written)):
            del holder[name]


def _plain(value: Any, *, free: bool = False) -> Any:
    """Return the value with numbers for digits, and without null members but in members of free form."""
    if isinstance(value, Written):
        return _numeral(value)
    if isinstance(value, list):
        return [_plain(item, free=free) for item in as_list(value)]
    if isinstance(value, dict):
        members = {name: _plain(member, free=free or name in FREE_FORM) for name, member in as_object(value).items()}
        return members if free else {name: member for name, member in members.items() if member is not None}
    return value


def _numeral(digits: str) -> int | float | None:
    try:
        return int(digits)
    except ValueError:  # a fraction, or more digits than Python reads
        number = float(digits)
        return number if math.isfinite(number) else None
