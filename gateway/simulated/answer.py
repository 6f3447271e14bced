"""What the simulated model says: the same words for the same prompt, to the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import orjson

from gateway.simulated.ask import Ask, Tool
from gateway.simulated.schema import instance
from gateway.simulated.script import Script

Cut: TypeAlias = Callable[[str], Sequence[str]]
"""A text as its o200k tokens."""

REFUSAL = "I cannot help with that."
SENTENCE = 12  # tokens
STARTS = ("The", "This", "Each", "Most", "Some", "When", "Every", "One")
VOCABULARY = (
    "a small model answers many simple questions well and costs far less than the large one would for that same work "
    "so every token counts when prices differ by provider time of day or how much input was read from cache before "
    "today we measure usage set money aside call settle record report each request has its own plan with steps in order"
)
WORDS = [f" {word}" for word in VOCABULARY.split()]
"""Each is one token of o200k, as is each of STARTS with or without a space before it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer, token by token."""

    pieces: Sequence[str]
    finish: str  # stop, length, tool_calls, content_filter
    tool: str = ""  # the function called; `pieces` are then its arguments
    name_tokens: int = 0
    reasoning: Sequence[str] = ()
    refusal: bool = False

    @property
    def tokens(self) -> int:
        """Tokens out, visible or not."""
        return len(self.reasoning) + self.name_tokens + len(self.pieces)


@dataclass(frozen=True, slots=True)
class Answer:
    """Everything a reply says."""

    id: str  # without the format's prefix
    model: str
    created: int  # unix seconds
    choices: tuple[Choice, ...]
    input_tokens: int
    cached_tokens: int

    @property
    def output_tokens(self) -> int:
        """Tokens out of all choices."""
        return sum(choice.tokens for choice in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        """Those of them that only reason."""
        return sum(len(choice.reasoning) for choice in self.choices)


def compose(ask: Ask, script: Script, model: str, input_tokens: int, created: int, cut: Cut) -> Answer:
    """The answer `script` wants to what was asked, no longer than the request allows."""
    return Answer(
        id=f"{ask.seed:08x}",
        model=model,
        created=created,
        choices=tuple(_choice(ask, script, ask.seed + index, cut) for index in range(ask.choices)),
        input_tokens=input_tokens,
        cached_tokens=int(input_tokens * script.cached),
    )


def prose(seed: int, tokens: int) -> list[str]:
    """Exactly `tokens` tokens of o200k that read like sentences."""
    pieces = Random(seed).choices(WORDS, k=tokens)  # noqa: S311 - a repeatable text, not a secret
    pieces[::SENTENCE] = [f" {STARTS[len(word) % len(STARTS)]}" for word in pieces[::SENTENCE]]
    pieces[SENTENCE - 1 :: SENTENCE] = ["."] * (tokens // SENTENCE)
    if pieces:
        pieces[0] = pieces[0].lstrip()
    return pieces


def _choice(ask: Ask, script: Script, seed: int, cut: Cut) -> Choice:
    room = ask.cap if ask.cap is not None else 1 << 62
    reasoning = prose(seed, min(script.reasoning, room))
    room -= len(reasoning)
    tool = _called(ask, script)
    name_tokens = min(len(cut(tool.name)), room) if tool else 0
    room -= name_tokens
    pieces = _pieces(ask, script, seed, tool, cut)
    finish = "tool_calls" if tool else "stop"
    return Choice(
        pieces=pieces[:room],
        finish=script.finish or ("length" if len(pieces) > room else finish),
        tool=tool.name if tool else "",
        name_tokens=name_tokens,
        reasoning=reasoning,
        refusal=script.refusal,
    )


def _pieces(ask: Ask, script: Script, seed: int, tool: Tool | None, cut: Cut) -> Sequence[str]:
    if tool:
        return cut(tool.parameters)
    if script.refusal:
        return cut(REFUSAL)
    if ask.schema is not None:
        return cut(orjson.dumps(instance(ask.schema)).decode())
    if script.echo:
        return cut(ask.last_text)[: script.output]
    return prose(seed, 20 + seed % 181 if script.output is None else script.output)


def _called(ask: Ask, script: Script) -> Tool | None:
    """The tool to call with its arguments as JSON text, if one is to be called."""
    name, _, arguments = script.tool.removesuffix(")").partition("(")
    if ask.answers_tool and ask.forced is None:
        return None
    known = {tool.name: tool.parameters for tool in ask.tools}
    if not name and ask.forced is not None:
        name = ask.forced or next(iter(known), "")
    if not name:
        return None
    if not arguments:
        arguments = orjson.dumps(instance(known.get(name, {"type": "object"}))).decode()
    return Tool(name, arguments)
