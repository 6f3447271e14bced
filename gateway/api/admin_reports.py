"""`/admin/v1/spend`, `/records`, `/tasks`, `/deployments` and `/audit`: what happened, in exact figures."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from msgspec import structs
from pydantic import Field
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.api.admin_export import cursor_text, page_after, record_shown, stream
from gateway.api.admin_shapes import Desk, desk, listed, money, timestamp
from gateway.configuration.schema import Shape
from gateway.errors import InvalidRequest
from gateway.health import Condition
from gateway.sql import records
from gateway.sql.records import FILTERS, Filter
from gateway.sql.spend import GROUPS_MAX, Sum, at_one_moment, spend
from gateway.types import Deployment, Price

router = APIRouter(prefix="/admin/v1")
At = Annotated[Desk, Depends(desk)]

SPEND_DAYS = 31
"""How far back a report looks unless asked: never by accident over everything there is."""
REPORT_S = 30.0


class Which(Shape):
    """Filters that every report takes.  `since` and `until`: unix seconds or ISO 8601, [since, until)."""

    since: str | None = None
    until: str | None = None
    tenant: str | None = None
    key: str | None = None
    model: str | None = None
    route: str | None = None
    deployment: str | None = None
    provider: str | None = None
    user: str | None = None
    task: str | None = None
    outcome: str | None = None
    endpoint: str | None = None
    tag: list[str] = Field([], max_length=20)  # NAME=VALUE

    def filter(self, days: int | None = None, *, tasked: bool = False) -> Filter:
        """As the database knows it; with `days`, that far back unless `since` is given.  Raises InvalidRequest."""
        since = timestamp(self.since, "since") if self.since else None
        if since is None and days is not None:
            since = float(int(time.time()) // 86400 * 86400 - (days - 1) * 86400)
        tags = dict(_pair(tag) for tag in self.tag)
        return Filter(
            since=since,
            until=timestamp(self.until, "until") if self.until else None,
            equal={name: value for name in FILTERS if (value := getattr(self, name)) is not None},
            tags=tags,
            tasked=tasked,
        )


class SpendQuery(Which):
    """By what to group: names with commas."""

    by: str = "tenant"
    limit: int = Field(GROUPS_MAX, ge=1, le=10_000)


class TasksQuery(Which):
    """The dearest tasks first."""

    limit: int = Field(100, ge=1, le=1000)


class RecordsQuery(Which):
    """A page, or everything as a stream."""

    limit: int = Field(100, ge=1, le=records.PAGE_MAX)
    after: str | None = None
    format: Literal["json", "ndjson", "csv"] = "json"


@router.get("/spend")
async def spend_report(query: Annotated[SpendQuery, Query()], at: At) -> dict[str, Any]:
    """Sums by tenant, key, user, model, route, deployment, provider, task, tag:NAME, day or hour (UTC), or several."""
    by = tuple(name.strip() for name in query.by.split(",") if name.strip())
    wanted = query.filter(SPEND_DAYS)
    groups, total = await _sums(at, wanted, by, query.limit)
    return {
        "object": "spend",
        "since": wanted.since,
        "until": wanted.until,
        "by": list(by),
        "data": [{**dict(zip(by, group.group, strict=True)), **_figures(group)} for group in groups],
        "total": _figures(total) if total else None,
        "truncated": len(groups) >= query.limit,
    }


@router.get("/tasks")
async def tasks(query: Annotated[TasksQuery, Query()], at: At) -> dict[str, Any]:
    """What each task cost, over all of its requests; those without a task are left out."""
    wanted = query.filter(SPEND_DAYS, tasked=True)
    groups, _ = await _sums(at, wanted, ("task", "tenant"), query.limit)
    data = [{"task": group.group[0], "tenant": group.group[1], **_figures(group)} for group in groups]
    return listed(data, since=wanted.since, until=wanted.until, truncated=len(groups) >= query.limit)


@router.get("/records", responses={200: {"content": {"text/csv": {}, "application/x-ndjson": {}}}})
async def record_list(query: Annotated[RecordsQuery, Query()], at: At) -> Response:
    """Records, newest first.  JSON comes by page (`next` is the following page's `after`), NDJSON and CSV whole."""
    wanted, after = query.filter(), page_after(query.after)
    if query.format != "json":
        kind = "text/csv; charset=utf-8" if query.format == "csv" else "application/x-ndjson"
        return StreamingResponse(stream(at.store, wanted, after, query.format), media_type=kind)
    rows = await at.store.database.run(
        lambda connection: records.page(connection, wanted, query.limit + 1, after), timeout_s=REPORT_S
    )
    shown = rows[: query.limit]
    following = cursor_text(shown[-1]) if len(rows) > query.limit else None
    return JSONResponse(listed([record_shown(row) for row in shown], next=following))


@router.get("/deployments")
async def deployments(at: At) -> dict[str, Any]:
    """Every deployment with its price, its limits, and its health as this worker sees it."""
    site = at.sites.current
    health = site.pipeline.parts.health
    return listed(_deployment(each, health.of(each.id)) for each in site.catalog.deployments.values())


@router.get("/audit")
async def audit(
    at: At,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int | None, Query(ge=0, le=records.INT_MAX - 1)] = None,
) -> dict[str, Any]:
    """Who changed what, newest first."""
    entries = await at.store.log(limit, after)
    return listed(entries, next=entries[-1]["id"] if len(entries) == limit else None)


