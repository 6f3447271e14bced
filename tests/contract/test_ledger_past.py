"""A Redis that forgets: noticed, told again from SQL and by the gateways, and trusted only then."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis
from databases import a_record, proxied
from ledgers import figures, hold, line, record, settle
from proxy import Proxy
from services import RedisServer

from gateway.errors import BudgetExceeded, LedgerUnavailable
from gateway.ledger.base import Line, Reservation, Spent
from gateway.ledger.open import open_redis
from gateway.ledger.redis import RedisLedger
from gateway.metrics import Metrics
from gateway.rebuild import GRACE_S, IDS_S, LAG_S, Rebuild
from gateway.recorder import Recorder
from gateway.settlements import Settlements
from gateway.sql.database import DatabaseUnavailable
from gateway.sql.migrate import upgrade
from gateway.sql.records import Filter, page, row, write
from gateway.sql.tenants import Store
from gateway.types import Account, Every, Limit, Outcome, Unit, Window

CAP = line(100, 1000, window=Window(Every.TOTAL))
HOUR = line(100, 1000, window=Window(rolling_s=3600), account=Account("key", "k_1", "acme"))
ALL = line(100, 5000, window=Window(Every.TOTAL), account=Account("global", "all"))
LINES = (CAP, HOUR, ALL)


class Time:
    """The machine's clock, moved forward by the test: Redis has its own."""

    def __init__(self) -> None:
        self.skip = 0.0

    def __call__(self) -> float:
        return time.time() + self.skip


class Gateway:
    """The parts of one gateway that keep the ledger's past."""

    def __init__(self, redis_url: str, database: str, folder: Path, *, split: bool = False) -> None:
        self.time = Time()
        self.ledger: RedisLedger = open_redis(
            redis_url, timeout_s=5.0, connect_timeout_s=5.0, guarded=True, split=split
        )
        self.store = Store(database)
        self.recorder = Recorder(self.ledger, database, folder, Metrics())
        self.settlements = Settlements(self.ledger, self.recorder, remembers=True, clock=self.time)
        self.limits = [(CAP.limit, "acme"), (HOUR.limit, "acme"), (ALL.limit, "")]
        self.rebuild = Rebuild(
            self.ledger.past,
            self.settlements,
            self.store.database,
            lambda: self.limits,
            unspool=self.recorder.unspool,
            clock=self.time,
        )

    async def reserve(self, id_: str, *lines: Any) -> Reservation:
        reservation = hold(id_, *(lines or LINES), at=self.time())
        await self.ledger.reserve(reservation)
        self.settlements.opened(reservation)
        return reservation

    async def settle(self, reservation: Reservation, cost: int) -> None:
        await self.settlements.settle(reservation, Spent(cost), record(reservation, cost))

    async def spent(self) -> list[tuple[int, int]]:
        return [(b.spent, b.reserved) for b in await self.ledger.balances(LINES)]

    async def ready(self) -> None:
        """Looks until it is; no time passes but what the clock is told."""
        for _ in range(200):
            try:
                if await self.rebuild.step():
                    return
            except LedgerUnavailable:
                await asyncio.sleep(0.01)  # the connection is being made
            self.time.skip += GRACE_S / 3
        raise AssertionError("the ledger did not get ready")


@pytest.fixture(params=["one server", "split as a cluster is"])
async def world(
    tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[RedisServer, list[Gateway], str]]:
    lasting = ("--appendonly", "yes", "--appendfsync", "always")
    server = alone(tmp_path, *lasting) if request.param == "a cluster" else RedisServer(tmp_path, *lasting)
    server.start()
    url = server.url.replace("redis://", "redis+cluster://") if request.param == "a cluster" else server.url
    database = f"sqlite:///{tmp_path}/t.db"
    await asyncio.to_thread(upgrade, database)
    gateways = [
        Gateway(url, database, tmp_path / f"spool{number}", split=request.param != "one server") for number in range(2)
    ]
    yield server, gateways, database
    for gateway in gateways:
        await gateway.ledger.close()
        gateway.store.close()
    server.stop()


