"""Batches, as OpenAI has them, on every provider that takes batches in its own way.

POST /v1/batches                 {input_file_id, endpoint, completion_window: "24h", metadata}
GET  /v1/batches                 ?limit= &after=
GET  /v1/batches/{id}
POST /v1/batches/{id}/cancel
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from gateway.api.ask import dollars_of, parsed, request_of
from gateway.api.errors import body_of, status_of
from gateway.api.stored import Visit, listed
from gateway.batches.intake import Intake, Wanted, metadata
from gateway.batches.nouns import KIND, OVER, Batch, decode, shape
from gateway.dialects.batches.wires import ENDPOINTS
from gateway.errors import Conflict, GatewayError, InvalidRequest, MethodNotAllowed, NotFound
from gateway.money import dollars
from gateway.sql.jobs import Job
from gateway.types import Request

PREFIX = "/v1/batches/"
BODY_BYTES_MAX = 64 * 1024
PAGE_MAX = 100
OF_ALL = ("x-tollgate-user", "x-tollgate-tags", "x-tollgate-task", "x-tollgate-route")
"""Headers that hold for every line."""

METHODS: Mapping[tuple[bool, str], tuple[str, ...]] = {
    (False, ""): ("GET", "POST"),
    (True, ""): ("GET",),
    (True, "cancel"): ("POST",),
}
"""What each path takes: whether it names one, and what stands below it."""


class BatchesEndpoint:
    """See the module."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake

    async def serve(self, visit: Visit) -> None:
        """See gateway.api.stored.Kept."""
        id_, _, below = visit.scope["path"].removeprefix(PREFIX[:-1]).removeprefix("/").partition("/")
        match visit.method, bool(id_), below:
            case "POST", False, "":
                await visit.answer(shown(await self._create(visit)))
            case "GET", False, "":
                await visit.answer(await self._list(visit))
            case "GET", True, "":
                await visit.answer(shown(await self.intake.jobs.get(KIND, visit.tenant.id, id_)))
            case "POST", True, "cancel":
                await visit.answer(shown(await self._cancel(visit, id_)))
            case _, named, _ if (named, below) in METHODS:
                raise MethodNotAllowed(visit.scope["path"], METHODS[named, below])
            case _:
                raise NotFound(f"There is nothing at {visit.scope['path'][:200]!r}.")

    async def _create(self, visit: Visit) -> Job:
        body = parsed(await visit.body(BODY_BYTES_MAX, visit.site.settings.server.timeouts.body_s))
        wanted = Wanted(
            input_file=_text(body, "input_file_id"),
            endpoint=_text(body, "endpoint"),
            window=_text(body, "completion_window"),
            metadata=metadata(body.get("metadata")),
            cost_max=dollars_of(visit.headers.get("x-tollgate-max-cost-usd")),
        )
        passed_on = {name: visit.headers[name] for name in OF_ALL if name in visit.headers}
        received = time.time()

        def read(id_: str, raw: bytes) -> Request:
            return request_of(id_, ENDPOINTS[wanted.endpoint], raw, passed_on, visit.tenant, visit.key, received)

        return await self.intake.create(visit.site, visit.tenant, wanted, read)

    async def _list(self, visit: Visit) -> dict[str, Any]:
        count, after = visit.count(PAGE_MAX), visit.asked("after")
        jobs = self.intake.jobs
        last = await jobs.get(KIND, visit.tenant.id, after) if after else None
        found = await jobs.page(KIND, count + 1, visit.tenant.id, last)
        return listed([shown(job) for job in found[:count]], more=len(found) > count)

    async def _cancel(self, visit: Visit, id_: str) -> Job:
        jobs = self.intake.jobs
        job = await jobs.get(KIND, visit.tenant.id, id_)
        if job.state in OVER:
            raise Conflict(f"Batch {job.id} is {job.state} already.", param="batch_id")
        await jobs.cancel(job)
        self.intake.runner.kick()
        return await jobs.get(KIND, visit.tenant.id, id_)


def shown(job: Job) -> dict[str, Any]:
    """OpenAI's batch object, and what the batch costs."""
    batch = decode(job.body)
    found = dict(shape(job.id, job.state, job.created, batch, job.cancel_at))
    cost = dollars(batch.cost) if job.state in OVER and not batch.unknown else None
    return {
        **found,
        "tollgate": {"provider": batch.provider, "reserved_usd": dollars(batch.reserved), "cost_usd": cost},
    }


def refused(error: GatewayError, batch: Batch, request_id: str) -> tuple[int, bytes]:
    """An error as the clients of the batch's endpoint know it."""
    return status_of(error), body_of(error, batch.format, request_id)


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"`{name}` must be a text.", param=name)
    return value
