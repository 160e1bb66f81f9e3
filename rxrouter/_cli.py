"""The `rxrouter` command: chat in a terminal, a simulated OpenRouter to try things against, marble diagrams."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from reactivex import operators as ops

from rxrouter._errors import APIError, RouterError, StatusError, TransportError, is_transient
from rxrouter._source.client import OpenRouter
from rxrouter._source.observable import LoopObservable
from rxrouter._wire.account import Model
from rxrouter._wire.chunk import ChatChunk, reasoning_of
from rxrouter._wire.fold import CompletionFold
from rxrouter.operators.meter import Meter, meter
from rxrouter.operators.record_marbles import record_marbles
from rxrouter.testing import FAULTS, Gallery, Recording, Simulator

COMPLETE, FAILED, INTERRUPTED = 0, 1, 130  # argparse exits with 2 by itself

_OFFLINE_RATE = 60.0  # words a second: a model that one can read along with
_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"
# Characters that act on a terminal: C0 controls, DEL, C1 controls, and those that reorder the text around them
# (bidirectional embeddings, overrides and isolates).
_ACTING = (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_CONTROLS = {code: None for code in _ACTING if chr(code) not in "\n\t"}
# JSON with these escapes has the same value. White space between its tokens must stay.
_JSON_CONTROLS = {code: f"\\u{code:04x}" for code in _ACTING if chr(code) not in "\n\t\r"}
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
        if options.command == "marbles":
            return _marbles(options)
        return asyncio.run({"chat": _chat, "models": _models, "simulate": _simulate}[options.command](options))
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # `rxrouter chat … | head`: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RouterError as error:
        advice = _advice(error, options.command)
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
    chat.add_argument("--marbles", metavar="FILE", help="an SVG to draw: what came when")
    form = chat.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="each chunk's JSON as received, one a line")
    form.add_argument("--json", action="store_true", help="the whole completion as JSON, at the end")

    models = commands.add_parser("models", help="which models there are, and what they cost; needs no key")
    models.add_argument("--search", metavar="TEXT", default="", help="only those with this in their name")
    models.add_argument("--free", action="store_true", help="only those that cost nothing")
    models.add_argument("--json", action="store_true", help="the models as received, as a JSON array")
    models.add_argument("--offline", action="store_true", help="simulated models: no network")

    simulate = commands.add_parser("simulate", help="run a server that answers as OpenRouter does")
    simulate.add_argument("--port", type=int, default=8089, help="on 127.0.0.1; 0 for any free one (default 8089)")
    simulate.add_argument("--recording", metavar="FILE", help="an event stream to play")
    simulate.add_argument("--rate", type=float, default=_OFFLINE_RATE, help="blocks per second; 0 for no pause")
    simulate.add_argument("--fault", choices=FAULTS, help="what goes wrong")

    marbles = commands.add_parser("marbles", help="play marble diagrams, and paint them")
    marbles.add_argument("folder", nargs="?", default="marbles", help="where the .marble files are (default marbles)")
    marbles.add_argument("--check", action="store_true", help="paint nothing; say what is wrong or not up to date")
    marbles.add_argument("--names", metavar="MODULE", help="a module of yours whose names the diagrams use")
    return parser


async def _chat(options: argparse.Namespace) -> int:
    screen = _Screen(options)
    async with AsyncExitStack() as stack:
        client = await _client(stack, "this answer is simulated, no model was asked" if options.offline else "")
        messages = [{"role": "user", "content": options.prompt}]
        if options.system:
            messages.insert(0, {"role": "system", "content": options.system})
        chunks = client.chat(messages=messages, model=options.model)
        if options.marbles:
            chunks = _drawn(chunks, options.marbles)
        try:
            await chunks.pipe(meter(screen.measure), ops.do_action(screen.show), ops.default_if_empty(None))
        finally:
            screen.close()
    return COMPLETE


async def _client(stack: AsyncExitStack, offline: str) -> OpenRouter:
    """A client of OpenRouter, or, where it is said that it is `offline`, of a simulated one."""
    url = key = None
    if offline:
        _say(f"offline: {offline}")
        simulator = Simulator(rate=_OFFLINE_RATE if sys.stdout.isatty() else 0.0)
        url, key = (await stack.enter_async_context(simulator)).base_url, "offline"  # yours stays at home
    return await stack.enter_async_context(OpenRouter(key, base_url=url, app_title="rxrouter"))


def _drawn(chunks: LoopObservable[ChatChunk], path: str) -> LoopObservable[ChatChunk]:
    Path(path).touch()  # what can't be written is said before anything is paid
    return chunks.pipe(record_marbles(path))


class _Screen:
    """What the terminal shows of a stream, and what is to be said of it at the end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._fold = CompletionFold()
        self._began = time.monotonic()
        self._meter = Meter()
        self._thinking = False
        self._column = 0
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]

    def measure(self, meter: Meter) -> None:
        self._meter = meter

    def show(self, chunk: ChatChunk) -> None:
        self._fold.add(chunk)
        if self._options.raw:
            _print_json(chunk.raw)
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
        if self._options.json and (completion := self._fold.completion()).choices:
            _print_json(msgspec.json.encode(completion))
        if self._column:
            print(flush=True)
        if self._options.stats:
            _say(self._stats())

    def _stats(self) -> str:
        told = self._meter
        parts: list[str] = []
        if told.time_to_first_content is not None:
            parts.append(f"first content after {told.time_to_first_content:.2f} s")
        if told.usage is not None and (rate := told.tokens_per_second) is not None:
            parts.append(f"{told.usage.completion_tokens} tokens at {rate:.1f} per second")
        parts.append(f"{time.monotonic() - self._began:.2f} s in all")
        parts.append("cost unknown" if told.cost is None else f"cost {told.cost:.6g} credits")
        return " · ".join(parts)


