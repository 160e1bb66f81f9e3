"""OpenRouter: one method an endpoint, each a cold Observable."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote
from weakref import ref

import aiohttp
import msgspec
from reactivex import Observable, abc

from rxrouter._attempt import Attempt
from rxrouter._chain import SourceProof
from rxrouter._continuation import continued
from rxrouter._errors import ClientClosedError
from rxrouter._gate import Gate
from rxrouter._limiter import Limiter
from rxrouter._source.decode import ChunkReader, EventReader, Reader
from rxrouter._source.endpoint import Endpoint, checked_headers, merged_headers
from rxrouter._source.get import Get
from rxrouter._source.loop import Home
from rxrouter._source.observable import Direct, LoopObservable
from rxrouter._source.post import Post
from rxrouter._source.receipts import Receipts
from rxrouter._source.request import Outgoing, Timeouts
from rxrouter._source.resources import Connector
from rxrouter._wire.account import Credits, Generation, Key, Model, Receipt, answered
from rxrouter._wire.chunk import ChatChunk
from rxrouter._wire.json import Received
from rxrouter._wire.request import ChatRequest, chat_request
from rxrouter._wire.sse import MAX_EVENT_BYTES, Comment, ServerSentEvent
from rxrouter._wire.surrogates import encoded

A = TypeVar("A", bound=Received)


class OpenRouter:
    """A client of OpenRouter, or of any server that speaks OpenAI's chat completions.

    It belongs to the event loop in which it is first used; used where none runs, it starts one on a daemon thread.
    `async with` and `with` close it: streams still running end with ClientClosedError.

    Args:
        api_key: The key; the environment's OPENROUTER_API_KEY when None, which goes to OpenRouter, and to another
            server only if OPENROUTER_BASE_URL names that.
        base_url: Where the API is; the environment's OPENROUTER_BASE_URL, or OpenRouter's own, when None. Its query
            goes with every request.
        timeouts: The connection's clocks; see `Timeouts`.
        app_url: Your application's URL, for OpenRouter's attribution.
        app_title: Your application's name, likewise.
        headers: More headers for every request.
        max_event_bytes: Largest event, in bytes; images come as one event.
        limiter: Gives each `chat()` and `events()` its permit, each attempt of a retry its own; see `Limiter`.
        session: An aiohttp session to use instead of an own one: proxies, certificates, connection limits by aiohttp's
            means. It is not closed with the client. Bytes that a server sends between an answer and the next request
            are left to aiohttp there, which may read them as the next answer; an own session closes the connection.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: `base_url` is not an http(s) URL, or has a fragment; the key has white space in it; a header name is
            not valid, or belongs to the connection (such as Host and Content-Length).
    """

    def __init__(  # noqa: PLR0913 - the settings of a client
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        app_url: str | None = None,
        app_title: str | None = None,
        headers: Mapping[str, str] | None = None,
        max_event_bytes: int = MAX_EVENT_BYTES,
        limiter: Limiter | None = None,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        texts: dict[str, object] = {
            "api_key": api_key,
            "base_url": base_url,
            "app_url": app_url,
            "app_title": app_title,
        }
        for name, text in texts.items():
            if text is not None and not isinstance(text, str):
                raise TypeError(f"{name} is a string, not {type(text).__name__}")
        self._endpoint = endpoint = Endpoint(base_url)
        key = api_key or endpoint.environment_key()
        if key and (not key.isascii() or key.split() != [key]):
            raise ValueError("the API key has white space or other foreign characters in it")
        if not isinstance(timeouts, Timeouts):  # pyright: ignore[reportUnnecessaryIsInstance] # callers need not be typed
            raise TypeError(f"timeouts is a Timeouts(connect=…, silence=…), not {type(timeouts).__name__}")
        if limiter is not None and not isinstance(limiter, Limiter):  # pyright: ignore[reportUnnecessaryIsInstance] # likewise
            raise TypeError(f"limiter is a Limiter(…), not {type(limiter).__name__}")
        if max_event_bytes <= 0:
            raise ValueError(f"max_event_bytes must be positive, not {max_event_bytes}")
        own = {
            "Authorization": f"Bearer {key}" if key else None,
            "HTTP-Referer": app_url,
            "X-OpenRouter-Title": app_title,
        }
        stream = {
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # a proxy that compresses a stream also buffers it
        }
        given = checked_headers(headers or {})
        self._headers = merged_headers({**own, **stream}, given)
        self._json_headers = merged_headers({**own, "Accept": "application/json"}, given)
        if endpoint.has_user and key:
            raise ValueError("base_url has a user in it, and there is an API key: either authenticates, not both")
        keyless = not any(name.lower() == "authorization" for name in self._headers)
        self._needs_key = endpoint.is_openrouter and keyless
        self._timeouts = timeouts
        self._max_event_bytes = max_event_bytes
        self._limiter = limiter
        self._home = Home() if session is None else Home(way_out="with a session of that loop", moves=False)
        self._sessions = _Sessions(self._home, session, endpoint)
        self._receipts = Receipts(self._home)

    def __repr__(self) -> str:
        return f"OpenRouter(base_url='{self._endpoint}')"

    def chat(self, prompt_or_request: str | ChatRequest | None = None, /, **fields: Any) -> LoopObservable[ChatChunk]:
        """A chat completion as a stream of chunks; nothing is sent, and nothing billed, before somebody subscribes.

        Args:
            prompt_or_request: What the user says, or a whole request.
            **fields: Fields of `ChatRequest`, checked here; with a request, they replace its own.
        Emits: each chunk of the answer as it is decoded, the one with the usage last.
        Errors: every ending that is not a proven finish, as one `RouterError`; see the README's table.
        Cancels: dispose closes the socket, which stops the generation (and for most providers the bill).
        Source: OpenRouter "Streaming", https://openrouter.ai/docs/api-reference/streaming

        Raises:
            TypeError: a field is unknown or has the wrong type, or there is neither prompt nor messages.
            ValueError: a value is out of its range, or there is no API key.
        """
        request = chat_request(prompt_or_request, fields)
        asked = (request.extra or {}).get("n", request.n)
        choices = asked if isinstance(asked, int) else 1  # what `extra` says is for the server to judge
        reader = partial(ChunkReader, self._max_event_bytes, choices)
        return self._stream("/chat/completions", request.encode(), reader, request)

    def events(self, path: str, body: Mapping[str, Any]) -> LoopObservable[ServerSentEvent | Comment]:
        """Return the events and keep-alive comments of any POST that answers with an event stream: the layer below.

        Only the framing is judged. Whether an answer of another protocol is whole is not: a body that ends too early,
        an event such as `response.failed`, and `event: error` all complete. Chunks that are made of these events are
        proven by their finish reasons alone.

        Args:
            path: Below the base URL, such as "/responses".
            body: The JSON body, sent as it is; it is for you to say `"stream": True`.
        Emits: events and comments as they come, `[DONE]` included.
        Errors: as of `chat()`, except that the end of the body is the end, and what the data says is yours to judge.
        Cancels: dispose closes the socket.

        Raises:
            TypeError: the body is no JSON.
            ValueError: there is no API key, or the path has no slash in front, or a fragment.
        """
        return self._stream(path, encoded(body), partial(EventReader, self._max_event_bytes))

    def models(self) -> LoopObservable[Model]:
        """The catalogue, which is public: it needs no key.

        Emits: each model, in the server's order.
        Errors: one `RouterError`, as of `chat()`; a body that is no catalogue is a ProtocolError.
        Cancels: dispose closes the socket.
        Source: OpenRouter "List available models", https://openrouter.ai/docs/api-reference/models/get-models
        """
        return self._get("/models", Model)

    def generation(self, generation_id: str) -> LoopObservable[Generation]:
        """What one generation really was: its cost, its native tokens, who made it, whether it was cancelled.

        Args:
            generation_id: As errors, chunks and receipts tell it.
        Emits: one `Generation`.
        Errors: StatusError 404 for what OpenRouter doesn't know, or not yet: its books are seconds behind.
        Cancels: dispose closes the socket.
        Source: OpenRouter "Get a generation", https://openrouter.ai/docs/api-reference/generations/get-generation

        Raises:
            ValueError: there is no API key, or no id.
        """
        if not generation_id:
            raise ValueError("a generation's id is not empty")
        self._require_key()
        return self._get(f"/generation?id={quote(generation_id, safe='')}", Generation)

    def key(self) -> LoopObservable[Key]:
        """What the key may do, and has done: limit, usage, whether it is of the free tier.

        Emits: one `Key`.
        Errors: one `RouterError`, as of `models()`.
        Cancels: dispose closes the socket.
        Source: OpenRouter "Limits", https://openrouter.ai/docs/api-reference/limits

        Raises:
            ValueError: there is no API key.
        """
        self._require_key()
        return self._get("/key", Key)

    def credits(self) -> LoopObservable[Credits]:
        """What was bought, and what of it was spent.

        Emits: one `Credits`.
        Errors: one `RouterError`, as of `models()`.
        Cancels: dispose closes the socket.
        Source: OpenRouter "Get remaining credits", https://openrouter.ai/docs/api-reference/credits/get-credits

        Raises:
            ValueError: there is no API key.
        """
        self._require_key()
        return self._get("/credits", Credits)

    @property
    def receipts(self) -> LoopObservable[Receipt]:
        """What each generation of this client really cost: completed, failed or cancelled, lost hedges too.

        Hot: it tells of what ends while somebody is subscribed; of what ended before, nothing is known. The cost is the
        stream's own, if it said one, and otherwise what OpenRouter's books say of the generation's id; they are asked
        at most six times in half a minute, and no stream waits for it. What can't be had is unavailable, with the
        reason; nothing is estimated.

        Emits: one `Receipt` a request that reached the server, unless that refused it and named no generation.
        Errors: none; completes when the client is closed, before which each look-up under way gives a receipt without a
            cost: keep the client open until the receipts that you need are there.
        Cancels: dispose; with the last subscriber all look-ups end.
        Source: WIRE 8: a cancelled stream never says its usage, and not all providers stop; `GET /generation` knows.
        """

        def subscribe(
            observer: abc.ObserverBase[Receipt], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return self._receipts.subscribe(observer, self.generation)

        return LoopObservable(Observable(subscribe), self._home)

    def _require_key(self) -> None:
        if self._needs_key:
            raise ValueError("no API key: set OPENROUTER_API_KEY, or pass api_key= (keys: https://openrouter.ai/keys)")

    def _stream(
        self,
        path: str,
        body: bytes,
        reader: Callable[[Gate, Callable[[Any], None]], Reader],
        request: ChatRequest | None = None,
    ) -> LoopObservable[Any]:
        self._require_key()
        outgoing = Outgoing(self._endpoint.url(path), self._headers, body)

        def post(observer: abc.ObserverBase[Any]) -> abc.DisposableBase:
            again = continued(request)
            return Post(
                self._home,
                self._sessions.get,
                outgoing if again is None else msgspec.structs.replace(outgoing, body=again.encode()),
                timeouts=self._timeouts,
                reader=reader,
                settle=self._receipts.ended,
                attempt=Attempt(request, continues=again is not None),
                # Other endpoints have endings of their own, which only the caller can judge.
                proof=None if request is None else SourceProof(),
                observer=observer,
            )

        return self._cold(post, self._limiter, None if request is None else (ref(self), request.model))

    def _get(self, path: str, kind: type[A]) -> LoopObservable[A]:
        outgoing = Outgoing(self._endpoint.url(path), self._json_headers)
        return self._cold(
            lambda observer: Get(
                self._home,
                self._sessions.get,
                outgoing,
                timeouts=self._timeouts,
                max_bytes=self._max_event_bytes,
                decode=partial(answered, kind=kind),
                observer=observer,
            )
        )

    def _cold(
        self,
        request: Callable[[abc.ObserverBase[Any]], abc.DisposableBase],
        limiter: Limiter | None = None,
        origin: Hashable | None = None,
    ) -> LoopObservable[Any]:
        """A request for each subscription."""
        if limiter is None:
            return LoopObservable(Direct(request), self._home, origin)

        def wait(observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None) -> abc.DisposableBase:
            # A refusal needs no permit.
            if self._home.refuses:
                return request(observer)
            return limiter.enter(observer, request, self._home.scheduler)

        return LoopObservable(Observable(wait), self._home, origin)

    async def aclose(self) -> None:
        """Ends running streams with ClientClosedError, and returns when every socket is released.

        So do chains that wait in a timer or a queue. Cancelled, the closing goes on; a further call waits for its end.
        From another loop's thread it waits for the client's loop; one that stands still is not waited for.
        """
        await self._home.aclose()

    def close(self) -> None:
        """The same, without waiting where that would block the client's own loop; elsewhere not for ever."""
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Sessions:
    """The client's aiohttp session: given, or made with the first request, for aiohttp wants the loop running."""

    def __init__(self, home: Home, given: aiohttp.ClientSession | None, endpoint: Endpoint) -> None:
        self._home = ref(home)  # a client that is dropped ends at once
        self._given = given
        self._process = os.getpid()
        self._endpoint = endpoint

    def get(self) -> aiohttp.ClientSession:
        home = self._home()
        assert home is not None  # noqa: S101 - a request holds it
        if self._given is not None and self._process != os.getpid():
            raise RuntimeError("the aiohttp session was given to this client in the process which has forked this one")
        session = self._given or home.resources.session
        if session is not None and session.closed:
            raise ClientClosedError("the aiohttp session is closed")
        if session is None:
            session = home.resources.session = aiohttp.ClientSession(
                connector=Connector(limit=0),  # how many streams at once is for operators to say
                cookie_jar=aiohttp.DummyCookieJar(),  # the edge's cookies are neither needed nor kept
                proxy=self._endpoint.environment_proxy(),
            )
        return session
