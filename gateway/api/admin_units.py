"""`/admin/v1/units`: what a request, a task, a resolved task and a user cost, and what was saved."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from sqlalchemy import Connection

from gateway.api.admin_reports import REPORT_S, SPEND_DAYS, Which
from gateway.api.admin_shapes import Desk, desk, listed, money
from gateway.errors import InvalidRequest
from gateway.sql.units import Units, units

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]


class UnitsQuery(Which):
    """By what to group: names with commas."""

    by: str = "tenant"
    limit: int = Field(1000, ge=1, le=10_000)


@router.get("/units")
async def unit_costs(query: Annotated[UnitsQuery, Query()], at: At) -> dict[str, Any]:
    """Money that is `measured` is what records say; what is `modelled` rests on a reference model's price."""
    by = tuple(name.strip() for name in query.by.split(",") if name.strip())
    wanted = query.filter(SPEND_DAYS)

    def ask(connection: Connection) -> list[Units]:
        return units(connection, wanted, by, query.limit)

    try:
        found = await at.store.database.run(ask, timeout_s=REPORT_S)
    except ValueError as error:
        raise InvalidRequest(f"`by`: {error}.", param="by") from None
    data = [{**dict(zip(by, each.group, strict=True)), **_shown(each)} for each in found]
    return listed(data, since=wanted.since, until=wanted.until, by=list(by))


def _shown(each: Units) -> dict[str, Any]:
    counts = ("requests", "retries", "users", "tasks", "resolved", "failed")
    return {
        **{name: getattr(each, name) for name in counts},
        "unknown_cost_requests": each.unknown,
        "cost": money(each.cost),
        "cost_per_request": money(each.per_request),
        "cost_per_user": money(each.per_user),
        "cost_per_task": money(each.per_task),
        "cost_per_resolved_task": money(each.per_resolved),
        "savings": {
            "net": money(each.saved),
            "measured": {"paid": money(each.compared), "overhead_within": money(each.overhead)},
            "modelled": {"baseline": money(each.baseline)},
        },
    }
