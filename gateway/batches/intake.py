"""Takes a client's batch in: everything checked and set aside, and kept, before the client is told that it is there."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gateway.batches.hold import free_all, hold_all
from gateway.batches.nouns import KIND, Batch, Line, State, encode, packed
from gateway.batches.order import HOLD_S, Order, Read, ordered
from gateway.dialects.batches.base import Item
from gateway.dialects.batches.wires import ENDPOINTS
from gateway.errors import InvalidRequest, Unavailable
from gateway.jobs.runner import Runner
from gateway.site import Site
from gateway.sql.files import INTERNAL, Files
from gateway.sql.jobs import Job, Jobs
from gateway.types import NanoUSD, Tenant

UPLOADED = "batch"
WINDOW = "24h"
SETTING_ASIDE_S = 600.0
"""A batch that is still being set aside after this was left by a gateway that died."""
METADATA_MAX, NAME_MAX, VALUE_MAX = 16, 64, 512


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asks."""

    input_file: str
    endpoint: str
    window: str
    metadata: Mapping[str, str] | None
    cost_max: NanoUSD | None


class Intake:
    """One per process."""

    def __init__(self, jobs: Jobs, files: Files, runner: Runner, clock: Callable[[], float] = time.time) -> None:
        self.jobs, self.files, self.runner = jobs, files, runner
        self._clock = clock

    async def create(self, site: Site, tenant: Tenant, wanted: Wanted, read: Read) -> Job:
        """The batch, with all it can cost set aside.  Raises whatever one of its lines would, naming the line."""
        if wanted.endpoint not in ENDPOINTS:
            raise InvalidRequest(f"`endpoint` must be one of {', '.join(ENDPOINTS)}.", param="endpoint")
        if wanted.window != WINDOW:
            raise InvalidRequest(f"`completion_window` must be {WINDOW!r}.", param="completion_window")
        file = await self.files.get(tenant.id, wanted.input_file)
        if file.purpose != UPLOADED:
            raise InvalidRequest(f"File {file.id} was not uploaded with purpose `batch`.", param="input_file_id")
        created = self._clock()
        id_ = f"batch_{int(created * 1e6):014x}{secrets.token_hex(8)}"
        content = await self.files.content(file.id)
        order = await ordered(site.pipeline, tenant, wanted.endpoint, content, read, id_, wanted.cost_max)
        batch = _batch(wanted, order, len(content), created)
        job = Job(id_, KIND, tenant.id, State.SETTING_ASIDE, created, created + SETTING_ASIDE_S, b"", lease=id_)
        return await self._kept(site, job, batch, order)

    async def _kept(self, site: Site, job: Job, batch: Batch, order: Order) -> Job:
        """Kept before it is set aside, so that what is set aside is never forgotten."""
        ledger = site.pipeline.parts.ledger
        batch.packed = await self._internal(job, "lines", order.lines)
        batch.items = await self._internal(job, "items", order.items)
        job = replace(job, body=encode(batch))
        await self.jobs.add(job)
        held = [line.held for line in order.lines]
        try:
            await hold_all(ledger, held)
        except BaseException:
            await self.jobs.forget(job)
            for id_ in (batch.packed, batch.items):
                await self.files.delete(id_)
            raise
        job = replace(job, state=State.VALIDATING, next_at=self._clock())
        if not await self.jobs.put_down(job):
            await free_all(ledger, held)
            raise Unavailable("Setting the batch aside took too long; try again.", retry_after_s=5.0)
        self.runner.kick()
        return job

    async def _internal(self, job: Job, name: str, lines: Sequence[Line] | Sequence[Item]) -> str:
        pen = await self.files.write(job.tenant, INTERNAL, f"{job.id}_{name}")
        for part in await asyncio.to_thread(lambda: list(packed(lines))):
            await pen.part(part)
        return (await pen.end()).id


def metadata(value: object) -> dict[str, str] | None:
    """What a client notes about its batch, as OpenAI allows it.  Raises InvalidRequest."""
    if value is None:
        return None
    sound = isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(text, str) and len(name) <= NAME_MAX and len(text) <= VALUE_MAX
        for name, text in value.items()
    )
    if not sound or len(value) > METADATA_MAX:  # type: ignore[arg-type]  # a dict where it is sound
        raise InvalidRequest(
            f"`metadata` must be at most {METADATA_MAX} names of {NAME_MAX} characters with texts of {VALUE_MAX}.",
            param="metadata",
        )
    return dict(value)  # type: ignore[call-overload,no-any-return]  # the same


def _batch(wanted: Wanted, order: Order, size: int, created: float) -> Batch:
    step = order.steps[order.lines[0].deployment]
    deployment = step.deployment
    return Batch(
        endpoint=wanted.endpoint,
        format=ENDPOINTS[wanted.endpoint],
        window=wanted.window,
        input_file=wanted.input_file,
        metadata=dict(wanted.metadata) if wanted.metadata is not None else None,
        provider=deployment.provider.id,
        model=deployment.upstream_model,
        path=order.items[0].path,
        prices={id_: each.deployment.price for id_, each in order.steps.items()},
        lines=len(order.lines),
        bytes=size,
        reserved=order.reserved,
        times={State.VALIDATING: created},
        held_until=created + HOLD_S,
    )
