"""Which requests can be asked again without doing anything twice, and how they are.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from msgspec.structs import replace

from gateway.dialects.translate import CODECS
from gateway.types import Format, Key, Request, Route, Tenant

ASKED_MAX = 1024 * 1024
"""Bytes of a request that is asked again: it is kept until then."""
DOES_MORE = (
    "audio",
    "background",
    "container",
    "conversation",
    "mcp_servers",
    "previous_response_id",
    "prompt",
    "web_search_options",
)
"""Fields of a request that acts or depends on what a provider keeps: asked twice, it would do something twice."""
OF_THE_CALL = frozenset({"idempotency-key", "traceparent", "tracestate"})
"""Headers that are of one call and of no other."""
OWN_TOOLS = (None, "function", "custom")
"""Types of tools that the client runs, if anyone: the provider runs the others."""


def repeatable(request: Request) -> bool:
    """Whether it asks for one answer that can be read, and for nothing else."""
    body = request.body
    if request.format not in CODECS or request.pinned or len(request.raw) > ASKED_MAX:
        return False
    if body.get("n") not in (None, 1) or any(body.get(name) for name in DOES_MORE):
        return False
    tools = body.get("tools")
    if tools is None:
        return True
    listed = tools if isinstance(tools, list) else [None]
    return all(isinstance(tool, Mapping) and tool.get("type") in OWN_TOOLS for tool in listed)


def repeated(request: Request, route: Route, model: str, payer: Tenant, now: float) -> Request:
    """The same of `model`, in the name of `payer`; its provider is told to keep nothing of it.

    Of the client's names only that of its model stays, with the permissions of its key.
    """
    found = replace(
        request,
        id=f"{request.id}.shadow",
        received=now,
        key=Key("", payer.id, "shadow", b"", models=request.key.models),
        tags={},
        user="",
        task="",
        cost_max=None,
        headers={name: value for name, value in request.headers.items() if name not in OF_THE_CALL},
        timeout_s=None,
        shadow_of=request.id,
    )
    if request.format is Format.RESPONSES or request.body.get("store"):
        body = {**request.body, "store": False}
        found = replace(found, body=body, raw=orjson.dumps(body))
    return addressed(found, route, model)


def addressed(request: Request, route: Route, model: str) -> Request:
    """The request to a candidate of its route, else to whatever the name stands for."""
    if model in route.candidates:
        return replace(request, model=route.id, pinned=model)
    return replace(request, model=model, pinned="")
