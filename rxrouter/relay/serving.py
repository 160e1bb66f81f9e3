"""Serving: what the responses of all servers have in common: the options, which stream, how it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from secrets import token_urlsafe
from typing import Any, NamedTuple

from reactivex import Observable

from rxrouter._errors import RouterError, UnknownGenerationError
from rxrouter._wire.chunk import ChatChunk
from rxrouter.operators.coalesce import coalesce as coalesced
from rxrouter.relay.answer import Answer
from rxrouter.relay.dialects.dialect import Dialect, Encoder
from rxrouter.relay.failure import Explain, Failure, failure_of, unexplained
from rxrouter.relay.frames import Place
from rxrouter.sharing.hub import Hub

_KEY_HEADER = "X-Generation-Key"


class Head(NamedTuple):
    """How a response begins."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None = None  # if that is all of it


class Reading:
    """One response to be: its answer, and how that is begun."""

    def __init__(
        self, answer: Answer, source: Callable[[], Observable[ChatChunk]], headers: Mapping[str, str], prime: float
    ) -> None:
        self.answer = answer
        self._source = source
        self._headers = headers
        self._prime = prime

    async def begin(self, wake: Callable[[], object]) -> Head:
        """Subscribes, and decides on the head, which must be sent now; if it has no body, the answer behind it."""
        answer = self.answer
        answer.start(self._source, wake)
        await answer.primed(self._prime)
        if answer.failure is not None:
            return _refusal(answer.failure)
        if answer.complete:
            return Head(204, {}, b"")
        answer.open()  # before it is sent, which may take a while: what fails meanwhile is told in the body
        return Head(200, self._headers)


class Serving:
    """The options of a response, which are those of `respond`, checked where they are written.

    Raises:
        TypeError: an option is no such thing.
        ValueError: neither `chunks` nor the key of a generation, a key without a hub, or an empty one; seconds out of
            range; `coalesce` without chunks.
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
            if chunks is None:
                raise ValueError("coalesce is for the chunks of this response, not for what others have begun")
            chunks = chunks.pipe(coalesced(coalesce))  # `pipe` keeps it on its client's loop
        self.send_timeout = send_timeout
        self._dialect = dialect
        self._prime = prime
        self._keep_alive = keep_alive
        self._explain = explain
        self._chunks: Any = chunks  # None with a hub only
        self._hub = hub
        self._key = key

    def open(self, method: str, last_event_id: str | None) -> Reading | Head:
        """What a response is to read; only a head, if it is to read nothing."""
        encoder = self._dialect()
        headers = _headers_of(encoder)
        if method == "HEAD":
            return Head(200, headers)
        if self._hub is None:
            return self._reading(encoder, None, lambda: self._chunks, headers)
        key = self._key or token_urlsafe()
        if self._key is None:
            headers[_KEY_HEADER] = key
            if last_event_id:  # what begins only now can't be what the reader comes back to
                return _refusal(failure_of(UnknownGenerationError(key), unexplained))
        try:
            after = Place.parse(last_event_id) if last_event_id else Place()
        except ValueError as error:
            return _refusal(Failure(400, "bad_event_id", f"{error}."))
        source = partial(self._generation, self._hub, key, may_begin=after == Place())
        return self._reading(encoder, after if encoder.framing.numbered else None, source, headers)

    def _reading(
        self,
        encoder: Encoder,
        after: Place | None,
        source: Callable[[], Observable[ChatChunk]],
        headers: Mapping[str, str],
    ) -> Reading:
        answer = Answer(encoder, explain=self._explain, keep_alive=self._keep_alive, after=after)
        return Reading(answer, source, headers, self._prime)

    def _generation(self, hub: Hub, key: str, *, may_begin: bool) -> Observable[ChatChunk]:
        """Who comes back joins only: behind the place in what is forgotten, another one would go on."""
        return hub.start(key, self._chunks) if may_begin and self._chunks is not None else hub.follow(key)


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


def _headers_of(encoder: Encoder) -> dict[str, str]:
    """Those of a body that is sent as it comes: nobody on its way is to keep, change or collect it."""
    return {
        "Cache-Control": "no-cache, no-transform",
        "Content-Encoding": "identity",  # compressing middleware, which waits for more, leaves alone what has one
        "X-Accel-Buffering": "no",
        **encoder.framing.headers,
    }


def _refusal(failure: Failure) -> Head:
    return Head(failure.status, failure.headers(), failure.body())


async def stopped(hub: Hub, key: str) -> Head:
    """Stops a generation, and says so, or what hindered it."""
    try:
        await hub.stop(key)
    except RouterError as error:
        return _refusal(failure_of(error, unexplained))
    return Head(204, {}, b"")
