"""A suspension holds on every replica within a second; so do a limit of everyone and the end of a key."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from processes import GatewayProcess, web
from services import RedisServer

pytestmark = pytest.mark.system

CONFIG = """
redis: {redis}
database: "{database}"
spool: {{folder}}/spool
admin_key: test-admin-key
providers:
  simulated: {{dialect: simulated}}
deployments:
  - {{id: small, provider: simulated, upstream_model: "sim-small?first_token_ms=0", price: {{input: 1, output: 1}}}}
"""
ADMIN = {"authorization": "Bearer test-admin-key"}
WITHIN_S = 1.0


def within(seconds: float, true: Callable[[], bool]) -> float:
    """How long it took to become true."""
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < seconds, f"not within {seconds} s"
        time.sleep(0.01)
    return time.monotonic() - began


@pytest.mark.parametrize("kind", [pytest.param("sqlite", marks=pytest.mark.slow), "postgresql"])
def test_what_an_administrator_does_holds_on_another_replica_within_a_second(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    redis = RedisServer(tmp_path)
    redis.start()
    database = f"sqlite:///{tmp_path}/shared.db"
    if kind == "postgresql":
        database = request.getfixturevalue("postgres_schema_url")
    gateways = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        gateways.append(GatewayProcess(tmp_path / name, CONFIG.format(redis=redis.url, database=database)))
    try:
        for gateway in gateways:
            gateway.start()
        here, there = (gateway.url for gateway in gateways)

        def admin(path: str, body: dict[str, Any] | None = None) -> Any:
            return web.post(f"{here}/admin/v1/{path}", json=body, headers=ADMIN, timeout=10).json()

        admin("tenants", {"id": "globex"})
        key = admin("tenants/globex/keys", {"name": "prod"})
        ask = {"model": "small", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi."}]}

        def status() -> int:
            headers = {"authorization": f"Bearer {key['secret']}"}
            return web.post(f"{there}/v1/chat/completions", json=ask, headers=headers, timeout=10).status_code

        within(5, lambda: status() == 200)
        admin("tenants/globex/suspend")
        within(WITHIN_S, lambda: status() == 403)
        admin("tenants/globex/resume")
        within(WITHIN_S, lambda: status() == 200)
        closed = {"tenant": None, "account": "deployment", "of": "small", "limit_usd": 0, "window": "day"}
        made = admin("budgets", closed)
        within(WITHIN_S, lambda: status() == 429)
        web.delete(f"{here}/admin/v1/budgets/{made['id']}", headers=ADMIN, timeout=10).raise_for_status()
        within(WITHIN_S, lambda: status() == 200)
        admin(f"keys/{key['id']}/revoke")
        within(WITHIN_S, lambda: status() == 401)
    finally:
        for gateway in gateways:
            gateway.kill()
        redis.stop()
