"""Cheapest first."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.plan import Context, Plan, Step, cost_key
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Orders steps by expected cost: healthy before unhealthy, a known cost before an unknown, ties as they were."""

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, cheapest first."""
        return plan.sorted(key=_rank).because("cheapest") if plan.steps else plan


def _rank(step: Step) -> tuple[bool, bool, int]:
    return (not step.healthy, *cost_key(step.expected_cost))
