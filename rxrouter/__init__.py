"""rxrouter: a streamed LLM answer as an RxPY Observable that ends exactly once, and honestly.

ChatRequest ─POST─▶ blocks ─▶ ServerSentEvent ─▶ ChatChunk ─▶ operators ─▶ observers · async for · await · run()
            _source: one cold Observable                         │  rxrouter.operators        └─ _consume
                                                                 └─▶ rxrouter.sharing: one answer, many readers

The names below stand in the order of this flow.
"""

from rxrouter._consume import Iteration, Subscription, for_each, iterate
from rxrouter._errors import (
    AnswerDecodeError,
    APIError,
    BudgetExceededError,
    ChunkDecodeError,
    ClientClosedError,
    ConnectTimeoutError,
    ContentTimeoutError,
    ContentTypeError,
    ContinuationRefusedError,
    EmptyAnswerError,
    EventTooLargeError,
    GenerationCycleError,
    GenerationStopped,
    GenerationTooLargeError,
    GuardError,
    IncompleteToolCallError,
    LogLostError,
    ProducerLostError,
    ProtocolError,
    RouterError,
    SilenceTimeoutError,
    SlowReaderError,
    StatusError,
    StreamError,
    TransportError,
    TruncatedStreamError,
    UnknownGenerationError,
    is_transient,
)
from rxrouter._limiter import Limiter
from rxrouter._queue import Overflow
from rxrouter._source.client import OpenRouter
from rxrouter._source.observable import LoopObservable
from rxrouter._source.request import Timeouts
from rxrouter._wire.account import Credits, Generation, Key, Model, Receipt
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
from rxrouter.operators._retry_policy import RetryPolicy

__all__ = [
    # what goes up
    "OpenRouter",
    "Timeouts",
    "RetryPolicy",
    "Limiter",
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
    "Receipt",
    "Model",
    "Generation",
    "Key",
    "Credits",
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
    "ContentTimeoutError",
    "APIError",
    "StatusError",
    "StreamError",
    "ProtocolError",
    "ContentTypeError",
    "EventTooLargeError",
    "TruncatedStreamError",
    "EmptyAnswerError",
    "ChunkDecodeError",
    "AnswerDecodeError",
    "IncompleteToolCallError",
    "BudgetExceededError",
    "GuardError",
    "ContinuationRefusedError",
    "GenerationCycleError",
    "GenerationStopped",
    "GenerationTooLargeError",
    "ProducerLostError",
    "LogLostError",
    "UnknownGenerationError",
    "ClientClosedError",
    "SlowReaderError",
    "is_transient",
]
