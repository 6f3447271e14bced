"""Follows every job to its end, whether or not a client asks: one per worker, beside the requests.

Jobs are in SQL, so it does not matter which gateway began one, or whether that is still alive.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Protocol

import structlog

from gateway.errors import GatewayError
from gateway.jobs.lease import leased
from gateway.ledger.base import Reservation
from gateway.site import Site, Sites
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.jobs import Job, Jobs

log = structlog.get_logger()

LOOK_S = 2.0
"""How often jobs are looked for that others have begun."""
AT_ONCE = 4
TIDY_EVERY_S = 3600.0
BACKOFF_MAX_S = 300.0
PAUSE_MIN_S, PAUSE_MAX_S = 1.0, 60.0
PAUSE_SHARE = 0.05
"""Between two looks, of the job's age."""


def pause_s(age_s: float) -> float:
    """How long after a look the next one is."""
    return min(PAUSE_MAX_S, max(PAUSE_MIN_S, age_s * PAUSE_SHARE))


Outstanding = tuple[list[Reservation], list[tuple[str, str]]]
"""Holds, and (tenant, id) of those that are settled."""


class Work(Protocol):
    """One job that we have a lease on."""

    job: Job

    @property
    def misses(self) -> int:
        """Tries in a row that came to nothing."""
        ...

    @misses.setter
    def misses(self, count: int) -> None: ...

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done."""
        ...

    @property
    def lost_s(self) -> float:
        """How old a job that cannot be followed becomes before it is given up."""
        ...

    async def step(self) -> None:
        """As far as it goes now.  Raises GatewayError, TimeoutError, DatabaseUnavailable: to be tried again."""
        ...

    async def lost(self) -> None:
        """Gives it up: what was set aside is booked."""
        ...

    async def outstanding(self) -> Outstanding:
        """What is set aside for it, and what of it is settled.  Raises DatabaseUnavailable."""
        ...

    def later(self, at: float | None) -> Job:
        """The job as it is to be put down."""
        ...


Kinds = Mapping[str, Callable[[Site, Job], Work]]
"""What becomes of jobs, by their kind."""


class Runner:
    """`pause` says how long after a look the next one is, by the job's age in seconds; `tidy` runs once an hour."""

    def __init__(
        self,
        sites: Sites,
        jobs: Jobs,
        kinds: Kinds,
        tidy: Callable[[], Awaitable[None]],
        *,
        clock: Callable[[], float] = time.time,
        pause: Callable[[float], float] = pause_s,
    ) -> None:
        self.sites, self.jobs, self.kinds = sites, jobs, kinds
        self.pause = pause
        self._tidy, self._clock = tidy, clock
        self._owner = secrets.token_hex(8)
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def kick(self) -> None:
        """Something may be due."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        tidied = 0.0
        try:
            while True:
                self._news.clear()
                with suppress(DatabaseUnavailable):
                    await self._begin()
                    if self._clock() - tidied > TIDY_EVERY_S:
                        await self._tidy()
                        tidied = self._clock()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._news.wait()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def outstanding(self) -> Outstanding:
        """For a ledger that forgot: what every job under way holds.  Raises DatabaseUnavailable."""
        held: list[Reservation] = []
        settled: list[tuple[str, str]] = []
        for job in await self.jobs.under_way(tuple(self.kinds)):
            its, done = await self.kinds[job.kind](self.sites.current, job).outstanding()
            held += its
            settled += done
        return held, settled

    async def _begin(self) -> None:
        free = AT_ONCE - len(self._tasks)
        if free <= 0:
            return
        for job in await self.jobs.claim(self._owner, tuple(self.kinds), free):
            task = asyncio.get_running_loop().create_task(self._work(job))
            self._tasks.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.kick()

    async def _work(self, job: Job) -> None:
        work = self.kinds[job.kind](self.sites.current, job)
        async with leased(self.jobs, job):
            try:
                await self._step(work)
            except asyncio.CancelledError:
                with suppress(DatabaseUnavailable):
                    await asyncio.shield(self.jobs.put_down(work.later(self._clock())))  # another goes on at once
                raise

    async def _step(self, work: Work) -> None:
        """One step, and when the next is due."""
        try:
            await work.step()
            work.misses = 0
            wait_s = self.pause(self._clock() - work.job.created)
        except (GatewayError, TimeoutError, DatabaseUnavailable) as error:
            work.misses += 1
            wait_s = min(BACKOFF_MAX_S, self.pause(0.0) * 2 ** min(work.misses, 20))
            log.warning("job waits", job=work.job.id, state=work.job.state, misses=work.misses, reason=str(error))
        except Exception:
            work.misses += 1
            wait_s = BACKOFF_MAX_S
            log.exception("bug", job=work.job.id)
        if work.over:
            return
        with suppress(GatewayError, TimeoutError, DatabaseUnavailable):  # the lease ends by itself
            if work.misses and self._clock() - work.job.created > work.lost_s:
                await work.lost()
            else:
                await self.jobs.put_down(work.later(self._clock() + wait_s))
                asyncio.get_running_loop().call_later(wait_s, self.kick)
