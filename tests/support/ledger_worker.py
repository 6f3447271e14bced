"""A gateway process, as far as the ledger is concerned.  Writes what was answered to it, line by line.

ledger_worker.py LEDGER NAME race COUNT AMOUNT CAP   reserves so many at once, settles what it got, says how many
ledger_worker.py LEDGER NAME loop AMOUNT             reserves and settles until it is killed
"""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import count
from pathlib import Path

from ledgers import hold, line, settle

from gateway.errors import LimitReached
from gateway.ledger.base import Ledger
from gateway.ledger.open import open_redis
from gateway.ledger.sqlite import SqliteLedger
from gateway.types import Every, Unit, Window

TOTAL = Window(Every.TOTAL)


def opened(where: str) -> Ledger:
    """redis://...#prefix, or a path."""
    if where.startswith("redis"):
        url, _, prefix = where.partition("#")
        return open_redis(url, prefix=prefix, timeout_s=10.0, connect_timeout_s=10.0)
    return SqliteLedger(Path(where), busy_timeout_s=30.0)


async def race(ledger: Ledger, name: str, attempts: int, amount: int, cap: int) -> None:
    holds = [hold(f"{name}-{number}", line(amount, cap, window=TOTAL), at=time.time()) for number in range(attempts)]
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    answers = await asyncio.gather(*(ledger.reserve(each) for each in holds), return_exceptions=True)
    for each, answer in zip(holds, answers, strict=True):
        if isinstance(answer, list):
            await settle(ledger, each, amount)
        elif not isinstance(answer, LimitReached):
            raise answer
    print(sum(isinstance(answer, list) for answer in answers), flush=True)


async def loop(ledger: Ledger, name: str, amount: int) -> None:
    numbers = count()

    async def one() -> None:
        for number in numbers:
            calls = line(1, 10**9, unit=Unit.CONCURRENT)
            each = hold(f"{name}-{number}", line(amount, 10**15, window=TOTAL), calls, at=time.time(), ttl_s=1.0)
            await ledger.reserve(each)
            print("reserved", each.id, flush=True)
            await settle(ledger, each, amount - 1)
            print("settled", each.id, flush=True)

    await asyncio.gather(*(one() for _ in range(100)))


async def main() -> None:
    where, name, verb, *numbers = sys.argv[1:]
    ledger = opened(where)
    await {"race": race, "loop": loop}[verb](ledger, name, *map(int, numbers))
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
