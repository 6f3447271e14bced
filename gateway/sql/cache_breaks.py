"""What the prompt-cache doctor found, summed by hour: estimates, from the requests it had time to look at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, func, select, text

from gateway.sql.figures import total
from gateway.sql.schema import cache_breaks
from gateway.types import NanoUSD


@dataclass(frozen=True, slots=True)
class Break:
    """One cause at one place."""

    tenant: str
    route: str
    deployment: str
    cause: str
    role: str
    block: int
    token: int  # from the beginning of the prompt; of several the first
    requests: int
    tokens: int
    cost: NanoUSD
    hour: int  # whole hours since 1970; of several the first


_KEY = ("hour", "tenant", "route", "deployment", "cause", "role", "block")
_ADDED = ("requests", "tokens", "cost")
_NAMES = (*_KEY, "token", *_ADDED)
_ADD = text(
    f"INSERT INTO cache_breaks ({', '.join(_NAMES)}) VALUES ({', '.join(f':{name}' for name in _NAMES)}) "  # noqa: S608  # names of our own
    f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET "
    + ", ".join(f"{name} = cache_breaks.{name} + excluded.{name}" for name in _ADDED)
    + ", token = CASE WHEN excluded.token < cache_breaks.token THEN excluded.token ELSE cache_breaks.token END"
)


def add(connection: Connection, found: Iterable[Break]) -> None:
    """Adds to what is there.  In order, so that two writers never wait for each other in a ring."""
    rows = [{name: getattr(each, name) for name in _NAMES} for each in found]
    if rows:
        connection.execute(_ADD, sorted(rows, key=lambda row: [row[name] for name in _KEY]))


def breaks(connection: Connection, since: float, until: float, equal: Mapping[str, str]) -> list[Break]:
    """Summed over [since, until) in unix seconds, whole hours, dearest first.  `equal`: tenant, route, deployment."""
    table = cache_breaks
    key = [table.c[name] for name in _KEY if name != "hour"]
    sums = [total(table.c[name]).label(name) for name in _ADDED]
    query = (
        select(*key, func.min(table.c.token).label("token"), *sums, func.min(table.c.hour).label("hour"))
        .where(table.c.hour >= int(since // 3600), table.c.hour < -int(-until // 3600))
        .where(*(table.c[name] == value for name, value in equal.items()))
        .group_by(*key)
    )
    found = [
        Break(**{**row, **{name: int(row[name]) for name in _ADDED}}) for row in connection.execute(query).mappings()
    ]
    return sorted(found, key=lambda each: (-each.cost, -each.tokens, each.tenant, each.route, each.cause, each.block))
