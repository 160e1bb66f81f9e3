"""The field rules by which chunks fold into one completion: in linear time, on any order and any repeats.

A fold keeps what each field was told, and with which chunk; nothing that was kept is ever changed. So a snapshot is a
fold and a number, costs nothing to make, and can be read whenever somebody wants to know, also when the answer has gone
on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from copy import copy
from typing import Any, Generic, TypeVar

from rxrouter._wire.chunk import ChatChunk, Choice, Delta, FunctionDelta, ToolCallDelta, reasoning_of
from rxrouter._wire.completion import ChatCompletion, CompletionChoice, ReasoningName, State, is_whole
from rxrouter._wire.finish_proof import FinishProof
from rxrouter._wire.finish_reasons import cutting_reason, is_completing
from rxrouter._wire.json import as_list, as_object
from rxrouter._wire.message import FunctionCall, ToolCall
from rxrouter._wire.restarted import Restarted
from rxrouter._wire.tool_call_index import IndexedCall, ToolCallIndex
from rxrouter._wire.usage import merged_usage

T = TypeVar("T")

# Fields that grow, of a reasoning detail and of audio; all others are set by the piece that has them first (WIRE 4.4).
_GROWING_DETAIL = {"text", "summary", "data"}
_GROWING_AUDIO = {"data", "transcript"}
_HEAD: tuple[str, ...] = ("id", "model", "provider", "created", "system_fingerprint")


class _Log(Generic[T]):
    """What a field was told, in order."""

    __slots__ = ("chunks", "values")

    def __init__(self) -> None:
        self.values: list[T] = []
        self.chunks: list[int] = []  # the number of the chunk that each value came with

    def add(self, value: T, chunk: int) -> None:
        self.values.append(value)
        self.chunks.append(chunk)

    def count(self, upto: int) -> int:
        """How many values had come with that chunk."""
        chunks = self.chunks
        return len(chunks) if not chunks or chunks[-1] <= upto else bisect_right(chunks, upto)

    def all(self, upto: int) -> list[T]:
        return self.values[: self.count(upto)]

    def last(self, upto: int) -> T | None:
        count = self.count(upto)
        return self.values[count - 1] if count else None


class _Text(_Log[str]):
    """A text in pieces; read again, only what has come meanwhile is joined."""

    __slots__ = ("_read",)

    def __init__(self) -> None:
        super().__init__()
        self._read = (0, "")  # so many pieces, joined; replaced at once, for readers may be on several threads

    def read(self, upto: int) -> str:
        count = self.count(upto)
        joined, text = self._read
        if count < joined:
            return "".join(self.values[:count])
        if count > joined:
            text += "".join(self.values[joined:count])
            self._read = (count, text)
        return text


class _Fields:
    """An object in pieces: fields that grow, and others that are set once; null says nothing, but keeps a place."""

    __slots__ = ("_fields", "_growing", "_null")

    def __init__(self, growing: set[str]) -> None:
        self._growing = growing
        self._fields: dict[str, _Log[Any]] = {}
        self._null: set[str] = set()  # growing fields that began as null

    def add(self, piece: dict[str, Any], chunk: int) -> None:
        for name, value in piece.items():
            log = self._fields.get(name)
            if isinstance(log, _Text):
                if isinstance(value, str):
                    log.add(value, chunk)
            elif log is None and name in self._growing and (value is None or isinstance(value, str)):
                self._fields[name] = log = _Text()
                log.add(value or "", chunk)
                if value is None:
                    self._null.add(name)
            elif log is None or (log.values[-1] is None and value is not None):
                self.set(name, value, chunk)

    def set(self, name: str, value: Any, chunk: int) -> None:
        """Replaces what the field says."""
        self._fields.setdefault(name, _Log[Any]()).add(value, chunk)

    def read(self, upto: int) -> dict[str, Any]:
        told: dict[str, Any] = {}
        for name, log in self._fields.items():
            if log.count(upto):
                told[name] = log.read(upto) if isinstance(log, _Text) else log.last(upto)
                if name in self._null:
                    told[name] = told[name] or None
        return told


class _Call:
    """A tool call in pieces."""

    __slots__ = ("arguments", "extra", "function_extra", "id", "name", "type", "undecided")

    def __init__(self) -> None:
        self.id = _Log[str]()
        self.type = _Log[str]()
        self.name = _Log[str]()
        self.arguments = _Text()
        self.undecided = _Log[str]()
        self.extra = _Log[dict[str, Any]]()
        self.function_extra = _Log[dict[str, Any]]()

    def add(self, call: IndexedCall, arguments: str, chunk: int) -> None:
        for log, value in ((self.id, call.id), (self.type, call.type), (self.name, call.name)):
            if value and (not log.values or log.values[-1] != value):
                log.add(value, chunk)
        if arguments:
            self.arguments.add(arguments, chunk)
        elif call.undecided:
            self.undecided.add(call.undecided, chunk)
        if call.extra is not None:
            self.extra.add(call.extra, chunk)
        if call.function_extra is not None:
            self.function_extra.add(call.function_extra, chunk)

    def read(self, upto: int) -> ToolCall:
        function = FunctionCall(
            name=self.name.last(upto) or "",
            arguments=self.arguments.read(upto) or self.undecided.last(upto) or "",
            extra=self.function_extra.last(upto),
        )
        return ToolCall(
            id=self.id.last(upto) or "",
            type=self.type.last(upto) or "function",
            function=function,
            extra=self.extra.last(upto),
        )


class _Rare:
    """What most choices don't have."""

    def __init__(self) -> None:
        self.refusal = _Text()
        self.details = _Log[_Fields]()
        self.details_at: dict[str, _Fields] = {}
        self.annotations = _Log[dict[str, Any]]()
        self.images = _Log[dict[str, Any]]()
        self.audio = _Fields(_GROWING_AUDIO)
        self.logprobs: dict[str, _Log[Any]] = {}

    def add(self, choice: Choice, chunk: int) -> None:
        delta = choice.delta
        if delta.refusal:
            self.refusal.add(delta.refusal, chunk)
        for detail in delta.reasoning_details:
            self._add_detail(detail, chunk)
        for annotation in delta.annotations:
            self.annotations.add(annotation, chunk)
        for image in delta.images:
            self.images.add(image, chunk)
        if delta.audio is not None:
            self.audio.add(delta.audio, chunk)
        if choice.logprobs is not None:
            self._add_logprobs(choice.logprobs, chunk)

    def _add_detail(self, piece: dict[str, Any], chunk: int) -> None:
        """By type and index, where there is an index; the last signature that says something wins."""
        index = piece.get("index")
        key = f"{piece.get('type')} {index}"
        detail = self.details_at.get(key) if index is not None else None
        if detail is None:
            detail = self.details_at[key] = _Fields(_GROWING_DETAIL)
            self.details.add(detail, chunk)
        detail.add(piece, chunk)
        if piece.get("signature"):
            detail.set("signature", piece["signature"], chunk)

    def _add_logprobs(self, logprobs: Any, chunk: int) -> None:
        """`{"content": [...]}` adds up; the object of nulls of text completions (WIRE 9) has nothing to add."""
        for name, items in as_object(logprobs).items():
            if isinstance(items, list):
                log = self.logprobs.setdefault(name, _Log())
                for item in as_list(items):
                    log.add(item, chunk)

    def read(self, choice: CompletionChoice, upto: int) -> None:
        """Sets what was told."""
        choice.refusal = self.refusal.read(upto)
        choice.reasoning_details = [detail.read(upto) for detail in self.details.all(upto)]
        choice.annotations = self.annotations.all(upto)
        choice.images = self.images.all(upto)
        choice.audio = self.audio.read(upto) or None
        choice.logprobs = {name: log.all(upto) for name, log in self.logprobs.items() if log.count(upto)} or None