def alone(folder: Path, *options: str) -> RedisServer:
    """A Redis Cluster of one node, which knows its slots when it is started again."""
    server = RedisServer(folder, "--cluster-enabled", "yes", *options)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))
        client.execute_command("CLUSTER", "SAVECONFIG")
    server.stop()
    return server


async def ready(*gateways: Gateway) -> None:
    """Looks with each in turn, as they do beside each other, until all are."""
    for _ in range(200):
        found = []
        for gateway in gateways:
            try:
                found.append(await gateway.rebuild.step())
            except LedgerUnavailable:
                found.append(False)
                await asyncio.sleep(0.01)  # the connection is being made
            gateway.time.skip += GRACE_S / 3
        if all(found):
            return
    raise AssertionError("the ledger did not get ready")


async def until_connected(gateway: Gateway, id_: str) -> None:
    """Reserves once there is a connection; what is refused then is refused by Redis itself."""
    async with asyncio.timeout(10):
        while True:
            try:
                await gateway.ledger.ping()
            except LedgerUnavailable:
                await asyncio.sleep(0.01)
            else:
                break
    await gateway.reserve(id_)


async def in_sql(gateway: Gateway, *records: Any) -> None:
    rows = [row(each) for each in records]
    await gateway.store.database.run(lambda connection: write(connection, rows), write=True)


def wipe(server: RedisServer) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()


async def test_a_new_redis_takes_no_reservation_before_it_was_told_what_sql_knows(world: Any) -> None:
    _, (one, _), _ = world
    await in_sql(
        one,
        a_record("a", at=one.time() - 60, cost=700, tokens={}),
        a_record("b", at=one.time() - 4000, cost=200),
        a_record("c", at=one.time() - 70, cost=None, reserved=50),  # unknown: what was set aside
        a_record("d", at=one.time() - 80, cost=30, tenant="globex", key="k_2"),
    )
    with pytest.raises(LedgerUnavailable):
        await one.reserve("x")
    await one.ready()
    assert await one.spent() == [(950, 0), (750, 0), (980, 0)]
    with pytest.raises(BudgetExceeded):
        await one.reserve("y")


async def test_gateways_that_find_an_empty_redis_at_once_tell_it_what_was_spent_once(world: Any) -> None:
    server, (one, two), _ = world
    await in_sql(one, *(a_record(f"r{number}", at=one.time() - 60, cost=200, tokens={}) for number in range(4)))
    for _ in range(3):
        await asyncio.gather(*(each.rebuild._try() for each in (one, two, one, two)))
        await ready(one, two)
        assert await one.spent() == await two.spent() == [(800, 0)] * 3
        wipe(server)


async def test_after_a_wipe_open_holds_and_late_settlements_are_told_and_nothing_is_counted_twice(world: Any) -> None:
    server, (one, two), _ = world
    await one.ready()
    await two.ready()
    stored, fresh = await one.reserve("stored"), await two.reserve("fresh")
    flying = await two.reserve("flying")
    await one.settle(stored, 80)
    await two.settle(fresh, 70)
    await in_sql(one, record(stored, 80))  # the other's record was still in Redis
    assert await one.spent() == [(150, 100)] * 3
    wipe(server)
    with pytest.raises(LedgerUnavailable):
        await one.reserve("meanwhile")
    assert await one.rebuild.step() is False  # tells what SQL knows
    await two.settle(flying, 60)  # ends while nothing is ready
    await two.rebuild.step()
    await one.ready()
    await two.settlements.flush()
    assert await one.spent() == [(210, 0)] * 3
    left = {each.id for _, each in await one.ledger.outbox(10)}
    assert {"fresh", "flying"} <= left


