"""What was spent on each account, from the records: for a ledger that has to be told again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Integer, case, cast, func, select, text

from gateway.sql.records import tag
from gateway.sql.schema import records
from gateway.types import ORGANISATION, Account, Limit, Outcome, Unit

IDS_MAX = 200_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """A limit whose accounts are asked for.  `owner`: the tenant whose it is, "" for everyone's.

    `since`: unix seconds when its window began.  `step_s`: of a rolling window, the length of a slot.
    """

    limit: Limit
    owner: str
    since: float
    step_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Total:
    """What one account spent, in the unit of the limit; `at`: unix seconds in the slot, 0 without slots."""

    account: Account
    limit: Limit
    spent: int
    at: float


def totals(
    connection: Connection, wanted: Iterable[Wanted], ids_since: float
) -> tuple[list[Total], list[tuple[str, str]]]:
    """Sums for each account that spent anything, and (tenant, id) of what was settled since `ids_since`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    found = [total for each in wanted for total in _totals(connection, each)]
    query = (
        select(records.c.tenant, records.c.id)
        .where(records.c.at >= ids_since, records.c.outcome != Outcome.PRESUMED)
        .order_by(records.c.at.desc())
        .limit(IDS_MAX)
    )
    return found, [(tenant, id_) for tenant, id_ in connection.execute(query)]


def _totals(connection: Connection, wanted: Wanted) -> list[Total]:
    limit, kind = wanted.limit, wanted.limit.account
    slot = _slot(connection, wanted.step_s)
    account = _account(kind)
    query = select(records.c.tenant if _of_tenant(kind) else _none(), account, slot, _amount(limit.unit))
    query = query.where(records.c.at >= wanted.since, account.is_not(None), account != "")
    if wanted.owner:
        query = query.where(records.c.tenant == wanted.owner)
    query = query.group_by(text("1"), text("2"), text("3"))
    rows = connection.execute(query)
    return [
        Total(
            Account(kind, str(id_), tenant if _of_tenant(kind) else wanted.owner),
            limit,
            int(spent),
            (int(at) + 0.5) * wanted.step_s,
        )
        for tenant, id_, at, spent in rows
        if spent and limit.of in ("", str(id_))
    ]


def _of_tenant(kind: str) -> bool:
    return kind in ("tenant", "key", "user", "task", "team")


def _none() -> ColumnElement[Any]:
    return cast("", records.c.tenant.type)


def _account(kind: str) -> ColumnElement[Any]:
    if kind == "global":
        return cast("all", records.c.tenant.type)
    if kind in ("team", ORGANISATION):
        return tag(kind)
    if kind.startswith("tag:"):
        return tag(kind.removeprefix("tag:"))
    column: ColumnElement[Any] = records.c[kind]
    return column


def _slot(connection: Connection, step_s: float) -> ColumnElement[Any]:
    if not step_s:
        return cast(0, Integer)
    quotient = records.c.at / step_s
    return cast(func.floor(quotient) if connection.dialect.name == "postgresql" else quotient, BigInteger)


def _amount(unit: Unit) -> ColumnElement[Any]:
    if unit is Unit.COST:
        part: ColumnElement[Any] = func.coalesce(records.c.cost, records.c.reserved)
    elif unit is Unit.TOKENS:
        part = records.c.input_tokens + records.c.output_tokens
    elif unit in (Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS):
        part = records.c[unit]
    else:
        part = case((records.c.id != "", 1), else_=0)
    return func.sum(cast(part, BigInteger))
