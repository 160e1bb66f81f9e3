"""Serving: what the responses of all servers have in common: the options, which stream, which headers."""

from __future__ import annotations

from collections.abc import Mapping
from secrets import token_urlsafe
from typing import Any, NamedTuple

from reactivex import Observable

from rxrouter._errors import RouterError, UnknownGenerationError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators._types import Operator
from rxrouter.operators.coalesce import coalesce as coalesced
from rxrouter.relay.dialects.dialect import Dialect, Encoder
from rxrouter.relay.failure import Explain, Failure, failure_of, unexplained
from rxrouter.relay.frames import Place
from rxrouter.sharing.hub import Hub

_KEY_HEADER = "X-Generation-Key"


class Served(NamedTuple):
    """What one response reads."""

    chunks: Observable[ChatChunk]
    after: Place | None  # how far the reader is; None where frames have no ids
    headers: Mapping[str, str]  # how the reader learns the key that was made for it


class Serving:
    """The options of a response, which are those of `respond`, checked where they are written.

    Raises:
        TypeError: an option is no such thing.
        ValueError: neither `chunks` nor the key of a generation, a key without a hub, or an empty one; seconds out of
            range.
    """

    def __init__(  # noqa: PLR0913 - the settings of a response
        self,
        chunks: Observable[ChatChunk] | None,
        *,
        dialect: Dialect,
        hub: Hub | None,
        key: str | None,
        prime: float,
        keep_alive: float,
        send_timeout: float,
        coalesce: float | None,
        explain: Explain,
    ) -> None:
        _check_kinds(chunks, hub, key, dialect, explain)
        if not prime >= 0:
            raise ValueError(f"prime is a number of seconds >= 0, not {prime}")
        if not (keep_alive > 0 and send_timeout > 0):
            raise ValueError("keep_alive and send_timeout are numbers of seconds > 0")
        if coalesce is not None:
            fewer: Operator[ChatChunk, ChatChunk] = coalesced(coalesce)
            chunks = None if chunks is None else fewer(chunks)
        self.dialect = dialect
        self.prime = prime
        self.keep_alive = keep_alive
        self.send_timeout = send_timeout
        self.explain = explain
        self._chunks: Any = chunks  # None with a hub only
        self._hub = hub
        self._key = key

    def open(self, encoder: Encoder, last_event_id: str | None) -> Served | Failure:
        """The stream that this response reads; a failure, if there can be none."""
        if self._hub is None:
            return Served(self._chunks, None, {})
        key = self._key or token_urlsafe()
        told = {} if self._key else {_KEY_HEADER: key}
        try:
            if told and last_event_id:  # what begins only now can't be what the reader comes back to
                raise UnknownGenerationError(key)
            after = Place.parse(last_event_id) if last_event_id else Place()
            if self._chunks is not None:
                self._hub.start(key, self._chunks)
            return Served(self._hub.follow(key), after if encoder.framing.numbered else None, told)
        except ValueError as error:
            return Failure(400, "bad_event_id", f"{error}.")
        except RouterError as error:
            return failure_of(error, unexplained)


def _check_kinds(chunks: Any, hub: Any, key: Any, dialect: Any, explain: Any) -> None:
    if not (chunks is None or isinstance(chunks, Observable)):
        raise TypeError(f"chunks is an Observable, or None, not {type(chunks).__name__}")
    if not (hub is None or isinstance(hub, Hub)):
        raise TypeError(f"hub is a Hub, or None, not {type(hub).__name__}")
    if not (key is None or isinstance(key, str)):
        raise TypeError(f"key is a string, or None, not {type(key).__name__}")
    if not (callable(dialect) and callable(explain)):
        raise TypeError("dialect is a class, or a function that makes an Encoder, and explain is a function")
    if key is not None and (hub is None or not key):
        raise ValueError("a key is not empty, and comes with its hub")
    if chunks is None and key is None:
        raise ValueError("a response needs chunks, or a hub and the key of a generation")


def headers_of(encoder: Encoder) -> Mapping[str, str]:
    """Those of a body that is sent as it comes: nobody on its way is to keep, change or collect it."""
    return {
        "Cache-Control": "no-cache, no-transform",
        "Content-Encoding": "identity",  # compressing middleware, which waits for more, leaves alone what has one
        "X-Accel-Buffering": "no",
        **encoder.framing.headers,
    }


async def stopped(hub: Hub, key: str) -> Failure | None:
    """Stops a generation; what hindered it."""
    try:
        await hub.stop(key)
    except RouterError as error:
        return failure_of(error, unexplained)
    return None
