"""Unit economics: what a request, a task, a resolved task and an active user cost, and what was saved net of overhead.

A task costs all of its requests: retries, escalations, judges and answers thrown away.  It is resolved if any source
says so and it is counted in every group that worked on it, so that tasks do not add up over groups; costs do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Subquery, case, func, select, text

from gateway.sql.figures import column, total
from gateway.sql.outcomes import TASK
from gateway.sql.records import Filter
from gateway.sql.schema import outcomes, records
from gateway.types import NanoUSD


@dataclass(frozen=True, slots=True)
class Units:
    """One group.  Costs are sums of what is known; `unknown` says of how many requests it is not."""

    group: tuple[str | None, ...]
    requests: int
    unknown: int
    cost: NanoUSD
    retries: int  # calls beyond the first of each request
    users: int
    tasks: int
    resolved: int
    failed: int  # tasks of which it is said that they were not resolved, and by nobody that they were
    task_cost: NanoUSD  # of requests that belong to a task
    baseline: NanoUSD  # modelled: what the routes' reference models would have cost for the same tokens
    compared: NanoUSD  # measured: what those requests cost, overhead within
    overhead: NanoUSD  # measured: judges and answers thrown away

    @property
    def per_request(self) -> NanoUSD | None:
        """Rounded down to a nano-dollar, as all of these; None where there is none to divide by."""
        return _each(self.cost, self.requests - self.unknown)

    @property
    def per_user(self) -> NanoUSD | None:
        """All cost over the users that were named."""
        return _each(self.cost, self.users)

    @property
    def per_task(self) -> NanoUSD | None:
        """What a task costs, resolved or not."""
        return _each(self.task_cost, self.tasks)

    @property
    def per_resolved(self) -> NanoUSD | None:
        """What a resolved task costs, with those that were tried in vain."""
        return _each(self.task_cost, self.resolved)

    @property
    def saved(self) -> NanoUSD:
        """Against the baseline, net of overhead; below 0: routing costs more than it saves."""
        return self.baseline - self.compared


def units(connection: Connection, wanted: Filter, by: tuple[str, ...], count: int | None = None) -> list[Units]:
    """By group, dearest first.  ValueError for a wrong grouping."""
    groups = [column(name, records) for name in by]
    told = _told()
    cost, task = records.c.cost, case((records.c.task != "", records.c.task))
    both = records.c.baseline_cost.is_not(None) & cost.is_not(None)
    query = (
        select(
            *groups,
            func.count(),
            total(case((cost.is_(None), 1), else_=0)),
            total(cost).label("cost"),
            total(records.c.attempts - 1),
            func.count(func.distinct(case((records.c.user != "", records.c.user)))),
            func.count(func.distinct(task)),
            func.count(func.distinct(case((told.c.resolved == 1, task)))),
            func.count(func.distinct(case((told.c.resolved == 0, task)))),
            total(case((records.c.task != "", cost))),
            total(case((both, records.c.baseline_cost))),
            total(case((both, cost))),
            total(records.c.overhead_cost),
        )
        .select_from(records.outerjoin(told, told.c.subject == records.c.task))
        .where(*wanted.clauses())
        .group_by(*groups)
        .order_by(text("cost DESC"), *groups)
        .limit(count)
    )
    size = len(by)
    rows = [tuple(row) for row in connection.execute(query)]
    return [Units(tuple(row[:size]), *(int(figure) for figure in row[size:])) for row in rows if row[size]]


def _told() -> Subquery[Any]:
    resolved = case((outcomes.c.resolved, 1), (outcomes.c.success, 1), else_=0)
    query = select(outcomes.c.subject, func.max(resolved).label("resolved"))
    said = outcomes.c.resolved.is_not(None) | outcomes.c.success.is_not(None)
    return query.where(outcomes.c.kind == TASK, said).group_by(outcomes.c.subject).subquery()


def _each(amount: NanoUSD, count: int) -> NanoUSD | None:
    return amount // count if count > 0 else None
