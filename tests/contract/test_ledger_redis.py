"""What only a Redis can do to a ledger: hang, die, forget, run full, disagree about the time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis
import uvloop
from ledgers import DAY, PROVIDER, Clock, figures, hold, line, record, settle
from proxy import Proxy
from services import RedisServer
from structlog.testing import capture_logs

from gateway.errors import BudgetExceeded, LedgerUnavailable
from gateway.ledger.base import Line, Settlement, Spent
from gateway.ledger.open import open_ledger, open_redis
from gateway.ledger.redis import RedisLedger
from gateway.types import Account, Every, Unit, Window

CAP = line(10, 1000)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def server(running: RedisServer) -> Iterator[RedisServer]:
    """One Redis for this file's tests; what a test did to it is undone."""
    client = redis.Redis.from_url(running.url)
    client.flushall()
    yield running
    client.close()


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[RedisLedger]:
    ledger = open_redis(server.url)
    yield ledger
    await ledger.close()


async def served(ledger: RedisLedger) -> None:
    """Returns when the ledger has found its Redis again."""
    async with asyncio.timeout(10):
        while True:
            try:
                await ledger.ping()
            except LedgerUnavailable:
                await asyncio.sleep(0.005)  # a reconnection happens on the real clock
            else:
                return


async def until_held(ledger: RedisLedger, amount: int) -> None:
    """Returns when so much of CAP is held; what happens to a connection happens on the real clock."""
    async with asyncio.timeout(5):
        while (await ledger.balances([CAP]))[0].reserved != amount:  # noqa: ASYNC110 - only the server can tell
            await asyncio.sleep(0.005)


async def test_a_redis_that_hangs_costs_one_deadline_and_then_nothing(server: RedisServer, ledger: RedisLedger) -> None:
    await ledger.ping()
    server.signal(signal.SIGSTOP)
    try:
        began = time.perf_counter()
        with pytest.raises(LedgerUnavailable) as refused:
            await ledger.reserve(hold("first", CAP))
        assert time.perf_counter() - began < 0.5
        assert refused.value.retry_after_s == 1.0
        began = time.perf_counter()
        for number in range(200):
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(hold(f"r{number}", CAP))
        assert (time.perf_counter() - began) / 200 < 0.05
    finally:
        server.signal(signal.SIGCONT)
    await served(ledger)
    await until_held(ledger, 0)  # the first was carried out after all, and then released
    await ledger.reserve(hold("again", CAP))


async def test_a_slow_redis_adds_at_most_50_ms_to_a_request(server: RedisServer) -> None:
    took = []
    for _ in range(5):
        ledger = open_ledger(server.url, "")
        await ledger.ping()
        server.signal(signal.SIGSTOP)
        try:
            began = time.perf_counter()
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(hold("a", CAP))
            took.append(time.perf_counter() - began)
        finally:
            server.signal(signal.SIGCONT)
        await ledger.close()
    assert min(took) <= 0.050  # what is above it is this machine's other work


