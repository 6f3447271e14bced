"""From a request to a plan: permit, fit, price, then the route's policies.  Pure but for the counter's memo."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gateway.catalog import Catalog
from gateway.errors import (
    ContextOverflow,
    CostAboveMaximum,
    Forbidden,
    GatewayError,
    PriceUnknown,
    UnsupportedField,
)
from gateway.health import Health
from gateway.money import dollars
from gateway.plan import Context, Dropped, Plan, Step, cost_key
from gateway.tenants import permits
from gateway.tokens import Content, Counter
from gateway.types import Deployment, NanoUSD, Request, Route, Tenant

OUTPUT_CAP_UNKNOWN = 4096
"""Sent upstream where neither the client nor the catalog says how long an answer may be: a hold needs a bound."""
CACHE_CONTROL = b'"cache_control"'
"""A request without it asks for no cache writes."""
OUTPUT_EXPECTED = 300  # tokens, until traffic has taught better


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a candidate does not fit, and the error the client sees if none does."""

    reason: str
    error: type[GatewayError]
    param: str | None = None


class Planner:
    """Plans requests under one version of the settings."""

    def __init__(self, catalog: Catalog, counter: Counter, health: Health) -> None:
        self.catalog = catalog
        self.counter = counter
        self.health = health

    def plan(self, request: Request, tenant: Tenant, content: Content, now: float) -> tuple[Route | None, Plan]:
        """The steps that fit, cheapest first, shaped by the route's policies.

        Raises UnknownModel, Forbidden, and when nothing fits ContextOverflow, UnsupportedField, PriceUnknown or
        CostAboveMaximum, naming each candidate's reason.
        """
        route, candidates = self.permitted(request, tenant)
        steps: list[Step] = []
        refused: list[tuple[Deployment, Refused]] = []
        cost_max = _least(request.cost_max, tenant.request_cost_max)
        for deployment in candidates:
            step = self._step(request, content, deployment, now)
            reason = _unfit(step, content, tenant, cost_max)
            if reason is None:
                steps.append(step)
            else:
                refused.append((deployment, reason))
        plan = self._shaped(steps, refused, route, request, tenant, now)
        if not plan.steps:
            raise _nothing_fits(request, refused, plan)
        return route, replace(plan, baseline=self._baseline(route, plan, request, content, now))

    def permitted(self, request: Request, tenant: Tenant) -> tuple[Route | None, tuple[Deployment, ...]]:
        """What the asked-for model stands for.  Raises UnknownModel, Forbidden."""
        route, candidates = self.catalog.resolve(request.model)
        if not permits(tenant, request.key, request.model):
            raise Forbidden(f"Key {request.key.name!r} may not use model {request.model!r}.", param="model")
        return route, candidates

    def _shaped(
        self,
        steps: list[Step],
        refused: list[tuple[Deployment, Refused]],
        route: Route | None,
        request: Request,
        tenant: Tenant,
        now: float,
    ) -> Plan:
        dropped = tuple(Dropped(deployment.id, why.reason) for deployment, why in refused)
        plan = Plan(tuple(steps), dropped=dropped)
        if route is None or not steps:
            return plan
        plan = plan.sorted(key=lambda step: cost_key(step.expected_cost))
        context = Context(tenant, now, self.health.stats())
        for policy in route.policies:
            plan = policy.apply(plan, request, context)
        return plan

    def _step(self, request: Request, content: Content, deployment: Deployment, now: float) -> Step:
        estimate = self.counter.estimate(content, deployment)
        condition = self.health.of(deployment.id)
        cap = content.output_requested or _room(deployment, estimate.expected)
        mean = condition.output_mean
        return Step(
            deployment,
            estimate,
            output_cap=cap,
            output_expected=min(cap, OUTPUT_EXPECTED if mean is None else round(mean)),
            at=now,
            choices=content.choices,
            cache_writes=CACHE_CONTROL in request.raw,
            service_tier=_text(request.body.get("service_tier")),
            audio=bool(content.audio) or "audio" in (request.body.get("modalities") or ()),
            healthy=condition.healthy(now),
        )

    def _baseline(self, route: Route | None, plan: Plan, request: Request, content: Content, now: float) -> Step | None:
        if route is None or route.baseline is None:
            return None
        for step in plan.steps:
            if step.deployment.id == route.baseline:
                return step
        return self._step(request, content, self.catalog.deployments[route.baseline], now).capped(
            plan.steps[0].output_cap
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _room(deployment: Deployment, input_tokens: int) -> int:
    """The longest answer the deployment can give to this input."""
    if deployment.context_max is None:
        return deployment.output_max or OUTPUT_CAP_UNKNOWN
    room = max(1, deployment.context_max - input_tokens)
    return min(room, deployment.output_max or OUTPUT_CAP_UNKNOWN)


def _unfit(step: Step, content: Content, tenant: Tenant, cost_max: NanoUSD | None) -> Refused | None:
    deployment = step.deployment
    if missing := content.capabilities - deployment.capabilities:
        names = ", ".join(sorted(missing))
        return Refused(f"does not support {names}", UnsupportedField, min(missing))
    if deployment.output_max is not None and step.output_cap > deployment.output_max:
        return Refused(
            f"answers at most {deployment.output_max} tokens, {step.output_cap} asked", UnsupportedField, "max_tokens"
        )
    if deployment.context_max is not None and step.estimate.expected + 1 > deployment.context_max:
        return Refused(
            f"holds {deployment.context_max} tokens, the input is about {step.estimate.expected}",
            ContextOverflow,
            "messages",
        )
    if step.worst_cost is None and (tenant.capped or cost_max is not None):
        return Refused("has no known price, so a hard cap cannot cover it", PriceUnknown, "model")
    if cost_max is not None and step.worst_cost is not None and step.worst_cost > cost_max:
        return Refused(
            f"could cost ${dollars(step.worst_cost)}, above the maximum of ${dollars(cost_max)} for one request",
            CostAboveMaximum,
        )
    return None


def _nothing_fits(request: Request, refused: list[tuple[Deployment, Refused]], plan: Plan) -> GatewayError:
    if not refused:
        reasons = "; ".join(f"{gone.deployment}: {gone.reason}" for gone in plan.dropped)
        return UnsupportedField(f"The policies of {request.model!r} left no candidate. {reasons}", param="model")
    why = refused[0][1] if len({reason.error for _, reason in refused}) == 1 else None
    each = "; ".join(f"{deployment.id} {reason.reason}" for deployment, reason in refused)
    error = why.error if why else UnsupportedField
    return error(f"No candidate of {request.model!r} can serve this request: {each}.", param=why.param if why else None)


def _least(one: NanoUSD | None, other: NanoUSD | None) -> NanoUSD | None:
    given = [amount for amount in (one, other) if amount is not None]
    return min(given, default=None)
