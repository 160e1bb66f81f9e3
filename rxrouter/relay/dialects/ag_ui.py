"""AGUI: the Agent-User Interaction protocol, version 1.0."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rxrouter._errors import RouterError
from rxrouter._wire.chunk import Usage
from rxrouter._wire.media import Citation, Image
from rxrouter._wire.restarted import Restarted
from rxrouter.relay.dialects.calls import ToldCall
from rxrouter.relay.dialects.parts import Kind, Parts, encode
from rxrouter.relay.failure import Failure
from rxrouter.relay.frames import Events


class AGUI(Parts):
    """What `HttpAgent` of the npm package `@ag-ui/client` reads: one run, which says one assistant message.

    A tool call gets its TOOL_CALL_END only with proof that it is whole; a run with one that was cut ends in RUN_ERROR.
    Sources and pictures are CUSTOM events, and so is the usage, with its cost; its token counts are also where the
    protocol has them.

    A `Restarted` is a MESSAGES_SNAPSHOT without the answer. For this the conversation must be known, because a reader
    drops what a snapshot leaves out; without it, or when a tool call has begun, the run ends in RUN_ERROR.

    Args:
        thread_id: The run's thread, from the request's RunAgentInput.
        run_id: The run, from there.
        message_id: The assistant message's id; the run's with a suffix when None.
        messages: The conversation, from there, as JSON values.

    Source: https://docs.ag-ui.com/concepts/events, and what the client's `verifyEvents` insists on.
    """

    framing = Events()

    def __init__(
        self,
        thread_id: str,
        run_id: str,
        *,
        message_id: str | None = None,
        messages: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self._run = {"threadId": thread_id, "runId": run_id}
        self._message_id = message_id or f"{run_id}-answer"
        self._messages = messages
        self._thought = False

    def begin(self) -> list[bytes]:
        """The run."""
        return [encode({"type": "RUN_STARTED", **self._run, "protocolVersion": "1.0"})]

    def end(self) -> list[bytes]:
        """The calls that are whole, usage, and the run's end, which is an error if a call was cut."""
        said: list[dict[str, Any]] = []
        self.close(said)
        verdicts = self.close_calls(said)
        for told, call, doubt in verdicts:
            if doubt is not None:
                return [*map(encode, said), encode(self._run_error("incomplete_tool_call", doubt))]
            if not call.arguments:
                said.append(self.say_call(told, "{}"))
            said.append({"type": "TOOL_CALL_END", "toolCallId": told.id})
        if self.usage is not None:
            said.append({"type": "CUSTOM", "name": "usage", "value": self.usage})
        outcome: dict[str, Any] = {"type": "success"}
        if verdicts:
            outcome["pendingToolCallIds"] = [told.id for told, _, _ in verdicts]
        said.append({"type": "RUN_FINISHED", **self._run, "outcome": outcome, **self._usage()})
        return [encode(event) for event in said]

    def error(self, failure: Failure) -> list[bytes]:
        """RUN_ERROR; a run that was stopped is cancelled, as far as the protocol allows with an open call."""
        said: list[dict[str, Any]] = []
        self.close(said)
        if failure.code == "stopped" and not self.calls.all:
            said.append({"type": "RUN_FINISHED", **self._run, "outcome": {"type": "cancelled"}, **self._usage()})
        else:
            said.append(self._run_error(failure.code, failure.message))
        return [encode(event) for event in said]

    def _run_error(self, code: str, message: str) -> dict[str, Any]:
        return {"type": "RUN_ERROR", "message": message, "code": code, **self._usage()}

    def _usage(self) -> dict[str, Any]:
        return {"usage": [_counts(self.usage, self.model)]} if self.usage is not None else {}

    def start(self, kind: Kind) -> list[dict[str, Any]]:
        """The message, or the thinking before it; the same one again, if the answer comes back to it."""
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_START", "messageId": self._message_id, "role": "assistant"}]
        self._thought = True
        thought = {"messageId": self._thought_id}
        return [
            {"type": "REASONING_START", **thought},
            {"type": "REASONING_MESSAGE_START", **thought, "role": "reasoning"},
        ]

    def say(self, kind: Kind, text: str) -> dict[str, Any]:
        """More of it."""
        if kind == "text":
            return {"type": "TEXT_MESSAGE_CONTENT", "messageId": self._message_id, "delta": text}
        return {"type": "REASONING_MESSAGE_CONTENT", "messageId": self._thought_id, "delta": text}

    def stop(self, kind: Kind) -> list[dict[str, Any]]:
        """Its end."""
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_END", "messageId": self._message_id}]
        thought = {"messageId": self._thought_id}
        return [{"type": "REASONING_MESSAGE_END", **thought}, {"type": "REASONING_END", **thought}]

    @property
    def _thought_id(self) -> str:
        return f"{self._message_id}-reasoning"

    def start_call(self, call: ToldCall) -> dict[str, Any]:
        """Its name."""
        names = {"toolCallId": call.id, "toolCallName": call.name, "parentMessageId": self._message_id}
        return {"type": "TOOL_CALL_START", **names}

    def say_call(self, call: ToldCall, arguments: str) -> dict[str, Any]:
        """A piece of its arguments."""
        return {"type": "TOOL_CALL_ARGS", "toolCallId": call.id, "delta": arguments}

    def source(self, citation: Citation) -> dict[str, Any]:
        """A CUSTOM event."""
        return {"type": "CUSTOM", "name": "source", "value": citation}

    def picture(self, image: Image) -> dict[str, Any]:
        """A CUSTOM event."""
        return {"type": "CUSTOM", "name": "image", "value": image}

    def restart(self, restarted: Restarted) -> list[dict[str, Any]]:
        """The conversation as it was; thinking that was shown is emptied, because readers keep what nobody mentions."""
        if self._messages is None or self.calls.ids:
            raise restarted.cause or RouterError("the answer began anew")
        said: list[dict[str, Any]] = []
        self.close(said)
        emptied = [{"id": self._thought_id, "role": "reasoning", "content": ""}] if self._thought else []
        return [*said, {"type": "MESSAGES_SNAPSHOT", "messages": [*self._messages, *emptied]}]


def _counts(usage: Usage, model: str | None) -> dict[str, Any]:
    """The usage in the protocol's words, as far as it is known."""
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    counts = {
        "model": model,
        "inputTokens": usage.prompt_tokens,
        "outputTokens": usage.completion_tokens,
        "totalTokens": usage.total_tokens,
        "cachedInputTokens": prompt.cached_tokens if prompt else None,
        "cacheWriteInputTokens": prompt.cache_write_tokens if prompt else None,
        "reasoningTokens": completion.reasoning_tokens if completion else None,
    }
    return {name: count for name, count in counts.items() if count is not None}
