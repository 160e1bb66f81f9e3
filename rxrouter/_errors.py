"""The whole error tree on one screen, and which of them are worth another try."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, Self, TypeVar

_TRANSIENT_STATUS = {408, 429, *range(500, 600)}
_STATUSES = range(100, 600)
# Words for limits and for faults of the server, in codes and types of any spelling, with nothing but letters left.
_TRANSIENT_WORDS = re.compile(
    "ratelimit|toomanyrequests|throttl|overload|unavailable|timeout|timedout|deadlineexceeded|resource[a-z]*exhausted"
    "|servererror|connectionerror|serverbusy|badgateway|capacity"
    "|^(?:server|internal|internalerror|apierror|unmapped|aborted)$"
)
_LETTERS = re.compile("[^a-z]+")


def is_transient_status(status: int) -> bool:
    """Whether a request that ended with this HTTP status has a chance when it is sent again."""
    return status in _TRANSIENT_STATUS


def _is_transient_code(code: int | str | None, error_type: str | None) -> bool:
    """Whether an error is transient by its code, where that is an HTTP status, else by its words."""
    if isinstance(code, int) and code in _STATUSES:
        return is_transient_status(code)
    words = (_LETTERS.sub("", word.lower()) for word in (code, error_type) if isinstance(word, str))
    return any(_TRANSIENT_WORDS.search(word) for word in words)


class RouterError(Exception):
    """Root of everything that can end a stream; facts are attributes, the text is for people."""

    transient: bool = False  # would the same request have a chance if it were sent again?
    generation_id: str | None = None  # X-Generation-Id: by it OpenRouter tells what the attempt cost
    chunks_seen: int = 0  # chunks delivered before the end
    elapsed: float | None = None  # seconds from the POST to the end
    partial: Any = None  # the ChatCompletion so far, where a fold is in the chain
    attempts: tuple[Exception, ...] = ()  # what the attempts before this one ended with, retries and other sources

    def __reduce__(self) -> tuple[Any, ...]:
        """Give pickle and deepcopy the text and the facts; the constructor has other arguments than those.

        The cause goes with it. One of another library may hold sockets or locks: of such a cause, type and text go.
        """
        cause = None if self.__cause__ is None else _portable(self.__cause__)
        return _blank, (type(self), self.args), (vars(self).copy(), cause)

    def __setstate__(self, state: Any) -> None:
        """Take the facts and the cause."""
        facts, self.__cause__ = state
        vars(self).update(facts)

    def __copy__(self) -> Self:
        """Return the same error as an object of its own, with the same cause."""
        copy = _blank(type(self), self.args)
        copy.__setstate__((vars(self), self.__cause__))
        return copy


E = TypeVar("E", bound=RouterError)


def _blank(kind: type[E], args: tuple[Any, ...]) -> E:
    """Return an error with this text, and without facts."""
    return kind.__new__(kind, *args)


def _portable(cause: BaseException) -> BaseException:
    """Return a cause that can be pickled: ours and Python's own as they are, of any other its type and text."""
    kind = type(cause)
    if isinstance(cause, RouterError):
        return cause
    if kind.__module__ == "builtins" and all(isinstance(arg, str | bytes | int | float | None) for arg in cause.args):
        return kind(*cause.args)
    try:
        return RouterError(f"{kind.__name__}: {cause}")
    except Exception:  # noqa: BLE001 - the text of another library's class
        return RouterError(kind.__name__)


class TransportError(RouterError):
    """Refused, reset, cut, unresolvable, no TLS; chained from what the network said."""

    transient = True

    def __init__(self, message: str = "the connection failed", *, phase: Literal["connect", "read"]) -> None:
        super().__init__(message)
        self.phase = phase


class ConnectTimeoutError(TransportError):
    """No connection within `Timeouts.connect`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no connection within {seconds:g} s", phase="connect")
        self.seconds = seconds


class SilenceTimeoutError(TransportError):
    """Not one byte, not even a keep-alive comment, for `Timeouts.silence`."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"not one byte for {seconds:g} s", phase="read")
        self.seconds = seconds


