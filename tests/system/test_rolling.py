"""A gateway leaves and is replaced under load, and no client notices."""

from __future__ import annotations

import asyncio
import signal
import ssl
import time
from typing import Any

import httpx
import orjson
import pytest
from processes import GatewayProcess, SimulatedProcess, web

from gateway.dialects.base import Call
from gateway.errors import UpstreamLeft
from gateway.transport.http1 import Pool
from gateway.types import Provider

pytestmark = pytest.mark.system

KEY = "key-of-acme"
CONFIG = """
server: {{timeouts: {{announce_s: 1}}}}
database: sqlite:///{{folder}}/tollgate.db
spool: {{folder}}/spool
admin_key: test-admin-key
providers:
  p: {{dialect: openai, base_url: "{url}/v1", api_key: sk-x}}
deployments:
  - {{id: quick, provider: p, upstream_model: "sim?first_token_ms=20", price: {{input: 1, output: 1}},
      output_max: 1024}}
  - {{id: long, provider: p, upstream_model: "sim?first_token_ms=20&output=60&tps=20", price: {{input: 1, output: 1}},
      output_max: 1024}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""


def body(model: str, *, stream: bool = False) -> bytes:
    return orjson.dumps({"model": model, "stream": stream, "messages": [{"role": "user", "content": "Say something."}]})


async def ask(pool: Pool, url: str, data: bytes) -> tuple[int, bytes]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    call = Call(f"{url}/v1/chat/completions", data, headers)
    try:
        sent = await pool.send(call)
    except UpstreamLeft:  # an idle connection was closed at the moment it was taken: no server can prevent that
        sent = await pool.send(call)
    async with sent as reply:
        return reply.status, b"".join([chunk async for chunk in reply.chunks()])


async def load(url: str, seconds: float, per_s: float = 25.0) -> list[tuple[int, bytes]]:
    """Short requests at a steady rate and a few long streams, over kept connections; no reply is asked for twice."""
    pool = Pool(Provider("client", "openai"), ssl.create_default_context())
    tasks = []
    for number in range(int(seconds * per_s)):
        data = body("long", stream=True) if number % 20 == 0 else body("quick")
        tasks.append(asyncio.create_task(ask(pool, url, data)))
        await asyncio.sleep(1 / per_s)
    found = await asyncio.gather(*tasks)
    await pool.close()
    return found


def settled(gateway: GatewayProcess) -> dict[str, Any]:
    """The tenant's budget as the ledger has it."""
    headers = {"authorization": "Bearer test-admin-key"}
    found: dict[str, Any] = web.get(f"{gateway.url}/admin/v1/budgets", headers=headers).json()["data"][0]["balance"]
    return found


async def test_every_worker_is_replaced_under_load_without_a_failed_request(
    start: Any, provider: SimulatedProcess
) -> None:
    gateway: GatewayProcess = start(CONFIG.format(url=provider.url), workers=2)
    running = asyncio.create_task(load(gateway.url, 16.0))
    await asyncio.sleep(2.0)
    gateway.running.signal(signal.SIGUSR2)
    replies = await running
    assert {status for status, _ in replies} == {200}
    assert all(b"[DONE]" in data for _, data in replies if data.startswith(b"data:"))
    assert gateway.said().count("worker replaced") == 2
    await asyncio.sleep(0.5)
    assert settled(gateway)["reserved"]["nano_usd"] == 0


async def test_a_gateway_that_stops_says_so_and_finishes_what_it_began(start: Any, provider: SimulatedProcess) -> None:
    gateway: GatewayProcess = start(CONFIG.format(url=provider.url))
    pool = Pool(Provider("client", "openai"), ssl.create_default_context())
    begun = asyncio.create_task(ask(pool, gateway.url, body("long", stream=True)))
    await asyncio.sleep(0.5)
    gateway.running.signal(signal.SIGTERM)
    await asyncio.sleep(0.3)
    ready = await asyncio.to_thread(httpx.get, f"{gateway.url}/readyz")
    assert (ready.status_code, ready.json()["draining"], ready.headers["connection"]) == (503, True, "close")
    late = await ask(pool, gateway.url, body("quick"))
    assert late[0] == 200
    status, data = await begun
    assert status == 200
    assert b"[DONE]" in data
    assert gateway.running.process is not None
    ends = time.monotonic() + 20
    while gateway.running.process.poll() is None:
        assert time.monotonic() < ends
        await asyncio.sleep(0.05)
    spent = gateway.cli("spend", "--json")
    assert len(orjson.loads(spent)) >= 1
    await pool.close()
