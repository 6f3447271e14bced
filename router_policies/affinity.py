"""Stay where the conversation is cached."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.plan import Context, Plan
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Affinity:
    """Puts the healthy candidate that has most of the conversation cached first, while that pays.

    `within`      how much dearer than the cheapest it may be, its cached tokens priced as such: 0 is never
                  dearer; 0.1 accepts 10 % for answers of one voice and a quicker first token.
    `tokens_min`  with fewer tokens cached there is nothing to stay for.

    Expected costs know the cache already, so after `cheapest` this decides only near ties; after a policy that orders
    by something else (`weighted`, `sticky`) it keeps conversations together.
    """

    within: float = 0.0
    tokens_min: int = 1024

    def __post_init__(self) -> None:
        if not self.within >= 0:
            raise ValueError("affinity: within must be a share of 0 or more")
        if self.tokens_min < 1:
            raise ValueError("affinity: tokens_min must be 1 token or more")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, where it is cached first."""
        costs = [step.expected_cost for step in plan.steps if step.healthy and step.expected_cost is not None]
        ceiling = min(costs, default=0) * (1 + self.within)
        warm = [
            (step.cached_expected, step)
            for step in plan.steps
            if step.healthy
            and step.cached_expected >= self.tokens_min
            and step.expected_cost is not None
            and step.expected_cost <= ceiling
        ]
        if not warm:
            return plan
        tokens, home = max(warm, key=lambda each: each[0])
        reason = f"affinity: {tokens} tokens cached at {home.deployment.id}"
        return plan.sorted(lambda step: step is not home).because(reason)
