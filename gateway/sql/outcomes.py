"""How requests and tasks turned out, as those say who can tell; and what that says of deployments.

An outcome is worth its score, else 1 or 0 for success, else for resolved.  A request's own counts before its task's; of
several sources the mean counts, and the gateway's own comparisons count only where nobody else has said anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt

from sqlalchemy import Connection, Float, Subquery, and_, case, cast, delete, func, insert, select, text, tuple_

from gateway.sql.records import Filter
from gateway.sql.schema import outcomes, records
from gateway.types import NanoUSD

REQUEST, TASK = "request", "task"
SHADOW = "shadow:"
"""Sources that begin so are the gateway's own comparisons; what follows is the kind: exact, likeness or judge."""
LIKENESS = "shadow:likeness"
"""Words in common: a sign of change, and no measure of how good an answer is."""
DAY_S = 86_400.0
SURE = 1.96  # standard errors: 95 %


@dataclass(frozen=True, slots=True)
class Turnout:
    """How one request or task turned out, by one source.  What is None was not said."""

    kind: str  # request or task
    subject: str
    source: str
    at: float  # unix seconds
    success: bool | None = None
    score: float | None = None  # 0 to 1
    resolved: bool | None = None


@dataclass(frozen=True, slots=True)
class Worth:
    """What the outcomes say of a deployment on a route.  Costs of the requests with an outcome only."""

    route: str
    deployment: str
    requests: int
    mean: float
    error: float  # +-, 95 %
    cost: NanoUSD


@dataclass(frozen=True, slots=True)
class Agreement:
    """How much a deployment's answers on a route agree with those of another plan."""

    route: str
    deployment: str
    source: str
    late: bool  # of the last day, else of the week before
    count: int
    mean: float


def agreements(connection: Connection, now: float) -> list[Agreement]:
    """What the gateway itself has compared in the last day and in the seven days before."""
    late = case((outcomes.c.at >= now - DAY_S, 1), else_=0)
    query = (
        select(records.c.route, records.c.deployment, outcomes.c.source, late, func.count(), func.avg(outcomes.c.score))
        .join(records, records.c.id == outcomes.c.subject)
        .where(outcomes.c.at >= now - 8 * DAY_S, outcomes.c.kind == REQUEST, outcomes.c.source.startswith(SHADOW))
        .group_by(records.c.route, records.c.deployment, outcomes.c.source, text("4"))
    )
    return [
        Agreement(r, d, s, bool(is_late), n, float(mean)) for r, d, s, is_late, n, mean in connection.execute(query)
    ]


def store(connection: Connection, found: Iterable[Turnout]) -> int:
    """Puts outcomes in, each in place of what the same source said before.  How many there are."""
    newest = {(each.kind, each.subject, each.source): each for each in found}
    if not newest:
        return 0
    key = tuple_(outcomes.c.kind, outcomes.c.subject, outcomes.c.source)
    connection.execute(delete(outcomes).where(key.in_(list(newest))))
    rows = [{name: getattr(each, name) for name in Turnout.__dataclass_fields__} for each in newest.values()]
    connection.execute(insert(outcomes), rows)
    return len(newest)


def worth(connection: Connection, wanted: Filter) -> list[Worth]:
    """By route and deployment, of the records that `wanted` names and of which anybody has said anything."""
    own, whole = values(REQUEST), values(TASK)
    value = func.coalesce(own.c.value, whole.c.value)
    query = (
        select(
            records.c.route,
            records.c.deployment,
            func.count(value),
            func.avg(value),
            func.avg(value * value),
            func.coalesce(func.sum(records.c.cost), 0),
        )
        .select_from(
            records.outerjoin(own, own.c.subject == records.c.id).outerjoin(
                whole, and_(whole.c.subject == records.c.task, records.c.task != "")
            )
        )
        .where(*wanted.clauses(), value.is_not(None))
        .group_by(records.c.route, records.c.deployment)
        .order_by(records.c.route, records.c.deployment)
    )
    return [
        Worth(route, deployment, count, mean, SURE * sqrt(max(0.0, squares - mean * mean) / count), int(cost))
        for route, deployment, count, mean, squares, cost in connection.execute(query)
    ]


def values(kind: str) -> Subquery:
    """(subject, value) of all requests or tasks of which anybody has said anything."""
    said = func.coalesce(
        outcomes.c.score,
        case((outcomes.c.success, 1.0), (outcomes.c.success.is_(False), 0.0)),
        case((outcomes.c.resolved, 1.0), (outcomes.c.resolved.is_(False), 0.0)),
    )
    told = func.avg(cast(said, Float)).filter(~outcomes.c.source.startswith(SHADOW))
    value = func.coalesce(told, func.avg(cast(said, Float))).label("value")
    query = select(outcomes.c.subject, value).where(outcomes.c.kind == kind, outcomes.c.source != LIKENESS)
    return query.group_by(outcomes.c.subject).subquery()
