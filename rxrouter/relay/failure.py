"""Failure: what of an error is for whoever reads the relayed answer: a status, a code, a sentence."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec
from msgspec import Struct

from rxrouter._errors import (
    APIError,
    BudgetExceededError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTimeoutError,
    GenerationStopped,
    GuardError,
    LogLostError,
    ProducerLostError,
    RouterError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    UnknownGenerationError,
)

_LONGEST_PAUSE = 86_400  # seconds; readers have timers that overflow, and nobody waits for more than a day

Explain = Callable[[Exception], str | None]
"""Chooses what people are told of an error; None for the sentence that stands for its kind."""


class Failure(Struct, frozen=True):
    """An error as it is told over HTTP; of the error's own text it has nothing, unless somebody chose so."""

    status: int
    code: str
    message: str
    retry_after: int | None = None  # seconds

    def body(self) -> bytes:
        """The JSON that OpenAI's and OpenRouter's clients know as an error."""
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.code, "code": self.status, "param": None}}
        )

    def headers(self) -> dict[str, str]:
        """What goes with the body."""
        headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers


_UPSTREAM = Failure(502, "upstream_failed", "The model's answer failed.")
INTERNAL = Failure(500, "internal", "The server made a mistake.")

# Statuses of the model's side that say something to the reader. Whether our key is known, has credit, and may do what
# it does (401, 402, 403) is between us and the model's side.
_BY_CODE = {
    400: Failure(400, "bad_request", "The model does not accept this request."),
    404: Failure(404, "not_found", "There is no such model."),
    408: Failure(504, "timeout", "The model did not answer in time."),
    413: Failure(413, "too_large", "The request is too large for the model."),
    422: Failure(422, "unprocessable", "The model cannot process this request."),
    429: Failure(429, "rate_limited", "Too many requests; try again a little later."),
    503: Failure(503, "overloaded", "The model is overloaded; try again a little later."),
    504: Failure(504, "timeout", "The model did not answer in time."),
}

_BY_KIND: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Failure], ...] = (
    ((ContentTimeoutError, ConnectTimeoutError, SilenceTimeoutError), _BY_CODE[504]),
    (BudgetExceededError, Failure(402, "budget_exceeded", "What may be spent on this is spent.")),
    (GuardError, Failure(422, "withheld", "The answer was withheld.")),
    (UnknownGenerationError, Failure(404, "unknown_generation", "There is no such answer, or it is forgotten.")),
    (GenerationStopped, Failure(409, "stopped", "The answer was stopped.")),
    (
        (ClientClosedError, ProducerLostError, LogLostError, SlowReaderError),
        Failure(503, "unavailable", "The server is busy with itself; try again a little later."),
    ),
    (RouterError, _UPSTREAM),
)


def failure_of(error: Exception, explain: Explain) -> Failure:
    """What is told of an error."""
    failure = _known(error)
    if message := explain(error):
        sendable = message.encode(errors="replace").decode()  # half a surrogate pair has no bytes
        failure = msgspec.structs.replace(failure, message=sendable)
    pause = error.retry_after if isinstance(error, APIError) else None
    if pause is not None and math.isfinite(pause):
        failure = msgspec.structs.replace(failure, retry_after=min(max(0, math.ceil(pause)), _LONGEST_PAUSE))
    return failure


def unexplained(error: Exception) -> str | None:
    """The default: nothing of the error's own text."""
    return None


def _known(error: Exception) -> Failure:
    if isinstance(error, APIError):
        code = error.status if isinstance(error, StatusError) else error.code
        return _BY_CODE.get(code, _UPSTREAM) if isinstance(code, int) else _UPSTREAM
    return next((failure for kind, failure in _BY_KIND if isinstance(error, kind)), INTERNAL)
