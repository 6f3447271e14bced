"""What goes on after its request is over: a batch, an answer that a provider makes in the background.

A job outlives the gateway that began it.  Whoever finds it due takes a lease on it, works on it, and says when it is to
be looked at again; a gateway that dies leaves a lease that ends.  A lease only saves double work: what a job settles is
settled once whoever does it, because the ledger knows each id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, and_, case, insert, or_, select, update

from gateway.errors import NotFound
from gateway.sql.database import Database
from gateway.sql.schema import jobs, records

LEASE_S = 30.0
"""After a crash somebody else takes over when this has passed."""


@dataclass(frozen=True, slots=True)
class Job:
    """One of them.  Times are unix seconds; `next_at` None: it is over."""

    id: str
    kind: str
    tenant: str
    state: str
    created: float
    next_at: float | None
    body: bytes = field(repr=False)
    cancel_at: float | None = None
    lease: str = ""


class Jobs:
    """One per process.  Any method may raise DatabaseUnavailable."""

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database, self._clock = database, clock

    async def add(self, job: Job) -> None:
        """A new job, leased to who makes it."""
        values = _values(job) | {"lease_until": self._clock() + LEASE_S}
        await self._database.run(lambda connection: connection.execute(insert(jobs).values(values)), write=True)

    async def claim(self, owner: str, kinds: tuple[str, ...], count: int) -> list[Job]:
        """Up to `count` jobs that are due and nobody works on, most urgent first; from now on they are `owner`'s."""
        now = self._clock()
        free = and_(jobs.c.next_at <= now, jobs.c.lease_until < now)
        due = select(jobs.c.id).where(free, jobs.c.kind.in_(kinds)).order_by(jobs.c.next_at).limit(count)
        ids = await self._database.run(lambda connection: connection.execute(due).scalars().all())
        if not ids:
            return []

        def work(connection: Connection) -> list[Job]:
            taken = update(jobs).values(lease=owner, lease_until=now + LEASE_S).returning(jobs)
            rows = [connection.execute(taken.where(jobs.c.id == id_, free)).one_or_none() for id_ in ids]
            return [_job(row) for row in rows if row is not None]

        return await self._database.run(work, write=True)

    async def keep(self, job: Job) -> bool:
        """The lease lasts longer.  False: it is somebody else's now."""
        return await self._set(job, lease_until=self._clock() + LEASE_S)

    async def save(self, job: Job) -> bool:
        """What is known of it now, under the same lease.  False: it is somebody else's, and nothing was changed."""
        return await self._set(job, state=job.state, body=job.body)

    async def put_down(self, job: Job) -> bool:
        """As `save`, and gives the lease back until `job.next_at`; at once where it was asked to end meanwhile."""
        next_at: Any = job.next_at
        if next_at is not None and job.cancel_at is None:
            next_at = case((jobs.c.cancel_at.is_not(None), self._clock()), else_=next_at)
        return await self._set(job, state=job.state, body=job.body, next_at=next_at, lease_until=0.0)

    async def forget(self, job: Job) -> None:
        """It never was."""
        await self._database.run(
            lambda connection: connection.execute(jobs.delete().where(jobs.c.id == job.id, jobs.c.lease == job.lease)),
            write=True,
        )

    async def get(self, kind: str, tenant: str, id_: str) -> Job:
        """A job of the tenant.  Raises NotFound for any other."""
        wanted = select(jobs).where(jobs.c.id == id_, jobs.c.kind == kind, jobs.c.tenant == tenant)
        row = await self._database.run(lambda connection: connection.execute(wanted).one_or_none())
        if row is None:
            raise NotFound(f"There is no {kind} {id_[:200]!r}.", param=f"{kind}_id")
        return _job(row)

    async def cancel(self, job: Job) -> None:
        """Asks for its end, at once; what is over stays as it is."""
        now = self._clock()
        asked = update(jobs).where(jobs.c.id == job.id, jobs.c.next_at.is_not(None))
        values = {"cancel_at": now, "next_at": now}
        await self._database.run(lambda connection: connection.execute(asked.values(values)), write=True)

    async def page(self, kind: str, count: int, tenant: str | None = None, after: Job | None = None) -> list[Job]:
        """Up to `count`, newest first, that come after `after`; of all tenants where none is named."""
        query = select(jobs).where(jobs.c.kind == kind)
        if tenant is not None:
            query = query.where(jobs.c.tenant == tenant)
        if after is not None:
            same = and_(jobs.c.created == after.created, jobs.c.id < after.id)
            query = query.where(or_(jobs.c.created < after.created, same))
        query = query.order_by(jobs.c.created.desc(), jobs.c.id.desc()).limit(count)
        return [_job(row) for row in await self._database.run(lambda connection: connection.execute(query).all())]

    async def under_way(self, kinds: tuple[str, ...]) -> list[Job]:
        """Every job that is not over."""
        query = select(jobs).where(jobs.c.next_at.is_not(None), jobs.c.kind.in_(kinds)).order_by(jobs.c.created)
        return [_job(row) for row in await self._database.run(lambda connection: connection.execute(query).all())]

    async def recorded(self, ids: Sequence[str]) -> frozenset[str]:
        """Which of these have a record in SQL that is more than presumed."""
        wanted = select(records.c.id).where(records.c.id.in_(ids), records.c.version >= 1)
        return await self._database.run(lambda connection: frozenset(connection.execute(wanted).scalars()))

    async def _set(self, job: Job, **values: object) -> bool:
        mine = update(jobs).where(jobs.c.id == job.id, jobs.c.lease == job.lease).values(**values)
        return await self._database.run(lambda connection: connection.execute(mine).rowcount > 0, write=True)


def _values(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def _job(row: Row[Any]) -> Job:
    return Job(**{name: getattr(row, name) for name in Job.__dataclass_fields__})
