"""What may be asked of a Claude, on whichever cloud: how it thinks and how it samples, in Anthropic's own fields.

A thinking budget is left out when the assistant's last turn called tools and its thoughts were not sent back, for
Anthropic refuses that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.conversation import SAMPLING, Conversation, Part, Reasoning, Role, Thinking, ToolResult
from gateway.dialects import claude
from gateway.dialects.efforts import budget_of, effort_of, wanted
from gateway.dialects.signatures import unsealed
from gateway.plan import Step
from gateway.types import Capability

BUDGET_MIN = 1024
"""Tokens; Anthropic refuses less, and a budget that is not below max_tokens."""


def sampling(conversation: Conversation, model: str, cannot: Callable[[str, str], None]) -> dict[str, Any]:
    """temperature, top_p and top_k as far as they were asked for; `cannot` hears of what the model does not take."""
    given = {name: value for name in SAMPLING if (value := getattr(conversation.sampling, name)) is not None}
    return {
        name: value for name, value in given.items() if _takes(name, value, conversation.param(name), model, cannot)
    }


def _takes(name: str, value: Any, param: str, model: str, cannot: Callable[[str, str], None]) -> bool:  # noqa: ANN401 - each field of Sampling has its own type
    if name not in ("temperature", "top_p", "top_k"):
        cannot(param, "")
        return False
    if not claude.takes_sampling(model):
        if name == "top_k" or value != 1:
            cannot(param, f"{model} takes none")
        return False
    if name == "temperature" and value > 1:
        cannot(param, "it must be within 0 and 1")
        return False
    return True


def thinking(
    conversation: Conversation, step: Step, cannot: Callable[[str, str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What it adds to `output_config`, and to the body; `cannot` hears of a client's wish that cannot be had."""
    model = step.deployment.upstream_model
    asked = wanted(conversation.thinking, step)
    if asked is None:
        return {}, {}
    if asked.effort == "none":
        return {}, {"thinking": {"type": "disabled"}} if claude.thinks_unasked(model) else {}
    by_budget = claude.thinks_by_budget(model) or (asked.budget is not None and claude.takes_budgets(model))
    if why := _thoughtless(conversation, step, by_budget=by_budget):
        if step.effort is None:
            cannot(conversation.param("thinking"), why)
        return {}, {}
    if by_budget:
        return {}, _budget(conversation, step, asked)
    effort = claude.effort_word(model, effort_of(asked))
    return {"effort": effort} if effort else {}, {"thinking": {"type": "adaptive"}}


def _thoughtless(c: Conversation, step: Step, *, by_budget: bool) -> str:
    """Why Anthropic would refuse to think here; "" where it would not."""
    if Capability.REASONING not in step.deployment.capabilities:
        return f"{step.deployment.upstream_model} does not think"
    if c.tools and c.tool_choice is not None and c.tool_choice.mode in ("required", "tool"):
        return "a forced tool call excludes it"
    if c.sampling.top_k is not None or c.sampling.temperature not in (None, 1):
        return "temperature and top_k exclude it"
    if by_budget and step.output_cap <= BUDGET_MIN:
        return f"it needs more than {BUDGET_MIN} tokens of output"
    return ""


def _budget(c: Conversation, step: Step, asked: Thinking) -> dict[str, Any]:
    said = [turn for turn in c.turns if turn.role is Role.ASSISTANT]
    waiting = bool(said) and any(isinstance(part, ToolResult) for part in c.turns[-1].parts)
    if waiting and not any(is_thought(part) for part in said[-1].parts):
        return {}
    tokens = min(max(budget_of(asked), BUDGET_MIN), step.output_cap - 1)
    return {"thinking": {"type": "enabled", "budget_tokens": tokens}}


def is_thought(part: Part) -> bool:
    """Whether it is a thought that Anthropic takes back."""
    proof = part.signature or part.encrypted if isinstance(part, Reasoning) else ""
    return bool(proof) and not unsealed(proof)
