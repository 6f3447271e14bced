"""Which sums are not true any more: hours and days whose records have changed since they were summed."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select, text

from gateway.sql.schema import stale_hours

_MARKS = {
    name: text(
        f"INSERT INTO stale_{name}s ({name}, changes) VALUES (:{name}, 1) "  # noqa: S608  # names of our own
        f"ON CONFLICT ({name}) DO UPDATE SET changes = stale_{name}s.changes + 1"
    )
    for name in ("hour", "day")
}


def outdate(connection: Connection, hours: Iterable[int]) -> None:
    """Their records change in this transaction.  In order, so that two writers never wait for each other in a ring."""
    of_hours = sorted(hours)
    connection.execute(_MARKS["hour"], [{"hour": hour} for hour in of_hours])
    connection.execute(_MARKS["day"], [{"day": day} for day in sorted({hour // 24 for hour in of_hours})])


def outdated(connection: Connection, since: int | None = None, until: int | None = None) -> list[int]:
    """Hours in [since, until) whose sums are not true, upward."""
    query = select(stale_hours.c.hour).order_by(stale_hours.c.hour)
    if since is not None:
        query = query.where(stale_hours.c.hour >= since)
    if until is not None:
        query = query.where(stale_hours.c.hour < until)
    return list(connection.execute(query).scalars())