async def test_what_a_dead_gateway_left_on_disk_is_counted_before_anyone_is_served(world: Any, tmp_path: Path) -> None:
    server, (one, _), database = world
    await one.ready()
    cost = 700
    await asyncio.to_thread(one.recorder._spool.open)
    one.recorder.spool(record(hold("unheard", *LINES, at=one.time()), cost))  # Redis was away; then it died
    one.recorder._spool.seal()
    await asyncio.to_thread(one.recorder._spool.sync)
    wipe(server)
    heir = Gateway(server.url, database, tmp_path / "spool0", split=one.ledger.split)
    await heir.ready()
    assert await heir.spent() == [(cost, 0)] * 3
    with pytest.raises(BudgetExceeded):
        await heir.reserve("too much", line(301, 1000, window=Window(Every.TOTAL)))
    await heir.ledger.close()
    heir.store.close()


async def test_what_waited_for_a_redis_for_hours_and_is_in_sql_counts_once(world: Any) -> None:
    server, (one, _), _ = world
    await one.ready()
    flying = await one.reserve("flying")
    await one.settlements.settle(flying, Spent(60), record(flying, 60))
    one.settlements._waiting.append((flying, Spent(60), record(flying, 60)))  # as if its answer had been lost
    await in_sql(one, record(flying, 60))
    one.time.skip += 2 * IDS_S
    wipe(server)
    await one.ready()
    await one.settlements.flush()
    money, _, everyone = await one.spent()
    assert (money, everyone) == ((60, 0), (60, 0))


async def test_what_batches_hold_is_told_by_whoever_restores_and_what_of_it_is_settled_counts_once(world: Any) -> None:
    server, (one, _), _ = world
    held, settled = hold("line-1", *LINES, at=one.time()), hold("line-0", *LINES, at=one.time())

    async def lasting() -> Any:
        return [held], [("acme", "line-0")]

    one.rebuild._lasting = lasting
    for _ in range(2):
        await one.ready()
        assert await one.spent() == [(0, 100)] * 3
        assert await settle(one.ledger, settled, 70) == "again"
        wipe(server)
    await one.ready()
    assert await settle(one.ledger, held, 30) == "settled"
    assert await one.spent() == [(30, 0)] * 3


async def test_a_settlement_of_an_id_that_all_forgot_waits_until_sql_was_told(world: Any) -> None:
    server, (one, _), _ = world
    await one.ready()
    flying = await one.reserve("flying")
    wipe(server)
    await one.settle(flying, 60)
    assert one.settlements.waiting == 1
    await one.ready()
    await one.settlements.flush()
    assert await one.spent() == [(60, 0)] * 3
    assert one.settlements.waiting == 0


async def test_a_hold_that_was_forgotten_keeps_its_room(world: Any) -> None:
    server, (one, _), _ = world
    await one.ready()
    for number in range(9):
        await one.reserve(f"r{number}")
    wipe(server)
    await one.ready()
    assert await one.spent() == [(0, 900)] * 3
    await one.reserve("last")
    with pytest.raises(BudgetExceeded):
        await one.reserve("too many")


async def test_a_redis_restarted_with_its_data_is_told_too(world: Any) -> None:
    server, (one, two), _ = world
    await one.ready()
    await two.ready()
    await one.settle(await one.reserve("a"), 80)
    held = await two.reserve("b")
    server.stop()
    server.start()
    await one.ready()
    await two.ready()
    assert await one.spent() == [(80, 100)] * 3
    await two.settle(held, 40)
    assert await one.spent() == [(120, 0)] * 3


