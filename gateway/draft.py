"""The record of a request that is under way.  Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gateway.types import Outcome, Record

if TYPE_CHECKING:
    from gateway.exchange import Exchange


def draft(exchange: Exchange) -> Record:
    """What stands if we die before settling; `Exchange.close` makes of it what happened.

    In two parts, as there: more than fifteen keywords CPython puts into a dictionary first, at twice the cost.
    """
    request, plan, step = exchange.request, exchange.plan, exchange.step
    deployment, worst = step.deployment, plan.worst_cost
    asked = Record(
        id=request.id,
        version=0,
        at=request.received,
        tenant=exchange.tenant.id,
        key=request.key.id,
        endpoint=request.format,
        model=request.model,
        route=exchange.route.id if exchange.route else "",
        deployment=deployment.id,
        provider=deployment.provider.id,
        upstream_model=deployment.upstream_model,
        outcome=Outcome.PRESUMED,
    )
    return replace(
        asked,
        stream=request.stream,
        user=request.user,
        task=request.task,
        tags=request.tags,
        estimated=True,
        cost=worst,
        reserved=worst or 0,
        tokens_estimated=step.estimate.expected,
        reasons="; ".join(plan.reasons),
        shadow_of=request.shadow_of,
    )
