"""From a request to a plan: permit, fit, price, then the route's policies.  Pure but for the counter's memo."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from gateway.accounts import capped
from gateway.catalog import Catalog
from gateway.elsewhere import cost_max, unless_declined
from gateway.errors import (
    ContextOverflow,
    CostAboveMaximum,
    Forbidden,
    GatewayError,
    InvalidRequest,
    PriceUnknown,
    UnsupportedField,
)
from gateway.habits import CACHED_MIN, prefixes
from gateway.health import Health
from gateway.money import dollars
from gateway.plan import Context, Dropped, Mode, Plan, Policy, Step, asked_effort, cost_key, within
from gateway.tenants import permits, permits_endpoint
from gateway.tokens import Content, Counter
from gateway.types import Deployment, Limit, NanoUSD, Request, Route, Tenant

OUTPUT_CAP_UNKNOWN = 4096
"""Sent upstream where neither the client nor the catalog says how long an answer may be: a hold needs a bound."""
CACHE_CONTROL = b'"cache_control"'
"""A request without it asks for no cache writes."""
NOTHING_CACHED: Mapping[str, int] = {}


class Refused(Struct, frozen=True):
    """Why a candidate does not fit, and the error the client sees if none does."""

    reason: str
    error: type[GatewayError]
    param: str | None = None


class Asks(Struct, frozen=True):
    """What the request asks of any deployment."""

    cache_writes: bool
    service_tier: str
    audio: bool
    effort: str  # "": none is named
    cached: Mapping[str, int]  # input tokens, by deployment

    @classmethod
    def of(cls, request: Request, content: Content, cached: Mapping[str, int]) -> Asks:
        """Read once, not for each candidate."""
        body = request.body
        tier, modalities = body.get("service_tier"), body.get("modalities")
        return cls(
            cache_writes=CACHE_CONTROL in request.raw,
            service_tier=tier if isinstance(tier, str) else "",
            audio=bool(content.facts.audio) or (isinstance(modalities, list) and "audio" in modalities),
            effort=asked_effort(body) or "",
            cached=cached,
        )


class Planner:
    """Plans requests under one version of the settings.

    `limits`: of everyone.  `degrade` shapes a plan when a budget fills, unless a route has a policy of the same kind.
    `clock`: the seconds that health is kept in.  `decided` hears of each policy that gave a reason: the route's id, the
    policy's name, and the deployment that it left first.
    """

    def __init__(
        self,
        catalog: Catalog,
        counter: Counter,
        health: Health,
        limits: Iterable[Limit] = (),
        degrade: Policy | None = None,
        clock: Callable[[], float] = time.monotonic,
        decided: Callable[[str, str, str], None] = lambda _route, _policy, _first: None,
    ) -> None:
        self.catalog = catalog
        self.counter = counter
        self.health = health
        self.limits = tuple(limits)
        self.degrade = degrade
        self.clock = clock
        self.decided = decided

    def plan(
        self, request: Request, tenant: Tenant, content: Content, now: float, fill: float = 0.0
    ) -> tuple[Route | None, Plan]:
        """The steps that fit, cheapest first, shaped by the route's policies; `fill`: of the fullest degrade budget.

        Raises UnknownModel, Forbidden, and when nothing fits ContextOverflow, UnsupportedField, PriceUnknown or
        CostAboveMaximum, naming each candidate's reason.
        """
        route, candidates = self.permitted(request, tenant)
        asks = Asks.of(request, content, self._cached(request, content))
        steps = [self._step(asks, content, deployment, now) for deployment in candidates]
        refused: dict[str, Refused] = {}
        steps = _kept(steps, refused, lambda step: _unfit(step, content) or _ungranted(step, tenant))
        if route is not None:
            steps.sort(key=_cost)
        plan = self._shaped(Plan(tuple(steps)), route, request, Context(tenant, now, self.health.stats(), fill))
        most = cost_max(request, tenant)
        steps = _kept(plan.steps, refused, lambda step: self._unaffordable(step, request, tenant, most))
        if not steps:
            raise _nothing_fits(request, refused, plan)
        dropped = [Dropped(deployment, why.reason) for deployment, why in refused.items()]
        baseline = self._baseline(route, steps, asks, content, now)
        plan = replace(plan, steps=tuple(steps), dropped=(*plan.dropped, *dropped), baseline=baseline)
        plan = unless_declined(plan, request, route)
        if most is not None and plan.mode is Mode.CASCADE and (plan.worst_cost or 0) > most:
            plan = plan.frugal()
        return route, plan

    def permitted(self, request: Request, tenant: Tenant) -> tuple[Route | None, tuple[Deployment, ...]]:
        """What the asked-for model stands for.  Raises UnknownModel, Forbidden."""
        route, candidates = self.catalog.resolve(request.model)
        if not permits(tenant, request.key, request.model):
            raise Forbidden(f"Key {request.key.name!r} may not use model {request.model!r}.", param="model")
        if not permits_endpoint(tenant, request.key, request.format):
            raise Forbidden(f"Key {request.key.name!r} may not use the endpoint {request.format.value!r}.")
        if request.pinned:
            candidates = tuple(each for each in candidates if each.id == request.pinned)
            if not candidates:
                message = f"Model {request.model!r} has no deployment that holds the response this builds on."
                raise InvalidRequest(message, param="previous_response_id")
        return route, candidates

    def _shaped(self, plan: Plan, route: Route | None, request: Request, context: Context) -> Plan:
        if not plan.steps:
            return plan
        policies: Sequence[Policy] = () if route is None else route.policies
        if context.fill and self.degrade is not None and not any(type(each) is type(self.degrade) for each in policies):
            policies = (*policies, self.degrade)
        for policy in policies:
            before, plan = plan, policy.apply(plan, request, context)
            if plan.reasons is not before.reasons and plan.steps:
                self.decided(route.id if route else "", type(policy).__name__, plan.steps[0].deployment.id)
        return plan

    def _step(self, asks: Asks, content: Content, deployment: Deployment, now: float) -> Step:
        estimate, facts = self.counter.estimate(content, deployment), content.facts
        condition, habits = self.health.of(deployment.id), self.health.habits
        cap = facts.output_requested
        if cap is None:
            cap = _room(deployment, estimate.expected)
        talks = habits.talks(deployment.id)
        talk = talks.get(("", asks.effort)) or habits.typical(asks.effort)
        visible, reasoning = within(cap, round(talk.visible), round(talk.reasoning))
        outs = (visible + reasoning) * facts.choices
        return Step(
            deployment,
            estimate,
            output_cap=cap,
            output_expected=visible,
            at=now,
            choices=facts.choices,
            cache_writes=asks.cache_writes,
            service_tier=asks.service_tier,
            audio=asks.audio,
            cached_expected=asks.cached.get(deployment.id, 0),
            reasoning_expected=reasoning,
            pieces=facts.pieces,
            provider_calls=facts.provider_calls,
            talks=talks,
            healthy=condition.untroubled or condition.healthy(self.clock(), estimate.expected, outs),
        )

    def _cached(self, request: Request, content: Content) -> Mapping[str, int]:
        """What each deployment should hold of the conversation; a short one is not looked at."""
        habits = self.health.habits
        if not habits.holding or (sum(content.text.values()) < CACHED_MIN and not content.facts.tools):
            return NOTHING_CACHED
        content.prefixes = prefixes(request.body)
        return habits.cached(request, request.received, content.prefixes)

    def _unaffordable(self, step: Step, request: Request, tenant: Tenant, most: NanoUSD | None) -> Refused | None:
        """Why the step, as the policies left it, cannot be paid for or answered in full."""
        output_max = step.deployment.output_max
        if output_max is not None and step.output_cap > output_max:
            words = f"answers at most {output_max} tokens, {step.output_cap} asked"
            return Refused(words, UnsupportedField, "max_tokens")
        worst = step.worst_cost
        if worst is None and (most is not None or capped(request, tenant, self.limits, step.deployment)):
            return Refused("has no known price, so a hard cap cannot cover it", PriceUnknown, "model")
        if most is not None and worst is not None and worst > most:
            return Refused(
                f"could cost ${dollars(worst)}, above the maximum of ${dollars(most)} for one request",
                CostAboveMaximum,
            )
        return None

    def _baseline(
        self, route: Route | None, steps: Sequence[Step], asks: Asks, content: Content, now: float
    ) -> Step | None:
        if route is None or route.baseline is None:
            return None
        for step in steps:
            if step.deployment.id == route.baseline:
                return step
        reference = self._step(asks, content, self.catalog.deployments[route.baseline], now)
        return reference.capped(steps[0].output_cap)


def _room(deployment: Deployment, input_tokens: int) -> int:
    """The longest answer the deployment can give to this input."""
    most = deployment.output_max or OUTPUT_CAP_UNKNOWN
    if deployment.context_max is None or most <= (room := deployment.context_max - input_tokens):
        return most
    return max(1, room)


def _kept(steps: Iterable[Step], refused: dict[str, Refused], judge: Callable[[Step], Refused | None]) -> list[Step]:
    """The steps that `judge` has nothing against; of the others, the first reason stays in `refused`."""
    kept: list[Step] = []
    for step in steps:
        reason = judge(step)
        if reason is None:
            kept.append(step)
        else:
            refused.setdefault(step.deployment.id, reason)
    return kept


def _cost(step: Step) -> tuple[bool, int]:
    return cost_key(step.expected_cost)


def _unfit(step: Step, content: Content) -> Refused | None:
    """Why the deployment cannot take this input, whatever the policies make of the answer."""
    deployment = step.deployment
    if not content.facts.needs <= deployment.capabilities:
        missing = content.facts.needs - deployment.capabilities
        names = ", ".join(sorted(missing))
        return Refused(f"does not support {names}", UnsupportedField, min(missing))
    if deployment.context_max is not None and step.estimate.expected + 1 > deployment.context_max:
        return Refused(
            f"holds {deployment.context_max} tokens, the input is about {step.estimate.expected}",
            ContextOverflow,
            "messages",
        )
    return None


def _ungranted(step: Step, tenant: Tenant) -> Refused | None:
    """A tier is off until it is granted, and nothing leaves the regions a tenant's data must stay in."""
    tier, region = step.deployment.tier, step.deployment.region
    if tenant.regions and region not in tenant.regions:
        where = f"runs in {region!r}" if region else "runs nobody knows where (it has no `region`)"
        return Refused(f"{where}; tenant {tenant.id!r} allows {', '.join(tenant.regions)}", Forbidden, "model")
    if tier and tier not in tenant.tiers:
        return Refused(f"is of the tier {tier!r}, which tenant {tenant.id!r} was not granted", Forbidden, "model")
    return None


def _nothing_fits(request: Request, refused: Mapping[str, Refused], plan: Plan) -> GatewayError:
    by_policy = {gone.deployment: gone.reason for gone in plan.dropped}
    each = "; ".join(
        f"{id_} {reason}" for id_, reason in (by_policy | {i: why.reason for i, why in refused.items()}).items()
    )
    kinds = {why.error for why in refused.values()} if not by_policy else set()
    why = next(iter(refused.values())) if len(kinds) == 1 else None
    error = why.error if why else UnsupportedField
    return error(f"No candidate of {request.model!r} can serve this request: {each}.", param=why.param if why else None)
