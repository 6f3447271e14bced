"""Four gateways, one Redis, one database, 50 tenants near their caps, and everything that can break, breaks.

    python tests/support/chaos.py [--requests N] [--seed N] [--write docs/reliability.md]

In each round the tenants' caps are set a few requests above what they have spent, requests of mixed price arrive at all
gateways at once, and one fault strikes.  Afterwards, when holds have had time to expire, the ledger and the records in
SQL are compared with each other, with the caps, and with what the clients saw.  Status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psycopg
from databases import Proxy as DatabaseProxy, proxied
from processes import GatewayProcess
from proxy import Proxy
from redis.asyncio import Redis
from services import RedisServer

from gateway.ledger.base import Balance, Line
from gateway.ledger.open import open_redis
from gateway.money import dollars
from gateway.types import Account, Limit, Unit, Window

DATABASE = "postgresql://127.0.0.1:5432/postgres"
GATEWAYS = 4
TENANTS = 50
HOLD_S = 4
ROUND_S = 7.0
STRIKE_S = 1.5
REST_S = 45.0
COLUMNS = ("fault", "requests", "served", "429", "503", "broken", "overspent", "records lost", "holds leaked")
COLUMNS += ("ledger - SQL", "agreed after")
MODELS = {"small": 1, "medium": 5, "large": 30}  # dollars per million tokens, in and out
TYPICAL = 2_600_000  # nano-dollars that one request of the mix may cost, about

CONFIG = """
redis: {redis}
database: {database}
spool: {{folder}}/spool
admin_key: test-admin-key
ledger: {{{{hold_s: {hold_s}}}}}
providers:
  simulated: {{{{dialect: simulated, retries_max: 0}}}}
deployments:
{deployments}
tenants:
{tenants}
"""


@dataclass
class Seen:
    """What the clients saw in one round."""

    statuses: Counter[str] = field(default_factory=Counter)
    served: list[str] = field(default_factory=list)  # ids of requests answered in full


@dataclass
class Row:
    """One round in the table."""

    fault: str
    seen: Seen
    overspent: int
    lost: int
    leaked: int
    adrift: int  # nano-dollars between the ledger and SQL
    back_s: float  # from the end of the load until ledger and SQL agreed


class World:
    """What there is to break."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.redis_folder = folder / "redis"
        self.redis_folder.mkdir()
        self.redis = RedisServer(self.redis_folder, "--appendonly", "yes", "--appendfsync", "everysec")
        self.schema = f"tollgate_chaos_{int(time.time())}"
        self.caps = [0] * TENANTS
        self.gateways: list[GatewayProcess] = []
        self.proxy: Proxy
        self.sql: DatabaseProxy
        self.sql_url = ""

    def text(self) -> str:
        """The settings with the caps of now."""
        tenants = "\n".join(
            f"  - {{{{id: t{n}, keys: [{{{{name: k, key: chaos-key-{n:04d}}}}}], "
            f"budgets: [{{{{limit_usd: {dollars(cap)}, window: total}}}}]}}}}"
            for n, cap in enumerate(self.caps)
        )
        deployments = "\n".join(
            f"  - {{{{id: {name}, provider: simulated, upstream_model: 'sim-{name}?first_token_ms=30', "
            f"context_max: 99999, price: {{{{input: {price}, output: {price}}}}}}}}}"
            for name, price in MODELS.items()
        )
        redis = f"redis://127.0.0.1:{self.proxy.port}/0"
        text = CONFIG.format(
            redis=redis, database=f'"{self.sql_url}"', hold_s=HOLD_S, deployments=deployments, tenants=tenants
        )
        return text.replace("{{", "{").replace("}}", "}")

    async def start(self) -> None:
        """Everything, from nothing."""
        text = self.text()
        for number in range(GATEWAYS):
            folder = self.folder / f"gateway{number}"
            folder.mkdir()
            self.gateways.append(GatewayProcess(folder, text))
        await asyncio.gather(*(asyncio.to_thread(gateway.start) for gateway in self.gateways))

    async def raise_caps(self) -> None:
        """Each tenant may spend a little more than it has; the gateways take that over by themselves."""
        spent = await self.in_sql()
        for number in range(TENANTS):
            self.caps[number] = spent.get(f"t{number}", 0) + int(TYPICAL * self.chance.uniform(0.5, 3))
        for gateway in self.gateways:
            gateway.config.write_text(self.text().replace("{folder}", str(gateway.folder)))
        await asyncio.sleep(1.5)

    async def in_sql(self) -> dict[str, int]:
        """What each tenant spent, as the records say."""
        return dict(
            await self.query("select tenant, sum(coalesce(cost, reserved))::bigint from records group by tenant")
        )

    async def query(self, text: str) -> list[tuple[Any, ...]]:
        """Past the proxy."""

        def ask() -> list[tuple[Any, ...]]:
            with psycopg.connect(DATABASE) as connection:
                connection.execute(f"set search_path = {self.schema}")
                return connection.execute(text).fetchall()

        return await asyncio.to_thread(ask)

    async def in_ledger(self) -> list[Balance]:
        """Each tenant's window, past the proxy."""
        ledger = open_redis(self.redis.url, timeout_s=5, connect_timeout_s=5)
        limit = Limit("tenant", Unit.COST, 0, Window())
        try:
            return await ledger.balances([Line(Account("tenant", f"t{n}", f"t{n}"), limit, 0) for n in range(TENANTS)])
        finally:
            await ledger.close()


