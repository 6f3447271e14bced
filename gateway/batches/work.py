"""One batch, from one look to the next: submitted, followed, settled.  See gateway.jobs.runner.Work.

Each step can be repeated: a hold is freed or settled once whoever does it, a batch that was perhaps submitted is looked
for before it is submitted again, and results are read anew from the first when somebody died among them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from gateway.batches.hold import free_all, keep_all, parts
from gateway.batches.nouns import KIND, OVER, Batch, Line, State, decode, encode, unpacked, unpacked_items
from gateway.batches.order import HOLD_S
from gateway.batches.results import ErrorBody, Reading
from gateway.batches.settling import Settling
from gateway.dialects.base import Call
from gateway.dialects.batches.base import CANCELLED, EXPIRED, BatchWire, Lot, Progress, Result, Talk
from gateway.dialects.batches.wires import wire_of
from gateway.errors import ClientError, GatewayError, NotFound, UpstreamBroken, UpstreamDenied
from gateway.jobs.runner import Outstanding
from gateway.ledger.base import Reservation
from gateway.site import Site
from gateway.sql.files import Files
from gateway.sql.jobs import Job, Jobs

log = structlog.get_logger()

T = TypeVar("T")

LOST_S = 7 * 86_400.0
"""A batch that nobody has heard of for so long is lost: what was set aside for it is booked."""
REPLY_BYTES_MAX = LINE_BYTES_MAX = 256 * 1024 * 1024
OTHERS_MAX = 1000


@dataclass(slots=True)
class Work:
    """The batch of a job that we have a lease on."""

    site: Site
    jobs: Jobs
    files: Files
    error: ErrorBody
    clock: Callable[[], float]
    job: Job
    batch: Batch

    async def step(self) -> None:
        """See gateway.jobs.runner.Work."""
        match self.job.state:
            case State.SETTING_ASIDE:
                await self._never_was()
            case State.VALIDATING:
                await self._begin()
            case State.SUBMITTING:
                await self._begin_again()
            case State.IN_PROGRESS | State.FINALIZING:
                await self._follow()

    def later(self, at: float | None) -> Job:
        """See gateway.jobs.runner.Work."""
        return replace(self.job, body=encode(self.batch), next_at=at)

    async def _never_was(self) -> None:
        """Who made it died before its client was told."""
        await free_all(self.site.pipeline.parts.ledger, [line.held for line in await self._lines()])
        await self.jobs.forget(self.job)
        await self._tidy()

    async def _begin(self) -> None:
        if self.job.cancel_at is not None:
            return await self._end_free(State.CANCELLED)
        await self._turn(State.SUBMITTING)
        return await self._submit()

    async def _begin_again(self) -> None:
        """The provider may have it already."""
        others = await self.jobs.page(KIND, OTHERS_MAX)
        taken = frozenset(decode(other.body).upstream for other in others if other.id != self.job.id)
        self.batch.upstream = await self._talk(self._wire().find(replace(self._lot(), taken=taken)))
        if self.batch.upstream:
            await self._turn(State.IN_PROGRESS)
        elif self.job.cancel_at is not None:
            await self._end_free(State.CANCELLED)
        else:
            await self._submit()

    async def _submit(self) -> None:
        items = await asyncio.to_thread(unpacked_items, [part async for part in self.files.parts(self.batch.items)])
        try:
            self.batch.upstream = await self._talk(self._wire().submit(self._lot(), items))
        except (ClientError, UpstreamDenied) as refused:
            log.warning("batch refused", batch=self.job.id, provider=self.batch.provider, reason=refused.message)
            self.batch.problem = refused.message
            return await self._end_free(State.FAILED)
        return await self._turn(State.IN_PROGRESS)

    async def _follow(self) -> None:
        """Looks; a batch that has ended is settled."""
        wire = self._wire()
        if self.job.cancel_at is not None and not self.batch.cancel_told:
            with suppress(GatewayError):  # what has ended cannot be cancelled; anything else is tried again
                await self._talk(wire.cancel(self._lot()))
                self.batch.cancel_told = True
        try:
            progress = await self._talk(wire.look(self._lot()))
        except UpstreamDenied:
            if self.job.cancel_at is None and self.clock() - self.job.created < LOST_S:
                raise
            return await self.lost()
        self.batch.completed, self.batch.failed = progress.completed, progress.failed
        if progress.over == State.FAILED:
            self.batch.problem = progress.reason or "The provider says no more than that it failed."
            return await self._end_free(State.FAILED)
        if progress.over:
            return await self._settle(progress)
        return await self._keep_holds()

    async def _settle(self, progress: Progress) -> None:
        """Every line once; what has no result was not reached in time, or is not known."""
        again = self.job.state == State.FINALIZING
        self.batch.ended_as = progress.over
        if not again:
            await self._turn(State.FINALIZING)
        lines = {line.id: line for line in await self._lines()}
        settling = self._settling(self._reading(), again=again)
        try:
            for source in progress.sources:
                async with aclosing(self._results(source, whole=progress.whole)) as results:
                    async for result in results:
                        if (line := lines.pop(result.id, None)) is not None:
                            await settling.add(line, result)
            code = {State.EXPIRED: EXPIRED, State.CANCELLED: CANCELLED}.get(State(progress.over))
            for line in lines.values():
                await settling.add(line, Result(line.id, code=code) if code else None)
            await settling.end()
        except BaseException:
            await asyncio.shield(settling.drop())
            raise
        await self._end(State(progress.over), settling)
        await self._forget_there(progress.tidying)

    async def lost(self) -> None:
        """Nobody can say any more what became of it."""
        log.error("batch lost", batch=self.job.id, provider=self.batch.provider)
        if self.job.state == State.VALIDATING:
            return await self._end_free(State.FAILED)
        again = self.job.state == State.FINALIZING
        await self._turn(State.FINALIZING)
        settling = self._settling(None, again=again)
        for line in await self._lines():
            await settling.add(line, None)
        await settling.end()
        self.batch.problem = "The provider does not know the batch any more."
        return await self._end(State.FAILED, settling)

    def _settling(self, reading: Reading | None, *, again: bool) -> Settling:
        return Settling(self.site.pipeline.parts, self.jobs, self.files, self.job, reading, again=again)

    def _reading(self) -> Reading:
        known = self.site.catalog.deployments
        if gone := sorted(self.batch.prices.keys() - known.keys()):
            raise NotFound(f"Deployment {', '.join(gone)} is not configured any more.")
        dialect = self.site.pipeline.dialects[self._lot().provider.dialect]
        deployments = {id_: known[id_] for id_ in self.batch.prices}
        return Reading(self.batch, deployments, dialect, self.site.pipeline.parts.counter.count_text, self.error)

    async def _end(self, state: State, settling: Settling) -> None:
        batch = self.batch
        batch.output_file, batch.error_file = settling.output_file, settling.error_file
        batch.completed, batch.failed = settling.completed, settling.failed
        batch.cost, batch.unknown = settling.cost, settling.unknown
        if await self._over(state):
            self.site.pipeline.parts.metrics.batch(self.job.tenant, batch.provider, state)
            log.info("batch settled", batch=self.job.id, lines=batch.lines, cost_nano_usd=batch.cost, state=state)
        else:
            await settling.drop()

    async def _end_free(self, state: State) -> None:
        """No line has reached a model."""
        await free_all(self.site.pipeline.parts.ledger, [line.held for line in await self._lines()])
        if await self._over(state):
            self.site.pipeline.parts.metrics.batch(self.job.tenant, self.batch.provider, state)

    async def _over(self, state: State) -> bool:
        """Told to all, if it is ours to tell."""
        self._at(state)
        if not await self.jobs.put_down(self.later(None)):
            return False
        await self._tidy()
        return True

    async def _turn(self, state: State) -> None:
        self._at(state)
        if not await self.jobs.save(self.later(self.job.next_at)):
            raise NotFound(f"The lease on batch {self.job.id} is lost.")

    def _at(self, state: State) -> None:
        self.job = replace(self.job, state=state)
        self.batch.times.setdefault(state, self.clock())

    @property
    def over(self) -> bool:
        """See gateway.jobs.runner.Work."""
        return self.job.state in OVER or self.job.state == State.SETTING_ASIDE

    @property
    def lost_s(self) -> float:
        """See gateway.jobs.runner.Work."""
        return LOST_S

    @property
    def misses(self) -> int:
        """See gateway.jobs.runner.Work."""
        return self.batch.misses

    @misses.setter
    def misses(self, count: int) -> None:
        self.batch.misses = count

    async def outstanding(self) -> Outstanding:
        """See gateway.jobs.runner.Work."""
        held: list[Reservation] = []
        settled: list[tuple[str, str]] = []
        if self.job.state == State.SETTING_ASIDE:
            return held, settled
        for some in parts([line.held for line in await self._lines()]):
            known = await self.jobs.recorded([each.id for each in some])
            held += [each for each in some if each.id not in known]
            settled += [(each.tenant, each.id) for each in some if each.id in known]
        return held, settled

    async def _keep_holds(self) -> None:
        if self.batch.held_until - self.clock() < HOLD_S / 2:
            await keep_all(self.site.pipeline.parts.ledger, [line.held for line in await self._lines()], HOLD_S)
            self.batch.held_until = self.clock() + HOLD_S

    async def _tidy(self) -> None:
        for id_ in (self.batch.packed, self.batch.items):
            await self.files.delete(id_)

    async def _forget_there(self, calls: tuple[Call, ...]) -> None:
        """The provider need not keep what we have read."""
        for call in calls:
            try:
                await self._ask(call)
            except Exception as error:  # noqa: BLE001 - it forgets by itself in the end
                log.info("provider keeps a file", batch=self.job.id, reason=str(error))

    async def _lines(self) -> list[Line]:
        """All of them, off the event loop: there may be many."""
        return await asyncio.to_thread(unpacked, [part async for part in self.files.parts(self.batch.packed)])

    def _wire(self) -> BatchWire:
        wire = wire_of(self._lot().provider)
        if wire is None:
            raise NotFound(f"Provider {self.batch.provider} takes no batches any more.")
        return wire

    def _lot(self) -> Lot:
        batch = self.batch
        provider = self.site.settings.providers.get(batch.provider)
        if provider is None:
            raise NotFound(f"Provider {batch.provider} is not configured any more.")
        return Lot(provider, self.job.id, batch.model, batch.path, batch.lines, self.job.created, batch.upstream)

    # I/O with the provider

    async def _talk(self, talk: Talk[T]) -> T:
        call = next(talk)
        while True:
            body = await self._ask(call)
            try:
                call = talk.send(body)
            except StopIteration as done:
                result: T = done.value
                return result

    async def _ask(self, call: Call) -> bytes:
        parts, provider = self.site.pipeline.parts, self._lot().provider
        dialect = self.site.pipeline.dialects[provider.dialect]
        async with asyncio.timeout(provider.timeouts.total_s):
            async with await parts.upstream.open(call, provider, dialect) as answer:
                body = bytearray()
                async for chunk in answer.chunks():
                    body += chunk
                    if len(body) > REPLY_BYTES_MAX:
                        raise UpstreamBroken(f"Provider {provider.id} sent more than {REPLY_BYTES_MAX} bytes.")
        return bytes(body)

    async def _results(self, source: Call, *, whole: bool) -> AsyncGenerator[Result, None]:
        """What a source holds, as it comes; a pause too long between two pieces is a TimeoutError."""
        parts, provider, wire, lot = self.site.pipeline.parts, self._lot().provider, self._wire(), self._lot()
        dialect = self.site.pipeline.dialects[provider.dialect]
        rest = bytearray()
        async with asyncio.timeout(provider.timeouts.first_byte_s) as deadline:
            async with await parts.upstream.open(source, provider, dialect) as answer:
                async for chunk in answer.chunks():
                    deadline.reschedule(None)  # settling takes its own time
                    rest += chunk
                    if len(rest) > LINE_BYTES_MAX:
                        raise UpstreamBroken(
                            f"Provider {provider.id} sent a result of more than {LINE_BYTES_MAX} bytes."
                        )
                    if not whole:
                        *lines, last = rest.split(b"\n")
                        for line in lines:
                            for result in wire.read(lot, bytes(line)) if line.strip() else ():
                                yield result
                        rest = last
                    deadline.reschedule(asyncio.get_running_loop().time() + provider.timeouts.idle_s)
        for result in wire.read(lot, bytes(rest)) if rest.strip() else ():
            yield result


def work_of(
    jobs: Jobs, files: Files, error: ErrorBody, clock: Callable[[], float] = time.time
) -> Callable[[Site, Job], Work]:
    """How jobs of this kind are worked on."""
    return lambda site, job: Work(site, jobs, files, error, clock, job, decode(job.body))