class _ChoiceFold:
    """One choice in the making."""

    def __init__(self, index: int, chunk: int) -> None:
        self.index = index
        self.begun = chunk
        self.text = _Text()
        self.reasoning = _Text()
        self.reasoning_name: ReasoningName = "reasoning"
        self.calls = _Log[_Call]()
        self.call_index = ToolCallIndex()
        self.finish_reason = _Log[str]()
        self.native_finish_reason = _Log[str]()
        self.rare: _Rare | None = None

    def add(self, choice: Choice, chunk: int) -> None:
        if choice.finish_reason:
            self.finish_reason.add(choice.finish_reason, chunk)
        if choice.native_finish_reason:
            self.native_finish_reason.add(choice.native_finish_reason, chunk)
        delta = choice.delta
        if delta.content:  # nearly always, and `add` in line
            self.text.values.append(delta.content)
            self.text.chunks.append(chunk)
        if (delta.reasoning or delta.reasoning_content or delta.reasoning_details) and (
            reasoning := reasoning_of(delta)
        ):
            if not self.reasoning.values and delta.reasoning_content and not delta.reasoning:
                self.reasoning_name = "reasoning_content"
            self.reasoning.add(reasoning, chunk)
        if delta.tool_calls:
            for call in delta.tool_calls:
                self._add_call(call, chunk)
        if (
            delta.reasoning_details
            or delta.refusal
            or delta.annotations
            or delta.images
            or delta.audio is not None
            or choice.logprobs is not None
        ):
            if self.rare is None:
                self.rare = _Rare()
            self.rare.add(choice, chunk)

    def _add_call(self, piece: ToolCallDelta, chunk: int) -> None:
        continued = self.call_index.plainly_continued(piece)
        if continued is not None:
            # Nearly always, and `add` in line.
            log = self.calls.values[continued.position].arguments
            log.values.append(piece.function.arguments or "")
            log.chunks.append(chunk)
            return
        found = self.call_index.add(piece)
        if found is None:
            return
        indexed, arguments = found
        if indexed.position == len(self.calls.values):
            self.calls.add(_Call(), chunk)
        self.calls.values[indexed.position].add(indexed, arguments, chunk)

    def read(self, upto: int) -> CompletionChoice:
        choice = CompletionChoice(
            index=self.index,
            text=self.text.read(upto),
            reasoning=self.reasoning.read(upto),
            reasoning_name=self.reasoning_name,
            partial_tool_calls=[call.read(upto) for call in self.calls.all(upto)],
            finish_reason=self.finish_reason.last(upto),
            native_finish_reason=self.native_finish_reason.last(upto),
        )
        if self.rare is not None:
            self.rare.read(choice, upto)
        return choice

    def reasons(self, upto: int) -> list[str]:
        """Return all finish reasons so far, native ones too: some servers send several, and they differ."""
        return self.finish_reason.all(upto) + self.native_finish_reason.all(upto)

    def prove(self, proof: FinishProof) -> None:
        """Replay the finish reasons of this choice, and the content before and behind them."""
        finishes = dict(zip(self.finish_reason.chunks, self.finish_reason.values, strict=True))
        texts = (self.text, self.reasoning, *(call.arguments for call in self.calls.values))
        content = {number for log in texts for number in log.chunks}
        proof.begin(self.index)
        for number in sorted(content | finishes.keys()):
            proof.add_from_elsewhere(self.index, finishes.get(number), content=number in content)

    def delta(self, choice: CompletionChoice, upto: int) -> Choice:
        """What this choice has become, said at once."""
        pieces = [
            ToolCallDelta(
                indexed.index,
                call.id,
                call.type,
                FunctionDelta(call.name, call.arguments, _dict(call.function.extra)),
                _dict(call.extra),
                self.call_index.ambiguous,
            )
            for indexed, call in zip(self.call_index.calls, choice.partial_tool_calls, strict=True)
        ]
        named = choice.reasoning_name == "reasoning_content"
        native = choice.native_finish_reason
        if not cutting_reason((choice.finish_reason, native)):
            # One chunk has room for two reasons. One that proves a cut must not be lost behind later ones.
            native = cutting_reason(self.reasons(upto)) or native
        return Choice(
            index=choice.index,
            delta=Delta(
                role="assistant",
                content=choice.text or None,
                reasoning=None if named else choice.reasoning or None,
                reasoning_content=(choice.reasoning or None) if named else None,
                reasoning_details=choice.reasoning_details or (),
                tool_calls=pieces or (),
                refusal=choice.refusal or None,
                annotations=choice.annotations or (),
                images=choice.images or (),
                audio=choice.audio,
            ),
            finish_reason=choice.finish_reason,
            native_finish_reason=native,
            logprobs=choice.logprobs,
        )


