"""`/v1/models`: what the caller's key may ask for, routes first.  OpenAI's shape, or Anthropic's for its clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from gateway.api.ask import new_request_id
from gateway.api.chat import caller
from gateway.api.errors import refuse
from gateway.api.reply import ASGISend, Receive, Reply
from gateway.errors import GatewayError, UnknownModel
from gateway.site import Site, Sites
from gateway.tenants import permits
from gateway.types import Format, Key, Tenant

JSON = [(b"content-type", b"application/json")]
CREATED = 1_700_000_000  # OpenAI's field is required; a route has no birthday


class Models:
    """`GET /v1/models` and `GET /v1/models/{id}`."""

    def __init__(self, sites: Sites) -> None:
        self.sites = sites

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: ASGISend) -> None:  # noqa: ARG002  # a GET has no body
        """Lists, or describes the one named in the path."""
        reply, site = Reply(send), self.sites.current
        anthropic = any(name == b"anthropic-version" for name, _ in scope["headers"])
        try:
            tenant, key = caller(site, scope)
            entries = [
                _anthropic(name) if anthropic else _openai(name, owner) for name, owner in _visible(site, tenant, key)
            ]
            wanted = scope["path"].removeprefix("/v1/models").strip("/")
            body = _one(entries, wanted, site) if wanted else _listed(entries, anthropic)
            await reply.whole(200, JSON, orjson.dumps(body))
        except GatewayError as error:
            await refuse(reply, error, Format.MESSAGES if anthropic else None, new_request_id())


def _visible(site: Site, tenant: Tenant, key: Key) -> Iterator[tuple[str, str]]:
    for route in site.catalog.routes:
        if permits(tenant, key, route):
            yield route, "tollgate"
    for id_, deployment in site.catalog.deployments.items():
        if permits(tenant, key, id_):
            yield id_, deployment.provider.id


def _openai(name: str, owner: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": owner}


def _anthropic(name: str) -> dict[str, Any]:
    return {"type": "model", "id": name, "display_name": name, "created_at": "2023-11-14T22:13:20Z"}


def _listed(entries: list[dict[str, Any]], anthropic: bool) -> dict[str, Any]:
    if not anthropic:
        return {"object": "list", "data": entries}
    ends = (
        {"first_id": entries[0]["id"], "last_id": entries[-1]["id"]} if entries else {"first_id": None, "last_id": None}
    )
    return {"data": entries, "has_more": False, **ends}


def _one(entries: list[dict[str, Any]], wanted: str, site: Site) -> dict[str, Any]:
    for entry in entries:
        if entry["id"] == wanted:
            return entry
    raise UnknownModel(f"There is no model {wanted!r}.{site.catalog.suggestion(wanted)}", param="model")
