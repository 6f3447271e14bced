"""Answers that a provider makes in the background, whose gateway has died or was stopped before they were there.

The gateway that was asked follows them by itself (`gateway.background`) and keeps a job beside it, with all that
settling takes.  Whoever finds the job without a living owner goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from msgspec import structs

from gateway import money
from gateway.background import looked
from gateway.dialects.base import Decoder
from gateway.errors import GatewayError, NotFound, UpstreamDenied
from gateway.jobs.packing import pack, unpack
from gateway.jobs.runner import Outstanding
from gateway.jobs.unfinished import Unfinished
from gateway.ledger.base import NOTHING, Settlement, Spent
from gateway.plan import Step
from gateway.site import Site
from gateway.sql.jobs import Job, Jobs
from gateway.types import Bucket, Cost, Estimate, Format, Key, Outcome, Record, Request, Usage

LOST_S = 8 * 3600.0
"""No answer takes longer."""
HOLD_S = 3600.0


@dataclass(slots=True)
class Answer:
    """See gateway.jobs.runner.Work."""

    site: Site
    jobs: Jobs
    clock: Callable[[], float]
    job: Job
    body: Unfinished

    @property
    def misses(self) -> int:
        return self.body.misses

    @misses.setter
    def misses(self, count: int) -> None:
        self.body.misses = count

    @property
    def over(self) -> bool:
        return self.job.state == "over"

    @property
    def lost_s(self) -> float:
        return LOST_S

    def later(self, at: float | None) -> Job:
        return replace(self.job, body=pack(self.body), next_at=at)

    async def outstanding(self) -> Outstanding:
        held = self.body.held
        if await self.jobs.recorded([held.id]):
            return [], [(held.tenant, held.id)]
        return [held, *self.body.extras], []

    async def step(self) -> None:
        """One look; what is there is settled."""
        parts = self.site.pipeline.parts
        try:
            decoder, failure = await self._look()
        except UpstreamDenied as gone:  # deleted: what went in was used
            return await self._settle(Usage({Bucket.INPUT: self.body.expected}, exact=False), None, gone)
        if decoder.meter.pending:
            for hold in (self.body.held, *self.body.extras):
                await parts.ledger.extend(hold, HOLD_S)
            return None
        usage = decoder.meter.usage
        if usage is None and failure is None:
            usage = Usage({Bucket.INPUT: self.body.expected}, exact=False)
        return await self._settle(usage, decoder, failure)

    async def lost(self) -> None:
        """What went in was used; nobody can say more."""
        return await self._settle(Usage({Bucket.INPUT: self.body.expected}, exact=False), None, None)

    async def _look(self) -> tuple[Decoder, GatewayError | None]:
        pipeline, body = self.site.pipeline, self.body
        deployment = self.site.catalog.deployments.get(body.deployment)
        if deployment is None:
            raise NotFound(f"Deployment {body.deployment} is not configured any more.")
        dialect = pipeline.dialects[deployment.provider.dialect]
        record = body.record
        key = Key(record.key, record.tenant, "", b"")
        asked: Mapping[str, Any] = {"background": True}
        request = Request(
            record.id, Format.RESPONSES, b"{}", asked, record.model, stream=False, received=record.at, key=key
        )
        step = Step(deployment, Estimate(body.expected, body.expected), 1, 0, record.at)
        decoder = dialect.decoder(request, step, self._bill)
        return decoder, await looked(decoder, deployment, body.upstream, pipeline.parts.upstream, dialect)

    def _bill(self, usage: Usage) -> Cost:
        cost = money.cost(usage, self.body.price, self.body.record.at)
        deployment = self.site.catalog.deployments.get(self.body.deployment)
        if usage.reported_cost is None or deployment is None or not deployment.as_reported:
            return cost
        return money.charged(cost, usage.reported_cost)

    async def _settle(self, usage: Usage | None, decoder: Decoder | None, failure: GatewayError | None) -> None:
        parts, body = self.site.pipeline.parts, self.body
        record, spent = self._closed(usage, decoder, failure)
        if await parts.settlements.book(body.held, spent, record) is not Settlement.AGAIN:
            parts.metrics.observe(record)
        for extra in body.extras:
            await parts.settlements.release(extra)
        await self.jobs.forget(self.job)
        self.job = replace(self.job, state="over")

    def _closed(
        self, usage: Usage | None, decoder: Decoder | None, failure: GatewayError | None
    ) -> tuple[Record, Spent]:
        base = self.body.record
        used = usage or Usage()
        cost = self._bill(used) if usage is not None else Cost(0)
        own = self.body.worst if cost.total is None else cost.total
        meter = decoder.meter if decoder is not None else None
        components = dict(base.components)
        for name, amount in cost.components.items():
            components[name] = components.get(name, 0) + amount
        baseline = self.body.baseline
        record = structs.replace(
            base,
            outcome=Outcome.OK if failure is None else Outcome.UPSTREAM_ERROR,
            response_model=meter.response_model if meter else base.response_model,
            finish_reason=meter.finish_reason if meter else "",
            tokens={str(bucket): count for bucket, count in used.tokens.items()},
            fees=used.fees,
            estimated=base.estimated or not used.exact,
            cost=None if cost.total is None or base.cost is None else base.cost + cost.total,
            components=components,
            reported_cost=used.reported_cost,
            calculated_cost=money.cost(used, self.body.price, base.at).total if usage is not None else None,
            service_tier=used.service_tier,
            baseline_cost=money.cost(used, baseline, base.at).total if baseline and usage is not None else None,
            error=failure.code if failure is not None else "",
            latency_ms=round((self.clock() - base.at) * 1000),
            flags=used.flags,
        )
        return record, self._spent(Spent(own, 0, used.input_tokens, used.output_tokens))

    def _spent(self, answer: Spent) -> Spent:
        """What the answer cost beside what was known; its deployment and provider served it."""
        before = self.body.spent
        shares = None
        if before.shares is not None:
            record = self.body.record
            shares = dict(before.shares)
            for name in (f"deployment {record.deployment}", f"provider {record.provider}"):
                shares[name] = shares.get(name, NOTHING) + answer
        return structs.replace(before + answer, shares=shares)


def answer_of(jobs: Jobs, clock: Callable[[], float] = time.time) -> Callable[[Site, Job], Answer]:
    """How jobs of this kind are worked on."""
    return lambda site, job: Answer(site, jobs, clock, job, unpack(job.body, Unfinished))
