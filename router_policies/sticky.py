"""The same candidate for the same user or conversation, among those that cost about the same."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.plan import IDENTITIES, Context, Plan, identity, spread
from gateway.types import Request


@dataclass(frozen=True, slots=True)
class Sticky:
    """Puts one of the healthy candidates first that cost about the same; always the same one.

    `by`      whose requests stay together: `user`, `conversation`, `task`, `key` or `tenant`.
    `within`  how much dearer than the cheapest a candidate may be expected to be: 0.05 is 5 %.

    When a candidate goes or comes, only those who were there or will be there move (rendezvous hashing).
    """

    by: str = "conversation"
    within: float = 0.05

    def __post_init__(self) -> None:
        if self.by not in IDENTITIES or self.by == "request":
            known = ", ".join(name for name in IDENTITIES if name != "request")
            raise ValueError(f"sticky: by must be one of {known}, not {self.by!r}")
        if not self.within >= 0:
            raise ValueError("sticky: within must be a share of 0 or more")

    def apply(self, plan: Plan, request: Request, context: Context) -> Plan:  # noqa: ARG002 - the protocol's signature
        """The same steps, the one it stays with first."""
        costs = [step.expected_cost for step in plan.steps if step.healthy and step.expected_cost is not None]
        ceiling = min(costs, default=0) * (1 + self.within)
        equals = [
            step
            for step in plan.steps
            if step.healthy and step.expected_cost is not None and step.expected_cost <= ceiling
        ]
        if len(equals) < 2:
            return plan
        who = identity(request, self.by)
        chosen = max(equals, key=lambda step: (spread(f"{who} {step.deployment.id}"), step.deployment.id))
        return plan.sorted(lambda step: step is not chosen).because(f"sticky by {self.by}: {chosen.deployment.id}")
