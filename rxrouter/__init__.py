"""rxrouter: a streamed LLM answer as an RxPY Observable that ends exactly once, and honestly.

ChatRequest ─POST─▶ blocks ─▶ ServerSentEvent ─▶ ChatChunk ─▶ operators ─▶ observers · async for · await · run()
            _source: one cold Observable                         └─ rxrouter.operators        └─ _consume

The names below stand in the order of this flow.
"""

from rxrouter._consume import Iteration, Overflow, Subscription, for_each, iterate
from rxrouter._errors import (
    APIError,
    ChunkDecodeError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTypeError,
    EventTooLargeError,
    IncompleteToolCallError,
    ProtocolError,
    RouterError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    StreamError,
    TransportError,
    TruncatedStreamError,
    is_transient,
)
from rxrouter._source.client import OpenRouter
from rxrouter._source.observable import LoopObservable
from rxrouter._source.post import Timeouts
from rxrouter._wire.chunk import ChatChunk, Choice, Delta, FunctionDelta, ToolCallDelta, Usage
from rxrouter._wire.completion import ChatCompletion, CompletionChoice
from rxrouter._wire.media import Audio, Citation, Image
from rxrouter._wire.message import (
    AssistantMessage,
    AudioPart,
    DeveloperMessage,
    FilePart,
    FunctionCall,
    ImagePart,
    SystemMessage,
    TextPart,
    ToolCall,
    ToolMessage,
    UserMessage,
    VideoPart,
)
from rxrouter._wire.request import ChatRequest, Function, FunctionTool, Provider, Reasoning, ResponseFormat, ServerTool
from rxrouter._wire.restarted import Restarted
from rxrouter._wire.sse import Comment, ServerSentEvent, SSEParser

__all__ = [
    # what goes up
    "OpenRouter",
    "Timeouts",
    "ChatRequest",
    "SystemMessage",
    "DeveloperMessage",
    "UserMessage",
    "AssistantMessage",
    "ToolMessage",
    "TextPart",
    "ImagePart",
    "AudioPart",
    "VideoPart",
    "FilePart",
    "FunctionTool",
    "Function",
    "ServerTool",
    "Reasoning",
    "Provider",
    "ResponseFormat",
    # what comes down
    "SSEParser",
    "ServerSentEvent",
    "Comment",
    "LoopObservable",
    "ChatChunk",
    "Choice",
    "Delta",
    "ToolCallDelta",
    "FunctionDelta",
    "Usage",
    "ChatCompletion",
    "CompletionChoice",
    "ToolCall",
    "FunctionCall",
    "Citation",
    "Image",
    "Audio",
    "Restarted",
    # leaving Rx
    "Subscription",
    "iterate",
    "for_each",
    "Iteration",
    "Overflow",
    # how it ends otherwise
    "RouterError",
    "TransportError",
    "ConnectTimeoutError",
    "SilenceTimeoutError",
    "APIError",
    "StatusError",
    "StreamError",
    "ProtocolError",
    "ContentTypeError",
    "EventTooLargeError",
    "TruncatedStreamError",
    "ChunkDecodeError",
    "IncompleteToolCallError",
    "ClientClosedError",
    "SlowReaderError",
    "is_transient",
]
