"""A reply as it grows: what a format's reader makes of a stream, and its writer writes.

`choice` is the answer a delta belongs to.  A delta of another kind than the last, or PartEnded, ends the part before
it; the arguments of parallel calls may interleave, told apart by `index`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from gateway.conversation import Answer, Citation, Finish, Opaque, Part, Reasoning, Refusal, Reply, Text, ToolCall
from gateway.types import Usage


@dataclass(frozen=True, slots=True)
class Started:
    id: str
    model: str


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str
    choice: int = 0
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class CitationDelta:
    """Cites for the text part that is growing."""

    citation: Citation
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class SignatureDelta:
    signature: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class EncryptedReasoning:
    """A whole part of reasoning that only its provider can read."""

    data: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class RefusalDelta:
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallStarted:
    index: int  # counts the calls of one answer from 0
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    index: int
    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class OpaqueDelta:
    """A whole part that only the provider's format can say."""

    part: Opaque
    choice: int = 0


@dataclass(frozen=True, slots=True)
class PartEnded:
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    finish: Finish
    stop_sequence: str | None = None
    choice: int = 0


@dataclass(frozen=True, slots=True)
class UsageSeen:
    """What the provider has reported so far; a later one replaces it."""

    usage: Usage


Delta: TypeAlias = (
    Started
    | TextDelta
    | CitationDelta
    | ReasoningDelta
    | SignatureDelta
    | EncryptedReasoning
    | RefusalDelta
    | ToolCallStarted
    | ArgumentsDelta
    | OpaqueDelta
    | PartEnded
    | Finished
    | UsageSeen
)


def fold(deltas: Iterable[Delta]) -> Reply:
    """The whole reply that a stream of deltas builds."""
    id_, model = "", ""
    usage: Usage | None = None
    answers: dict[int, _Answer] = {}
    for delta in deltas:
        if isinstance(delta, Started):
            id_, model = delta.id, delta.model
        elif isinstance(delta, UsageSeen):
            usage = delta.usage
        else:
            answers.setdefault(delta.choice, _Answer()).add(delta)
    whole = tuple(answers[choice].whole() for choice in sorted(answers)) or (Answer(),)
    return Reply(id_, model, whole, usage)


Growing: TypeAlias = TextDelta | ReasoningDelta | RefusalDelta


class _Answer:
    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.calls: dict[int, tuple[ToolCallStarted, list[str]]] = {}
        self.kind: type[Growing] | None = None
        self.text: list[str] = []
        self.citations: list[Citation] = []
        self.signature = ""
        self.logprobs: dict[str, list[Any]] = {}
        self.finished: Finished | None = None

    def add(self, delta: Delta) -> None:
        match delta:
            case TextDelta() | ReasoningDelta() | RefusalDelta():
                self.grow(delta)
            case CitationDelta(citation):
                self.turn_to(TextDelta)
                self.citations.append(citation)
            case SignatureDelta(signature):
                self.turn_to(ReasoningDelta)
                self.signature += signature
            case ArgumentsDelta(index, text):
                self.calls[index][1].append(text)
            case Finished():
                self.finished = delta
            case _:
                self.turn_to(None)
                self.begin(delta)

    def begin(self, delta: Delta) -> None:
        if isinstance(delta, ToolCallStarted):
            self.calls[delta.index] = (delta, [])
        elif isinstance(delta, EncryptedReasoning):
            self.parts.append(Reasoning(encrypted=delta.data))
        elif isinstance(delta, OpaqueDelta):
            self.parts.append(delta.part)

    def grow(self, delta: Growing) -> None:
        if delta.text:
            self.turn_to(type(delta))
            self.text.append(delta.text)
        if isinstance(delta, TextDelta) and delta.logprobs:
            for name, tokens in delta.logprobs.items():
                if isinstance(tokens, list):
                    self.logprobs.setdefault(name, []).extend(tokens)

    def turn_to(self, kind: type[Growing] | None) -> None:
        if kind is self.kind and kind is not None:
            return
        text = "".join(self.text)
        if self.kind is TextDelta and (text or self.citations):
            self.parts.append(Text(text, tuple(self.citations)))
        elif self.kind is ReasoningDelta and (text or self.signature):
            self.parts.append(Reasoning(text, self.signature))
        elif self.kind is RefusalDelta:
            self.parts.append(Refusal(text))
        self.kind, self.text, self.citations, self.signature = kind, [], [], ""

    def whole(self) -> Answer:
        self.turn_to(None)
        calls = (ToolCall(call.id, call.name, "".join(texts)) for call, texts in self.calls.values())
        finished = self.finished
        return Answer(
            (*self.parts, *calls),
            finished.finish if finished else None,
            finished.stop_sequence if finished else None,
            self.logprobs or None,
        )
