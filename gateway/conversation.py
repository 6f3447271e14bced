"""The hub between wire formats: what any of them can say, in one set of frozen nouns.

N client formats meet M provider formats here, so a format is one codec and never N x M translators.  A codec reads its
format into these nouns and writes them back; what a format cannot say, its writer refuses by name.

Canonical form, kept by every reader, so that what two formats can both say survives the way there and back:

* system text before the first turn is `Conversation.system`; later system text is a turn of its own
* consecutive turns of one role are one turn; turns and texts that are empty are not there
* a tool's result stands in a user turn, before what the user says
* an assistant turn holds its reasoning, then what it says, then its tool calls

Parts carry the `path` at which the client wrote them, for error messages only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, TypeAlias

from gateway.types import Format, Usage


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


class Finish(StrEnum):
    """Why an answer ended."""

    END = "end"
    LENGTH = "length"  # the output cap
    CONTEXT_FULL = "context_full"  # the model's context window
    TOOLS = "tools"  # it waits for tool results
    STOP_SEQUENCE = "stop_sequence"
    REFUSED = "refused"  # the model or a filter declined
    PAUSED = "paused"  # a long turn of server-side tools, to be continued


@dataclass(frozen=True, slots=True)
class CacheMark:
    """Cache the prompt up to here for at least `minutes`; 0 is the provider's own default."""

    minutes: int = 0


@dataclass(frozen=True, slots=True)
class Citation:
    """Where something said comes from.  `source` is the provider's own record of it."""

    url: str = ""
    title: str = ""
    quote: str = ""
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    citations: tuple[Citation, ...] = ()
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class Image:
    """By `url`, by base64 `data` with its `media_type`, or by a provider's `file_id`."""

    url: str = ""
    data: str = ""
    media_type: str = ""
    file_id: str = ""
    detail: str = ""  # low, high, auto, original
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Audio:
    """Base64 `data` in `format` (wav, mp3, ...)."""

    data: str
    format: str
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Document:
    """A file: base64 `data` with its `media_type`, plain `text`, a `url`, or a provider's `file_id`."""

    data: str = ""
    media_type: str = ""
    text: str = ""
    url: str = ""
    file_id: str = ""
    title: str = ""
    context: str = ""
    cite: bool = False  # whether the answer shall cite it
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is JSON text as the model wrote it; it need not parse."""

    id: str
    name: str
    arguments: str
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolResult:
    id: str  # of the call
    parts: tuple[Part, ...] = ()
    is_error: bool = False
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought.  `signature` proves it to its provider; `encrypted` only the provider can read."""

    text: str = ""
    signature: str = ""
    encrypted: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    text: str


@dataclass(frozen=True, slots=True)
class Opaque:
    """A part only `format` can say; carried whole to where that format is spoken, refused elsewhere."""

    format: Format
    type: str
    value: Mapping[str, Any]
    path: str = field(default="", compare=False)


Part: TypeAlias = Text | Image | Audio | Document | ToolCall | ToolResult | Reasoning | Refusal | Opaque


@dataclass(frozen=True, slots=True)
class Turn:
    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call.  `parameters` is a JSON schema; `strict` None: as the provider likes."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    strict: bool | None = None
    cache: CacheMark | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """`mode` is auto, none, required or tool (then `name`).  `allowed` narrows the tools; empty: all of them."""

    mode: str
    name: str = ""
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shape:
    """How the answer shall look: `json_object`, or `json_schema` with its schema."""

    kind: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    description: str = ""
    strict: bool | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """How hard to think: an `effort` word, a budget in tokens, or on as the model sees fit (both empty).

    `effort` is none (do not think), minimal, low, medium, high, xhigh or max.
    """

    effort: str = ""
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """None: not asked for.  Readers leave out values that change nothing (n = 1, a penalty of 0)."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logit_bias: Mapping[str, Any] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    n: int | None = None


SAMPLING = tuple(Sampling.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Conversation:
    """What a client asks of a model."""

    turns: tuple[Turn, ...]
    system: tuple[Text, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel: bool | None = None  # whether several tools may be called at once; None: not said
    shape: Shape | None = None
    sampling: Sampling = Sampling()
    stop: tuple[str, ...] = ()
    output_max: int | None = None
    thinking: Thinking | None = None
    stream: bool = False
    user: str = ""
    cache: CacheMark | None = None  # the provider places the mark
    opaque_tools: tuple[Opaque, ...] = ()  # tools only the client's format knows
    extras: Mapping[str, Any] = field(default_factory=dict)  # fields only the client's format knows, that matter
    names: Mapping[str, str] = field(default_factory=dict, compare=False)  # what the client's format calls ours

    def param(self, name: str) -> str:
        """What the client calls the field `name` of ours."""
        return self.names.get(name, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """One of the answers in a reply.  `logprobs` is in OpenAI's shape."""

    parts: tuple[Part, ...] = ()
    finish: Finish | None = None
    stop_sequence: str | None = None
    logprobs: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answered."""

    id: str
    model: str
    answers: tuple[Answer, ...]  # one at least
    usage: Usage | None = None


def merged(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Turns in canonical form: no empty ones, consecutive ones of a role made one, tool results first."""
    out: list[Turn] = []
    for turn in turns:
        if not turn.parts:
            continue
        if out and out[-1].role is turn.role:
            out[-1] = Turn(turn.role, out[-1].parts + turn.parts)
        else:
            out.append(turn)
    return tuple(_ordered(turn) for turn in out)


def marked(parts: tuple[Part, ...], cache: CacheMark | None) -> tuple[Part, ...]:
    """The same parts with the cache mark on the last, where that can carry one."""
    if cache is None or not parts or isinstance(parts[-1], Reasoning | Refusal | Opaque):
        return parts
    return (*parts[:-1], replace(parts[-1], cache=cache))


def _ordered(turn: Turn) -> Turn:
    place = _PLACE[turn.role]
    return Turn(turn.role, tuple(sorted(turn.parts, key=lambda part: place.get(type(part), 1))))


_PLACE: Mapping[Role, Mapping[type, int]] = {
    Role.SYSTEM: {},
    Role.USER: {ToolResult: 0},
    Role.ASSISTANT: {Reasoning: 0, ToolCall: 2},
}
