"""Reasoning effort in words and in tokens.

Providers of budgets and providers of words agree on nothing; this table is ours, and is its own inverse, so that a word
translated into a budget comes back as the same word.
"""

from __future__ import annotations

from gateway.conversation import Thinking
from gateway.plan import Step

BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384, "xhigh": 32768, "max": 65536}
"""Tokens of thinking that an effort stands for."""


def effort_of(thinking: Thinking) -> str:
    """The word for it; "" where only the model decides."""
    if thinking.effort or thinking.budget is None:
        return thinking.effort
    return max(
        (word for word in BUDGETS if BUDGETS[word] <= thinking.budget), key=BUDGETS.__getitem__, default="minimal"
    )


def budget_of(thinking: Thinking) -> int:
    """The budget for it, in tokens."""
    return thinking.budget if thinking.budget is not None else BUDGETS.get(thinking.effort, BUDGETS["medium"])


def wanted(thinking: Thinking | None, step: Step) -> Thinking | None:
    """What is asked of this step: a policy's effort before the client's."""
    return Thinking(step.effort) if step.effort is not None else thinking
