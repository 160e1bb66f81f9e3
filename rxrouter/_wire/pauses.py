"""Read the pauses that servers ask for before another try, in headers and errors, as seconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from math import inf
from typing import Any

from rxrouter._wire.json import as_list, as_object

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h) *)+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
# A reset below this is a number of seconds to wait, above it a time since 1970; above the second one in milliseconds.
_UNIX_SECONDS = 1e8
_UNIX_MILLISECONDS = 1e11


def seconds(value: Any) -> float | None:
    """Return a duration, as a number of seconds or as text such as `34s`, `1.5s`, `6m0s`, `250ms`."""
    if isinstance(value, str) and _DURATION.fullmatch(text := value.strip().lower()):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number < inf else None


def pause_of_error(error: dict[str, Any]) -> float | None:
    """Return the pause in an error object: OpenRouter's `availability`, or Google's `RetryInfo` in the details."""
    pauses = [as_object(error.get("availability")).get("retry_after")]
    pauses += [as_object(detail).get("retryDelay") for detail in as_list(error.get("details"))]
    return next((pause for value in pauses if (pause := seconds(value)) is not None), None)


def pause_of_headers(headers: Mapping[str, str], now: float) -> float | None:
    """Return the pause of `Retry-After-Ms` or `Retry-After` (RFC 9110, 10.2.3, or with a unit); None without them."""
    # Azure sends 0 milliseconds beside a second: it rounds down.
    if milliseconds := seconds(headers.get("Retry-After-Ms")):
        return milliseconds / 1000
    value = headers.get("Retry-After")
    pause = seconds(value)
    if value is None or pause is not None:
        return pause
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):  # dates beyond time, zones beyond earth
        return None


def pause_until_reset(value: Any, now: float) -> float | None:
    """Return the pause until a limit's reset: a duration, or a time in seconds or (OpenRouter) milliseconds."""
    reset = seconds(value)
    if reset is None or reset < _UNIX_SECONDS:
        return reset
    return max(0.0, (reset / 1000 if reset > _UNIX_MILLISECONDS else reset) - now)


def told_retryable(headers: Mapping[str, str]) -> bool | None:
    """Return the server's own word on another try, `x-should-retry`; None without it."""
    return {"true": True, "false": False}.get(headers.get("X-Should-Retry", "").strip().lower())
