"""What the ledger costs a gateway: CPU microseconds of one reserve and its settle, and how long a caller waits.

    python bench/ledger.py [--redis URL] [--requests N] [--concurrency N ...]

CPU is this process's (user and system, every thread); the Redis server's own is not in it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from gateway.app import COLLECT_AFTER
from gateway.ledger.base import Ledger, Line, Reservation, Spent
from gateway.ledger.memory import MemoryLedger
from gateway.ledger.open import open_redis
from gateway.ledger.sqlite import SqliteLedger
from gateway.types import Account, Every, Limit, Outcome, Record, Unit, Window

ACME = Account("tenant", "acme", "acme")
LIMITS = (
    Limit("tenant", Unit.COST, 10**15, Window(Every.MONTH)),
    Limit("tenant", Unit.COST, 10**15, Window(Every.DAY)),
    Limit("tenant", Unit.REQUESTS, 10**9, Window(Every.MINUTE)),
)
RECORD = Record(
    id="",
    version=0,
    at=time.time(),
    tenant="acme",
    key="k_1",
    endpoint="chat",
    model="auto",
    route="auto",
    deployment="gpt-mini",
    provider="openai",
    upstream_model="gpt-4o-mini",
    outcome=Outcome.PRESUMED,
    tokens={"input": 900, "output": 150},
    components={"input": 135_000, "output": 90_000},
    cost=225_000,
)


SPENT = Spent(cost=225_000, input_tokens=900, output_tokens=150)


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one reserve and one settle together."""

    cpu_us: float
    wait_us_p50: float
    wait_us_p99: float
    per_second: float


async def measure(ledger: Ledger, requests: int, concurrency: int) -> Measured:
    """Runs so many requests, so many at once; records are acknowledged outside of what is measured."""
    waits: list[float] = []
    run = secrets.token_hex(4)
    left = iter([_request(f"{run}{number:08d}") for number in range(requests)])

    async def worker() -> None:
        for reservation, record in left:
            began = time.perf_counter()
            await ledger.reserve(reservation)
            await ledger.settle(reservation, SPENT, record)
            waits.append(time.perf_counter() - began)

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    waits.sort()
    while entries := await ledger.outbox(5000):
        await ledger.ack([token for token, _ in entries])
    return Measured(
        cpu / requests * 1e6, statistics.median(waits) * 1e6, waits[int(len(waits) * 0.99)] * 1e6, requests / took
    )


def _request(id_: str) -> tuple[Reservation, Record]:
    draft = msgspec.structs.replace(RECORD, id=id_)
    lines = tuple(Line(ACME, limit, 1 if limit.unit is Unit.REQUESTS else 400_000) for limit in LIMITS)
    return Reservation(id_, "acme", lines, draft), msgspec.structs.replace(draft, version=1)


@contextlib.contextmanager
def ledgers(redis_url: str) -> Iterator[dict[str, Ledger]]:
    """Fresh ones."""
    with tempfile.TemporaryDirectory() as folder:
        yield {
            "memory": MemoryLedger(),
            "sqlite": SqliteLedger(Path(folder) / "ledger.db"),
            "sqlite, unsynced": SqliteLedger(Path(folder) / "unsynced.db", sync=False),
            "redis": open_redis(redis_url, prefix=f"tollgate-bench-{secrets.token_hex(4)}:", timeout_s=5.0),
        }


async def main(options: argparse.Namespace) -> None:
    """Prints a table."""
    gc.set_threshold(COLLECT_AFTER, 20, 20)  # as the gateway runs
    print(f"{'ledger':16}{'at once':>8}{'CPU us':>9}{'p50 us':>9}{'p99 us':>9}{'a second':>10}")
    with ledgers(options.redis) as each:
        for name, ledger in each.items():
            await measure(ledger, 200, 16)
            for concurrency in options.concurrency:
                found = await measure(ledger, options.requests, concurrency)
                print(
                    f"{name:16}{concurrency:8}{found.cpu_us:9.1f}{found.wait_us_p50:9.0f}{found.wait_us_p99:9.0f}"
                    f"{found.per_second:10.0f}"
                )
            await ledger.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    uvloop.run(main(parser.parse_args(sys.argv[1:])))