async def _sums(at: Desk, wanted: Filter, by: tuple[str, ...], count: int) -> tuple[list[Sum], Sum | None]:
    def both(connection: Connection) -> tuple[list[Sum], list[Sum]]:
        at_one_moment(connection)
        return spend(connection, wanted, by, count), spend(connection, wanted, ())

    try:
        groups = await at.store.database.run(both, timeout_s=REPORT_S)
    except ValueError as error:
        raise InvalidRequest(f"`by`: {error}.", param="by") from None
    return groups[0], next(iter(groups[1]), None)


def _figures(group: Sum) -> dict[str, Any]:
    counts = ("requests", "input_tokens", "cached_tokens", "output_tokens", "errors")
    return {
        **{name: getattr(group, name) for name in counts},
        "cost": money(group.cost),
        "unknown_cost_requests": group.unknown,
        "estimated_requests": group.estimated,
        "presumed_cost": money(group.presumed),
        "overhead_cost": money(group.overhead),
        "baseline_cost": money(group.baseline),
        "saved": money(group.baseline - group.compared),
        "first_at": group.first,
        "last_at": group.last,
    }


def _deployment(each: Deployment, condition: Condition) -> dict[str, Any]:
    stats = condition.stats()
    return {
        "object": "deployment",
        "id": each.id,
        "provider": each.provider.id,
        "dialect": each.provider.dialect,
        "upstream_model": each.upstream_model,
        "region": each.region,
        "quality": each.quality,
        "context_max": each.context_max,
        "output_max": each.output_max,
        "capabilities": sorted(each.capabilities),
        "price": _price(each.price),
        "health": {
            "circuit_open": condition.open,
            "inflight": condition.inflight,
            **structs.asdict(stats),
        },
    }


def _price(price: Price) -> dict[str, Any]:
    """Per million tokens, per piece for fees."""
    return {
        "known": price.known,
        "source": price.source,
        "per_million": {bucket: money(rate) for bucket, rate in price.rates.items()},
        "fees": {name: money(rate) for name, rate in price.fees.items()},
        "tiers": [
            {
                "above": tier.above,
                "marginal": tier.marginal,
                "per_million": {b: money(r) for b, r in tier.rates.items()},
            }
            for tier in price.tiers
        ],
        "windows": [
            {
                "start_minute": window.start_minute,
                "end_minute": window.end_minute,
                "weekdays": sorted(window.weekdays),
                "per_million": {bucket: money(rate) for bucket, rate in window.rates.items()},
            }
            for window in price.windows
        ],
        "variants": {name: _price(variant) for name, variant in price.variants.items()},
    }


def _pair(tag: str) -> tuple[str, str]:
    name, equals, value = tag.partition("=")
    if not equals:
        raise InvalidRequest("`tag` must be NAME=VALUE.", param="tag")
    try:
        records.tag(name)
    except ValueError as error:
        raise InvalidRequest(f"`tag`: {error}.", param="tag") from None
    return name, value
