"""A chat whose answers survive a reload: each lives in a hub, under a key that nobody guesses, and pages follow it.

A conversation is a chain. The log of an answer begins with what was asked, and after which answer: so the hub is all
that is kept, and the key of the last answer is all that a page has to know.
"""

import logging
import re
from html import escape
from pathlib import Path
from typing import Annotated

import msgspec
import reactivex as rx
from aiohttp import web
from aiohttp.typedefs import Handler
from msgspec import Meta, Struct
from reactivex import Observable, operators as ops

from examples.chat_app.dialect import ForThePage
from rxrouter import AssistantMessage, ChatChunk, OpenRouter, RetryPolicy, RouterError, UserMessage
from rxrouter.operators import INTERACTIVE, Meter, completion, meter, retry_transient, smooth, timeouts
from rxrouter.relay import Failure
from rxrouter.relay.aiohttp import respond, shutdown, stop
from rxrouter.sharing import Hub

STATIC = Path(__file__).parent / "static"
KEY = "[A-Za-z0-9_-]{43}"  # 32 random bytes, which the page takes
ANSWER = f"/answers/{{key:{KEY}}}"
SECRET = re.compile(r"\bsk-[\w-]+")
TURNS = 40  # that the model is told again
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # scripts and page are of one version
}
log = logging.getLogger("chat_app")


class Question(Struct):
    """What a page asks."""

    text: Annotated[str, Meta(max_length=8_000, pattern=r"\S")]
    after: Annotated[str, Meta(pattern=f"^{KEY}$")] | None = None  # the answer above it


class Chat:
    """The routes; `client` asks the model, `hub` keeps what it says."""

    def __init__(self, client: OpenRouter, hub: Hub, model: str) -> None:
        self.client = client
        self.hub = hub
        self.model = model

    async def page(self, _: web.Request) -> web.Response:
        """The same for everybody: which conversation it shows is behind the `#`, which browsers don't send."""
        page = (STATIC / "index.html").read_text().replace("{{model}}", escape(self.model))
        return web.Response(text=page, content_type="text/html")

    async def ask(self, request: web.Request) -> web.Response:
        """Begins an answer, which needs no reader to go on; asked twice under one key, it is begun and paid once."""
        try:
            question = msgspec.json.decode(await request.read(), type=Question)
        except msgspec.DecodeError as error:
            raise web.HTTPBadRequest(text=f"This is no question: {error}.") from error
        before = (await self.hub.status(question.after)).state if question.after else None
        if before == "unknown":
            raise web.HTTPGone(text="The server no longer has this conversation. Start a new chat.")
        if before == "running":
            raise web.HTTPConflict(text="The answer before is still being written. Wait for its end, or stop it.")
        self.hub.start(request.match_info["key"], self.answer(question, await self.said(question.after)))
        return web.Response(status=204)

    def answer(self, question: Question, said: list[UserMessage | AssistantMessage]) -> Observable[ChatChunk]:
        """What goes into the log: the question, then the answer."""
        return self.client.chat(messages=[*said, UserMessage(question.text)], model=self.model).pipe(
            timeouts(**INTERACTIVE),  # in front of the retry: for each attempt
            logged,
            retry_transient(RetryPolicy(after_content="restart")),
            paced_and_noted,
            ops.start_with(ChatChunk(debug={"question": msgspec.to_builtins(question)})),
        )

    async def said(self, key: str | None) -> list[UserMessage | AssistantMessage]:
        """The conversation, up to an answer; of those that were stopped or cut, what there is."""
        messages: list[UserMessage | AssistantMessage] = []
        while key and len(messages) < 2 * TURNS:
            if not (await self.hub.status(key)).entries:  # it is forgotten, and so is what was before
                break
            chunks = self.hub.follow(key)
            first = await chunks.pipe(ops.first())
            question = msgspec.convert((first.debug or {})["question"], Question)
            try:
                answer = await chunks.pipe(completion())
            except RouterError as error:
                answer = error.partial
            messages[:0] = [UserMessage(question.text), *([answer.message] if answer.text else [])]
            key = question.after
        return messages

    async def follow(self, request: web.Request) -> web.StreamResponse:
        """An answer from its beginning, or from where the reader was; for as many readers as there are."""
        # An EventSource can't read what a refusal says, so all is told in the stream. `respond` refuses who has read
        # nothing yet, when the answer failed before it had content; therefore everybody is one who comes back, if only
        # from before the first entry.
        key = request.match_info["key"]
        if (await self.hub.status(key)).state == "unknown":
            unknown = Failure(404, "unknown_generation", "The server does not have this answer, or no longer.")
            body = b"".join(map(ForThePage.framing.frame, ForThePage().error(unknown)))
            return web.Response(body=body, content_type="text/event-stream")
        headers = request.headers.copy()
        headers.setdefault("Last-Event-ID", "0.1")
        request = request.clone(headers=headers)
        return await respond(request, None, dialect=ForThePage, hub=self.hub, key=key, prime=0.0)

    async def stop(self, request: web.Request) -> web.Response:
        """Ends an answer, for all who read it; what it has said stays."""
        return await stop(self.hub, request.match_info["key"])


def logged(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
    """What went wrong, for who runs the server; pages are told a sentence."""

    def tell(error: Exception) -> None:
        log.warning("an attempt failed: %s", SECRET.sub("(a key)", str(error)))  # providers quote what they refuse

    return source.pipe(ops.do_action(on_error=tell))


def paced_and_noted(source: Observable[ChatChunk]) -> Observable[ChatChunk]:
    """Text at a pace for people; on each chunk, and before an error, a note of when it came and what it cost so far."""
    now = Meter()

    def watch(meter: Meter) -> None:
        nonlocal now
        now = meter

    def note(chunk: ChatChunk) -> ChatChunk:
        figures = {"at": round(now.elapsed, 3), "attempt": now.attempts, "cost": now.cost}
        return msgspec.structs.replace(chunk, debug=figures)

    def note_error(error: Exception, _: Observable[ChatChunk]) -> Observable[ChatChunk]:
        return rx.concat(rx.of(note(ChatChunk())), rx.throw(error))

    return source.pipe(meter(watch), smooth(), ops.map(note), ops.catch(note_error))


def application(client: OpenRouter, hub: Hub, model: str) -> web.Application:
    """The server, to be run."""
    chat = Chat(client, hub, model)
    app = web.Application(client_max_size=64 * 1024, middlewares=[_in_words])
    app.router.add_get("/", chat.page)
    app.router.add_static("/static", STATIC)
    app.router.add_put(ANSWER, chat.ask)
    app.router.add_get(ANSWER, chat.follow)
    app.router.add_post(f"{ANSWER}/stop", chat.stop)
    app.on_response_prepare.append(_secure)
    app.on_shutdown.append(shutdown)
    return app


@web.middleware
async def _in_words(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What the log is in no state to do is told in words, too."""
    try:
        return await handler(request)
    except RouterError as error:
        log.warning("a request failed: %s", error)
        raise web.HTTPServiceUnavailable(text="The server can't reach its memory. Try again a little later.") from error


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