def _dict(extra: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if extra is None else dict(extra)


def _release_calls(choice: CompletionChoice, fold: _ChoiceFold, upto: int) -> None:
    """Move the calls of a complete answer to those that may be run: all of them, if each is proven whole."""
    calls = choice.partial_tool_calls
    if not calls or fold.call_index.ambiguous or not any(map(is_completing, fold.finish_reason.all(upto))):
        return
    if all(map(is_whole, calls)):
        choice.tool_calls, choice.partial_tool_calls = calls, []


class _Answer:
    """All that was told of one attempt's answer."""

    def __init__(self) -> None:
        self.heads = _Log[ChatCompletion]()
        self.missing = _HEAD  # of what is said once; mostly with the first chunk, some with the last, some never
        self.choices: dict[int, _ChoiceFold] = {}

    def add_head(self, chunk: ChatChunk, number: int) -> None:
        head = copy(self.heads.values[-1]) if self.heads.values else ChatCompletion()
        for name in self.missing:
            told = getattr(chunk, name)
            if told is not None and not getattr(head, name):
                setattr(head, name, told)
        self.missing = tuple(name for name in self.missing if not getattr(head, name))
        head.usage = merged_usage(head.usage, chunk.usage)
        head.service_tier = chunk.service_tier or head.service_tier
        head.openrouter_metadata = chunk.openrouter_metadata or head.openrouter_metadata
        self.heads.add(head, number)

    def read(self, upto: int, state: State) -> ChatCompletion:
        head = self.heads.last(upto) or ChatCompletion()
        folds = [fold for _, fold in sorted(self.choices.items()) if fold.begun <= upto]
        if state == "complete" and any(cutting_reason(fold.reasons(upto)) for fold in folds):
            state = "incomplete"
        choices = [fold.read(upto) for fold in folds]
        if state == "complete":
            for fold, choice in zip(folds, choices, strict=True):
                _release_calls(choice, fold, upto)
        return ChatCompletion(
            id=head.id,
            model=head.model,
            provider=head.provider,
            created=head.created,
            choices=choices,
            usage=head.usage,
            service_tier=head.service_tier,
            system_fingerprint=head.system_fingerprint,
            openrouter_metadata=head.openrouter_metadata,
            state=state,
        )

    def text(self, upto: int) -> str:
        """The text of the first choice, alone."""
        begun = [fold for fold in self.choices.values() if fold.begun <= upto]
        return min(begun, key=lambda fold: fold.index).text.read(upto) if begun else ""

    def chunk(self, upto: int) -> ChatChunk:
        whole = self.read(upto, "streaming")
        return ChatChunk(
            id=whole.id,
            model=whole.model,
            provider=whole.provider,
            object="chat.completion.chunk",
            created=whole.created,
            choices=[self.choices[choice.index].delta(choice, upto) for choice in whole.choices],
            usage=whole.usage,
            service_tier=whole.service_tier,
            system_fingerprint=whole.system_fingerprint,
            openrouter_metadata=whole.openrouter_metadata,
        )


class _Snapshot(ChatCompletion):
    """A completion whose fields are set when somebody looks at one of them."""

    __slots__ = ("unread",)
    unread: tuple[_Answer, int] | None

    @classmethod
    def of(cls, answer: _Answer, upto: int) -> _Snapshot:
        snapshot = cls.__new__(cls)  # the fields stay unset, so that __getattr__ is asked for them
        snapshot.unread = answer, upto
        return snapshot

    def __getattr__(self, name: str) -> Any:
        if name == "unread":
            return None
        if name not in _FIELDS or self.unread is None:
            raise AttributeError(name)
        answer, upto = self.unread
        whole = answer.read(upto, "streaming")
        for field in _FIELDS:
            setattr(self, field, getattr(whole, field))
        self.unread = None  # or a snapshot that is kept would keep all pieces of the answer
        return getattr(whole, name)

    @property
    def text(self) -> str:
        """The answer's text; of all it is what is looked at most, and alone."""
        if self.unread is None:
            return super().text
        answer, upto = self.unread
        return answer.text(upto)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ChatCompletion):
            return NotImplemented
        return all(getattr(self, field) == getattr(other, field) for field in _FIELDS)

    __hash__ = None  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return repr(copy(self))

    def __reduce__(self) -> Any:
        return ChatCompletion, tuple(getattr(self, field) for field in _FIELDS)  # a copy is plain


