"""An operator's word on presumed spend: what a request cost that nobody settled, or that it cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from gateway.errors import Conflict, NotFound
from gateway.ledger.base import Ledger, Line, Reservation, Settlement, Spent
from gateway.sql.schema import records
from gateway.sql.tenants import Store
from gateway.types import Account, Limit, NanoUSD, Outcome, Record, Unit, Window

EVERYONES = Line(Account("global", "all"), Limit("global", Unit.CONCURRENT, 0, Window()), 0)
"""The hold itself knows its accounts; in a cluster those that no tenant owns are looked for where this one is."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """`found` is `late` where the ledger took the presumption back, `unknown` where it had forgotten it (8 days)."""

    id: str
    tenant: str
    presumed: NanoUSD | None
    cost: NanoUSD
    found: Settlement


async def resolve(store: Store, ledger: Ledger, id_: str, cost: NanoUSD, actor: str) -> Resolved:
    """Books `cost` in place of what was presumed, through the ledger's late settlement, and logs who said so.

    Raises NotFound, Conflict (it was settled), LedgerUnavailable, DatabaseUnavailable.
    """
    row = await store.database.run(lambda connection: _row(connection, id_))
    if row is None:
        raise NotFound(f"There is no record {id_[:100]!r}.")
    if row["outcome"] != Outcome.PRESUMED:
        raise Conflict(f"Record {id_!r} is no presumption: it ended as {row['outcome']!r}.")
    known = [name for name in Record.__struct_fields__ if name in row]  # all but savings: a presumption has none
    draft = Record(**{name: row[name] for name in known})
    draft = msgspec.structs.replace(draft, outcome=Outcome.PRESUMED)
    truth = msgspec.structs.replace(
        draft, version=1, outcome=Outcome.RESOLVED, cost=cost, components={}, flags=("resolved",)
    )
    found = await ledger.settle(Reservation(draft.id, draft.tenant, (EVERYONES,), draft), Spent(cost), truth)
    if found is Settlement.AGAIN:
        raise Conflict(f"Record {id_!r} has just been settled.")
    facts = {"tenant": draft.tenant, "presumed": draft.cost, "cost": cost, "found": str(found)}
    await store.note(actor, "record.resolve", id_, facts)
    return Resolved(id_, draft.tenant, draft.cost, cost, found)


def _row(connection: Connection, id_: str) -> Mapping[str, Any] | None:
    found = connection.execute(select(records).where(records.c.id == id_)).mappings().first()
    return None if found is None else dict(found)
