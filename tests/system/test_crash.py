"""kill -9 with requests in flight, and several processes on one ledger: nothing leaks, nothing is charged twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import GatewayProcess, web
from services import RedisServer

pytestmark = pytest.mark.system

CONFIG = """
redis: {redis}
database: sqlite:///{{folder}}/tollgate.db
spool: {{folder}}/spool
admin_key: test-admin-key
ledger: {{hold_s: 3, timeout_s: 2}}
providers:
  simulated: {{dialect: simulated}}
deployments:
  - {{id: small, provider: simulated, upstream_model: sim-small, price: {{input: 1, output: 1}},
      context_max: 128000, output_max: 16384}}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: {limit}, window: total}}]
"""
KEY = {"authorization": "Bearer test-key-of-acme"}
ADMIN = {"authorization": "Bearer test-admin-key"}
WAIT_S = 30.0


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def body(sim: str) -> dict[str, Any]:
    message = {"role": "user", "content": "The same question for everyone."}
    return {"model": "small", "max_tokens": 50, "messages": [message], "metadata": {"sim": sim}}


async def ask(url: str, count: int, sim: str) -> list[int | None]:
    """The status of each; None for one whose connection died."""
    limits = httpx.Limits(max_connections=count)
    async with httpx.AsyncClient(base_url=url, headers=KEY, timeout=60, limits=limits) as client:

        async def one() -> int | None:
            try:
                return (await client.post("/v1/chat/completions", json=body(sim))).status_code
            except httpx.TransportError:
                return None

        return list(await asyncio.gather(*(one() for _ in range(count))))


def metric(url: str, name: str) -> Decimal:
    """The sum over its series."""
    lines = web.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum((Decimal(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")), Decimal(0))


def records(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = web.get(f"{url}/admin/v1/records", params={"limit": 1000}, headers=ADMIN, timeout=10).json()
    found.extend(page["data"])
    return found


def until(true: Any) -> None:
    ends = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_kill_9_with_100_in_flight_leaks_no_hold_and_charges_each_once(
    tmp_path: Path, own_redis: RedisServer, kind: str
) -> None:
    config = CONFIG.format(redis=own_redis.url if kind == "redis" else "null", limit=100)
    gateway = GatewayProcess(tmp_path, config)
    gateway.start()
    try:
        assert asyncio.run(ask(gateway.url, 5, "first_token_ms=0&output=50")) == [200] * 5
        cost = metric(gateway.url, "tollgate_budget_spent_usd") / 5

        async def killed() -> list[int | None]:
            asking = asyncio.create_task(ask(gateway.url, 100, "latency_ms=60000&output=50"))
            await asyncio.to_thread(until, lambda: metric(gateway.url, "tollgate_inflight_requests") == 100)
            gateway.kill()
            return await asking

        assert asyncio.run(killed()) == [None] * 100
        gateway.start()
        until(lambda: metric(gateway.url, "tollgate_budget_reserved_usd") == 0)
        until(lambda: len(records(gateway.url)) == 105)
        outcomes = Counter(record["outcome"] for record in records(gateway.url))
        assert outcomes == {"ok": 5, "presumed": 100}
        assert float(metric(gateway.url, "tollgate_budget_spent_usd")) == pytest.approx(float(105 * cost), abs=1e-12)
        assert asyncio.run(ask(gateway.url, 1, "first_token_ms=0&output=50")) == [200]
    finally:
        gateway.kill()


def test_four_gateways_on_one_redis_let_exactly_37_of_200_through(tmp_path: Path, own_redis: RedisServer) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        folder.mkdir()
    probe = GatewayProcess(folders[0], CONFIG.format(redis="null", limit=100))
    probe.start()
    asyncio.run(ask(probe.url, 1, "first_token_ms=0&output=50"))
    cost = metric(probe.url, "tollgate_budget_spent_usd")
    probe.kill()
    (folders[0] / "tollgate.db").unlink()
    limit = f"{cost * 37 + cost / 2:.9f}"
    gateways = [GatewayProcess(folder, CONFIG.format(redis=own_redis.url, limit=limit)) for folder in folders]
    try:
        for gateway in gateways:
            gateway.start()

        async def storm() -> list[list[int | None]]:
            return await asyncio.gather(*(ask(each.url, 50, "first_token_ms=30&output=50") for each in gateways))

        statuses = Counter(status for each in asyncio.run(storm()) for status in each)
        assert statuses == {200: 37, 429: 163}
        assert float(metric(gateways[0].url, "tollgate_budget_spent_usd")) == pytest.approx(float(37 * cost), abs=1e-12)

        def costs() -> dict[str, int]:
            """By the record's id: two gateways that drain at once may both write one, each into its own database."""
            return {record["id"]: record["cost"]["nano_usd"] for each in gateways for record in records(each.url)}

        until(lambda: len(costs()) == 37)
        assert sum(costs().values()) == int(37 * cost * 10**9)
        shown = sum(metric(each.url, "tollgate_cost_usd_total") for each in gateways)
        assert float(shown) == pytest.approx(float(37 * cost), abs=1e-12)
    finally:
        for gateway in gateways:
            gateway.kill()