# Load


async def storm(world: World, count: int) -> Seen:
    """Requests of mixed price, spread over the round and over the gateways."""
    seen = Seen()
    limits = httpx.Limits(max_connections=200)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:

        async def one(number: int) -> None:
            await asyncio.sleep(world.chance.uniform(0, ROUND_S))
            await ask(world, client, seen, number % TENANTS)

        await asyncio.gather(*(one(number) for number in range(count)))
    return seen


async def ask(world: World, client: httpx.AsyncClient, seen: Seen, tenant: int) -> None:
    """One request; what its client saw."""
    chance = world.chance
    most = chance.randint(20, 400)
    body = {
        "model": chance.choice(list(MODELS)),
        "max_tokens": most,
        "stream": chance.random() < 0.4,
        "messages": [{"role": "user", "content": "word " * chance.randint(1, 60)}],
        "metadata": {"sim": f"output={chance.randint(1, most)}&latency_ms={chance.choice([0, 0, 0, 100, 800])}"},
    }
    url = f"{chance.choice(world.gateways).url}/v1/chat/completions"
    try:
        reply = await client.post(url, json=body, headers={"authorization": f"Bearer chaos-key-{tenant:04d}"})
    except httpx.HTTPError:
        seen.statuses["broken"] += 1
        return
    complete = reply.status_code == 200 and (not body["stream"] or "[DONE]" in reply.text)
    seen.statuses[str(reply.status_code) if complete or reply.status_code != 200 else "broken"] += 1
    if complete:
        seen.served.append(reply.headers["x-tollgate-request-id"])


# Faults


async def nothing(world: World) -> None:
    """A round to compare with."""


async def kill(world: World) -> None:
    """kill -9 of one gateway, twice; a supervisor starts it again."""
    for gateway in world.chance.sample(world.gateways, 2):
        gateway.kill()
        await asyncio.to_thread(gateway.start)


async def stop(world: World) -> None:
    """One gateway stands still for longer than its holds last."""
    gateway = world.chance.choice(world.gateways)
    gateway.running.signal(signal.SIGSTOP)
    await asyncio.sleep(HOLD_S + 4)
    gateway.running.signal(signal.SIGCONT)


async def resets(world: World) -> None:
    """Every connection to Redis is reset, again and again."""
    for _ in range(12):
        world.proxy.cut()
        await asyncio.sleep(0.3)


async def hang(world: World) -> None:
    """Redis stands still."""
    world.redis.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5)
    world.redis.signal(signal.SIGCONT)


async def restart(world: World) -> None:
    """Redis is killed and comes back with its data."""
    world.redis.stop()
    world.proxy.cut()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(world.redis.start)


async def wipe(world: World) -> None:
    """Redis is killed and comes back without its data."""
    world.redis.stop()
    world.proxy.cut()
    for entry in world.redis_folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    await asyncio.to_thread(world.redis.start)


async def flush(world: World) -> None:
    """Redis is emptied while it runs."""
    async with Redis.from_url(world.redis.url) as client:
        await client.flushall()


async def no_sql(world: World) -> None:
    """The database is away for the rest of the round and a while longer."""
    await world.sql.refuse()
    await asyncio.sleep(9)
    await world.sql.open()


ROUNDS: list[tuple[str, Callable[[World], Awaitable[None]]]] = [
    ("none", nothing),
    ("kill -9 of two gateways", kill),
    ("a gateway stopped for longer than its holds", stop),
    ("connections to Redis reset 12 times", resets),
    ("Redis hangs for 2.5 s", hang),
    ("Redis killed, back with its data", restart),
    ("Redis killed, back without its data", wipe),
    ("Redis emptied while it runs", flush),
    ("SQL stopped for 9 s", no_sql),
]


