"""`/admin/v1/prompt-cache`: how well prompt caches are read, what breaks them, and what that costs a month."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Connection

from gateway.api.admin_reports import REPORT_S
from gateway.api.admin_shapes import Desk, desk, listed, timestamp
from gateway.configuration.schema import Shape
from gateway.doctor.report import Checkup, checkups, described
from gateway.errors import InvalidRequest

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]

DOCTOR_S = 7 * 86400.0


class DoctorQuery(Shape):
    """`since` and `until`: unix seconds or ISO 8601, [since, until); the last seven days unless asked otherwise."""

    since: str | None = None
    until: str | None = None
    tenant: str | None = None


@router.get("/prompt-cache")
async def prompt_cache(query: Annotated[DoctorQuery, Query()], at: At) -> dict[str, Any]:
    """By tenant and route, the dearest first.  What this worker has found is written down first."""
    until = timestamp(query.until, "until") if query.until else time.time()
    since = timestamp(query.since, "since") if query.since else until - DOCTOR_S
    if since >= until:
        raise InvalidRequest("`since` must be before `until`.", param="since")
    database = at.store.database
    await at.sites.current.pipeline.parts.doctor.flush(database)

    def ask(connection: Connection) -> list[Checkup]:
        return checkups(connection, since, until, query.tenant)

    found = await database.run(ask, timeout_s=REPORT_S)
    return listed([described(each) for each in found], since=since, until=until)