class ContentTimeoutError(RouterError):
    """No content in time, whatever else came: the operator `timeouts` has closed the request."""

    transient = True

    def __init__(  # noqa: PLR0913 - the diagnosis
        self,
        clock: Literal["first", "gap", "total"],
        limit: float,
        *,
        elapsed: float | None = None,
        chunks_seen: int = 0,
        last_comment_age: float | None = None,
        generation_id: str | None = None,
        provider: str | None = None,
    ) -> None:
        what = {"first": "no content within", "gap": "no more content for", "total": "not finished within"}[clock]
        comment = "" if last_comment_age is None else f", the last keep-alive {last_comment_age:.1f} s ago"
        super().__init__(f"{what} {limit:g} s; {chunks_seen} chunks so far{comment}")
        self.clock = clock  # the limit that has passed: first_content, content or total
        self.limit = limit  # seconds
        self.elapsed = elapsed  # seconds since the subscription
        self.chunks_seen = chunks_seen
        self.last_comment_age = last_comment_age  # seconds; None if there was no keep-alive
        self.generation_id = generation_id
        self.provider = provider


class ContinuationRefusedError(RouterError):
    """What has come can't be gone on from by sending it back; chained from what cut it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the answer was cut and can't be continued: {reason}")
        self.reason = reason


class APIError(RouterError):
    """OpenRouter, or the provider behind it, answered no."""

    def __init__(  # noqa: PLR0913 - the facts of the error object
        self,
        text: str,
        *,
        code: int | str | None,
        message: str,
        metadata: dict[str, Any] | None,
        error_type: str | None,
        provider: str | None,
        retryable: bool | None,
        retry_after: float | None,
    ) -> None:
        super().__init__(text)
        self.code = code
        self.message = message
        self.metadata = metadata
        self.error_type = error_type
        self.provider = provider
        self.retry_after = retry_after  # seconds, if the server named a pause
        self.transient = (
            retryable  # error.availability.retryable is OpenRouter's own word on it
            if retryable is not None
            else _is_transient_code(code, error_type)
        )


class StatusError(APIError):
    """Before the stream: an HTTP status that is no 200."""

    def __init__(  # noqa: PLR0913 - the facts of the error body
        self,
        status: int,
        code: int | str | None = None,
        message: str = "",
        metadata: dict[str, Any] | None = None,
        retry_after: float | None = None,
        *,
        error_type: str | None = None,
        provider: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(
            f"HTTP {status}: {message}" if message else f"HTTP {status}",
            code=status if code is None else code,
            message=message,
            metadata=metadata,
            error_type=error_type,
            provider=provider,
            retryable=retryable,
            retry_after=retry_after,
        )
        self.status = status
        if retryable is None:
            self.transient = is_transient_status(status)


class StreamError(APIError):
    """After HTTP 200: an error in the stream, or in place of it."""

    def __init__(  # noqa: PLR0913 - the facts of the error chunk
        self,
        code: int | str | None = None,
        message: str = "",
        error_type: str | None = None,
        provider: str | None = None,
        *,
        metadata: dict[str, Any] | None = None,
        retryable: bool | None = None,
        retry_after: float | None = None,
        usage: Any = None,
    ) -> None:
        named = " ".join(str(x) for x in (provider, code) if x is not None)
        super().__init__(
            f"the stream failed ({named}): {message}" if named else f"the stream failed: {message}",
            code=code,
            message=message,
            metadata=metadata,
            error_type=error_type,
            provider=provider,
            retryable=retryable,
            retry_after=retry_after,
        )
        self.usage = usage  # what the failed attempt was billed, where the stream said so


class ProtocolError(RouterError):
    """The peer broke the contract of the wire."""


class ContentTypeError(ProtocolError):
    """A 200 that is no event stream and no error either."""

    def __init__(self, content_type: str, data: bytes = b"", expected: str = "text/event-stream") -> None:
        super().__init__(f"expected {expected}, got {content_type or 'no content type'}")
        self.content_type = content_type
        self.data = data  # the first bytes of the body


class EventTooLargeError(ProtocolError):
    """One event passed `max_event_bytes`."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an event is larger than {limit_bytes} bytes (max_event_bytes)")
        self.limit_bytes = limit_bytes
        self.events: list[Any] = []  # what the same block held before it; the source has delivered it


class TruncatedStreamError(ProtocolError):
    """The body ended, cleanly, with neither a finish reason nor [DONE]."""

    transient = True

    def __init__(self, message: str = "the body ended with neither a finish reason nor [DONE]") -> None:
        super().__init__(message)


