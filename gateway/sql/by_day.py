"""Sums by day, one for each thing that a report may ask for, beside tenant and day: few rows that stand for very many.

As with hours, whoever writes records marks their day in the same transaction, and a report reads marked days from hours
or records.  A day is summed without holding anybody up: its mark goes last, and only if nobody has come meanwhile.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ColumnElement, Connection, String, Table, cast, delete, insert, literal, select, text

from gateway.sql.figures import ROLLED, TAGS, column, sums
from gateway.sql.schema import daily, daily_kinds, hourly, records, stale_days
from gateway.sql.stale import outdated

if TYPE_CHECKING:
    from gateway.sql.records import Filter  # which marks what it writes

SETTLED_S = 1800.0
"""A day is summed this long after its end."""
RENEW_S = 300.0
DAYS_AT_ONCE = 4
NAMED = ("user", "task")
"""What has too many values for sums by hour: summed from records, as tags are."""
FROM_HOURS = tuple(sorted(ROLLED - {"tenant", "day"}))
"""What is summed from sums by hour, where those of the day are true."""
FEWEST = "outcome"
"""The kind that answers what is asked by tenant and day alone."""
TAGS_MAX = 8
"""Names of tags that are summed for one day: those that most of its records have."""
SAMPLE = 10_000
"""Records of a day whose tags are looked at to find them."""
BESIDE = frozenset({"tenant", "day"})
"""What daily sums can be grouped and filtered by, beside one kind."""


class Overtaken(Exception):
    """Records of the day have changed while it was summed: nothing is written, and it is tried again."""


def kind_of(wanted: Filter, by: tuple[str, ...]) -> str | None:
    """The one kind of sums that can answer; None: records must."""
    tags = {f"tag:{name}" for name in wanted.tags}
    kinds = ({*by, *wanted.equal, *tags} | ({"task"} if wanted.tasked else set())) - BESIDE or {FEWEST}
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    return kind if kind in NAMED or kind in FROM_HOURS or kind.startswith("tag:") else None


def due(connection: Connection, now: float, count: int = DAYS_AT_ONCE) -> list[int]:
    """Marked days that are over for a while, newest first."""
    query = select(stale_days.c.day).where(stale_days.c.day < int((now - SETTLED_S) // 86400))
    return list(connection.execute(query.order_by(stale_days.c.day.desc()).limit(count)).scalars())


def renew(connection: Connection, day: int) -> None:
    """Sums one day.  Needs a transaction that writes; Overtaken must undo it."""
    mark = stale_days.c.day == day
    changes = connection.execute(select(stale_days.c.changes).where(mark)).scalar()
    connection.execute(delete(daily).where(daily.c.day == day))
    connection.execute(delete(daily_kinds).where(daily_kinds.c.day == day))
    of_hours = records if outdated(connection, day * 24, day * 24 + 24) else hourly
    kinds = dict.fromkeys([*NAMED, *(f"tag:{name}" for name in _tags(connection, day))], records)
    kinds |= dict.fromkeys(FROM_HOURS, of_hours)
    for kind, source in kinds.items():
        figures = sums(source)
        groups: list[ColumnElement[Any]] = [literal(day, BigInteger), literal(kind, String), _value(kind, source)]
        query = select(*groups, source.c.tenant, *figures).where(*_within(day, source))
        names = ["day", "kind", "value", "tenant", *(figure.name for figure in figures)]
        connection.execute(insert(daily).from_select(names, query.group_by(text("3"), source.c.tenant)))
    connection.execute(insert(daily_kinds), [{"day": day, "kind": kind} for kind in kinds])
    if connection.execute(delete(stale_days).where(mark, stale_days.c.changes == changes)).rowcount != 1:
        raise Overtaken(f"day {day}")


def summed(connection: Connection, kind: str, since: int, until: int) -> list[int]:
    """Days in [since, until) whose sums of that kind are true, upward."""
    stale = select(stale_days.c.day)
    query = select(daily_kinds.c.day).where(daily_kinds.c.kind == kind, daily_kinds.c.day.not_in(stale))
    query = query.where(daily_kinds.c.day >= since, daily_kinds.c.day < until)
    return list(connection.execute(query.order_by(daily_kinds.c.day)).scalars())


def clauses(wanted: Filter, kind: str, days: list[int]) -> list[ColumnElement[bool]]:
    """The filter, over the sums of these days; its times are not in it."""
    found: list[ColumnElement[bool]] = [daily.c.kind == kind, daily.c.day >= days[0], daily.c.day <= days[-1]]
    if len(days) <= days[-1] - days[0]:
        found.append(daily.c.day.in_(days))
    if "tenant" in wanted.equal:
        found.append(daily.c.tenant == wanted.equal["tenant"])
    value = wanted.equal.get(kind, wanted.tags.get(kind.removeprefix("tag:")))
    if value is not None:
        found.append(daily.c.value == value)
    return [*found, daily.c.value != ""] if wanted.tasked else found


def _value(kind: str, source: Table) -> ColumnElement[Any]:
    found = column(kind, source)
    return cast(found, String) if kind == "hour" else found


def _within(day: int, source: Table) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    if source is hourly:
        return hourly.c.hour >= day * 24, hourly.c.hour < day * 24 + 24
    return records.c.at >= day * 86400, records.c.at < (day + 1) * 86400


def _tags(connection: Connection, day: int) -> list[str]:
    """Names that records of the day have most, but for those that hourly sums have."""
    sample = connection.execute(select(records.c.tags).where(*_within(day, records)).limit(SAMPLE)).scalars()
    names = Counter(name for tags in sample for name in tags if f"tag:{name}" not in TAGS)
    return [name for name, _ in names.most_common() if _sayable(name)][:TAGS_MAX]


def _sayable(name: str) -> bool:
    try:
        column(f"tag:{name}", records)
    except ValueError:
        return False
    return True
