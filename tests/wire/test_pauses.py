"""Pauses that servers ask for, in every form that was seen, are seconds to wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from rxrouter import StreamError, is_transient
from rxrouter._wire.failure import body_error, status_error

NOW = 1_759_845_400.0


def pause_of(headers: dict[str, str], error: dict[str, Any] | None = None) -> float | None:
    body = json.dumps({"error": {"code": 429, "message": "slow down", **(error or {})}}).encode()
    return status_error(429, CIMultiDict(headers), body, NOW).retry_after


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"x-ratelimit-reset": "60"}, 60.0),
        ({"x-ratelimit-reset": "0.5"}, 0.5),
        ({"x-ratelimit-reset": "6m0s"}, 360.0),
        ({"x-ratelimit-reset": "1759845420"}, 20.0),
        ({"x-ratelimit-reset": "1759845420000"}, 20.0),
        ({"x-ratelimit-reset": "1759845300"}, 0.0),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "20s"}, 20.0),
        ({"retry-after": "250ms"}, 0.25),
        ({"retry-after": "1m30s"}, 90.0),
        ({"retry-after": "20", "x-ratelimit-reset": "60"}, 20.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({}, None),
    ],
)
def test_pause_is_in_seconds_when_a_header_names_it(headers: dict[str, str], pause: float | None) -> None:
    assert pause_of(headers) == pause


@pytest.mark.parametrize("delay", ["34s", "34.0s", 34])
def test_pause_is_in_seconds_when_googles_details_name_it(delay: str | float) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.Help"}, {"retryDelay": delay}]

    assert pause_of({}, {"details": details}) == 34.0
    assert pause_of({"retry-after": "5"}, {"details": details}) == 5.0
    error = body_error(json.dumps([{"error": {"code": 429, "message": "x", "details": details}}]).encode())
    assert isinstance(error, StreamError)
    assert error.retry_after == 34.0


@pytest.mark.parametrize(
    ("status", "told", "transient"), [(429, "false", False), (400, "TRUE", True), (503, "?", True)]
)
def test_server_decides_on_another_try_when_it_says_so(status: int, told: str, *, transient: bool) -> None:
    assert is_transient(status_error(status, CIMultiDict({"x-should-retry": told}), b"{}", NOW)) is transient
