"""`/admin/v1/records/{id}/resolve`: what a request cost that nobody settled."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from gateway.api.admin_shapes import Desk, actor, desk, money
from gateway.configuration.quantities import Dollars
from gateway.configuration.schema import Shape
from gateway.errors import InvalidRequest
from gateway.money import nano
from gateway.resolve import resolve

router = APIRouter(prefix="/admin/v1")


class ResolveBody(Shape):
    """One of them."""

    cost_usd: Dollars | None = None
    free: bool = False


@router.post("/records/{id_}/resolve")
async def resolve_record(
    id_: str, body: ResolveBody, at: Annotated[Desk, Depends(desk)], who: Annotated[str, Depends(actor)]
) -> dict[str, Any]:
    """Books the cost in place of what was presumed; the log of changes names who said so."""
    if (body.cost_usd is None) == (not body.free):
        raise InvalidRequest("Give one of `cost_usd` and `free`.", param="cost_usd")
    cost = 0 if body.cost_usd is None else nano(body.cost_usd)
    done = await resolve(at.store, at.ledger, id_, cost, who)
    return {
        "object": "record.resolution",
        "id": done.id,
        "tenant": done.tenant,
        "presumed": money(done.presumed),
        "cost": money(done.cost),
        "ledger": str(done.found),
    }
