"""What is summed, and by what: over records, and over the sums of hours that stand for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, Table, case, cast, func

from gateway.savings import Saving
from gateway.sql.schema import daily, hourly, records
from gateway.types import Outcome

PLAIN = (
    "tenant",
    "key",
    "user",
    "model",
    "route",
    "deployment",
    "provider",
    "upstream_model",
    "task",
    "endpoint",
    "outcome",
)
GROUPS = (*PLAIN, "tag:NAME", "day", "hour")
TIMES = frozenset({"day", "hour"})
TAGS: Mapping[str, str] = {"tag:team": "team", "tag:feature": "feature", "tag:cost_center": "cost_center"}
"""Tags that are in the hourly sums, and their columns there; others are looked up record by record."""
ROLLED = frozenset(PLAIN) - {"user", "task"} | TIMES | frozenset(TAGS)
"""What hourly sums can be grouped and filtered by."""


def column(name: str, table: Table) -> ColumnElement[Any]:
    """What to group by.  ValueError for what is not one of GROUPS."""
    if name == "hour":
        return table.c.hour
    if name == "day":
        return table.c.hour // 24
    if name.startswith("tag:"):
        return tag(name.removeprefix("tag:")) if table is records else table.c[TAGS[name]]
    if name not in PLAIN:
        raise ValueError(f"cannot group by {name!r}; there are {', '.join(GROUPS)}")
    return table.c[name]


def tag(name: str) -> ColumnElement[str]:
    """The value of a tag; NULL where a record has none.  ValueError for a name that no JSON path can hold."""
    if not name or '"' in name or "\\" in name or not name.isprintable():
        raise ValueError("a tag's name must be printable, without quotes and backslashes")
    found: ColumnElement[str] = records.c.tags[name].as_string()
    return found


def total(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """The exact sum of whole numbers; 0 of none."""
    return func.coalesce(func.sum(cast(value, BigInteger)), 0)


def _of_records() -> dict[str, ColumnElement[Any]]:
    cost, baseline = records.c.cost, records.c.baseline_cost
    both = baseline.is_not(None) & cost.is_not(None)
    return {
        "requests": func.count(),
        "cost": total(cost),
        "unknown": total(case((cost.is_(None), 1), else_=0)),
        "presumed": total(case((records.c.outcome == Outcome.PRESUMED, cost))),
        "baseline": total(case((both, baseline))),
        "compared": total(case((both, cost))),
        "overhead": total(records.c.overhead_cost),
        "shadow": total(case((records.c.shadow_of != "", cost))),
        **{f"saved_{cause}": total(records.c[f"saved_{cause}"]) for cause in Saving},
        "input_tokens": total(records.c.input_tokens),
        "cached_tokens": total(records.c.cached_tokens),
        "output_tokens": total(records.c.output_tokens),
        "estimated": total(case((records.c.estimated, 1), else_=0)),
        "errors": total(case((records.c.error != "", 1), else_=0)),
    }


OF_RECORDS = _of_records()


ALL, COST = frozenset({*OF_RECORDS, "first", "last"}), frozenset({"cost"})


def of_sums(table: FromClause, figures: frozenset[str] = ALL) -> dict[str, ColumnElement[Any]]:
    """Sums of sums."""
    found = {name: total(table.c[name]) for name in OF_RECORDS if name in figures}
    if "first" in figures:
        found["first"] = func.min(table.c.first)
    if "last" in figures:
        found["last"] = func.max(table.c.last)
    return found


FIGURES = {
    records: {**OF_RECORDS, "first": func.min(records.c.at), "last": func.max(records.c.at)},
    hourly: of_sums(hourly),
    daily: of_sums(daily),
}


def sums(table: Table, figures: frozenset[str] = ALL) -> list[ColumnElement[Any]]:
    """Figures with their names, over records, hours or days."""
    return [figure.label(name) for name, figure in FIGURES[table].items() if name in figures]
