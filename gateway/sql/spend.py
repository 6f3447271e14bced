"""Spend, summed in the database.  Integers all the way: SUM(bigint) is numeric in PostgreSQL and comes back as int.

What sums by day can tell is read from them; what is left of the span (days that are not summed, and what lies before
the first whole one and after the last) from sums by hour where those can tell it, and else from records.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    and_,
    cast,
    false,
    or_,
    select,
    text,
    true,
    union_all,
)

from gateway.sql import by_day
from gateway.sql.figures import ALL, COST, GROUPS, ROLLED, TIMES, column, of_sums, sums
from gateway.sql.records import Filter
from gateway.sql.schema import daily, hourly, records
from gateway.sql.stale import outdated
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
    overhead: NanoUSD  # judges, answers thrown away, shadows; within `cost`
    shadow: NanoUSD  # of that: the gateway's own questions
    saved_reported: NanoUSD  # before overhead, by gateway.savings.Saving; below 0: lost
    saved_batch: NanoUSD
    saved_tier: NanoUSD
    saved_caching: NanoUSD
    saved_arbitrage: NanoUSD
    saved_routing: NanoUSD
    saved_caps: NanoUSD
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
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL work_mem = '128MB'"))  # so many groups are not sorted on disk
        connection.execute(text("SET LOCAL jit = off"))
    kind, days = by_day.kind_of(wanted, by), list[int]()
    if kind is not None:
        days = by_day.summed(connection, kind, *_days(wanted))
    if not _rolled(wanted, by):
        if kind is None or not days:
            return _sums(connection, _query(records, by, wanted.clauses()), by, count)
        return _by_day(connection, wanted, by, kind, days, count)
    found, gaps = list[Sum](), list(_gaps(wanted, days))
    if kind is not None and days:
        found = _sums(connection, _of_kind(wanted, by, kind, days), by, None if gaps else count)
    for since, until in gaps:
        found += _by_hour(connection, replace(wanted, since=since, until=until), by)
    return _merged(found, by)[:count]


def _by_hour(connection: Connection, wanted: Filter, by: tuple[str, ...]) -> list[Sum]:
    """Hours that are summed from their sums, all others and parts of hours record by record."""
    since, until, edges = _hours(wanted)
    stale = outdated(connection, since, until)
    if len(stale) > STALE_MAX:
        return _sums(connection, _query(records, by, wanted.clauses()), by, None)
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
    return found


def _by_day(
    connection: Connection, wanted: Filter, by: tuple[str, ...], kind: str, days: list[int], count: int | None
) -> list[Sum]:
    """Days that are summed from their sums, all others record by record; put together in the database.

    Of many groups the dearest are found by their cost alone, and only they are summed up.
    """
    gaps = [_between(since, until) for since, until in _gaps(wanted, days)]

    def asked(figures: frozenset[str], among: Callable[[ColumnElement[Any]], list[ColumnElement[bool]]]) -> Select[Any]:
        whole = _of_kind(wanted, by, kind, days, figures).where(*among(daily.c.value))
        if not gaps:
            return whole
        clauses = [*wanted.clauses(), or_(*gaps), *among(column(kind, records))]
        parts = union_all(whole, _query(records, by, clauses, figures)).subquery()
        columns = [parts.c[f"g{index}"] for index in range(len(by))]
        named = (figure.label(name) for name, figure in of_sums(parts, figures).items())
        return select(*columns, *named).group_by(*columns)

    if count is None or kind not in by:
        return _sums(connection, asked(ALL, lambda _: []), by, count)
    dearest = connection.execute(_first(asked(COST, lambda _: []), by, count)).mappings()
    values = {found[f"g{by.index(kind)}"] for found in dearest}
    none = None in values

    def among(value: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        return [value.in_(values - {None}) | (value.is_(None) if none else false())]

    return _sums(connection, asked(ALL, among), by, count)


def _of_kind(
    wanted: Filter, by: tuple[str, ...], kind: str, days: list[int], figures: frozenset[str] = ALL
) -> Select[Any]:
    """Of these days, from their sums of one kind."""
    groups = [_of_days(name, kind).label(f"g{index}") for index, name in enumerate(by)]
    return select(*groups, *sums(daily, figures)).where(*by_day.clauses(wanted, kind, days)).group_by(*groups)


def _of_days(name: str, kind: str) -> ColumnElement[Any]:
    if name == "hour":
        return cast(daily.c.value, BigInteger)
    return daily.c["value" if name == kind else name]


def _days(wanted: Filter) -> tuple[int, int]:
    """The whole days in a span of time, [since, until)."""
    since = 0 if wanted.since is None else -int(-wanted.since // 86400)
    return since, int((time.time() if wanted.until is None else wanted.until) // 86400)


def _gaps(wanted: Filter, days: list[int]) -> Iterator[tuple[float | None, float | None]]:
    """What of a span of time lies outside of these days; None: no end."""
    day_s = 86400.0
    if not days:
        yield wanted.since, wanted.until
        return
    if wanted.since is None or wanted.since < days[0] * day_s:
        yield wanted.since, days[0] * day_s
    for before, after in pairwise(days):
        if after != before + 1:
            yield (before + 1) * day_s, after * day_s
    if wanted.until is None or wanted.until > (days[-1] + 1) * day_s:
        yield (days[-1] + 1) * day_s, wanted.until


def _between(since: float | None, until: float | None) -> ColumnElement[bool]:
    found = [records.c.at >= since] if since is not None else []
    return and_(true(), *found, *([records.c.at < until] if until is not None else []))


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


def _query(
    table: Table, by: tuple[str, ...], clauses: list[ColumnElement[bool]], figures: frozenset[str] = ALL
) -> Select[Any]:
    columns = [column(name, table) for name in by]
    labelled = (each.label(f"g{index}") for index, each in enumerate(columns))
    return select(*labelled, *sums(table, figures)).where(*clauses).group_by(*columns)


def _first(query: Select[Any], by: tuple[str, ...], count: int) -> Select[Any]:
    in_time = [text(f"g{index}") for index, name in enumerate(by) if name in TIMES]
    groups = [text(f"g{index}") for index in range(len(by))]
    return query.order_by(*in_time, text("cost DESC"), *groups).limit(count)


def _sums(connection: Connection, query: Select[Any], by: tuple[str, ...], count: int | None) -> list[Sum]:
    if count is not None:
        query = _first(query, by, count)
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
