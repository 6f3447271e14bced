"""A plan in words and in figures: what was considered, what it would have cost, why this one.  Pure."""

from __future__ import annotations

from typing import Any

from gateway.money import dollars
from gateway.plan import Dropped, Mode, Plan, Step
from gateway.types import NanoUSD


def explain(plan: Plan, model: str, route: str | None = None) -> dict[str, Any]:
    """The plan for a request that asked for `model`, as JSON can hold it.  Costs are exact dollars, null if unknown."""
    first = plan.steps[0] if plan.steps else None
    saving = _saving(first, plan.baseline)
    return {
        "model": model,
        "route": route,
        "mode": str(plan.mode),
        "candidates": [_candidate(step) for step in plan.steps],
        "dropped": [{"deployment": gone.deployment, "reason": gone.reason} for gone in plan.dropped],
        "reasons": list(plan.reasons),
        "reserve_usd": _usd(plan.worst_cost),
        "baseline": _candidate(plan.baseline) if plan.baseline else None,
        "saving_usd": _usd(saving),
        "aside": _aside(plan),
    }


def in_words(plan: Plan, model: str, route: str | None = None) -> list[str]:
    """The same as lines to read."""
    return [
        _headline(plan, model, route),
        *(line for place, step in enumerate(plan.steps, 1) for line in _step_lines(place, step)),
        *(_dropped_line(gone) for gone in plan.dropped),
        *([f"Why: {'; '.join(plan.reasons)}."] if plan.reasons else []),
        *([_reserve_line(plan)] if plan.steps else []),
        *_baseline_lines(plan),
        *_aside_lines(plan),
    ]


def _candidate(step: Step) -> dict[str, Any]:
    return {
        "deployment": step.deployment.id,
        "provider": step.deployment.provider.id,
        "upstream_model": step.deployment.upstream_model,
        "healthy": step.healthy,
        "input_tokens_expected": step.estimate.expected,
        "input_tokens_bound": step.estimate.bound,
        "cached_tokens_expected": step.cached_expected,
        "cached_share": _share(step.cached_expected, step.estimate.expected),
        "output_tokens_cap": step.output_cap,
        "output_tokens_expected": step.output_expected,
        "reasoning_tokens_expected": step.reasoning_expected,
        "choices": step.choices,
        "effort": step.effort,
        "expected_cost_usd": _usd(step.expected_cost),
        "worst_cost_usd": _usd(step.worst_cost),
        "price_source": step.deployment.price.source,
    }


def _headline(plan: Plan, model: str, route: str | None) -> str:
    kind = f"{model!r} is route {route!r}" if route else f"{model!r} is one model"
    fit = f"{len(plan.steps)} candidate{'s fit' if len(plan.steps) != 1 else ' fits'}"
    order = "each is tried if the one before fails"
    if plan.mode is Mode.CASCADE:
        order = "each is tried if the answer before is not good enough"
    return f"{kind}: {fit}, {len(plan.dropped)} dropped{f'; {order}' if len(plan.steps) > 1 else ''}."


def _step_lines(place: int, step: Step) -> list[str]:
    deployment = step.deployment
    health = "" if step.healthy else ", out of service"
    effort = f", reasoning effort {step.effort}" if step.effort else ""
    tokens = f"   input about {step.estimate.expected} tokens, at most {step.estimate.bound}"
    if step.cached_expected:
        tokens += f", {_share(step.cached_expected, step.estimate.expected):.0%} of it cached"
    times = f"{step.choices} times " if step.choices > 1 else ""
    tokens += f"; output {times}about {step.output_expected}, at most {step.output_cap}{effort}"
    return [
        f"{place}. {deployment.id} ({deployment.provider.id}: {deployment.upstream_model}){health}",
        tokens,
        f"   costs about {_priced(step.expected_cost)}, at most {_priced(step.worst_cost)}",
    ]


def _dropped_line(gone: Dropped) -> str:
    return f"x  {gone.deployment}: {gone.reason}"


def _reserve_line(plan: Plan) -> str:
    if plan.worst_cost is None:
        return "Set aside before the call: unknown, because a candidate has no known price."
    of = "all of them" if plan.mode is Mode.CASCADE else "the dearest of them"
    return f"Set aside before the call: {_priced(plan.worst_cost)}{f' ({of})' if len(plan.steps) > 1 else ''}."


def _baseline_lines(plan: Plan) -> list[str]:
    if plan.baseline is None or not plan.steps:
        return []
    line = f"Baseline {plan.baseline.deployment.id} would cost about {_priced(plan.baseline.expected_cost)}"
    saving = _saving(plan.steps[0], plan.baseline)
    if saving is None:
        return [f"{line}."]
    share = _share(abs(saving), plan.baseline.expected_cost or 0)
    verb = "saves" if saving >= 0 else "adds"
    return [f"{line}: this {verb} about {_priced(abs(saving))} ({share:.0%})."]


def _aside(plan: Plan) -> dict[str, Any] | None:
    aside = plan.aside
    if aside is None:
        return None
    return {"model": aside.model, "share": aside.share, "budget_usd": _usd(aside.budget), "llm": aside.llm or None}


def _aside_lines(plan: Plan) -> list[str]:
    aside = plan.aside
    if aside is None:
        return []
    judge = f"{aside.llm} compares" if aside.llm else "compared by what they say"
    budget = f"at most ${dollars(aside.budget)} a day"
    return [f"Beside it: {aside.model} answers {aside.share:.2%} of such requests too, unheard, {judge}; {budget}."]


def _saving(step: Step | None, baseline: Step | None) -> NanoUSD | None:
    if step is None or baseline is None or step.expected_cost is None or baseline.expected_cost is None:
        return None
    return baseline.expected_cost - step.expected_cost


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _usd(cost: NanoUSD | None) -> str | None:
    return None if cost is None else dollars(cost)


def _priced(cost: NanoUSD | None) -> str:
    return "an unknown amount" if cost is None else f"${dollars(cost)}"
