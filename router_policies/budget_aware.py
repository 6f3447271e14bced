"""A plan that gets cheaper as a budget fills, so that `degrade` budgets are stretched before anyone is refused."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from gateway.plan import EFFORTS, Context, Plan, Step, asked_effort, cost_key
from gateway.types import Capability, Request

STRONGEST = len(EFFORTS)


@dataclass(frozen=True, slots=True)
class BudgetAware:
    """What changes once this share of the caller's fullest `degrade` budget is gone (0.8 is 80 %).

    `cheaper_from`: cheaper candidates first.  `effort_from`: reasoning is asked for with at most `effort`, where it is
    asked for at all.  `cap_from`: answers have at most `output_cap` tokens.  `cheapest_from`: only the cheapest healthy
    candidate is left, and those as cheap.
    """

    cheaper_from: float = 0.8
    effort_from: float = 0.8
    effort: str = "low"
    cap_from: float = 0.9
    output_cap: int = 1024
    cheapest_from: float = 0.95

    def __post_init__(self) -> None:
        for name in ("cheaper_from", "effort_from", "cap_from", "cheapest_from"):
            if not getattr(self, name) > 0:
                raise ValueError(f"budget_aware: {name} must be a share above 0, such as 0.8; above 1 means never")
        if self.effort not in EFFORTS:
            raise ValueError(f"budget_aware: effort must be one of {', '.join(EFFORTS)}, not {self.effort!r}")
        if self.output_cap < 1:
            raise ValueError("budget_aware: output_cap must be 1 token or more")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:
        """The same plan while there is room; a cheaper one, marked as degraded, when there is little."""
        fill = context.fill
        cheaper = plan
        if fill >= self.cheaper_from:
            cheaper = cheaper.sorted(key=lambda step: (not step.healthy, cost_key(step.expected_cost)))
        if fill >= self.effort_from:
            cheaper = cheaper.each(lambda step: self._calmer(step, request))
        if fill >= self.cap_from:
            cheaper = cheaper.each(lambda step: step.capped(self.output_cap))
        if fill >= self.cheapest_from and cheaper.steps:
            ceiling = cost_key(cheaper.steps[0].expected_cost)
            cheaper = cheaper.only(lambda step: cost_key(step.expected_cost) <= ceiling, "the budget is nearly full")
        if cheaper.steps == plan.steps:
            return plan
        return replace(cheaper, degraded=True).because(f"budget {fill:.0%} full")

    def _calmer(self, step: Step, request: Request) -> Step:
        """With less effort; never more than the client or another policy asked for."""
        asked = step.effort if step.effort is not None else asked_effort(request.body)
        if asked is None or Capability.REASONING not in step.deployment.capabilities:
            return step
        strength = EFFORTS.index(asked) if asked in EFFORTS else STRONGEST
        return step if strength <= EFFORTS.index(self.effort) else step.thinking(self.effort)
