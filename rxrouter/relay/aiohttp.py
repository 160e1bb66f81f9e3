"""respond(): a stream as the answer to a request of aiohttp.web."""

from __future__ import annotations

from aiohttp import web
from reactivex import Observable

from rxrouter._wire.chunk import ChatChunk
from rxrouter.relay.connection import Connection
from rxrouter.relay.desk import connections
from rxrouter.relay.dialects.dialect import Dialect
from rxrouter.relay.dialects.openai import OpenAIChunks
from rxrouter.relay.failure import Explain, unexplained
from rxrouter.relay.serving import Head, Serving, stopped
from rxrouter.sharing.hub import Hub

__all__ = ["respond", "shutdown", "stop"]


async def respond(  # noqa: PLR0913 - the settings of a response
    request: web.BaseRequest,
    chunks: Observable[ChatChunk] | None,
    *,
    dialect: Dialect = OpenAIChunks,
    hub: Hub | None = None,
    key: str | None = None,
    prime: float = 10.0,
    keep_alive: float = 15.0,
    send_timeout: float = 30.0,
    coalesce: float | None = None,
    explain: Explain = unexplained,
) -> web.StreamResponse:
    """Answer a request with a stream, for as long as somebody reads it.

    A failure before the first content is an HTTP status, with `Retry-After` where the model's side said so, and a JSON
    body. Otherwise the answer is a 200, which begins with the first content, and its end says how it ended.

    A reader that leaves is noticed, also while all is silent, and cancels the stream. With a hub only the reading ends:
    the generation goes on, each frame has an id, and who comes back with `Last-Event-ID` gets what is missing, then
    what comes, then the end; also when all is over. A 204 says that nothing is missing: on it an EventSource rests.
    Without a hub an EventSource, which comes back after every end, begins a new generation: read that by `fetch`.

    A HEAD gets the headers; nothing is subscribed.

    Args:
        request: The request. Read its body before: behind an unread one, a leave is not noticed before a keep-alive.
        chunks: The stream; subscribed once. With a hub it begins the generation, unless there is one under the key;
            None is for joining what others have begun.
        dialect: How it is said: a class of `rxrouter.relay`, or what makes an `Encoder`.
        hub: Where the generation lives on when the reader leaves.
        key: Its name there. Who knows it can read it: let nobody guess it, or check who asks. When None, one is made
            that nobody guesses, and told in the header `X-Generation-Key`.
        prime: How long the status waits for the first content, in seconds.
        keep_alive: Silence after which a comment is sent, in seconds; proxies cut what is silent for 30 to 60. Comments
            of the model's server are passed on, too, to the reader that began the generation.
        send_timeout: How long a reader may take nothing of what is sent, in seconds; then its connection is dropped.
            A slow reader keeps its connection: on Linux, all that the reader's machine acknowledges counts, and the
            kernel drops a reader that takes nothing of what it keeps itself; elsewhere, this begins when the kernel's
            buffers, and 64 KB here, are full, and what the kernel takes counts.
        coalesce: Seconds of the stream that become one chunk; see the operator `coalesce`.
        explain: What people are told of an error. By default a sentence for its kind: what a provider wrote may say
            more than they should know.

    Returns:
        The response, sent.

    Raises:
        TypeError: an option is of the wrong kind.
        ValueError: neither chunks nor the key of a generation, a key without a hub, or an empty one; seconds out of
            range; `coalesce` without chunks.
    """
    serving = Serving(
        chunks,
        dialect=dialect,
        hub=hub,
        key=key,
        prime=prime,
        keep_alive=keep_alive,
        send_timeout=send_timeout,
        coalesce=coalesce,
        explain=explain,
    )
    reading = serving.open(request.method, request.headers.get("Last-Event-ID"))
    if isinstance(reading, Head):
        return _response(reading)
    transport = request.transport
    if transport is None or transport.is_closing():  # the reader has left already
        return web.Response()
    connection = Connection(request, transport, reading.answer, send_timeout)
    try:
        head = await reading.begin(connection.wake)
        response = _response(head)
        if head.body is None:
            await connection.send(response)
        return response
    finally:
        connection.close()


async def stop(hub: Hub, key: str) -> web.Response:
    """Answer a request to stop a generation, which is not the same as to stop reading: 204, or a JSON error.

    Args:
        hub: Where it lives.
        key: Its name there.
    """
    return _whole(await stopped(hub, key))


async def shutdown(app: web.Application) -> None:
    """End all responses of an application, now: `app.on_shutdown.append(shutdown)`.

    Without it aiohttp waits for them, a minute by default, and then cuts them. So long it also waits for a connection
    that is made just then, and that it does not answer any more (3.14): give it a short `shutdown_timeout`.

    Args:
        app: Whose server is closing.
    """
    for connection in connections():
        if connection.is_of(app):
            connection.answer.shut_down()


def _response(head: Head) -> web.StreamResponse:
    return web.StreamResponse(status=head.status, headers=head.headers) if head.body is None else _whole(head)


def _whole(head: Head) -> web.Response:
    return web.Response(status=head.status, headers=head.headers, body=head.body)