async def _models(options: argparse.Namespace) -> int:
    text = options.search.lower()

    def asked_for(model: Model) -> bool:
        return text in f"{model.id} {model.name}".lower() and (model.free or not options.free)

    async with AsyncExitStack() as stack:
        client = await _client(stack, "these models are simulated" if options.offline else "")
        models = await client.models().pipe(ops.filter(asked_for), ops.to_list())
    if options.json:
        _print_json(b"[%b]" % b", ".join(model.raw for model in models))
    elif models:
        _print_table(models)
    else:
        _say("there is no such model")
    return COMPLETE


def _print_json(data: bytes) -> None:
    """Print the bytes as received; on a terminal, escape the characters that act on it."""
    text = data.decode(errors="replace")
    print(text.translate(_JSON_CONTROLS) if sys.stdout.isatty() else text, flush=True)


def _print_table(models: Sequence[Model]) -> None:
    names = [(model.id or "?").translate(_CONTROLS) for model in models]
    width = max(map(len, names))
    print(f"{'model':{width}}  {'context':>10}  {'$/M in':>8}  {'$/M out':>8}")
    for name, model in zip(names, models, strict=True):
        context = "?" if model.context_length is None else f"{model.context_length:,}"
        prompt, completion = _price(model.pricing.prompt), _price(model.pricing.completion)
        print(f"{name:{width}}  {context:>10}  {prompt:>8}  {completion:>8}")


def _price(credits_per_token: float | None) -> str:
    """Dollars for a million."""
    if credits_per_token is None:
        return "?"
    return "varies" if credits_per_token < 0 else f"{credits_per_token * 1e6:.6g}"


async def _simulate(options: argparse.Namespace) -> int:
    recording = Recording.load(options.recording) if options.recording else None
    simulator = Simulator(recording=recording, rate=options.rate, fault=options.fault, port=options.port)
    async with simulator:
        print(f"OpenRouter, simulated, at {simulator.base_url}; Ctrl-C stops it. In another terminal:")
        print(f'OPENROUTER_BASE_URL={simulator.base_url} rxrouter chat "hi"', flush=True)
        await asyncio.Event().wait()
    return COMPLETE


def _marbles(options: argparse.Namespace) -> int:
    names: dict[str, object] = {}
    if options.names:
        sys.path.insert(0, str(Path.cwd()))
        try:
            names = vars(importlib.import_module(options.names))
        except ImportError as error:
            raise ValueError(f"--names {options.names}: {error}") from error
    try:
        gallery = Gallery.play(options.folder, names)
    except AssertionError as error:  # rows that stand under one another
        print("\n".join(line.translate(_CONTROLS) for line in str(error).splitlines()), file=sys.stderr)
        return FAILED
    if options.check and (stale := gallery.stale()):
        _say(f"{', '.join(map(str, stale))}: not what was played; run: rxrouter marbles {options.folder}")
        return FAILED
    painted = "" if options.check else ", ".join(path.name for path in gallery.write())
    print(f"{gallery.diagrams} diagrams are true; {f'{painted} painted' if painted else 'nothing to paint'}")
    return COMPLETE


def _advice(error: RouterError, command: str) -> str:
    """What to do about it."""
    if isinstance(error, StatusError) and command == "models" and error.status == 404:  # noqa: PLR2004 - Not Found
        return "is OPENROUTER_BASE_URL right?"
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
