"""Whether two answers say the same."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from gateway.plan import Said

SHORT_CHARS = 40
"""An answer that is no more than a name, a letter or a number."""
FINAL = (
    re.compile(r"\\boxed\{([^{}]*)\}"),
    re.compile(r"####\s*(\S[^\n]*)"),
    re.compile(r"(?:final )?answer\s*(?:is|:)\s*\**\(?([^\n*)]+?)(?:\.(?:\s|$)|[\n*)]|$)", re.IGNORECASE),
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
WORD = re.compile(r"\w+")
FENCE = re.compile(r"^```(?:json)?\s*(.*?)\s*```$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two answers are, 0 to 1.  `exact`: they say the same or they do not, and `score` is 1 or 0."""

    score: float
    exact: bool


def likeness(one: Said, other: Said) -> Likeness:
    """By their tool calls, else their JSON, else their final answers; of free texts, the share of words in common."""
    if one.calls or other.calls:
        return _same(_calls(one), _calls(other))
    first, second = _json(one.text), _json(other.text)
    if first is not None or second is not None:
        return _same(first, second)
    first, second = final_answer(one.text), final_answer(other.text)
    if first is not None and second is not None:
        return _same(first, second)
    words, others = (set(WORD.findall(said.text.lower())) for said in (one, other))
    return Likeness(len(words & others) / max(1, len(words | others)), exact=False)


def alike(one: Said, other: Said, from_: float) -> bool:
    """Whether they say the same; `from_`: the share of words in common from which free texts do."""
    found = likeness(one, other)
    return found.score >= (1.0 if found.exact else from_)


def final_answer(text: str) -> str | None:
    """What a worked answer comes to: boxed, after ####, after "answer is"; of a short one all of it; else None."""
    for pattern in FINAL:
        if found := pattern.findall(text):
            return _plain(found[-1])
    return _plain(text) if len(text) <= SHORT_CHARS else None


def _same(one: object, other: object) -> Likeness:
    return Likeness(float(one == other), exact=True)


def _plain(text: str) -> str:
    numbers = NUMBER.findall(text)
    if len(numbers) == 1:
        return f"{float(numbers[0].replace(',', '')):g}"
    return " ".join(WORD.findall(text.lower()))


def _calls(said: Said) -> list[tuple[str, Any]]:
    return [(name, _json(arguments)) for name, arguments in said.calls]


def _json(text: str) -> Any:  # noqa: ANN401 - whatever JSON it is; None: it is none, or a bare word
    fenced = FENCE.match(text.strip())
    inner = fenced[1] if fenced else text.strip()
    if inner[:1] not in {"{", "["}:
        return None
    try:
        return json.loads(inner)
    except (ValueError, RecursionError):
        return None
