"""What the endpoints for files and batches share: who asks, for what, and the answer in any case."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import orjson
import structlog

from gateway import logs
from gateway.api.ask import headers_of, new_request_id, secret_of
from gateway.api.errors import refuse, status_of
from gateway.api.reply import ASGISend, ClientGone, Intake, Receive, Reply, read_body
from gateway.errors import BudgetExceeded, Forbidden, GatewayError, InternalError, InvalidRequest, Unavailable
from gateway.metrics import Metrics
from gateway.reply_headers import JSON
from gateway.room import TENANT_SHARE, Held
from gateway.site import Site, Sites
from gateway.sql.database import DatabaseUnavailable
from gateway.tenants import permits_endpoint
from gateway.types import Key, Tenant

log = structlog.get_logger()

PAGE_MAX = 10_000
PAGE = 20


@dataclass(frozen=True, slots=True)
class Visit:
    """One request of a client that has proved who it is."""

    site: Site
    tenant: Tenant
    key: Key
    request_id: str
    method: str
    headers: dict[str, str]
    scope: dict[str, Any]
    receive: Receive
    reply: Reply
    held: Held

    async def answer(self, found: object) -> None:
        """200 and JSON."""
        head = [JSON, (b"x-tollgate-request-id", self.request_id.encode())]
        await self.reply.whole(200, head, orjson.dumps(found))

    async def body(self, most: int, seconds: float) -> bytes:
        """What it sent, at most `most` bytes.  See read_body."""
        most = min(most, int(self.site.settings.server.bodies_bytes_max * TENANT_SHARE))
        return await read_body(self.receive, self.scope["headers"], Intake(most, seconds, self.held))

    def asked(self, name: str) -> str:
        """A field of the query; "" where it is not there."""
        values = parse_qs(self.scope.get("query_string", b"").decode("latin-1")).get(name)
        return values[-1] if values else ""

    def count(self, most: int) -> int:
        """How many the client wants on a page.  Raises InvalidRequest."""
        said = self.asked("limit") or str(min(PAGE, most))
        if not said.isdecimal() or not 1 <= int(said[:9]) <= most:
            raise InvalidRequest(f"`limit` must be a whole number from 1 to {most}.", param="limit")
        return int(said)


class Kept:
    """Serves one family of paths, `name` for allow-lists and metrics."""

    def __init__(self, name: str, sites: Sites, metrics: Metrics, serve: Callable[[Visit], Awaitable[None]]) -> None:
        self.name, self.sites, self.metrics, self.serve = name, sites, metrics, serve

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:
        """Answers, whatever happens."""
        request_id, reply, tenant = new_request_id(), Reply(send), ""
        try:
            site, headers = self.sites.current, headers_of(scope["headers"])
            payer, key = site.directory.authenticate(secret_of(headers), time.time())
            tenant = payer.id
            self._permit(payer, key)
            with Held(site.pipeline.parts.room, payer.id, site.settings.server.bodies_bytes_max) as held:
                method = scope["method"]
                await self.serve(Visit(site, payer, key, request_id, method, headers, scope, receive, reply, held))
        except ClientGone:
            return
        except GatewayError as error:
            await self._refuse(error, request_id, tenant, reply)
        except DatabaseUnavailable as error:
            log.warning("database unavailable", request_id=request_id, reason=str(error))
            away = Unavailable("The database cannot be reached; try again.", retry_after_s=5.0)
            await self._refuse(away, request_id, tenant, reply)
        except Exception:
            log.exception("bug", request_id=request_id, endpoint=self.name)
            bug = InternalError("Something went wrong in the gateway; the request id finds it in the log.")
            await self._refuse(bug, request_id, tenant, reply)

    def _permit(self, tenant: Tenant, key: Key) -> None:
        if not permits_endpoint(tenant, key, self.name):
            raise Forbidden(f"Key {key.name!r} may not use the endpoint {self.name!r}.")

    async def _refuse(self, error: GatewayError, request_id: str, tenant: str, reply: Reply) -> None:
        self.metrics.refused(tenant, self.name, error.code)
        logs.refused(request_id, tenant, self.name, status_of(error), error.code)
        if isinstance(error, BudgetExceeded):
            self.metrics.denied(tenant, error.account, error.window)
        await refuse(reply, error, None, request_id)


def listed(found: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """OpenAI's list object."""
    ends = {"first_id": found[0]["id"], "last_id": found[-1]["id"]} if found else {"first_id": None, "last_id": None}
    return {"object": "list", "data": found, **ends, "has_more": more}
