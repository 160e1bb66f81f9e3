"""A GET that answers with JSON: read to its end, then its values, at the pace of those who hold its gate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import aiohttp
from reactivex import abc

from rxrouter._errors import ContentTypeError, EventTooLargeError, ProtocolError, RouterError
from rxrouter._source.loop import Home
from rxrouter._source.request import Outgoing, Request, Timeouts, is_success
from rxrouter._wire.failure import body_error

_JSON = "application/json"


class Get(Request):
    """One question about the account or the catalogue; it changes nothing and costs nothing."""

    def __init__(  # noqa: PLR0913 - what a request is made of
        self,
        home: Home,
        session: Callable[[], aiohttp.ClientSession],
        outgoing: Outgoing,
        *,
        timeouts: Timeouts,
        max_bytes: int,
        decode: Callable[[bytes], Iterable[Any]],
        observer: abc.ObserverBase[Any],
    ) -> None:
        super().__init__(home, session, outgoing, timeouts, observer)
        self._max_bytes = max_bytes
        self._decode = decode
        home.call(self._start)

    async def _exchange(self) -> None:
        answer = await self._ask()
        if isinstance(answer, RouterError):
            self._finish(answer)
            return
        for value in answer:
            self._observer.on_next(value)
            if self._gate.closed:
                await self._gate.opened()
                if self._disposed:
                    break
        self._finish(None)

    async def _ask(self) -> Iterable[Any] | RouterError:
        opened = await self._open("GET", sock_read=self._timeouts.silence)
        if isinstance(opened, RouterError):
            return opened
        if not is_success(opened.status):
            return await self._refused(opened)
        body, cut = await self._page(opened.content, max_bytes=self._max_bytes + 1)
        if cut is not None or len(body) > self._max_bytes:
            return cut or EventTooLargeError(self._max_bytes)
        try:
            return self._decode(body)
        except ProtocolError as error:
            kind = opened.content_type
            return body_error(body) or (error if kind == _JSON else ContentTypeError(kind, body, expected=_JSON))
