"""Cheapest first."""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from gateway.plan import Context, Plan, Step, cost_key
from gateway.types import Request

FLEX = "flex"


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Orders steps by expected cost: healthy before unhealthy, a known cost before an unknown, ties as they were.

    `flex_from_s`   a request whose `x-tollgate-deadline` is so many seconds away or more is also offered at the flex
                    tier of the candidates that have a price for it: the same model, slower, refused where there is
                    no room, and then asked at its standard price.  0: never.
    """

    flex_from_s: float = 900.0

    def __post_init__(self) -> None:
        if self.flex_from_s < 0:
            raise ValueError("cheapest: flex_from_s must be 0 or more")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same candidates, cheapest first."""
        if not plan.steps:
            return plan
        patient = request.deadline_s is not None and 0 < self.flex_from_s <= request.deadline_s
        slower = _at_flex(plan) if patient else ()
        if slower:
            plan = replace(plan, steps=(*slower, *plan.steps)).because("cheapest: the deadline allows the flex tier")
        return plan.sorted(key=_rank).because("cheapest")


def _at_flex(plan: Plan) -> tuple[Step, ...]:
    """The steps at the flex tier, where their requests name no tier and there is a price for it."""
    there = {step.deployment.id for step in plan.steps if step.service_tier == FLEX}
    return tuple(
        replace(step, service_tier=FLEX)
        for step in plan.steps
        if not step.service_tier and step.deployment.id not in there and FLEX in step.deployment.price.variants
    )


def _rank(step: Step) -> tuple[bool, tuple[bool, int]]:
    return not step.healthy, cost_key(step.expected_cost)