class EmptyAnswerError(RouterError):
    """The model finished without a word: `retry_transient` asks again, and ends with this if that gives no more."""

    transient = True

    def __init__(self, finish_reason: str | None = None, usage: Any = None) -> None:
        super().__init__(f"the answer is finished (finish_reason {finish_reason}) and has no content")
        # As the server gave it.
        self.finish_reason = finish_reason
        # Of the empty answer, where the stream had it: it is billed.
        self.usage = usage


class ChunkDecodeError(ProtocolError):
    """The data of an event is no JSON, or no chunk."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(f"an event of {len(data)} bytes is no chunk: {path}")
        self.path = path  # what was expected where, in the words of the decoder
        self.data = data


class AnswerDecodeError(ProtocolError):
    """The answer's text is no JSON document, or not of the type that was asked for."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"the answer's text was refused at character {position}: {reason}")
        self.reason = reason  # in the words of the decoder; of the text it has nothing
        self.position = position  # in characters, from 0


class IncompleteToolCallError(RouterError):
    """The model asked for tools, and there is no proof that it finished asking: what came must not be run."""

    def __init__(self, reason: str, calls: Sequence[Any] = (), finish_reasons: Sequence[str] = ()) -> None:
        super().__init__(f"{len(calls)} tool call{'s' * (len(calls) != 1)} without proof of being whole: {reason}")
        self.reason = reason
        self.calls = tuple(calls)  # the ToolCalls that were not released, as received
        self.finish_reasons = tuple(finish_reasons)  # all that were given, native ones too


class BudgetExceededError(RouterError):
    """More was spent than `budget` allowed, or nothing is left to begin with."""

    def __init__(
        self, which: Literal["cost", "tokens"], limit: float, spent: float, *, estimated: bool = False
    ) -> None:
        unit = "credits" if which == "cost" else "tokens"
        super().__init__(f"the budget of {limit:g} {unit} is spent: {spent:g}{' by estimate' if estimated else ''}")
        self.which = which
        self.limit = limit
        self.spent = spent
        self.estimated = estimated  # what servers said alone does not reach it


class GuardError(RouterError):
    """`guard` cut the text; its check raises this, with a reason that is for people and has nothing of the text."""

    def __init__(self, reason: str = "the text was refused") -> None:
        super().__init__(reason)
        self.reason = reason


class ClientClosedError(RouterError):
    """The client was closed under a running stream."""

    def __init__(self, message: str = "the client is closed") -> None:
        super().__init__(message)


class UnknownGenerationError(RouterError):
    """No log has a generation under this key: never started, or long forgotten."""

    def __init__(self, key: str) -> None:
        super().__init__("there is no generation under this key")
        self.key = key  # not in the text: who knows a key may read


class GenerationCycleError(RouterError):
    """The chunks of a generation follow the generation itself, so that it would never end."""

    def __init__(self, key: str) -> None:
        super().__init__("the generation follows itself")
        self.key = key


class GenerationStopped(RouterError):  # noqa: N818 - somebody wanted it so
    """Somebody asked for the end, by `Hub.stop`."""

    def __init__(self) -> None:
        super().__init__("the generation was stopped")


class GenerationTooLargeError(RouterError):
    """A shared generation passed what its hub allows one to have."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the generation is larger than {limit_bytes} bytes (max_bytes)")
        self.limit_bytes = limit_bytes


class ProducerLostError(RouterError):
    """The process that made the generation died, or closed its hub, before the end."""

    transient = True

    def __init__(self, message: str = "the generation's producer is gone") -> None:
        super().__init__(message)


class LogLostError(RouterError):
    """The log of a generation is gone, in whole or in part, or out of reach for too long."""

    transient = True

    def __init__(self, reason: str) -> None:
        super().__init__(f"the generation's log is lost: {reason}")
        self.reason = reason


class SlowReaderError(RouterError):
    """A reader's queue is full and its source can't be paused, or must not be."""

    def __init__(self, capacity: int) -> None:
        super().__init__(f"a reader is more than {capacity} values behind")
        self.capacity = capacity


def is_transient(error: BaseException) -> bool:
    """Whether the same request, sent again, has a chance: 408, 429, 5xx, cut connections, silence; never 400 or 401.

    Args:
        error: What a stream ended with; anything but a `RouterError` is not transient.
    """
    return isinstance(error, RouterError) and error.transient
