"""What the generations of Claude differ in, as far as a request must know.

From Anthropic's migration notes: 4.6 brought adaptive thinking; 4.7 took away budgets and sampling parameters; 4.8
takes system messages within the conversation; up to 4.8 a request without `thinking` does not think.
"""

from __future__ import annotations

import re
from functools import lru_cache

_NEWEST = (99, 0)
_CLASSIC = (4, 5)  # what others who speak Anthropic's format have built
_FAMILY = "opus|sonnet|haiku|instant|fable|mythos"
_NAME = re.compile(rf"claude-(?:(?:{_FAMILY})-)?(\d)(?:[-.](\d)(?!\d))?")


@lru_cache(maxsize=1024)
def generation(model: str) -> tuple[int, int]:
    """(4, 6) of claude-sonnet-4-6, whatever cloud names it; a Claude without one is taken for the newest."""
    if found := _NAME.search(model):
        return (int(found[1]), int(found[2] or 0))
    return _NEWEST if "claude" in model else _CLASSIC


def thinks_by_budget(model: str) -> bool:
    """Whether thinking is told in tokens, and not by effort."""
    return generation(model) < (4, 6)


def takes_budgets(model: str) -> bool:
    """Whether a budget in tokens is understood at all."""
    return generation(model) < (4, 7)


def takes_sampling(model: str) -> bool:
    """Whether temperature, top_p and top_k are understood."""
    return generation(model) < (4, 7)


def takes_late_system(model: str) -> bool:
    """Whether a system message may follow a user's."""
    return generation(model) >= (4, 8)


def thinks_unasked(model: str) -> bool:
    """Whether it may think unless told not to."""
    return generation(model) >= (5, 0)


def effort_word(model: str, effort: str) -> str:
    """The effort as this model knows it: the next lower word it takes, else its lowest."""
    if effort == "minimal":
        return "low"
    return "high" if effort == "xhigh" and generation(model) < (4, 7) else effort
