"""Holds of requests that take long are extended as long as their requests last."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from gateway.ledger.keeper import Keeper
from gateway.ledger.memory import MemoryLedger


@dataclass(eq=False)
class Asked:
    names: list[str]

    def holds(self) -> list[Any]:
        return list(self.names)


@dataclass
class Ledger(MemoryLedger):
    extended: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    async def extend(self, reservation: Any, ttl_s: float) -> bool:
        assert ttl_s == 0.03
        await self.extended.put(reservation)
        return True


async def test_every_hold_is_extended_again_and_again_until_its_request_is_over() -> None:
    ledger = Ledger()
    keeper = Keeper(ledger, 0.03)
    long, longer = Asked(["a", "a.1"]), Asked(["b"])
    keeper.keep(long)
    keeper.keep(longer)
    seen = Counter([await ledger.extended.get() for _ in range(6)])
    assert seen == {"a": 2, "a.1": 2, "b": 2}
    keeper.leave(long)
    assert {await ledger.extended.get() for _ in range(3)} == {"b"}
    keeper.leave(longer)


async def test_who_comes_when_nobody_was_there_any_more_is_kept_as_well() -> None:
    ledger, elsewhere = Ledger(), Ledger()
    keeper, other = Keeper(ledger, 0.03), Keeper(elsewhere, 0.03)
    short, long = Asked(["a"]), Asked(["b"])
    keeper.keep(short)
    keeper.leave(short)
    other.keep(short)
    await elsewhere.extended.get()
    other.leave(short)
    keeper.keep(long)
    assert [await ledger.extended.get() for _ in range(2)] == ["b", "b"]
    keeper.leave(long)