@pytest.mark.parametrize("world", ["one server", "split as a cluster is", "a cluster"], indirect=True)
async def test_a_redis_that_came_back_without_its_last_second_is_told_what_was_in_it(world: Any) -> None:
    server, (one, two), _ = world
    await one.ready()
    await two.ready()
    before, long = await one.reserve("before"), await two.reserve("long")
    await one.settle(await one.reserve("kept"), 10)
    with redis.Redis.from_url(server.url) as client:
        client.config_set("appendonly", "no")  # what is written from now on is lost
    await one.settle(before, 80)
    await two.settle(await two.reserve("lost"), 70)
    held = await one.reserve("held")
    freed = await two.reserve("freed")
    await two.settlements.release(freed)
    truth = await one.spent()
    assert truth == [(160, 200)] * 3
    server.stop()
    server.start()
    with pytest.raises(LedgerUnavailable):
        await until_connected(one, "meanwhile")
    await ready(one, two)
    assert await one.spent() == truth
    await one.settle(held, 40)
    await two.settle(long, 0)
    assert await one.spent() == [(200, 0)] * 3
    left = {each.id for _, each in await one.ledger.outbox(10)}
    assert left == {"kept", "before", "lost", "held", "long"}


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[RedisServer, RedisServer, Proxy]]:
    """A primary, its replica, and the way the replica is told."""
    servers = []
    for name in ("primary", "replica"):
        (tmp_path / name).mkdir()
        servers.append(RedisServer(tmp_path / name, "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0"))
        servers[-1].start()
    async with Proxy(servers[0].port) as replication:
        await asyncio.to_thread(command, servers[1], "REPLICAOF", "127.0.0.1", replication.port)
        yield servers[0], servers[1], replication
    for server in servers:
        server.stop()


def command(server: RedisServer, *words: Any) -> Any:
    with redis.Redis.from_url(server.url) as client:
        return client.execute_command(*words)


async def caught_up(primary: RedisServer) -> None:
    """Returns when the replica has all that was written."""
    assert await asyncio.to_thread(command, primary, "WAIT", 1, 10_000) == 1


@pytest.mark.parametrize("lag_s", [0.0, LAG_S - 1.0])
async def test_a_failover_to_a_replica_that_lags_behind_loses_nothing(
    tmp_path: Path, pair: tuple[RedisServer, RedisServer, Proxy], lag_s: float
) -> None:
    primary, replica, replication = pair
    database = f"sqlite:///{tmp_path}/t.db"
    await asyncio.to_thread(upgrade, database)
    async with Proxy(primary.port) as address:
        url = f"redis://127.0.0.1:{address.port}/0"
        one, two = (Gateway(url, database, tmp_path / f"spool{number}") for number in range(2))
        await ready(one, two)
        long = await two.reserve("long")
        await one.settle(await one.reserve("kept"), 10)
        await caught_up(primary)
        replication.swallow_replies = True  # the replica hears no more
        for number in range(7):
            await one.settle(await one.reserve(f"lost{number}"), 100)
        await two.reserve("held")
        await one.ledger.ack([token for token, _ in await one.ledger.outbox(10)])  # they are in SQL
        one.time.skip += lag_s
        await ready(one, two)
        truth = await one.spent()
        assert truth == [(710, 200)] * 3
        primary.signal(signal.SIGKILL)
        await asyncio.to_thread(command, replica, "REPLICAOF", "NO", "ONE")
        address.target = replica.port
        with pytest.raises(LedgerUnavailable):
            await until_connected(one, "meanwhile")
        await ready(one, two)
        assert await one.spent() == truth
        with pytest.raises(BudgetExceeded):
            await one.reserve("too much")
        await two.settle(long, 0)
        await one.reserve("fits")
        for gateway in (one, two):
            await gateway.ledger.close()
            gateway.store.close()


async def test_a_gateway_that_slept_through_it_tells_its_part_when_it_wakes(world: Any) -> None:
    server, (one, two), _ = world
    await one.ready()
    await two.ready()
    await two.settle(await two.reserve("a"), 80)
    await two.reserve("b")
    wipe(server)
    await one.ready()
    assert await one.spent() == [(0, 0)] * 3
    await two.ready()
    assert await one.spent() == [(80, 100)] * 3


