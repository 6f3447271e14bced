"""What the generations of Gemini differ in, as far as a request must know.

From Google's guides to thinking, function calling and structured output: 2.5 brought thinking, told by a budget in
tokens; from 3 on it is told by levels, tool calls must come back signed, and tools go together with JSON answers.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NEWEST = (99, 0)
_OLDEST = (1, 0)
_NAME = re.compile(r"gemini-(?:[a-z]+-)*(\d+)(?:\.(\d+))?(?=-|$)")
_LEVELS = ("minimal", "low", "medium", "high", "xhigh")
"""Upward."""


@lru_cache(maxsize=1024)
def generation(model: str) -> tuple[int, int]:
    """(2, 5) of gemini-2.5-flash; the newest for a Gemini that names none, the oldest for other models."""
    if found := _NAME.search(model):
        return (int(found[1]), int(found[2] or 0))
    return _NEWEST if "gemini" in model else _OLDEST


def thinks(model: str) -> bool:
    """Whether thinking can be asked of it."""
    return generation(model) >= (2, 5)


def thinks_by_budget(model: str) -> bool:
    """Whether thinking is told in tokens, and not by level."""
    return generation(model) < (3, 0)


def budget_range(model: str) -> tuple[int, int, bool]:
    """The least and the most tokens of a thinking budget, and whether thinking can be turned off."""
    if "pro" in model:
        return 128, 32_768, False
    return (512 if "lite" in model else 1), 24_576, True


def level(model: str, effort: str) -> str:
    """The thinking level nearest below an effort that this model knows, else its lowest; "" if it is no effort."""
    if effort == "none":
        effort = "minimal"
    if effort == "max":
        effort = "xhigh"
    if effort not in _LEVELS:
        return ""
    known = _levels(model)
    lower = [word for word in known if _LEVELS.index(word) <= _LEVELS.index(effort)]
    return lower[-1] if lower else known[0]


def _levels(model: str) -> tuple[str, ...]:
    """Only those that are sure: a lower level costs less than a refusal."""
    made = generation(model)
    if made == (3, 0) and "pro" in model:
        return ("low", "high")
    if "flash" in model and made < (3, 7):
        return ("minimal", "low", "medium", "high")
    return ("low", "medium", "high", "xhigh") if (4, 0) <= made < _NEWEST else ("low", "medium", "high")


def signs_calls(model: str) -> bool:
    """Whether a tool call that comes back without a signature is refused."""
    return generation(model) >= (3, 0)


def takes_json_schema(model: str) -> bool:
    """Whether schemas are taken as they are, and not only in OpenAPI's subset."""
    return generation(model) >= (2, 5)


def takes_tools_with_json(model: str) -> bool:
    """Whether a JSON answer can be asked for where there are tools."""
    return generation(model) >= (3, 0)


def takes_media_in_results(model: str) -> bool:
    """Whether a tool's result can hold images and files."""
    return generation(model) >= (3, 0)
