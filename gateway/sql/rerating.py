"""Records of the past at the prices of their time as they are known now, after a correction of a price."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import Connection, update

from gateway import money
from gateway.settings import Settings
from gateway.sql.records import PAGE_MAX, Cursor, Filter, Row, page
from gateway.sql.schema import records
from gateway.sql.tenants import Store
from gateway.types import Bucket, Deployment, NanoUSD, Outcome, Usage


@dataclass(slots=True)
class Rerated:
    """What came of it, in NanoUSD; `before` and `after` are of the records that have both costs."""

    records: int = 0
    changed: int = 0
    unpriced: int = 0
    before: NanoUSD = 0
    after: NanoUSD = 0


class Book:
    """The deployments as they were at a time, loaded anew only where prices changed."""

    def __init__(self, load: Callable[[float], Settings]) -> None:
        self._load = load
        self._since, self._until = 0.0, 0.0
        self._deployments: Mapping[str, Deployment] = {}

    def deployment(self, id_: str, at: float) -> Deployment | None:
        """None: there is none any more."""
        day = at // 86_400 * 86_400
        if not self._since <= at < self._until:
            settings = self._load(day)
            self._since, self._until = day, day + 86_400
            if settings.prices_change_at is not None and settings.prices_change_at < self._until:
                settings, self._since, self._until = self._load(at), at, at + 1e-3
            self._deployments = settings.deployments
        return self._deployments.get(id_)


async def rerate(store: Store, load: Callable[[float], Settings], since: float, until: float, now: float) -> Rerated:
    """Fills `rerated_cost` of the records in [since, until), and logs it.  Presumed spend has no usage to price.

    Raises SettingsError.
    """
    found, book, after = Rerated(), Book(load), None
    wanted = Filter(since=since, until=until)
    while rows := await store.database.run(partial(page, wanted=wanted, count=PAGE_MAX, after=after)):
        after = _last(rows)
        fresh = {row["id"]: (row, _cost(row, book)) for row in rows if row["outcome"] != Outcome.PRESUMED}
        for row, cost in fresh.values():
            _count(found, row["cost"], cost)
        costs = {id_: cost for id_, (_, cost) in fresh.items()}
        await store.database.run(partial(_write, costs=costs), write=True)
    told = {"since": since, "until": until, "records": found.records, "changed": found.changed, "at": now}
    await store.note("cli", "prices.rerate", "records", told)
    return found


def _last(rows: list[Row]) -> Cursor:
    return rows[-1]["at"], rows[-1]["id"]


def _cost(row: Row, book: Book) -> NanoUSD | None:
    deployment = book.deployment(row["deployment"], row["at"])
    if deployment is None:
        return None
    if deployment.as_reported and row["reported_cost"] is not None:
        return int(row["reported_cost"]) + _in_vain(row, row["reported_cost"])
    tokens = {Bucket(name): count for name, count in row["tokens"].items()}
    usage = Usage(tokens, row["fees"], service_tier=row["service_tier"])
    total = money.cost(usage, deployment.price, row["at"]).total
    return None if total is None else total + _in_vain(row, row["calculated_cost"])


def _in_vain(row: Row, answer: NanoUSD | None) -> NanoUSD:
    """What was paid beside the answer, which cost `answer`.  Of a shadow all is overhead, its answer too."""
    if not row["shadow_of"]:
        return int(row["overhead_cost"])
    return 0 if row["cost"] is None or answer is None else max(0, int(row["cost"]) - int(answer))


def _count(found: Rerated, before: NanoUSD | None, after: NanoUSD | None) -> None:
    found.records += 1
    found.unpriced += after is None
    found.changed += after is not None and after != before
    if before is not None and after is not None:
        found.before += before
        found.after += after


def _write(connection: Connection, costs: Mapping[str, NanoUSD | None]) -> None:
    for id_, cost in sorted(costs.items()):
        values: dict[str, Any] = {"rerated_cost": cost}
        connection.execute(update(records).where(records.c.id == id_).values(values))
