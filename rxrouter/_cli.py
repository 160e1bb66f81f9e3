"""The `rxrouter` command: chat in a terminal, and a simulated OpenRouter to try things against."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import msgspec
from reactivex import operators as ops

from rxrouter._errors import APIError, RouterError, StatusError, TransportError, is_transient
from rxrouter._source.client import OpenRouter
from rxrouter._wire.chunk import ChatChunk, has_content, reasoning_of
from rxrouter._wire.fold import CompletionFold
from rxrouter.testing import FAULTS, Recording, Simulator

COMPLETE, FAILED, INTERRUPTED = 0, 1, 130  # argparse exits with 2 by itself

_OFFLINE_RATE = 60.0  # words a second: a model that one can read along with
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# What an answer may not do to a terminal: move the cursor, set the title, hide itself.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_ADVICE = {
    400: "see `--model`; the names are at https://openrouter.ai/models",
    401: "check OPENROUTER_API_KEY; keys are made at https://openrouter.ai/keys",
    402: "add credits at https://openrouter.ai/settings/credits, or take a model whose name ends in :free",
    403: "this key, or your account's settings, don't allow it: https://openrouter.ai/settings",
    404: "see `--model`; the names are at https://openrouter.ai/models",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code: 0 complete, 1 failed, 2 wrong usage, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_chat(options) if options.command == "chat" else _simulate(options))
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `rxrouter chat … | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RouterError as error:
        advice = _advice(error)
        _say(f"{error} ({advice})" if advice else str(error))
    except (TypeError, ValueError, OSError) as error:
        _say(str(error))
    return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rxrouter", description="Streamed LLM answers that end honestly.")
    commands = parser.add_subparsers(dest="command", required=True)

    chat = commands.add_parser("chat", help="ask a model, and watch it answer")
    chat.add_argument("prompt", help="what you say")
    chat.add_argument(
        "--model", help="author/slug, as at https://openrouter.ai/models; your account's default if absent"
    )
    chat.add_argument("--system", help="what the model is told before")
    chat.add_argument("--offline", action="store_true", help="a simulated answer: no key, no network, no model")
    chat.add_argument("--stats", action="store_true", help="time to first content, tokens per second, cost; on stderr")
    form = chat.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="each chunk's JSON as received, one a line")
    form.add_argument("--json", action="store_true", help="the whole completion as JSON, at the end")

    simulate = commands.add_parser("simulate", help="run a server that answers as OpenRouter does")
    simulate.add_argument("--port", type=int, default=8089, help="on 127.0.0.1; 0 for any free one (default 8089)")
    simulate.add_argument("--recording", metavar="FILE", help="an event stream to play")
    simulate.add_argument("--rate", type=float, default=_OFFLINE_RATE, help="blocks per second; 0 for no pause")
    simulate.add_argument("--fault", choices=FAULTS, help="what goes wrong")
    return parser


async def _chat(options: argparse.Namespace) -> int:
    screen = _Screen(options)
    async with AsyncExitStack() as stack:
        url = key = None
        if options.offline:
            _say("offline: this answer is simulated, no model was asked")
            simulator = Simulator(rate=_OFFLINE_RATE if sys.stdout.isatty() else 0.0)
            url, key = (await stack.enter_async_context(simulator)).base_url, "offline"  # yours stays at home
        client = await stack.enter_async_context(OpenRouter(key, base_url=url, app_title="rxrouter"))
        messages = [{"role": "user", "content": options.prompt}]
        if options.system:
            messages.insert(0, {"role": "system", "content": options.system})
        try:
            await client.chat(messages=messages, model=options.model).pipe(
                ops.do_action(screen.show), ops.default_if_empty(None)
            )
        finally:
            screen.close()
    return COMPLETE


class _Screen:
    """What the terminal shows of a stream, and what is to be said of it at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._fold = CompletionFold()
        self._began = time.monotonic()
        self._first: float | None = None
        self._thinking = False
        self._column = 0
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]

    def show(self, chunk: ChatChunk) -> None:
        self._fold.add(chunk)
        if self._first is None and any(has_content(choice.delta) for choice in chunk.choices):
            self._first = time.monotonic()
        if self._options.raw:
            print(chunk.raw.decode(errors="replace"), flush=True)
        elif not self._options.json:
            for choice in chunk.choices[:1]:
                self._type(reasoning_of(choice.delta), choice.delta.content)

    def _type(self, thought: str | None, words: str | None) -> None:
        """Types what was said; on a terminal also, dimmed, what was thought."""
        screen = sys.stdout.isatty()
        if thought and screen:
            self._write(("" if self._thinking else _DIM) + thought.translate(_CONTROLS))
            self._thinking = True
        if words:
            if self._thinking:
                self._write(_PLAIN + "\n\n")
                self._thinking = False
            self._write(words.translate(_CONTROLS) if screen else words)

    def _write(self, text: str) -> None:
        self._column = 0 if text.endswith("\n") else 1
        print(text, end="", flush=True)

    def close(self) -> None:
        """Prints what is left to print: the completion, whole or not, and the figures."""
        if self._thinking:
            self._write(_PLAIN)
        if self._options.json and self._fold.choices:
            print(msgspec.json.encode(self._fold.completion()).decode())
        if self._column:
            print(flush=True)
        if self._options.stats:
            _say(self._stats())

    def _stats(self) -> str:
        now = time.monotonic()
        usage = self._fold.completion().usage
        parts: list[str] = []
        if self._first is not None:
            parts.append(f"first content after {self._first - self._began:.2f} s")
        if usage is not None and usage.completion_tokens and self._first is not None:
            rate = usage.completion_tokens / max(now - self._first, 1e-9)
            parts.append(f"{usage.completion_tokens} tokens at {rate:.1f} per second")
        parts.append(f"{now - self._began:.2f} s in all")
        parts.append("cost unknown" if usage is None or usage.cost is None else f"cost {usage.cost:.6g} credits")
        return " · ".join(parts)


async def _simulate(options: argparse.Namespace) -> int:
    recording = Recording.load(options.recording) if options.recording else None
    simulator = Simulator(recording=recording, rate=options.rate, fault=options.fault, port=options.port)
    async with simulator:
        print(f"OpenRouter, simulated, at {simulator.base_url}; Ctrl-C stops it. In another terminal:")
        print(f'OPENROUTER_BASE_URL={simulator.base_url} rxrouter chat "hi"', flush=True)
        await asyncio.Event().wait()
    return COMPLETE


def _advice(error: RouterError) -> str:
    """What to do about it."""
    if isinstance(error, StatusError) and error.status in _ADVICE:
        return _ADVICE[error.status]
    if isinstance(error, APIError) and error.retry_after is not None:
        return f"try again in {error.retry_after:.0f} s"
    if isinstance(error, TransportError) and error.phase == "connect":
        return "is the network up, and OPENROUTER_BASE_URL right?"
    return "try again" if is_transient(error) else ""


def _say(line: str) -> None:
    """One line on stderr."""
    print(f"rxrouter: {' '.join(line.split()).translate(_CONTROLS)}", file=sys.stderr, flush=True)