# Judgement


async def play(world: World, fault: str, strike: Callable[[World], Awaitable[None]], count: int) -> Row:
    """One round, and what is wrong after it."""
    await world.raise_caps()
    storming = asyncio.create_task(storm(world, count))
    await asyncio.sleep(STRIKE_S)
    await strike(world)
    seen = await storming
    began = time.monotonic()
    while True:
        balances, spent = await world.in_ledger(), await world.in_sql()
        leaked = sum(1 for balance in balances if balance.reserved)
        adrift = sum(abs(b.spent - spent.get(b.account.id, 0)) for b in balances)
        if (not leaked and not adrift) or time.monotonic() - began > REST_S:
            break
        await asyncio.sleep(0.5)
    overspent = sum(max(0, spent.get(f"t{n}", 0) - cap) for n, cap in enumerate(world.caps))
    overspent = max(overspent, sum(max(0, b.spent - cap) for b, cap in zip(balances, world.caps, strict=True)))
    known = {id_ for (id_,) in await world.query("select id from records")}
    lost = sum(1 for id_ in seen.served if id_ not in known)
    return Row(fault, seen, overspent, lost, leaked, adrift, time.monotonic() - began)


def table(rows: list[Row]) -> str:
    """As docs/reliability.md has it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    total = Seen()
    for row in rows:
        total.statuses.update(row.seen.statuses)
        lines.append(_line(row.fault, row.seen, row))
    worst = Row(
        "all",
        total,
        sum(row.overspent for row in rows),
        sum(row.lost for row in rows),
        sum(row.leaked for row in rows),
        sum(row.adrift for row in rows),
        max(row.back_s for row in rows),
    )
    return "\n".join([*lines, _line("**all**", total, worst)])


def _line(name: str, seen: Seen, row: Row) -> str:
    statuses = seen.statuses
    cells = [sum(statuses.values()), statuses["200"], statuses["429"], statuses["503"]]
    rest = sum(statuses.values()) - sum(cells[1:])
    figures = [*map(str, cells), str(rest), f"${dollars(row.overspent)}", str(row.lost), str(row.leaked)]
    return f"| {name} | " + " | ".join([*figures, f"${dollars(row.adrift)}", f"{row.back_s:.0f} s"]) + " |"


@asynccontextmanager
async def made(folder: Path, seed: int) -> AsyncIterator[World]:
    """A world that ends with the block."""
    world = World(folder, seed)
    with psycopg.connect(DATABASE, autocommit=True) as admin:
        admin.execute(f"create schema {world.schema}")
        try:
            world.redis.start()
            url = f"{DATABASE}?options=-csearch_path%3D{world.schema}"
            async with Proxy(world.redis.port) as world.proxy, proxied(url) as (world.sql, world.sql_url):
                await world.start()
                yield world
        finally:
            for gateway in world.gateways:
                gateway.kill()
            world.redis.stop()
            admin.execute(f"drop schema {world.schema} cascade")


async def main(requests: int, seed: int, page: Path | None) -> int:
    """The whole run."""
    began = time.monotonic()
    rows: list[Row] = []
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # a proxy whose target is away
    with tempfile.TemporaryDirectory() as folder:
        async with made(Path(folder), seed) as world:
            for fault, strike in ROUNDS:
                row = await play(world, fault, strike, -(-requests // len(ROUNDS)))
                rows.append(row)
                print(_line(fault, row.seen, row), flush=True)
            if any(row.overspent or row.lost or row.leaked for row in rows):
                for gateway in world.gateways:
                    print(gateway.said()[-3000:], file=sys.stderr)
    found = table(rows)
    print(f"\n{found}\n\n{time.monotonic() - began:.0f} s")
    if page is not None:
        await asyncio.to_thread(_publish, page, found)
    return int(any(row.overspent or row.lost or row.leaked for row in rows))


def _publish(page: Path, found: str) -> None:
    text = page.read_text()
    start, end = text.index("<!-- chaos -->"), text.index("<!-- /chaos -->")
    page.write_text(f"{text[:start]}<!-- chaos -->\n\n{found}\n\n{text[end:]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", type=Path, help="the page whose table is made anew")
    given = parser.parse_args()
    raise SystemExit(asyncio.run(main(given.requests, given.seed, given.write)))
