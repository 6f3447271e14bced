"""Generation: `/v1/chat/completions` and `/v1/messages`, from HTTP to the pipeline and back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import structlog

from gateway import logs
from gateway.api.ask import headers_of, new_request_id, request_of, secret_of
from gateway.api.errors import refuse, status_of
from gateway.api.once import Once
from gateway.api.reply import ASGISend, ClientGone, Intake, Receive, Reply, Watch, read_body
from gateway.dialects import paths
from gateway.errors import BudgetExceeded, GatewayError, InternalError
from gateway.metrics import Metrics
from gateway.room import Held
from gateway.site import Site, Sites
from gateway.types import Format, Key, Request, Tenant

log = structlog.get_logger()

GENERATED: Mapping[str, Format] = {
    "/v1/messages": Format.MESSAGES,
    **{f"/v1{path}": format_ for format_, path in paths.PATHS.items()},
}
"""Where a client asks for an answer, by its format."""
COUNTED: Mapping[str, Format] = {
    "/v1/messages/count_tokens": Format.MESSAGES,
    "/v1/responses/input_tokens": Format.RESPONSES,
}


class Generate:
    """An endpoint that answers a client's request in one format."""

    def __init__(self, format_: Format, sites: Sites, metrics: Metrics, once: Once | None = None) -> None:
        self.format = format_
        self.once = once
        self.sites = sites
        self.metrics = metrics

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:
        """Answers, whatever happens; an error in the client's own shape."""
        request_id, reply, tenant = new_request_id(), Reply(send), ""
        try:
            site = self.sites.current
            headers = headers_of(scope["headers"])
            payer, key = site.directory.authenticate(secret_of(headers), time.time())
            tenant = payer.id
            server = site.settings.server
            with Held(site.pipeline.parts.room, payer.id, server.bodies_bytes_max) as held:
                into = Intake(server.request_bytes_max, server.timeouts.body_s, held)
                raw = await read_body(receive, scope["headers"], into)
                request = request_of(request_id, self.format, raw, headers, payer, key, time.time())
                await self.answer(site, request, payer, receive, reply)
        except ClientGone:
            return
        except GatewayError as error:
            await self.refuse(error, request_id, tenant, reply)
        except Exception:
            log.exception("bug", request_id=request_id, endpoint=self.format)
            bug = InternalError("Something went wrong in the gateway; the request id finds it in the log.")
            await self.refuse(bug, request_id, tenant, reply)

    async def answer(self, site: Site, request: Request, tenant: Tenant, receive: Receive, reply: Reply) -> None:
        """Runs the pipeline; a client that leaves cancels it, and that is the end of the matter."""
        watch = Watch(receive, reply)
        try:
            if self.once is not None and "idempotency-key" in request.headers:
                await self.once.answer(request, lambda send: site.pipeline.run(request, tenant, send), reply)
            else:
                await site.pipeline.run(request, tenant, reply)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not watch.gone or (task is not None and task.uncancel() > 0):
                raise
        finally:
            watch.stop()

    async def refuse(self, error: GatewayError, request_id: str, tenant: str, reply: Reply) -> None:
        """The error as this API's clients expect it."""
        if not error.recorded:
            self.metrics.refused(tenant, self.format, error.code)
            logs.refused(request_id, tenant, self.format, status_of(error), error.code)
        if isinstance(error, BudgetExceeded):
            self.metrics.denied(tenant, error.account, error.window)
        await refuse(reply, error, self.format, request_id)


class CountTokens(Generate):
    """`/v1/messages/count_tokens`: our own estimate for the first candidate, without a call and without a charge."""

    async def answer(self, site: Site, request: Request, tenant: Tenant, receive: Receive, reply: Reply) -> None:  # noqa: ARG002  # nothing to cancel
        """`{"input_tokens": N}`, as Anthropic's own endpoint answers."""
        planner = site.pipeline.planner
        content = await planner.counter.content(request)
        _, candidates = planner.permitted(request, tenant)
        count = planner.counter.estimate(content, candidates[0]).expected
        await reply.whole(200, [(b"content-type", b"application/json")], b'{"input_tokens":%d}' % count)


def caller(site: Site, scope: dict[str, Any]) -> tuple[Tenant, Key]:
    """Who asks.  Raises Unauthorized, Suspended."""
    return site.directory.authenticate(secret_of(headers_of(scope["headers"])), time.time())
