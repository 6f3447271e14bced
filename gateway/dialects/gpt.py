"""What the generations of OpenAI's models differ in, as far as a request must know.

From OpenAI's reference: o-series and gpt-5 and later take `max_completion_tokens` only; gpt-5 knows the effort
`minimal`, gpt-5.1 and later `none` instead, the o-series neither.
"""

from __future__ import annotations

import re
from functools import lru_cache

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
"""Upward."""

_NAME = re.compile(r"(?:^|/)(?:(?P<o>o)\d|gpt-(?P<major>\d+)(?:\.(?P<minor>\d+))?)")

_RESPONSES_ONLY = re.compile(r"(?:^|/)(?:(?:o\d|gpt-[5-9](?:\.\d+)?)-pro|gpt-5(?:\.\d+)?-codex|.*deep-research|codex-)")

_O_SERIES = (1, 0)
_GPT_5 = (5, 0)


@lru_cache(maxsize=1024)
def generation(model: str) -> tuple[int, int] | None:
    """(5, 1) of gpt-5.1-codex, (1, 0) of the o-series; None for models of others."""
    found = _NAME.search(model)
    if found is None:
        return None
    return _O_SERIES if found["o"] else (int(found["major"]), int(found["minor"] or 0))


def needs_completion_cap(model: str) -> bool:
    """Whether `max_tokens` is refused."""
    known = generation(model)
    return known is not None and (known == _O_SERIES or known >= _GPT_5)


def reasons(model: str) -> bool:
    """Whether it is an OpenAI model that thinks, and gives its thoughts sealed."""
    known = generation(model)
    return known is not None and (known == _O_SERIES or known >= _GPT_5) and "-chat" not in model


def needs_responses(model: str) -> bool:
    """Whether Chat Completions does not serve it."""
    return _RESPONSES_ONLY.search(model) is not None


def effort_word(model: str, effort: str) -> str:
    """The effort as this model knows it: the next lower word it takes, else its lowest; "" if it does not reason."""
    known = generation(model)
    if known is None:
        return effort
    if known != _O_SERIES and known < _GPT_5:
        return ""
    if known == _O_SERIES:
        words: tuple[str, ...] = ("low", "medium", "high")
    elif known == _GPT_5:
        words = ("minimal", "low", "medium", "high")
    else:
        words = ("none", "low", "medium", "high", "xhigh") if known >= (5, 2) else ("none", "low", "medium", "high")
    if effort not in EFFORTS:
        return effort
    lower = [word for word in words if EFFORTS.index(word) <= EFFORTS.index(effort)]
    return lower[-1] if lower else words[0]
