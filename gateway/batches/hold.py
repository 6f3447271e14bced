"""Sets aside what a batch can cost: a hold for each line, all of them or none.

Each line is settled by itself, so each has a hold of its own.  Whether there is room for all is asked first; if others
take it meanwhile, what was set aside is freed again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence

from msgspec import structs

from gateway.errors import LimitReached
from gateway.ledger.base import Ledger, Line as Account, Reservation, full, refusal

AT_ONCE = 100
"""Holds that one round trip carries."""


async def hold_all(ledger: Ledger, held: Sequence[Reservation]) -> None:
    """Every hold or none.  Raises BudgetExceeded, RateLimited with what the whole batch needs; LedgerUnavailable."""
    whole = _sums(held)
    for line, balance in zip(whole, await ledger.balances(whole), strict=True):
        if full(line, balance.spent, balance.reserved):
            raise refusal(line, balance.spent, balance.reserved, balance.resets, time.time())
    taken: list[Reservation] = []
    try:
        for some in parts(held):
            results = await asyncio.gather(*(ledger.reserve(each) for each in some), return_exceptions=True)
            taken += [each for each, result in zip(some, results, strict=True) if not isinstance(result, BaseException)]
            _check(results)
    except BaseException:
        await asyncio.shield(free_all(ledger, taken))
        raise


def _check(results: Sequence[object]) -> None:
    failures = [result for result in results if isinstance(result, BaseException)]
    if failures:
        raise next((each for each in failures if isinstance(each, LimitReached)), failures[0])


async def free_all(ledger: Ledger, held: Sequence[Reservation]) -> None:
    """Nothing of it reached a provider.  Raises LedgerUnavailable; it can be repeated."""
    for some in parts(held):
        await asyncio.gather(*(ledger.release(each) for each in some))


async def keep_all(ledger: Ledger, held: Sequence[Reservation], ttl_s: float) -> None:
    """The holds last for `ttl_s` from now.  Raises LedgerUnavailable."""
    for some in parts(held):
        await asyncio.gather(*(ledger.extend(each, ttl_s) for each in some))


def parts(held: Sequence[Reservation]) -> Iterator[Sequence[Reservation]]:
    """As many as go at once."""
    return (held[at : at + AT_ONCE] for at in range(0, len(held), AT_ONCE))


def _sums(held: Sequence[Reservation]) -> list[Account]:
    """One line for each account and limit, with what all holds want of it."""
    whole: dict[tuple[object, int], Account] = {}
    for each in held:
        for line in each.lines:
            place = (line.account, id(line.limit))
            known = whole.get(place)
            whole[place] = line if known is None else structs.replace(line, amount=known.amount + line.amount)
    return list(whole.values())
