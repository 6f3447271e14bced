"""What is asked of a response that a provider keeps: to read it, to cancel it, to forget it, or what went into it.

    GET    /v1/responses/{id}             also as a stream
    DELETE /v1/responses/{id}
    POST   /v1/responses/{id}/cancel
    GET    /v1/responses/{id}/input_items

The id names the deployment and belongs to one tenant (`gateway.dialects.stored`), so any gateway can answer.  Nothing
of this costs anything: the answer was paid for when it was made, and is never charged again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from gateway import sse
from gateway.api.ask import headers_of, new_request_id, secret_of
from gateway.api.errors import refuse
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.dialects import relay, stored
from gateway.dialects.base import Call
from gateway.dialects.openai_responses import kept
from gateway.dialects.stored import Stored
from gateway.errors import (
    Forbidden,
    GatewayError,
    InternalError,
    MethodNotAllowed,
    NotFound,
    UpstreamBroken,
    UpstreamDenied,
)
from gateway.reply_headers import EVENTS, JSON, NO_BUFFERING
from gateway.site import Site, Sites
from gateway.tenants import permits_endpoint
from gateway.types import Deployment, Format, Tenant

log = structlog.get_logger()

PREFIX = "/v1/responses/"
_METHODS: Mapping[str, frozenset[str]] = {
    "": frozenset({"GET", "DELETE"}),
    "/cancel": frozenset({"POST"}),
    "/input_items": frozenset({"GET"}),
}


class StoredResponses:
    """See the module."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # no body is looked at
        """Answers, whatever happens."""
        request_id, reply = new_request_id(), Reply(send)
        try:
            await self.answer(scope, request_id, reply)
        except GatewayError as error:
            await refuse(reply, error, Format.RESPONSES, request_id)
        except Exception:
            log.exception("bug", request_id=request_id, endpoint="responses")
            bug = InternalError("Something went wrong in the gateway.")
            await refuse(reply, bug, Format.RESPONSES, request_id)

    async def answer(self, scope: dict[str, Any], request_id: str, reply: Reply) -> None:
        """Asks the provider that keeps the response, and passes its reply on with the ids that the client knows."""
        site = self.sites.current
        tenant, key = site.directory.authenticate(secret_of(headers_of(scope["headers"])), time.time())
        if not permits_endpoint(tenant, key, Format.RESPONSES):
            raise Forbidden(f"Key {key.name!r} may not use the endpoint 'responses'.")
        told, _, rest = scope["path"].removeprefix(PREFIX).partition("/")
        below = f"/{rest}" if rest else ""
        if below not in _METHODS:
            raise NotFound(f"There is nothing at {scope['path'][:200]!r}.")
        if scope["method"] not in _METHODS[below]:
            raise MethodNotAllowed(scope["path"], _METHODS[below])
        found = stored.read(told, tenant.id)
        deployment = site.catalog.deployments.get(found.deployment)
        if deployment is None:
            raise NotFound(f"The deployment that keeps the response {told[:200]!r} is gone.", param="response_id")
        query = scope.get("query_string", b"").decode("latin-1")
        call = kept(deployment, found.id, below, method=scope["method"], query=query)
        await _passed(site, deployment, call, _Names(found, told, tenant), reply, request_id)


async def _passed(site: Site, deployment: Deployment, call: Call, names: _Names, reply: Reply, request_id: str) -> None:
    provider, parts = deployment.provider, site.pipeline.parts
    dialect = site.pipeline.dialects[provider.dialect]
    headers = [(b"x-tollgate-request-id", request_id.encode()), (b"x-tollgate-deployment", deployment.id.encode())]
    try:
        answer = await parts.upstream.open(call, provider, dialect)
    except UpstreamDenied as denied:
        raise NotFound(f"There is no stored response {names.told[:200]!r}.", param="response_id") from denied
    async with answer:
        if "event-stream" not in answer.headers.get("content-type", ""):
            body = b"".join([chunk async for chunk in answer.chunks()])
            await reply.whole(200, [JSON, *headers], names.in_body(body))
            return
        splitter = sse.Splitter()
        await reply.start(200, [EVENTS, *NO_BUFFERING, *headers])
        async for chunk in answer.chunks():
            await reply.chunk(b"".join(names.in_event(raw) for raw in splitter.feed(chunk)))
        await reply.end(splitter.rest())


class _Names:
    """Puts the client's ids in the place of the provider's."""

    def __init__(self, found: Stored, told: str, tenant: Tenant) -> None:
        self.told = told
        self._found = found
        self._tenant = tenant

    def in_body(self, body: bytes) -> bytes:
        """A response, what is left of it, or a list of what went into it.  Raises UpstreamBroken."""
        try:
            fields = relay.fields(body)
            return relay.edited(body, self._changes(fields))
        except ValueError as error:
            raise UpstreamBroken("The provider's reply is not the JSON it should be.") from error

    def in_event(self, raw: bytes) -> bytes:
        """An event of a stream."""
        data = relay.data(raw)
        if data.find(b'"response"') < 0:  # `in` raises and catches an error first
            return raw
        response = relay.fields(data).get("response")
        if not isinstance(response, msgspec.Raw):
            return raw
        return relay.with_data(raw, data, relay.edited(data, {"response": msgspec.Raw(self.in_body(bytes(response)))}))

    def _changes(self, fields: Mapping[str, object]) -> dict[str, object]:
        changes: dict[str, object] = {}
        for name in ("id", "previous_response_id"):
            value = fields.get(name)
            known = msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else None
            if isinstance(known, str):
                changes[name] = Stored(self._found.deployment, known).told(self._tenant.id)
        return changes
