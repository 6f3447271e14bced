"""A gateway killed at any point of a request's path: no hold leaks, nothing is lost, nothing is charged twice."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dying
import httpx
import pytest
from processes import GatewayProcess, Running, web
from services import RedisServer

from gateway.ledger.base import Line
from gateway.ledger.open import open_ledger
from gateway.types import Account, Limit, Unit, Window

pytestmark = pytest.mark.system

CONFIG = """
redis: {redis}
database: "sqlite:///{{folder}}/tollgate.db"
spool: {{folder}}/spool
admin_key: test-admin-key
ledger: {{hold_s: 1, timeout_s: 2}}
providers:
  simulated: {{dialect: simulated}}
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small?first_token_ms=0&output=50",
      price: {{input: 1, output: 1}}}}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 1, window: total}}]
"""
ADMIN = {"authorization": "Bearer test-admin-key"}
UNCHARGED = {"before it is set aside"}
"""Where nothing was set aside yet, so nothing is owed."""
SETTLED = {"after it was settled", "before its record is in SQL"}
SETTLED |= {"after its record is in SQL and before that is acknowledged"}


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "redis").mkdir()
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def ask(url: str) -> int | None:
    body = {"model": "small", "max_tokens": 60, "messages": [{"role": "user", "content": "Hi."}]}
    try:
        reply = web.post(
            f"{url}/v1/chat/completions", json=body, headers={"authorization": "Bearer test-key-of-acme"}, timeout=20
        )
    except httpx.TransportError:
        return None
    return reply.status_code


def records(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get(f"{url}/admin/v1/records", headers=ADMIN, timeout=20).json()["data"]
    return found


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)


async def balance(redis: str | None, folder: Path) -> tuple[int, int]:
    ledger = open_ledger(redis, f"sqlite:///{folder}/tollgate.db", timeout_s=5, connect_timeout_s=5)
    line = Line(Account("tenant", "acme", "acme"), Limit("tenant", Unit.COST, 0, Window()), 0)
    try:
        [found] = await ledger.balances([line])
    finally:
        await ledger.close()
    return found.spent, found.reserved


QUICK = {"after the provider was called", "after it was settled"}
CASES = [
    pytest.param(kind, point, marks=[] if kind == "sqlite" and point in QUICK else [pytest.mark.slow])
    for kind in ("sqlite", "redis")
    for point in dying.POINTS
]


@pytest.mark.parametrize(("kind", "point"), CASES)
def test_a_gateway_killed_at_any_point_leaks_no_hold_and_loses_no_record(
    tmp_path: Path, own_redis: RedisServer, kind: str, point: str
) -> None:
    redis = own_redis.url if kind == "redis" else None
    gateway = GatewayProcess(tmp_path, CONFIG.format(redis=redis or "null"))
    command = [sys.executable, dying.__file__, point, str(gateway.config), str(gateway.port)]
    mortal = Running(command, tmp_path, tmp_path / "mortal.log")
    try:
        mortal.start()
        mortal.wait_for(f"{gateway.url}/readyz")
        assert ask(gateway.url) == 200
        until(lambda: len(records(gateway.url)) == 1)  # its client is answered before it is settled
        (tmp_path / "die").touch()
        ask(gateway.url)
        assert mortal.process is not None
        mortal.process.wait(20)
        (tmp_path / "die").unlink()
        gateway.start()
        wanted = 1 if point in UNCHARGED else 2
        ends = time.monotonic() + 30
        while True:
            found, (spent, reserved) = records(gateway.url), asyncio.run(balance(redis, tmp_path))
            if len(found) == wanted and not reserved:
                break
            assert time.monotonic() < ends, (found, spent, reserved)
            time.sleep(0.05)
        assert spent == sum(each["cost"]["nano_usd"] for each in found)
        presumed = [each for each in found if each["outcome"] == "presumed"]
        assert len(presumed) == (0 if point in UNCHARGED | SETTLED else 1)
    finally:
        mortal.kill()
        gateway.kill()
