"""`/admin/v1/batches`: every tenant's batches, what is set aside for them and what they cost."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from gateway.api.admin_shapes import Desk, desk, listed, money
from gateway.batches.nouns import KIND, OVER, decode
from gateway.sql.jobs import Job, Jobs

router = APIRouter(prefix="/admin/v1")

BATCHES_MAX = 1000
"""That one answer holds at most."""


@router.get("/batches")
async def batches(
    at: Annotated[Desk, Depends(desk)],
    tenant: str | None = None,
    under_way: bool = False,
    limit: Annotated[int, Query(ge=1, le=BATCHES_MAX)] = 100,
) -> dict[str, Any]:
    """Batches, newest first, or those that are not over; `misses`: tries in a row that came to nothing."""
    jobs = Jobs(at.store.database)
    if under_way:
        found = [job for job in await jobs.under_way((KIND,)) if tenant in (None, job.tenant)][:limit]
    else:
        found = await jobs.page(KIND, limit, tenant)
    return listed(_shown(job) for job in found)


def _shown(job: Job) -> dict[str, Any]:
    batch = decode(job.body)
    return {
        "object": "batch",
        "id": job.id,
        "tenant": job.tenant,
        "state": job.state,
        "provider": batch.provider,
        "deployments": sorted(batch.prices),
        "upstream_id": batch.upstream or None,
        "created": job.created,
        "next_look": job.next_at,
        "misses": batch.misses,
        "lines": batch.lines,
        "completed": batch.completed,
        "failed": batch.failed,
        "reserved": money(batch.reserved if job.state not in OVER else 0),
        "cost": money(batch.cost if not batch.unknown else None),
        "lines_of_unknown_cost": batch.unknown,
    }
