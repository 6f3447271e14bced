"""Spend, summed in the database.  Integers all the way: SUM(bigint) is numeric in PostgreSQL and comes back as int.

What hourly sums can tell is read from them, and from records only the stale hours and what lies before the first whole
hour and after the last; anything else is read record by record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, Select, Table, and_, false, or_, select, text

from gateway.sql.figures import GROUPS, ROLLED, TIMES, column, sums
from gateway.sql.records import Filter
from gateway.sql.rollup import outdated
from gateway.sql.schema import hourly, records
from gateway.types import NanoUSD

__all__ = ["GROUPS", "GROUPS_MAX", "Sum", "spend"]

GROUPS_MAX = 1000
STALE_MAX = 10_000
"""With more stale hours than that (a year's, just migrated) sums do not help."""


@dataclass(frozen=True, slots=True)
class Sum:
    """What one group used.  `cost` is the sum of what is known; `unknown` says of how many requests it is not."""

    group: tuple[str | None, ...]  # a value per grouping; None: the record has no such tag
    requests: int
    cost: NanoUSD
    unknown: int
    presumed: NanoUSD  # within `cost`: holds nobody settled
    baseline: NanoUSD  # over requests that have one
    compared: NanoUSD  # what those same requests cost: baseline - compared is what was saved
    overhead: NanoUSD
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    estimated: int  # requests whose tokens are our own count
    errors: int
    first: float
    last: float

    def __add__(self, other: Sum) -> Sum:
        """Both together, under this group."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _FIGURES}
        return replace(self, **added, first=min(self.first, other.first), last=max(self.last, other.last))


_FIGURES = tuple(each.name for each in fields(Sum) if each.name not in ("group", "first", "last"))


def at_one_moment(connection: Connection) -> None:
    """Everything read in this transaction is read as of one moment; to be said before anything is."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))


def spend(connection: Connection, wanted: Filter, by: tuple[str, ...], count: int | None = GROUPS_MAX) -> list[Sum]:
    """Sums by group, dearest first; by day and hour upward in time.  At most `count` groups; None: all.

    Raises ValueError for a grouping that is not one of GROUPS.
    """
    if not _rolled(wanted, by):
        return _sums(connection, _query(records, by, wanted.clauses()), by, count)
    since, until, edges = _hours(wanted)
    stale = outdated(connection, since, until)
    if len(stale) > STALE_MAX:
        return _sums(connection, _query(records, by, wanted.clauses()), by, count)
    whole = [hourly.c[name] == value for name, value in wanted.equal.items()]
    whole += [column(f"tag:{name}", hourly) == value for name, value in wanted.tags.items()]
    whole += [hourly.c.hour >= since] if since is not None else []
    whole += [hourly.c.hour < until] if until is not None else []
    whole += [hourly.c.hour.not_in(stale)] if stale else []
    found = _sums(connection, _query(hourly, by, whole), by, None)
    apart = [*edges, *_spans(stale)]
    if apart:
        pieces = [and_(records.c.at >= start, records.c.at < end) for start, end in apart]
        clauses = replace(wanted, since=None, until=None).clauses()
        found += _sums(connection, _query(records, by, [*clauses, or_(false(), *pieces)]), by, None)
    return _merged(found, by)[:count]


def _rolled(wanted: Filter, by: tuple[str, ...]) -> bool:
    asked = {*by, *wanted.equal, *(f"tag:{name}" for name in wanted.tags)}
    return asked <= ROLLED and not wanted.tasked


def _hours(wanted: Filter) -> tuple[int | None, int | None, list[tuple[float, float]]]:
    """The whole hours in a span of time, [since, until), and what of it lies outside of them."""
    since = None if wanted.since is None else -int(-wanted.since // 3600)
    until = None if wanted.until is None else int(wanted.until // 3600)
    if since is not None and until is not None and since >= until:
        return 0, 0, [(wanted.since or 0.0, wanted.until or 0.0)]
    edges = []
    if since is not None and wanted.since is not None and wanted.since < since * 3600:
        edges.append((wanted.since, since * 3600.0))
    if until is not None and wanted.until is not None and wanted.until > until * 3600:
        edges.append((until * 3600.0, wanted.until))
    return since, until, edges


def _spans(hours: Iterable[int]) -> Iterator[tuple[float, float]]:
    """Neighbouring hours as one span of time."""
    start = end = None
    for hour in hours:
        if hour != end:
            if start is not None and end is not None:
                yield start * 3600.0, end * 3600.0
            start = hour
        end = hour + 1
    if start is not None and end is not None:
        yield start * 3600.0, end * 3600.0


def _query(table: Table, by: tuple[str, ...], clauses: list[ColumnElement[bool]]) -> Select[tuple[object, ...]]:
    columns = [column(name, table) for name in by]
    labelled = (each.label(f"g{index}") for index, each in enumerate(columns))
    return select(*labelled, *sums(table)).where(*clauses).group_by(*columns)


def _sums(
    connection: Connection, query: Select[tuple[object, ...]], by: tuple[str, ...], count: int | None
) -> list[Sum]:
    if count is not None:
        in_time = [text(f"g{index}") for index, name in enumerate(by) if name in TIMES]
        groups = [text(f"g{index}") for index in range(len(by))]
        query = query.order_by(*in_time, text("cost DESC"), *groups).limit(count)
    return [_sum(found, by) for found in connection.execute(query).mappings() if found["requests"]]


def _merged(found: Iterable[Sum], by: tuple[str, ...]) -> list[Sum]:
    merged: dict[tuple[str | None, ...], Sum] = {}
    for each in found:
        known = merged.get(each.group)
        merged[each.group] = each if known is None else known + each
    in_time = [index for index, name in enumerate(by) if name in TIMES]
    return sorted(
        merged.values(),
        key=lambda each: (
            [each.group[index] for index in in_time],
            -each.cost,
            [(value is not None, value or "") for value in each.group],
        ),
    )


def _sum(values: RowMapping, by: tuple[str, ...]) -> Sum:
    group = tuple(_shown(values[f"g{index}"], name) for index, name in enumerate(by))
    return Sum(
        group=group,
        first=values["first"],
        last=values["last"],
        **{name: int(values[name]) for name in _FIGURES},
    )


def _shown(value: int | str | None, name: str) -> str | None:
    if value is None or name not in TIMES:
        return None if value is None else str(value)
    if name == "day":
        return datetime.fromtimestamp(int(value) * 86400, UTC).strftime("%Y-%m-%d")
    return datetime.fromtimestamp(int(value) * 3600, UTC).strftime("%Y-%m-%dT%H:00Z")
