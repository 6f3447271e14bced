"""A fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.plan import Context, Plan
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Fallback:
    """Tries candidates in this `order` of deployment ids, the healthy before the others; those not named come last."""

    order: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.order, str) or not self.order:
            raise ValueError("fallback: order must be a list of deployment ids")
        if len(set(self.order)) < len(self.order):
            raise ValueError("fallback: order names a deployment twice")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps in the fixed order."""
        if not plan.steps:
            return plan
        places = {id_: place for place, id_ in enumerate(self.order)}
        last = len(places)
        return plan.sorted(lambda step: (not step.healthy, places.get(step.deployment.id, last))).because("fallback")
