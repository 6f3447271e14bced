"""A ledger that cannot be reached: who is refused, who is served and recorded, and that a Redis is found again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Running, config, gateway
from services import RedisServer

from gateway import app
from gateway.ledger.open import open_redis
from gateway.money import nano
from gateway.sql.records import Filter, page

NOBODY = "redis://127.0.0.1:1/0"
CAP = "budgets: [{limit_usd: 100, window: day}]"
PACE = "rate_limits: {requests_per_minute: 100}"


@pytest.fixture
def absent(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that has not been started."""
    server = RedisServer(tmp_path)
    yield server
    server.stop()


async def in_sql(running: Running) -> list[int | None]:
    """Costs of the records there, once there is one."""
    async with asyncio.timeout(10):
        while True:
            rows = await running.gateway.store.database.run(lambda connection: page(connection, Filter(), 10))
            if rows:
                return [row["cost"] for row in rows]
            await asyncio.sleep(0.02)


async def answered(running: Running) -> int:
    """The status of a request once the ledger has been found."""
    while True:
        status = (await running.chat("small", max_tokens=50)).status_code
        if status != 503:
            return status
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("limits", "outage", "served"),
    [
        (CAP, "", False),
        (CAP, "on_ledger_outage: refuse_if_capped", False),
        (CAP, "on_ledger_outage: refuse", False),
        (CAP, "on_ledger_outage: pass", True),
        ("budgets: [{account: key, limit_usd: 100, window: day}]", "", False),
        ("budgets: [{limit_usd: 100, window: day, action: alert}]", "", True),
        (PACE, "", True),
        (PACE, "on_ledger_outage: refuse", False),
    ],
)
async def test_without_its_ledger_a_cap_refuses_before_the_call_unless_the_tenant_says_otherwise(
    tmp_path: Path, limits: str, outage: str, *, served: bool
) -> None:
    text = config(tmp_path).replace(CAP, f"{limits}\n    {outage}")
    async with gateway(text, ledger=open_redis(NOBODY)) as running:
        reply = await running.chat("small", max_tokens=20)
        if served:
            assert (reply.status_code, running.provider.called) == (200, 1)
            assert await in_sql(running) == [nano(reply.headers["x-tollgate-cost-usd"])]
        else:
            assert (reply.status_code, reply.json()["error"]["code"]) == (503, "ledger_unavailable")
            assert int(reply.headers["retry-after"]) >= 1
            assert (running.provider.called, running.records) == (0, [])


async def test_a_cap_of_everyone_refuses_too_while_the_ledger_is_away(tmp_path: Path) -> None:
    text = config(tmp_path).replace(CAP, PACE) + "limits: [{limit_usd: 100, window: day}]\n"
    async with gateway(text, ledger=open_redis(NOBODY)) as running:
        assert (await running.chat("small", max_tokens=20)).status_code == 503
        assert running.provider.called == 0


async def test_a_redis_that_came_after_the_gateways_counts_for_all_of_them_together(
    tmp_path: Path, absent: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "REBUILD_S", 0.1)  # a start does not wait for what is not there
    text = f"redis: {absent.url}\nledger: {{timeout_s: 2}}\n" + config(tmp_path, script="?first_token_ms=0&output=50")
    text = text.replace("limit_usd: 100", "limit_usd: 0.0001")  # more than one request may cost, and less than two do
    async with gateway(text) as one, gateway(text.replace("/spool", "/spool2")) as other:
        for running in (one, other):
            assert (await running.chat("small", max_tokens=50)).status_code == 503
        absent.start()
        async with asyncio.timeout(20):
            assert [await answered(one), await answered(other)] == [200, 429]
        assert one.provider.called + other.provider.called == 1
