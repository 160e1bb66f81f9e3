"""UIMessages: AI SDK's UI message stream, version 1."""

from __future__ import annotations

from typing import Any

import msgspec

from rxrouter._wire.media import Citation, Image
from rxrouter._wire.message import ToolCall
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.dialects.calls import ToldCall
from rxrouter.relay.dialects.parts import Kind, Parts, encode
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Events

_DONE = b"[DONE]"
_FINISH = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "error": "error",
}


class UIMessages(Parts):
    """What `useChat` and `readUIMessageStream` of the npm package `ai` read.

    A tool call is `tool-input-available`, which makes `onToolCall` run it, only with proof that it is whole; otherwise
    it is `tool-input-error`, and the answer ends in an error. Usage and cost are a part `data-usage`. A `Restarted` is
    `reset-step`, which AI SDK 7 knows; older readers fail on it. Choices other than the first, and sound, have no place
    in a UI message.

    Args:
        message_id: Under which the browser keeps the message; its own when None.

    Source: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, and `uiMessageChunkSchema` of ai 7.0.
    """

    framing = Events({"x-vercel-ai-ui-message-stream": "v1"})

    def __init__(self, message_id: str | None = None) -> None:
        super().__init__()
        self._message_id = message_id
        self._part = 0
        self._sources = 0

    def begin(self) -> list[bytes]:
        """The message, and its one step."""
        start = {"type": "start"} | ({"messageId": self._message_id} if self._message_id else {})
        return [encode(start), encode({"type": "start-step"})]

    def end(self) -> list[bytes]:
        """The calls, of which now is known whether they are whole; usage; the end, an error if a call is not."""
        said: list[dict[str, Any]] = []
        self.close(said)
        cut: str | None = None
        for told, call, doubt in self.close_calls(said):
            if doubt is None:
                arguments = msgspec.Raw((call.arguments or "{}").encode(errors="replace"))
                said.append({"type": "tool-input-available", **_names(told), "input": arguments})
            else:
                said.append(_cut(told, call, doubt))
                cut = cut or doubt
        if self.usage is not None:
            said.append({"type": "data-usage", "id": "usage", "data": self.usage})
        # A page that sends results by itself (`sendAutomaticallyWhen`) takes a call that failed for one that is done:
        # behind a good end it would ask again, and pay again, for as long as the answers are cut.
        said += self._finish() if cut is None else [{"type": "error", "errorText": cut}]
        return [*map(encode, said), _DONE]

    def _finish(self) -> list[dict[str, Any]]:
        reason = {"finishReason": _FINISH.get(self.finish_reason, "other")} if self.finish_reason else {}
        names = {"model": self.model, "generationId": self.generation_id}
        metadata = {name: value for name, value in names.items() if value}
        return [{"type": "finish-step"}, {"type": "finish", **reason, "messageMetadata": metadata}]

    def error(self, failure: Failure) -> list[bytes]:
        """`abort` when it was stopped, `error` otherwise."""
        said: list[dict[str, Any]] = []
        self.close(said)
        if failure.code == "stopped":  # the calls stay as they are: behind an abort, too, one that failed would be sent
            said.append({"type": "abort", "reason": failure.message})
        else:
            said += [_cut(told, call, failure.message) for told, call, _ in self.close_calls(said)]
            said.append({"type": "error", "errorText": failure.message})
        return [*map(encode, said), _DONE]

    def start(self, kind: Kind) -> list[dict[str, Any]]:
        """A part."""
        self._part += 1
        return [{"type": f"{kind}-start", "id": f"{self._part}"}]

    def say(self, kind: Kind, text: str) -> dict[str, Any]:
        """More of it."""
        return {"type": f"{kind}-delta", "id": f"{self._part}", "delta": text}

    def stop(self, kind: Kind) -> list[dict[str, Any]]:
        """Its end."""
        return [{"type": f"{kind}-end", "id": f"{self._part}"}]

    def start_call(self, call: ToldCall) -> dict[str, Any]:
        """Its name."""
        return {"type": "tool-input-start", "toolCallId": call.id, "toolName": call.name}

    def say_call(self, call: ToldCall, arguments: str) -> dict[str, Any]:
        """A piece of its arguments."""
        return {"type": "tool-input-delta", "toolCallId": call.id, "inputTextDelta": arguments}

    def source(self, citation: Citation) -> dict[str, Any]:
        """A part of its own."""
        self._sources += 1
        title = {"title": citation.title} if citation.title else {}
        return {"type": "source-url", "sourceId": f"source-{self._sources}", "url": citation.url, **title}

    def picture(self, image: Image) -> dict[str, Any]:
        """A file."""
        return {"type": "file", "url": image.url, "mediaType": image.media_type or "image/*"}

    def restart(self, restarted: Restarted) -> list[dict[str, Any]]:  # noqa: ARG002 - why is not told
        """All parts of the step are removed."""
        return [{"type": "reset-step"}]


def _names(told: ToldCall) -> dict[str, str]:
    return {"toolCallId": told.id, "toolName": told.name}


def _cut(told: ToldCall, call: ToolCall, why: str) -> dict[str, Any]:
    return {"type": "tool-input-error", **_names(told), "input": call.arguments, "errorText": why}
