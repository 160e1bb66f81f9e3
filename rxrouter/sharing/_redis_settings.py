"""What all parts of a RedisLog are told."""

from __future__ import annotations

from typing import NamedTuple


class Settings(NamedTuple):
    """See `RedisLog`; times are in seconds."""

    namespace: str
    lease: float
    keep: float
    outage: float
    buffer_bytes: int
