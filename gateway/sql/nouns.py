"""Rows of tenants, keys and limits <-> the nouns they are.  Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from gateway.types import Action, Every, Key, Limit, Tenant, Unit, Window

Row: TypeAlias = Mapping[str, Any]

OWN = (
    "models",
    "tags",
    "zone",
    "on_ledger_outage",
    "drop_params",
    "suspended",
    "request_cost_max",
    "endpoints",
    "tiers",
    "regions",
)
"""A tenant's columns beside its id and times."""
ALL = ("*",)


@dataclass(frozen=True, slots=True)
class StoredTenant:
    """`tenant.limits` holds the tenant's own; times are unix seconds."""

    tenant: Tenant
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class StoredKey:
    """`revoked`: since when it proves nothing."""

    key: Key
    created: float
    revoked: float | None


@dataclass(frozen=True, slots=True)
class StoredLimit:
    """A limit of a tenant, of one of its keys, or of everyone."""

    limit: Limit  # with its id
    tenant: str  # "": of everyone
    key: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that administrators made, at one revision.  Keys that are revoked are not in it."""

    tenants: Sequence[Tenant] = ()
    keys: Sequence[Key] = ()
    limits: Sequence[Limit] = ()  # of everyone


def tenant_row(tenant: Tenant) -> dict[str, Any]:
    """The tenant's columns, without times and limits."""
    return {
        "id": tenant.id,
        "models": list(tenant.models),
        "tags": dict(tenant.tags),
        "zone": zone_name(tenant.zone),
        "on_ledger_outage": tenant.on_ledger_outage,
        "drop_params": tenant.drop_params,
        "suspended": tenant.suspended,
        "request_cost_max": tenant.request_cost_max,
        "endpoints": list(tenant.endpoints),
        "tiers": list(tenant.tiers),
        "regions": list(tenant.regions),
    }


def tenant_of(row: Row, limits: Iterable[Limit] = ()) -> Tenant:
    """The tenant with these limits."""
    return Tenant(
        id=row["id"],
        models=tuple(row["models"]),
        limits=tuple(limits),
        tags=row["tags"],
        zone=zone_of(row["zone"]),
        on_ledger_outage=row["on_ledger_outage"],
        drop_params=row["drop_params"],
        suspended=row["suspended"],
        request_cost_max=row["request_cost_max"],
        endpoints=ALL if row["endpoints"] is None else tuple(row["endpoints"]),
        tiers=tuple(row["tiers"] or ()),
        regions=tuple(row["regions"] or ()),
    )


def key_row(key: Key) -> dict[str, Any]:
    """The key's columns, without times and limits."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "name": key.name,
        "digest": key.digest,
        "models": list(key.models),
        "expires": key.expires,
        "endpoints": list(key.endpoints),
    }


def key_of(row: Row, limits: Iterable[Limit] = ()) -> Key:
    """The key with these limits."""
    return Key(
        id=row["id"],
        tenant=row["tenant"],
        name=row["name"],
        digest=bytes(row["digest"]),
        expires=row["expires"],
        models=tuple(row["models"]),
        limits=tuple(limits),
        endpoints=ALL if row["endpoints"] is None else tuple(row["endpoints"]),
    )


def limit_row(stored: StoredLimit) -> dict[str, Any]:
    """The limit's columns, without times; the zone is the tenant's."""
    limit = stored.limit
    return {
        "id": limit.id,
        "tenant": stored.tenant or None,
        "key": stored.key,
        "account": limit.account,
        "unit": str(limit.unit),
        "amount": limit.amount,
        "every": str(limit.window.every),
        "rolling_s": limit.window.rolling_s,
        "zone": "",
        "action": str(limit.action),
        "of": limit.of,
        "until": limit.until,
    }


def limit_of(row: Row, zone: tzinfo) -> StoredLimit:
    """The limit, in the tenant's zone; everyone's is UTC."""
    limit = Limit(
        account=row["account"],
        unit=Unit(row["unit"]),
        amount=row["amount"],
        window=Window(Every(row["every"]), row["rolling_s"], zone_of(row["zone"]) if row["zone"] else zone),
        action=Action(row["action"]),
        id=row["id"],
        of=row["of"],
        until=row["until"],
    )
    return StoredLimit(limit, row["tenant"] or "", row["key"])


def assembled(tenants: Iterable[Row], keys: Iterable[Row], limits: Iterable[Row]) -> Snapshot:
    """Tenants and keys, each with its limits, and the limits of everyone."""
    bare = {row["id"]: tenant_of(row) for row in tenants}
    of_tenant: dict[str, list[Limit]] = {}
    of_key: dict[str, list[Limit]] = {}
    for row in limits:
        stored = limit_of(row, bare[row["tenant"]].zone if row["tenant"] else UTC)
        mine = of_tenant.setdefault(stored.tenant, []) if stored.key is None else of_key.setdefault(stored.key, [])
        mine.append(stored.limit)
    whole = [replace(tenant, limits=tuple(of_tenant.get(tenant.id, ()))) for tenant in bare.values()]
    return Snapshot(whole, [key_of(row, of_key.get(row["id"], ())) for row in keys], of_tenant.get("", []))


def zone_name(zone: tzinfo) -> str:
    """The zone as configuration writes it."""
    return "UTC" if zone is UTC else str(zone)


def zone_of(name: str) -> tzinfo:
    """The zone of that name.  Raises ZoneInfoNotFoundError or ValueError."""
    return UTC if name in ("", "UTC") else ZoneInfo(name)
