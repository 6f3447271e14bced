"""What a request would have cost without us, less what it did cost, by cause.  Pure; nano-dollars, below 0 is a loss.

From what was billed back to what the route's reference model would have cost, one thing undone after another:

    billed -> as listed -> at the standard tier -> uncached -> anywhere the model is served -> the reference model

Each step is a cause, so that the causes add up to the difference exactly.  A step whose price is not known is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

from msgspec.structs import replace

from gateway import money
from gateway.plan import Plan, Step, asked_effort
from gateway.types import INPUT_BUCKETS, Bucket, Cost, Deployment, NanoUSD, Request, Usage


class Saving(StrEnum):
    """Why less was paid."""

    REPORTED = "reported"  # the provider charged other than its list says
    BATCH = "batch"
    TIER = "tier"  # flex, priority ...
    CACHING = "caching"  # prompt caches, net of what writing to them costs
    ARBITRAGE = "arbitrage"  # against the mean of the plan's places that serve the same model
    ROUTING = "routing"  # another model than the reference
    CAPS = "caps"  # of reasoning and output: what such answers have had without, at the price of the place that served


REPORTED, BATCH, TIER, CACHING, ARBITRAGE, ROUTING, CAPS = Saving

MODELLED = frozenset({ROUTING, CAPS})
"""Rest on what another model, or the same without a cap, might have said.  All others reprice the tokens that were."""

_CACHE = frozenset(bucket for bucket in INPUT_BUCKETS if "cache" in bucket)


Priced: TypeAlias = Callable[[Usage, Deployment], Cost]
"""What usage costs at a place, as listed, at the hour of the request."""


def savings(
    request: Request, plan: Plan, step: Step, usage: Usage, billed: NanoUSD | None, priced: Priced
) -> dict[str, NanoUSD]:
    """By cause; causes of nothing are left out.  An unknown cost saves nothing that anyone could know."""
    if billed is None or request.shadow_of:
        return {}
    place, uncached = step.deployment, _uncached(usage)
    chain: list[tuple[Saving, NanoUSD | None]] = [(REPORTED, priced(usage, place).total)]
    if uncached is not usage:
        whole = usage if usage.service_tier in money.STANDARD_TIERS else replace(usage, service_tier="")
        cause = BATCH if usage.service_tier == money.BATCH else TIER
        chain += [(cause, priced(whole, place).total), (CACHING, priced(uncached, place).total)]
    chain.append((ARBITRAGE, _elsewhere(plan, step, uncached, priced)))
    if plan.baseline is not None:
        chain.append((ROUTING, priced(uncached, plan.baseline.deployment).total))
    found: dict[str, NanoUSD] = {}
    before = billed
    for cause, cost in chain:
        if cost is not None and cost != before:
            found[str(cause)] = cost - before
            before = cost
    if capped := _capped(request, plan, step, usage, priced):
        found[str(CAPS)] = capped
    return found


def _uncached(usage: Usage) -> Usage:
    """The same tokens at the standard tier, none of them read from a cache or written to one; itself if it is that."""
    if usage.service_tier in money.STANDARD_TIERS and _CACHE.isdisjoint(usage.tokens):
        return usage
    tokens = {bucket: count for bucket, count in usage.tokens.items() if bucket not in _CACHE}
    for bucket in _CACHE & usage.tokens.keys():
        fresh = Bucket.AUDIO_IN if bucket.startswith("audio") else Bucket.INPUT
        tokens[fresh] = tokens.get(fresh, 0) + usage.tokens[bucket]
    tier = usage.service_tier if usage.service_tier in money.STANDARD_TIERS else ""
    return replace(usage, tokens=tokens, service_tier=tier)


@lru_cache(maxsize=4096)
def _model(upstream_model: str) -> str:
    """The model it is, under whatever prefix a provider lists it: openai/gpt-oss-120b is gpt-oss-120b."""
    return upstream_model.rpartition("/")[2].lower()


def _elsewhere(plan: Plan, step: Step, usage: Usage, priced: Priced) -> NanoUSD | None:
    """The reference where it is the same model, else the mean of the places in the plan; None: there is one place."""
    model = _model(step.deployment.upstream_model)
    if plan.baseline is not None and _model(plan.baseline.deployment.upstream_model) == model:
        return priced(usage, plan.baseline.deployment).total
    places: dict[str, Deployment] = {}
    for each in plan.steps:
        if _model(each.deployment.upstream_model) == model:
            places[each.deployment.id] = each.deployment
    if len(places) < 2:
        return None
    costs = [cost for place in places.values() if (cost := priced(usage, place).total) is not None]
    return sum(costs) // len(costs) if len(costs) > 1 else None


def _capped(request: Request, plan: Plan, step: Step, usage: Usage, priced: Priced) -> NanoUSD:
    """What more thoughts would have cost, as many as such answers have had under the effort that was asked for."""
    if step.effort is None or step.effort == (asked := asked_effort(request.body) or ""):
        return 0
    talk = step.talks.get((plan.task, asked)) or step.talks.get(("", asked))
    thought = usage.tokens.get(Bucket.REASONING, 0)
    more = 0 if talk is None else round(talk.reasoning * step.choices) - thought
    if more <= 0:
        return 0
    tokens: Mapping[Bucket, int] = {**usage.tokens, Bucket.REASONING: thought + more}
    own = priced(usage, step.deployment).total
    with_more = priced(replace(usage, tokens=tokens), step.deployment).total
    return 0 if with_more is None or own is None else with_more - own
