"""The whole error tree on one screen, and which of them are worth another try."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

# WIRE 7 and 13.11: what OpenRouter calls transient, in a status line, in an error chunk or as a stable error type.
_TRANSIENT_STATUS = {408, 429, *range(500, 600)}
_TRANSIENT_TYPES = {
    "rate_limit_exceeded",
    "server",
    "server_error",
    "unmapped",
    "provider_unavailable",
    "provider_overloaded",
    "overloaded_error",
    "timeout",
}


class RouterError(Exception):
    """Root of everything that can end a stream; facts are attributes, the text is for people."""

    transient: bool = False  # would the same request have a chance if it were sent again?
    generation_id: str | None = None  # X-Generation-Id: by it OpenRouter tells what the attempt cost
    chunks_seen: int = 0  # chunks delivered before the end
    elapsed: float | None = None  # seconds from the POST to the end
    partial: Any = None  # the ChatCompletion so far, where a fold is in the chain
    attempts: tuple[Exception, ...] = ()  # what the attempts before this one ended with, retries and other sources


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
            else code in _TRANSIENT_STATUS or code in _TRANSIENT_TYPES or error_type in _TRANSIENT_TYPES
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
            self.transient = status in _TRANSIENT_STATUS


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

    def __init__(self, content_type: str, data: bytes = b"") -> None:
        super().__init__(f"expected text/event-stream, got {content_type or 'no content type'}")
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


class ChunkDecodeError(ProtocolError):
    """The data of an event is no JSON, or no chunk."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(f"an event of {len(data)} bytes is no chunk: {path}")
        self.path = path  # what was expected where, in the words of the decoder
        self.data = data


class IncompleteToolCallError(RouterError):
    """The model asked for tools, and there is no proof that it finished asking: what came must not be run."""

    def __init__(self, reason: str, calls: Sequence[Any] = (), finish_reasons: Sequence[str] = ()) -> None:
        super().__init__(f"{len(calls)} tool call{'s' * (len(calls) != 1)} without proof of being whole: {reason}")
        self.reason = reason
        self.calls = tuple(calls)  # the ToolCalls that were not released, as received
        self.finish_reasons = tuple(finish_reasons)  # all that were given, native ones too


class ClientClosedError(RouterError):
    """The client was closed under a running stream."""

    def __init__(self, message: str = "the client is closed") -> None:
        super().__init__(message)


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
