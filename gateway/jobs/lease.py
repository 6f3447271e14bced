"""Keeps a job ours while we work on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from gateway.sql.database import DatabaseUnavailable
from gateway.sql.jobs import LEASE_S, Job, Jobs


@asynccontextmanager
async def leased(jobs: Jobs, job: Job) -> AsyncIterator[None]:
    """Renews the lease for as long as the block lasts."""
    task = asyncio.get_running_loop().create_task(keep(jobs, job))
    try:
        yield
    finally:
        task.cancel()


async def keep(jobs: Jobs, job: Job) -> None:
    """Until cancelled."""
    while True:
        await asyncio.sleep(LEASE_S / 3)
        with suppress(DatabaseUnavailable):
            await jobs.keep(job)