async def test_without_sql_nothing_is_served_until_it_is_back(world: Any, tmp_path: Path) -> None:
    _, (one, _), _ = world
    away = Gateway.__new__(Gateway)
    away.__dict__.update(one.__dict__)
    gone = Store(f"sqlite:///{tmp_path}/no/such/folder.db")
    away.rebuild = Rebuild(
        one.ledger.past,
        one.settlements,
        gone.database,
        lambda: one.limits,
        unspool=one.recorder.unspool,
        clock=one.time,
    )
    for _ in range(3):
        assert await away.rebuild._try() is False
    with pytest.raises(LedgerUnavailable):
        await one.reserve("x")
    gone.close()
    await one.ready()
    await one.reserve("x")


async def test_an_hour_without_sql_loses_no_record_and_no_cent_of_a_cap(
    postgres_schema_url: str, tmp_path: Path
) -> None:
    await asyncio.to_thread(upgrade, postgres_schema_url)
    server = RedisServer(tmp_path)
    server.start()
    async with proxied(postgres_schema_url) as (proxy, through):
        one = Gateway(server.url, through, tmp_path)
        await one.ready()
        await proxy.refuse()
        for minute in range(60):
            await one.settle(await one.reserve(f"m{minute}", CAP), 15)
            with pytest.raises(DatabaseUnavailable):
                await one.recorder.round()
            one.time.skip += 60.0
            assert await one.rebuild.step()
        with pytest.raises(BudgetExceeded):
            await one.reserve("above the cap", line(101, 1000, window=Window(Every.TOTAL)))
        assert len(one.settlements._recent) == 60  # their records are in Redis only: it may yet forget them
        await proxy.open()
        while await one.recorder.round():
            continue
        found = await one.store.database.run(lambda connection: page(connection, Filter(), 100))
        assert len({row["id"] for row in found}) == 60
        assert sum(row["cost"] for row in found) == (await one.spent())[0][0] == 900
        one.time.skip += LAG_S + 1.0
        await one.rebuild.step()
        assert len(one.settlements._recent) == 0
        await one.ledger.close()
        one.store.close()
    server.stop()


async def test_what_is_in_sql_is_not_kept_in_memory(world: Any) -> None:
    _, (one, _), _ = world
    await one.ready()
    await one.settle(await one.reserve("a"), 80)
    one.time.skip += 10
    await one.rebuild.step()
    assert len(one.settlements._recent) == 1  # its record is in the outbox
    await one.ledger.ack([token for token, _ in await one.ledger.outbox(10)])
    one.time.skip += LAG_S
    await one.rebuild.step()
    assert len(one.settlements._recent) == 0


async def test_the_windows_of_tags_users_and_requests_come_back_too(world: Any) -> None:
    _, (one, _), _ = world
    team = Limit("team", Unit.REQUESTS, 10, Window(Every.DAY))
    tagged = Limit("tag:feature", Unit.TOKENS, 10_000, Window(Every.TOTAL))
    placed = Limit("deployment", Unit.COST, 10_000, Window(Every.TOTAL))
    one.limits = [(team, "acme"), (tagged, ""), (placed, "")]
    for number in range(3):
        tags = {"team": "red", "feature": "search"}
        await in_sql(one, a_record(f"r{number}", at=one.time(), tags=tags, cost=7))
    await in_sql(one, a_record("ghost", at=one.time(), outcome=Outcome.PRESUMED, version=0, cost=5))
    await one.ready()
    ledger = one.ledger
    assert await figures(ledger, Line(Account("team", "red", "acme"), team, 0)) == (3, 0)
    assert await figures(ledger, Line(Account("tag:feature", "search"), tagged, 0)) == (4 * 170, 0)
    assert await figures(ledger, Line(Account("deployment", "small"), placed, 0)) == (26, 0)
    ghost = hold("ghost", at=one.time())
    assert await settle(ledger, ghost, 5) == "unknown"  # a presumption may still be replaced by the truth