_FIELDS = tuple(ChatCompletion.__dataclass_fields__)


class CompletionFold:
    """Chunks in, a `ChatCompletion` out, at any time."""

    def __init__(self) -> None:
        self._answer = _Answer()
        self._chunk = 0  # how many there were

    def add(self, chunk: ChatChunk) -> None:
        """Folds one more chunk in: about 0.5 µs for a text delta (tests/perf/test_stream.py)."""
        self._chunk = number = self._chunk + 1
        if not chunk.choices and isinstance(chunk, Restarted):
            self._answer = _Answer()
        answer = self._answer
        if chunk.usage is not None or chunk.openrouter_metadata is not None or chunk.service_tier is not None:
            answer.add_head(chunk, number)
        elif answer.missing:
            for name in answer.missing:
                if getattr(chunk, name):
                    answer.add_head(chunk, number)
                    break
        choices = answer.choices
        for choice in chunk.choices:
            fold = choices.get(choice.index)
            if fold is None:
                fold = choices[choice.index] = _ChoiceFold(choice.index, number)
            fold.add(choice, number)

    @property
    def finished(self) -> bool:
        """Whether every choice has ended by a finish reason of its own, with no content behind it."""
        proof = FinishProof()
        for fold in self._answer.choices.values():
            fold.prove(proof)
        return proof.proven(1)

    def completion(self, state: State = "complete") -> ChatCompletion:
        """Return the answer so far.

        Args:
            state: How the stream has ended. A `complete` one becomes `incomplete` if the model's side had stopped it.
        """
        return self._answer.read(self._chunk, state)

    def is_ambiguous(self, choice: int) -> bool:
        """Return whether the pieces of this choice's tool calls can be read as other calls, so that none may be run."""
        fold = self._answer.choices.get(choice)
        return fold is not None and fold.call_index.ambiguous

    def chunks(self) -> list[ChatChunk]:
        """The answer so far as one chunk: folded before those that follow, it gives what all give; none for nothing."""
        answer = self._answer
        return [answer.chunk(self._chunk)] if answer.heads.values or answer.choices else []

    def snapshot(self) -> ChatCompletion:
        """The answer so far, which is read when somebody looks at it; it is as of now, whenever that is."""
        return _Snapshot.of(self._answer, self._chunk)
