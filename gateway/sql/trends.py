"""Activity by the hour, and which alerts have been told: once for each thing and window, whichever replica notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, cast, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from gateway.sql.schema import alerts, records
from gateway.types import NanoUSD

HOURS = 7 * 24
WATCH = "watch"
"""The row by which one replica at a time looks at trends."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What one tenant did on one deployment in one hour since 1970."""

    tenant: str
    deployment: str
    hour: int
    cost: NanoUSD
    requests: int
    attempts: int


def activity(connection: Connection, now: float) -> list[Activity]:
    """Of today (UTC) and the seven days before."""
    first = (int(now // 86_400) - 7) * 24
    query = (
        select(
            records.c.tenant,
            records.c.deployment,
            records.c.hour,
            func.coalesce(func.sum(cast(func.coalesce(records.c.cost, records.c.reserved), BigInteger)), 0),
            func.count(),
            func.sum(records.c.attempts),
        )
        .where(records.c.at >= first * 3600)
        .group_by(records.c.tenant, records.c.deployment, records.c.hour)
    )
    return [Activity(t, d, int(h), int(c), int(n), int(a)) for t, d, h, c, n, a in connection.execute(query)]


def my_turn(connection: Connection, now: float, every_s: float) -> bool:
    """Whether this replica looks at trends now; within `every_s` no other does."""
    if _inserted(connection, {"id": WATCH, "at": now, "kind": WATCH, "subject": "", "facts": {}}):
        return True
    taken = update(alerts).where(alerts.c.id == WATCH, alerts.c.at <= now - every_s).values(at=now)
    return connection.execute(taken).rowcount == 1


def told(connection: Connection, row: dict[str, Any]) -> bool:
    """Notes an alert; False: it had been told before."""
    return _inserted(connection, row)


def _inserted(connection: Connection, row: dict[str, Any]) -> bool:
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = kind.insert(alerts).values(row).on_conflict_do_nothing(index_elements=[alerts.c.id])
    return connection.execute(statement.returning(alerts.c.id)).first() is not None
