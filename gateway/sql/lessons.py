"""Readings of requests, what is known of the answers to them, and the habits of deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, func, insert, or_, select

from gateway.sql.outcomes import LIKENESS, REQUEST, SHADOW, TASK, values
from gateway.sql.records import Filter
from gateway.sql.schema import habits, outcomes, readings, records
from gateway.types import NANO, Outcome

REPEATED = ".shadow"
"""What the id of a request's shadow ends with."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """What is kept of one request: its words as numbers, its shape and its length in characters.

    An answer that a cascade threw away has no record of its own: what its judge found of it is kept here.
    """

    id: str
    at: float  # unix seconds
    tenant: str
    route: str
    words: tuple[int, ...]
    shape: tuple[float, ...]
    length: int
    verdicts: Mapping[str, float] = field(default_factory=dict)  # what a judge found of answers, by deployment


@dataclass(slots=True)
class Learned:
    """A lesson with what its answers were worth (0 to 1; None: nobody has said) and cost in dollars, by deployment."""

    lesson: Lesson
    feature: str = ""  # its tag of this name: what kind of work it is
    scores: dict[str, float | None] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)


def keep(connection: Connection, found: Iterable[Lesson]) -> None:
    """Puts lessons in; one that is there stays as it is."""
    rows = {each.id: {name: getattr(each, name) for name in Lesson.__dataclass_fields__} for each in found}
    known = select(readings.c.id).where(readings.c.id.in_(list(rows)))
    for id_ in connection.execute(known).scalars():
        del rows[id_]
    if rows:
        connection.execute(insert(readings), list(rows.values()))


def forget(connection: Connection, before: float) -> int:
    """Takes out what is older (unix seconds); how many that were."""
    return connection.execute(delete(readings).where(readings.c.at < before)).rowcount


def lessons(connection: Connection, wanted: Filter) -> list[Learned]:
    """Every lesson of the records that `wanted` names, oldest first.

    Where the gateway itself has measured one of two answers by the other, that other one counts as right.
    """
    own, whole = values(REQUEST), values(TASK)
    value = func.coalesce(own.c.value, whole.c.value).label("value")
    ours = (
        select(outcomes.c.subject.label("subject"))
        .where(outcomes.c.kind == REQUEST, outcomes.c.source.startswith(SHADOW), outcomes.c.source != LIKENESS)
        .distinct()
        .subquery()
    )
    same = or_(records.c.id == readings.c.id, records.c.id == readings.c.id + REPEATED)
    query = (
        select(readings, records.c.id.label("record"), records.c.deployment, records.c.cost, records.c.tags, value)
        .add_columns(ours.c.subject.is_not(None).label("measured"))
        .select_from(
            readings.join(records, and_(same, records.c.outcome == Outcome.OK))
            .outerjoin(own, own.c.subject == records.c.id)
            .outerjoin(whole, and_(whole.c.subject == records.c.task, records.c.task != ""))
            .outerjoin(ours, ours.c.subject == records.c.id)
        )
        .where(*_of_readings(wanted))
        .order_by(readings.c.at, readings.c.id, records.c.id)
    )
    found: dict[str, list[RowMapping]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["id"], []).append(row)
    return [_learned(rows) for rows in found.values()]


def _of_readings(wanted: Filter) -> list[ColumnElement[bool]]:
    clauses: list[ColumnElement[bool]] = [readings.c[name] == value for name, value in wanted.equal.items()]
    if wanted.since is not None:
        clauses.append(readings.c.at >= wanted.since)
    if wanted.until is not None:
        clauses.append(readings.c.at < wanted.until)
    return clauses


def _learned(rows: list[RowMapping]) -> Learned:
    first = rows[0]
    given = {name: first[name] for name in Lesson.__dataclass_fields__}
    found = Learned(Lesson(**{**given, "words": tuple(given["words"]), "shape": tuple(given["shape"])}))
    measured = [row for row in rows if row["measured"]]
    for row in rows:
        score = row["value"]
        if score is None and measured:
            score = 1.0
        found.scores[row["deployment"]] = None if score is None else float(score)
        if row["cost"] is not None:
            found.costs[row["deployment"]] = row["cost"] / NANO
        if not row["record"].endswith(REPEATED):
            found.feature = str(row["tags"].get("feature", ""))
    for deployment, verdict in found.lesson.verdicts.items():
        if found.scores.get(deployment) is None:
            found.scores[deployment] = float(verdict)
    return found


def keep_habits(connection: Connection, known: Mapping[str, Mapping[str, Any]], now: float) -> None:
    """What is known of each deployment takes the place of what was."""
    connection.execute(delete(habits).where(habits.c.deployment.in_(list(known))))
    rows = [{"deployment": deployment, "at": now, "known": dict(each)} for deployment, each in sorted(known.items())]
    connection.execute(insert(habits), rows)


def habits_of(connection: Connection) -> dict[str, dict[str, Any]]:
    """What was known of each deployment."""
    return {row.deployment: row.known for row in connection.execute(select(habits))}
