"""Spend, summed in the database.  Integers all the way: SUM(bigint) is numeric in PostgreSQL and comes back as int."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, RowMapping, case, cast, func, select

from gateway.sql.records import Filter, tag
from gateway.sql.schema import records
from gateway.types import NanoUSD, Outcome

PLAIN = ("tenant", "key", "user", "model", "route", "deployment", "provider", "task", "endpoint", "outcome")
GROUPS = (*PLAIN, "tag:NAME", "day", "hour")
GROUPS_MAX = 1000


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


def spend(connection: Connection, wanted: Filter, by: tuple[str, ...], count: int = GROUPS_MAX) -> list[Sum]:
    """Sums by group, dearest first; by day and hour upward in time.  At most `count` groups.

    Raises ValueError for a grouping that is not one of GROUPS.
    """
    columns = [_column(name) for name in by]
    cost = records.c.cost
    both = records.c.baseline_cost.is_not(None) & cost.is_not(None)
    total = _total(cost)
    query = select(
        *(column.label(f"g{index}") for index, column in enumerate(columns)),
        func.count().label("requests"),
        total.label("cost"),
        _total(case((cost.is_(None), 1), else_=0)).label("unknown"),
        _total(case((records.c.outcome == Outcome.PRESUMED, cost))).label("presumed"),
        _total(case((both, records.c.baseline_cost))).label("baseline"),
        _total(case((both, cost))).label("compared"),
        _total(records.c.overhead_cost).label("overhead"),
        _total(records.c.input_tokens).label("input_tokens"),
        _total(records.c.cached_tokens).label("cached_tokens"),
        _total(records.c.output_tokens).label("output_tokens"),
        _total(case((records.c.estimated, 1), else_=0)).label("estimated"),
        _total(case((records.c.error != "", 1), else_=0)).label("errors"),
        func.min(records.c.at).label("first"),
        func.max(records.c.at).label("last"),
    ).where(*wanted.clauses())
    in_time = [column for name, column in zip(by, columns, strict=True) if name in ("day", "hour")]
    query = query.group_by(*columns).order_by(*in_time, total.desc(), *columns).limit(count)
    return [_sum(found, by) for found in connection.execute(query).mappings() if found["requests"]]


def _column(name: str) -> ColumnElement[Any]:
    if name == "hour":
        return records.c.hour
    if name == "day":
        return records.c.hour // 24
    if name.startswith("tag:"):
        return tag(name.removeprefix("tag:"))
    if name not in PLAIN:
        raise ValueError(f"cannot group by {name!r}; there are {', '.join(GROUPS)}")
    return records.c[name]


def _total(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(func.sum(cast(column, BigInteger)), 0)


def _sum(values: RowMapping, by: tuple[str, ...]) -> Sum:
    group = tuple(_shown(values[f"g{index}"], name) for index, name in enumerate(by))
    figures = {
        name: int(value) for name, value in values.items() if name in Sum.__dataclass_fields__ and name not in _TIMES
    }
    return Sum(group=group, first=values["first"], last=values["last"], **figures)


_TIMES = frozenset({"first", "last"})


def _shown(value: int | str | None, name: str) -> str | None:
    if value is None or name not in ("day", "hour"):
        return None if value is None else str(value)
    if name == "day":
        return datetime.fromtimestamp(int(value) * 86400, UTC).strftime("%Y-%m-%d")
    return datetime.fromtimestamp(int(value) * 3600, UTC).strftime("%Y-%m-%dT%H:00Z")
