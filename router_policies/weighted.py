"""Shares of traffic: canaries, gradual moves, and load spread over equals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.plan import IDENTITIES, Context, Plan, Step, identity, spread
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Weighted:
    """Puts a candidate first in proportion to its weight; the others follow in the order they had, as failover.

    `weights`  deployment id to its weight; a candidate without one is only a failover.
    `sticky`   what always gets the same candidate while weights and health stay: `user`, `conversation`, `task`, `key`
               or `tenant`.  `request`: every request for itself.  Whoever has no user or task counts as a conversation.
    """

    weights: Mapping[str, float]
    sticky: str = "request"

    def __post_init__(self) -> None:
        if not self.weights or any(not weight >= 0 for weight in self.weights.values()):
            raise ValueError("weighted: weights must name deployments, each with 0 or more")
        if not sum(self.weights.values()) > 0:
            raise ValueError("weighted: one weight at least must be above 0")
        if self.sticky not in IDENTITIES:
            raise ValueError(f"weighted: sticky must be one of {', '.join(IDENTITIES)}, not {self.sticky!r}")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, the drawn one first."""
        able = [step for step in plan.steps if step.healthy and self._weight(step) > 0]
        if not able:
            return plan
        drawn = self._drawn(able, spread(identity(request, self.sticky)))
        return plan.sorted(lambda step: step is not drawn).because(f"weighted: {drawn.deployment.id}")

    def _weight(self, step: Step) -> float:
        return self.weights.get(step.deployment.id, 0.0)

    def _drawn(self, able: list[Step], place: float) -> Step:
        """Steps stand side by side in the order of their names, each as wide as its weight."""
        able = sorted(able, key=lambda step: step.deployment.id)
        left = place * sum(self._weight(step) for step in able)
        for step in able:
            left -= self._weight(step)
            if left < 0:
                return step
        return able[-1]
