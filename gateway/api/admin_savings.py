"""`/admin/v1/savings`: what was paid, what it would have cost, and what made the difference."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from gateway.api.admin_reports import REPORT_S, SPEND_DAYS, SpendQuery
from gateway.api.admin_shapes import Desk, desk, listed, money
from gateway.errors import InvalidRequest
from gateway.reports.saved import Saved, saved
from gateway.sql.spend import at_one_moment, spend

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]


@router.get("/savings")
async def savings_report(query: Annotated[SpendQuery, Query()], at: At) -> dict[str, Any]:
    """By any grouping of /admin/v1/spend; causes add up to the net, and net and paid to what it would have cost."""
    by = tuple(name.strip() for name in query.by.split(",") if name.strip())
    wanted = query.filter(SPEND_DAYS)

    def ask(connection: Connection) -> tuple[list[Saved], list[Saved]]:
        at_one_moment(connection)
        groups = spend(connection, wanted, by, query.limit)
        return [saved(each) for each in groups], [saved(each) for each in spend(connection, wanted, ())]

    try:
        groups, total = await at.store.database.run(ask, timeout_s=REPORT_S)
    except ValueError as error:
        raise InvalidRequest(f"`by`: {error}.", param="by") from None
    data = [{**dict(zip(by, each.group, strict=True)), **_shown(each)} for each in groups]
    whole = _shown(total[0]) if total else None
    return listed(data, since=wanted.since, until=wanted.until, by=list(by), total=whole)


def _shown(each: Saved) -> dict[str, Any]:
    return {
        "paid": money(each.paid),
        "otherwise": money(each.otherwise),
        "net": money(each.net),
        "measured": {name: money(amount) for name, amount in each.measured.items()},
        "modelled": {name: money(amount) for name, amount in each.modelled.items()},
    }
