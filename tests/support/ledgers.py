"""The ledgers under test, and the nouns their tests are written with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.ledger.base import Ledger, Line, Reservation, Spent
from gateway.types import Account, Action, Every, Limit, Outcome, Record, Unit, Window

DAY = Window(Every.DAY)
ACME = Account("tenant", "acme", "acme")
KEY = Account("key", "k_1", "acme")
PROVIDER = Account("provider", "openai")  # no tenant owns it

WEDNESDAY = 1_789_560_000.0  # 2026-09-16 12:00 UTC


@dataclass
class Clock:
    """Unix seconds, when the test says so."""

    now: float = WEDNESDAY

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@dataclass
class Keeper:
    """One place where a ledger is kept; each `open` is one more gateway on it."""

    name: str
    make: Callable[[], Ledger]
    clock: Clock
    opened: list[Ledger] = field(default_factory=list)
    after: Callable[[], None] = lambda: None

    def open(self) -> Ledger:
        ledger = self.make()
        self.opened.append(ledger)
        return ledger

    async def close(self) -> None:
        for ledger in self.opened:
            await ledger.close()
        self.after()


def line(
    amount: int,
    limit: int,
    *,
    account: Account = ACME,
    window: Window = DAY,
    unit: Unit = Unit.COST,
    action: Action = Action.DENY,
) -> Line:
    return Line(account, Limit(account.kind, unit, limit, window, action), amount)


def draft(id_: str, at: float = WEDNESDAY, **fields: Any) -> Record:
    record = Record(
        id=id_,
        version=0,
        at=at,
        tenant="acme",
        key="k_1",
        endpoint="chat",
        model="auto",
        route="auto",
        deployment="gpt-mini",
        provider="openai",
        upstream_model="gpt-4o-mini",
        outcome=Outcome.PRESUMED,
    )
    return msgspec.structs.replace(record, **fields)


def hold(id_: str, *lines: Line, at: float = WEDNESDAY, ttl_s: float = 120.0) -> Reservation:
    amount = max((each.amount for each in lines if each.limit.unit is Unit.COST), default=0)
    return Reservation(id_, "acme", lines, draft(id_, at, cost=amount, reserved=amount), ttl_s)


def record(reservation: Reservation, cost: int) -> Record:
    return msgspec.structs.replace(reservation.draft, version=1, outcome=Outcome.OK, cost=cost)


async def settle(ledger: Ledger, reservation: Reservation, cost: int, **spent: int) -> str:
    return await ledger.settle(reservation, Spent(cost=cost, **spent), record(reservation, cost))


async def figures(ledger: Ledger, each: Line) -> tuple[int, int]:
    """Spent and reserved of the line's account now."""
    (balance,) = await ledger.balances([each])
    return balance.spent, balance.reserved
