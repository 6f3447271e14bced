"""Answers that a provider makes in the background, after their request is over.

What is set aside stays so while the answer is made: it is asked for until it is there, and settled then, once, whoever
else asks for it.  A gateway that dies or stops first leaves a job, with which another goes on (`gateway.jobs.answers`);
a hold that has expired meanwhile is presumed spend until then.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from gateway.dialects.base import Decoder, Dialect
from gateway.dialects.openai_responses import kept
from gateway.errors import GatewayError, UpstreamBroken, UpstreamDenied
from gateway.jobs.lease import keep
from gateway.jobs.unfinished import job_of
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.jobs import Job, Jobs
from gateway.types import Bucket, Deployment, Usage

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.pipeline import Parts
    from gateway.upstream import Upstream

PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Between two looks; the last for ever after."""
LOOKS_MAX = 2_000
"""About eight hours: no answer takes longer."""


class Background:
    """One per process."""

    def __init__(self, jobs: Jobs | None = None, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._jobs = jobs
        self._sleep = sleep
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Runs beside the requests until it ends or `stop`."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @asynccontextmanager
    async def kept(self, exchange: Exchange) -> AsyncIterator[None]:
        """While the block lasts, a job holds all that settling takes, should this gateway not live to do it."""
        if self._jobs is None:
            yield
            return
        loop = asyncio.get_running_loop()
        job = job_of(exchange, secrets.token_hex(8), loop.time(), time.time())
        adding = loop.create_task(_added(self._jobs, job))  # nobody waits for it
        keeping = loop.create_task(keep(self._jobs, job))
        try:
            yield
        except BaseException:
            keeping.cancel()
            await adding
            with suppress(DatabaseUnavailable):
                await self._jobs.put_down(replace(job, next_at=time.time()))
            raise
        keeping.cancel()
        await adding
        with suppress(DatabaseUnavailable):
            await self._jobs.forget(job)

    async def made(self, exchange: Exchange, parts: Parts, dialect: Dialect) -> Usage | None:
        """What the answer used, once it is there; None: nothing, or nobody can say."""
        meter, step = exchange.decoder.meter if exchange.decoder else None, exchange.step
        looks = 0
        while meter is not None and meter.pending and looks < LOOKS_MAX:
            await self._sleep(PAUSES_S[min(looks, len(PAUSES_S) - 1)])
            looks += 1
            try:
                decoder = dialect.decoder(structs.replace(exchange.request, stream=False), step, exchange.bill)
                failed = await looked(decoder, step.deployment, meter.pending, parts.upstream, dialect)
            except UpstreamDenied as gone:
                exchange.error = gone
                break
            except (GatewayError, TimeoutError):
                continue  # not now
            exchange.decoder, exchange.error = decoder, failed or exchange.error
            meter = decoder.meter
        return _owed(exchange)

    async def stop(self) -> None:
        """Nothing is followed any more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


async def _added(jobs: Jobs, job: Job) -> None:
    """A database that is away leaves the answer to this gateway alone."""
    with suppress(DatabaseUnavailable):
        await jobs.add(job)


async def looked(
    decoder: Decoder, deployment: Deployment, id_: str, upstream: Upstream, dialect: Dialect
) -> GatewayError | None:
    """One look at the answer that a provider keeps, read by `decoder`: as what it says that it failed, if it did.

    Raises GatewayError or TimeoutError where there was none to be seen.
    """
    call, provider = kept(deployment, id_), deployment.provider
    async with asyncio.timeout(provider.timeouts.first_byte_s):
        async with await upstream.open(call, provider, dialect) as answer:
            async for chunk in answer.chunks():
                decoder.feed(chunk)
    try:
        decoder.finish()
    except UpstreamBroken:
        raise
    except GatewayError as failed:
        return failed
    return None


def _owed(exchange: Exchange) -> Usage | None:
    """As reported; of what was cancelled or deleted on the way, what went in."""
    meter = exchange.decoder.meter if exchange.decoder else None
    if meter is not None and meter.usage is not None:
        return meter.usage
    if exchange.error is not None and not isinstance(exchange.error, UpstreamDenied):
        return None
    return Usage({Bucket.INPUT: exchange.step.estimate.expected}, exact=False)
