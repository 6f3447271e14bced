"""`tollgate explain`: what the gateway would do with a request, without sending it."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.show import CONFIG, ConfigOption, JsonOption, as_json, fail, settings_of
from gateway.types import Format, Key, Tenant

if TYPE_CHECKING:
    from gateway.plan import Plan
    from gateway.settings import Settings
    from gateway.types import Request, Route


def explain(
    request: Annotated[str, typer.Argument(help="A request body: a JSON file, or - for stdin.")],
    config: ConfigOption = CONFIG,
    tenant: Annotated[str | None, typer.Option(help="Who asks; the first tenant of the settings unless given.")] = None,
    format_: Annotated[Format, typer.Option("--format", help="The API the request is for.")] = Format.CHAT,
    json: JsonOption = False,
) -> None:
    """Explain how a request would be routed and what it could cost, by a gateway that has seen no traffic yet."""
    from gateway import explain as told
    from gateway.errors import GatewayError

    settings = settings_of(config, json=json)
    asker = _tenant(settings, tenant, json=json)
    try:
        raw = sys.stdin.buffer.read() if request == "-" else Path(request).read_bytes()
        asked = _request(raw, format_, asker)
        route, plan = asyncio.run(_planned(settings, asked, asker))
    except OSError as error:
        fail(f"{request} cannot be read: {error.strerror}", json=json)
    except GatewayError as error:
        fail(f"{error.status} {error.code}: {error.message}", json=json)
    if json:
        as_json(told.explain(plan, asked.model, route.id if route else None))
        return
    for line in told.in_words(plan, asked.model, route.id if route else None):
        typer.echo(line)


def _tenant(settings: Settings, wanted: str | None, *, json: bool) -> Tenant:
    tenants = {tenant.id: tenant for tenant in settings.tenants}
    if wanted is None:
        return next(iter(tenants.values()), Tenant("nobody"))
    if wanted not in tenants:
        fail(f"The settings have no tenant {wanted!r}; there are: {', '.join(tenants) or 'none'}.", json=json)
    return tenants[wanted]


def _request(raw: bytes, format_: Format, tenant: Tenant) -> Request:
    from gateway.api.ask import request_of

    key = Key("explain", tenant.id, "explain", b"")
    return request_of("explain", format_, raw, {}, tenant, key, time.time())


async def _planned(settings: Settings, request: Request, tenant: Tenant) -> tuple[Route | None, Plan]:
    from gateway.catalog import build
    from gateway.health import Health
    from gateway.planner import Planner
    from gateway.tokens import Counter

    catalog = build(settings)
    counter = Counter(catalog.deployments.values())
    try:
        content = await counter.content(request)
        return Planner(catalog, counter, Health()).plan(request, tenant, content, request.received)
    finally:
        counter.close()
