"""RetryPolicy: what is tried again, how often, and when."""

from __future__ import annotations

import random
from collections.abc import Callable
from math import inf
from typing import Literal, get_args

from msgspec import Struct

from rxrouter._errors import APIError, ClientClosedError, is_transient

AfterContent = Literal["fail", "restart", "continue"]

_DOUBLINGS = 64  # more would be no float


def _chance() -> float:
    """Return a number from 0 to 1; `random.random` itself can't be pickled without the state behind it."""
    return random.random()  # noqa: S311 - a pause is no secret


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """What is tried again, how often, and when; durations are seconds.

    A pause that the server names (`Retry-After`, `X-RateLimit-Reset`) is kept, or, where it is longer than
    `max_retry_after`, the error passes at once; up to `first_delay` is added, so that not all who share a limit come
    back in one tick. All other pauses are drawn from a range that doubles with each failure. Tests that need exact
    pauses set `jitter=0`, or replace `random`, which returns a number from 0 to 1.

    Raises:
        TypeError: a field has the wrong type.
        ValueError: a value is out of its range.
    """

    attempts: int = 3  # in all, the first one included
    first_delay: float = 0.5
    max_delay: float = 8.0
    jitter: float = 1.0  # the part of a pause that is left to chance: all of it spreads clients best, 0 is for tests
    retry_on: Callable[[Exception], bool] = is_transient  # never asked of ClientClosedError, which stays
    max_retry_after: float = 60.0
    after_content: AfterContent = "fail"
    retry_empty: bool = True
    """Whether an answer that is finished and has no content is tried again, as a transient `EmptyAnswerError`."""
    count_anew: bool = False  # an attempt that brings content is the first of as many again
    random: Callable[[], float] = _chance  # from 0 to 1; what the jitter is drawn with

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
            raise TypeError(f"attempts is a whole number, not {self.attempts!r}")
        if self.attempts < 1:
            raise ValueError(f"attempts is the number of all of them, so at least 1, not {self.attempts}")
        for name in ("first_delay", "max_delay"):
            if not 0 <= getattr(self, name) < inf:
                raise ValueError(f"{name} is a number of seconds >= 0, not {getattr(self, name)}")
        if self.first_delay > self.max_delay:
            raise ValueError(f"first_delay ({self.first_delay:g} s) is longer than max_delay ({self.max_delay:g} s)")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"jitter is from 0 (none) to 1 (full), not {self.jitter}")
        if not self.max_retry_after >= 0:
            raise ValueError(f"max_retry_after is a number of seconds >= 0, not {self.max_retry_after}")
        if self.after_content not in get_args(AfterContent):
            raise ValueError(f"after_content is one of {', '.join(get_args(AfterContent))}, not {self.after_content!r}")
        if not isinstance(self.retry_empty, bool):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
            raise TypeError(f"retry_empty must be True or False, got {self.retry_empty!r}")

    def pause(self, error: Exception, failures: int) -> float | None:
        """Seconds until the next attempt; None if there is none.

        Args:
            error: What the last attempt ended with.
            failures: How many attempts have failed, this one included.
        """
        if failures >= self.attempts or isinstance(error, ClientClosedError) or not self.retry_on(error):
            return None
        named = error.retry_after if isinstance(error, APIError) else None
        if named:
            later = self.jitter * self.random() * self.first_delay
            return min(named + later, self.max_retry_after) if named <= self.max_retry_after else None
        delay = min(self.max_delay, self.first_delay * 2.0 ** min(failures - 1, _DOUBLINGS))
        return delay * (1 - self.jitter * self.random())
