"""What a failed or declined attempt says about the steps that are left.  Pure.

    routes: {auto: {candidates: [...], failover_on: [content_filter, refusal]}}

An input that was too long for one window is tried on larger ones only.  What a provider's filter refuses, or its model
declines, is asked elsewhere where the route says so; who answers then may have been paid for twice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from gateway.errors import ContentRefused, ContextOverflow, GatewayError
from gateway.plan import Mode, Plan, Said, Step, Verdict
from gateway.types import Decline, Format, NanoUSD, Request, Route, Tenant

READ = frozenset({Format.CHAT, Format.MESSAGES, Format.RESPONSES})
"""Whose answers can be read."""
CONTENT_FILTER, REFUSAL = Decline
NONE: frozenset[Decline] = frozenset()


class Elsewhere(Struct, eq=False):
    """Of one request.  `window`: tokens, of the largest deployment that did not hold it."""

    route: Route | None
    request: Request
    tenant: Tenant
    window: int = 0

    def may_follow(self, error: GatewayError, step: Step) -> bool:
        """Whether another step may do better than this one did."""
        if isinstance(error, ContextOverflow):
            self.window = max(self.window, step.deployment.context_max or 0)
        return error.failover or (isinstance(error, ContentRefused) and CONTENT_FILTER in _declines(self.route))

    def worth(self, step: Step, spent: NanoUSD) -> bool:
        """Whether the step may hold the request, at a cost that its client allows beside what is `spent` already."""
        window = step.deployment.context_max or math.inf
        if window <= self.window or step.estimate.expected >= window:  # it has grown if a stream is resumed
            return False
        most = cost_max(self.request, self.tenant) if spent else None
        return most is None or spent + (step.worst_cost or 0) <= most


def cost_max(request: Request, tenant: Tenant) -> NanoUSD | None:
    """The most the request may cost, as its client or its tenant says; None: neither does."""
    asked, allowed = request.cost_max, tenant.request_cost_max
    if asked is None or allowed is None:
        return allowed if asked is None else asked
    return min(asked, allowed)


def unless_declined(plan: Plan, request: Request, route: Route | None) -> Plan:
    """The same plan; where its route says so, an answer that declines makes the next step run."""
    if REFUSAL not in _declines(route) or plan.mode is Mode.CASCADE or len(plan.steps) < 2:
        return plan
    one = all(step.choices == 1 and not step.pieces for step in plan.steps)
    if not one or request.format not in READ or request.body.get("background"):
        return plan
    return replace(plan, judge=Unrefused())


class Unrefused(Struct, frozen=True):
    """A Judge that minds nothing else; a stream goes through with its first word."""

    trial_s: float | None = None
    keep_alive_s: float = 5.0
    early_chars: int | None = 1

    def asks(self, request: Request, step: Step, said: Sequence[Said]) -> Request:  # noqa: ARG002 - the protocol's
        """The request."""
        return request

    def verdict(self, request: Request, said: Sequence[Said]) -> Verdict:  # noqa: ARG002 - the protocol's
        """The last answer, or the next step."""
        if said[-1].finish == "refused":
            return Verdict(reason="refusal", onward=True)
        return Verdict(len(said) - 1, "not declined")

    def promising(self, text: str) -> bool:  # noqa: ARG002 - the protocol's
        """Whatever it is."""
        return True


def _declines(route: Route | None) -> frozenset[Decline]:
    return NONE if route is None else route.failover_on