async def test_the_shards_of_a_reservation_have_one_deadline_together(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy:
        ledger = open_redis(f"redis://127.0.0.1:{proxy.port}/0", prefix="both:", split=True, timeout_s=1.0)
        await ledger.ping()
        proxy.delay_s = 0.7
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(hold("a", CAP, line(10, 1000, account=PROVIDER)))
        proxy.delay_s = 0.0
        async with asyncio.timeout(10):
            while sum(each.reserved for each in await ledger.balances([CAP, line(10, 1000, account=PROVIDER)])):  # noqa: ASYNC110 - only the server can tell
                await asyncio.sleep(0.01)
        await ledger.close()


async def test_an_event_loop_that_was_busy_is_not_a_slow_redis(server: RedisServer) -> None:
    ledger = open_redis(server.url, prefix="busy:", timeout_s=0.03, connect_timeout_s=5.0)
    await ledger.ping()

    async def busy() -> None:
        time.sleep(0.1)  # noqa: ASYNC251 - other requests' work, between a call and its way out

    for _ in range(3):
        answers = await asyncio.gather(ledger.reserve(hold(f"r{_}", CAP)), busy(), ledger.ping(), busy())
        assert isinstance(answers[0], list)
    await ledger.close()


async def test_a_redis_that_hangs_is_given_up_and_connected_to_anew(server: RedisServer) -> None:
    ledger = open_redis(server.url, timeout_s=0.05, connect_timeout_s=0.05)
    await ledger.reserve(hold("a", CAP))
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(hold("b", CAP))
        await asyncio.sleep(0.3)  # several deadlines
    finally:
        server.signal(signal.SIGCONT)
    await served(ledger)
    await until_held(ledger, 10)
    assert await settle(ledger, hold("a", CAP), 10) is Settlement.SETTLED
    await ledger.close()


async def test_a_redis_that_is_not_there_is_an_error_at_once() -> None:
    ledger = open_redis("redis://127.0.0.1:1/0")
    for _ in range(3):
        began = time.perf_counter()
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(hold("a", CAP))
        assert time.perf_counter() - began < 0.2
    await ledger.close()


async def test_a_wrong_password_is_a_ledger_that_cannot_be_reached(server: RedisServer) -> None:
    ledger = open_redis(server.url.replace("redis://", "redis://someone:wrong@"))
    with pytest.raises(LedgerUnavailable) as refused:
        await ledger.ping()
    assert "WRONGPASS" in str(refused.value.__cause__)
    assert "wrong" not in refused.value.message
    await ledger.close()


async def test_an_answer_that_was_lost_leaves_no_hold(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy:
        ledger = open_redis(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=5.0)
        await ledger.ping()
        proxy.swallow_replies = True
        lost = asyncio.create_task(ledger.reserve(hold("lost", CAP)))
        other = open_redis(server.url, timeout_s=5.0)
        await until_held(other, 10)
        proxy.swallow_replies = False
        proxy.cut()
        with pytest.raises(LedgerUnavailable):
            await lost
        await until_held(other, 0)
        await other.close()
        await ledger.close()


async def test_a_settlement_whose_answer_was_lost_can_be_repeated(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy:
        ledger = open_redis(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=0.1)
        await ledger.reserve(hold("a", CAP))
        proxy.swallow_replies = True
        with pytest.raises(LedgerUnavailable):
            await settle(ledger, hold("a", CAP), 7)
        proxy.swallow_replies = False
        proxy.cut()
        await served(ledger)
        assert await settle(ledger, hold("a", CAP), 7) is Settlement.AGAIN
        assert await figures(ledger, CAP) == (7, 0)
        await ledger.close()


def test_the_event_loop_of_production_serves_as_well(server: RedisServer) -> None:
    async def request() -> Settlement:
        ledger = open_redis(server.url, timeout_s=5.0)
        await ledger.reserve(hold("a", CAP))
        found = await ledger.settle(hold("a", CAP), Spent(7), record(hold("a", CAP), 7))
        await ledger.close()
        return found

    assert uvloop.run(request()) is Settlement.SETTLED


async def test_calls_of_one_tick_share_one_write(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy:
        ledger = open_redis(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=5.0)
        await ledger.reserve(hold("warm", CAP))
        before = proxy.writes
        await asyncio.gather(*(ledger.reserve(hold(f"r{number}", CAP)) for number in range(50)))
        assert proxy.writes - before <= 3
        await ledger.close()


async def test_a_redis_that_forgot_the_scripts_learns_them_again(server: RedisServer, ledger: RedisLedger) -> None:
    await ledger.reserve(hold("a", CAP))
    with redis.Redis.from_url(server.url) as client:
        client.script_flush()
    await asyncio.gather(*(ledger.reserve(hold(f"r{number}", CAP)) for number in range(5)))
    assert await settle(ledger, hold("a", CAP), 4) is Settlement.SETTLED


async def test_a_redis_that_was_restarted_empty_books_what_is_settled_then(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    ledger = open_redis(server.url)
    at = time.time()
    reservation = hold("a", CAP, line(10, 1000, account=PROVIDER), at=at)
    await ledger.reserve(reservation)
    server.stop()
    with pytest.raises(LedgerUnavailable):
        await ledger.reserve(hold("b", CAP))
    server.start()
    await served(ledger)
    assert await settle(ledger, reservation, 7) is Settlement.UNKNOWN
    assert await figures(ledger, CAP) == (7, 0)
    assert [each.cost for _, each in await ledger.outbox(5)] == [7]
    await ledger.close()
    server.stop()


async def test_a_redis_without_memory_refuses_new_holds_and_still_settles_old_ones(
    server: RedisServer, ledger: RedisLedger
) -> None:
    await ledger.reserve(hold("a", CAP))
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "1kb")
        try:
            with pytest.raises(LedgerUnavailable):
                await ledger.reserve(hold("b", CAP))
            assert await settle(ledger, hold("a", CAP), 7) is Settlement.SETTLED
        finally:
            client.config_set("maxmemory", "0")
    assert await figures(ledger, CAP) == (7, 0)
    assert len(await ledger.outbox(5)) == 1


@pytest.mark.parametrize(
    ("policy", "memory", "told"),
    [("allkeys-lru", "100mb", 1), ("volatile-lru", "100mb", 1), ("noeviction", "100mb", 0), ("allkeys-lru", "0", 0)],
)
async def test_a_redis_that_may_evict_a_counter_is_told_of_when_it_is_connected_to(
    server: RedisServer, policy: str, memory: str, told: int
) -> None:
    with redis.Redis.from_url(server.url) as client, capture_logs() as logs:
        client.config_set("maxmemory", memory)
        client.config_set("maxmemory-policy", policy)
        try:
            ledger = open_redis(server.url)
            await ledger.reserve(hold("a", CAP))
            await ledger.close()
        finally:
            client.config_set("maxmemory", "0")
            client.config_set("maxmemory-policy", "noeviction")
    errors = [each for each in logs if each["log_level"] == "error"]
    assert [each["maxmemory_policy"] for each in errors] == [policy] * told


async def test_a_master_that_became_a_replica_is_left(server: RedisServer, ledger: RedisLedger) -> None:
    await ledger.reserve(hold("a", CAP))
    with redis.Redis.from_url(server.url) as client:
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(hold("b", CAP))
        client.replicaof("NO", "ONE")
    await served(ledger)
    await ledger.reserve(hold("c", CAP))


async def test_a_gateway_whose_clock_is_wrong_uses_the_servers_windows(redis_url: str, redis_prefix: str) -> None:
    wrong = Clock(time.time())
    right = open_redis(redis_url, prefix=redis_prefix, timeout_s=5.0)
    skewed = open_redis(redis_url, prefix=redis_prefix, wall=wrong, timeout_s=5.0)
    lines = [line(10, 1000, window=Window(every)) for every in (Every.MINUTE, Every.DAY, Every.YEAR)]
    await skewed.ping()
    for number, days in enumerate((0, 400, -800)):
        wrong.advance(days * 86_400)
        await skewed.reserve(hold(f"r{number}", *lines))
        wrong.advance(86_400)
        assert [b.reserved for b in (await skewed.balances(lines))[1:]] == [10 * (number + 1)] * 2
        seen = await right.balances(lines)
        assert [b.reserved for b in seen[1:]] == [10 * (number + 1)] * 2
    await skewed.close()
    await right.close()


async def test_a_redis_does_not_grow_for_ever(redis_url: str, redis_prefix: str) -> None:
    clock = Clock()
    ledger = open_redis(redis_url, prefix=redis_prefix, clock=clock, timeout_s=5.0)
    windows = [DAY, Window(Every.MINUTE), Window(rolling_s=600), Window(rolling_s=86_400)]
    lines: list[Line] = [line(1, 10**6, window=window) for window in windows]
    lines.append(line(1, 10**6, unit=Unit.CONCURRENT))
    for number in range(300):
        each = hold(f"r{number}", *lines)
        await ledger.reserve(each)
        if number % 3 == 0:
            await ledger.settle(each, Spent(1), record(each, 1))
        elif number % 3 == 1:
            await ledger.release(each)
        clock.advance(61)
    clock.advance(120)
    await ledger.expire()
    with redis.Redis.from_url(redis_url) as client:
        kept = {key: client.pttl(key) for key in client.scan_iter(f"{redis_prefix}*", count=1000)}
        rolling = [key for key in kept if b":rolling_" in key]
        assert len(rolling) == 2
        assert all(client.hlen(key) <= 124 for key in rolling)
    for_ever = {key for key, ttl in kept.items() if ttl < 0}
    assert {key.rpartition(b":")[2] for key in for_ever} == {b"outbox"}
    await ledger.close()


async def test_accounts_of_one_tenant_live_on_one_shard(redis_url: str, redis_prefix: str) -> None:
    ledger = open_redis(redis_url, prefix=redis_prefix, split=True, timeout_s=5.0)
    lines = [line(1, 9, account=Account(kind, f"{kind}{{x}}", "acme")) for kind in ("tenant", "key", "user", "tag:a")]
    await ledger.reserve(hold("a", *lines, line(1, 9, account=PROVIDER)))
    with redis.Redis.from_url(redis_url) as client:
        tags = {key.split(b"}")[0].split(b"{")[1] for key in client.scan_iter(f"{redis_prefix}*", count=1000)}
    assert len(tags) == 2
    assert b"all" in tags
    await ledger.close()


async def test_a_tenant_over_budget_never_touches_what_others_share(redis_url: str, redis_prefix: str) -> None:
    ledger = open_redis(redis_url, prefix=redis_prefix, split=True, timeout_s=5.0)
    shared = line(11, 1000, account=PROVIDER)
    with pytest.raises(BudgetExceeded, match="tenant acme"):
        await ledger.reserve(hold("a", shared, line(11, 10)))
    with redis.Redis.from_url(redis_url) as client:
        assert not [key for key in client.scan_iter(f"{redis_prefix}*", count=1000) if b"{all}" in key]
    await ledger.close()
