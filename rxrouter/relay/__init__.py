"""An answer over HTTP, to browsers and SDKs: what the server library at hand needs, and what the reader understands.

rxrouter.relay.aiohttp   respond(request, chunks, dialect=…), stop(…), shutdown
rxrouter.relay.asgi      Relay(chunks, dialect=…), which Starlette and FastAPI take as a response; stop(…), shutdown

OpenAIChunks   `chat.completion.chunk` events, byte for byte: OpenAI's and OpenRouter's clients, and this library
UIMessages     AI SDK's UI message stream: `useChat`
AGUI           AG-UI 1.0: `HttpAgent`
NDJSON         a chunk a line
PlainText      the words alone

A dialect of your own is an `Encoder`.

    chunk ─dialect▶ payloads ─framing▶ frames ─Answer▶ what waits for the socket ─Connection | Relay▶ the reader
"""

from rxrouter.relay.dialects.ag_ui import AGUI
from rxrouter.relay.dialects.dialect import Dialect, Encoder
from rxrouter.relay.dialects.ndjson import NDJSON
from rxrouter.relay.dialects.openai import OpenAIChunks
from rxrouter.relay.dialects.plain import PlainText
from rxrouter.relay.dialects.ui_messages import UIMessages
from rxrouter.relay.failure import Explain, Failure
from rxrouter.relay.frames import Bare, Events, Framing, Lines

__all__ = [
    "OpenAIChunks",
    "UIMessages",
    "AGUI",
    "NDJSON",
    "PlainText",
    "Dialect",
    "Encoder",
    "Framing",
    "Events",
    "Lines",
    "Bare",
    "Failure",
    "Explain",
]
