"""`Idempotency-Key` and kill -9: what was given is found again, what was lost is made once more and booked."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from processes import GatewayProcess, SimulatedProcess, web

pytestmark = pytest.mark.system

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
admin_key: test-admin-key
ledger: {{hold_s: 2, timeout_s: 2}}
providers:
  p: {{dialect: openai, base_url: "{url}/v1", api_key: sk-x, retries_max: 0}}
deployments:
  - {{id: small, provider: p, upstream_model: sim-small, price: {{input: 1, output: 1}}, output_max: 1024}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: total}}]}}
"""
ADMIN = {"authorization": "Bearer test-admin-key"}
WAIT_S = 30.0


def started(folder: Path, provider: SimulatedProcess, place: str = "one") -> GatewayProcess:
    (folder / place).mkdir()
    config = CONFIG.format(folder=folder, url=provider.url)
    gateway = GatewayProcess(folder / place, config)
    gateway.start()
    return gateway


async def ask(
    gateway: GatewayProcess, sim: str, *, stream: bool = False, timeout_s: float = WAIT_S
) -> httpx.Response | None:
    """None: the connection died, or nothing came in time."""
    message = {"role": "user", "content": "Say something."}
    body = {"model": "small", "max_tokens": 50, "stream": stream, "messages": [message], "metadata": {"sim": sim}}
    headers = {"authorization": "Bearer key-of-acme", "idempotency-key": f"k-{stream}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=timeout_s) as client:
        try:
            return await client.post("/v1/chat/completions", json=body)
        except httpx.TransportError:
            return None


def records(gateway: GatewayProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = web.get(f"{gateway.url}/admin/v1/records", headers=ADMIN, timeout=10).json()["data"]
    return found


def balance(gateway: GatewayProcess) -> dict[str, Any]:
    (budget,) = web.get(f"{gateway.url}/admin/v1/budgets", headers=ADMIN, timeout=10).json()["data"]
    found: dict[str, Any] = budget["balance"]
    return found


def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < ends, "it did not come to pass"
        time.sleep(0.05)


def lease_ends(folder: Path) -> None:
    """As if the time of whoever was killed had passed."""
    with closing(sqlite3.connect(folder / "tollgate.db", timeout=10)) as database:
        assert database.execute("UPDATE replies SET until = 0 WHERE status IS NULL").rowcount == 1
        database.commit()


def test_an_answer_that_was_given_is_given_again_after_kill_9_and_charged_once(
    tmp_path: Path, provider: SimulatedProcess
) -> None:
    before = provider.stats()["called"]
    gateway = started(tmp_path, provider)
    try:
        whole = asyncio.run(ask(gateway, "output=20"))
        streamed = asyncio.run(ask(gateway, "output=20", stream=True))
        gateway.kill()  # in the same moment
        gateway.start()
        for stream, first in ((False, whole), (True, streamed)):
            again = asyncio.run(ask(gateway, "output=20", stream=stream))
            assert first is not None
            assert again is not None
            assert (again.status_code, again.content) == (200, first.content)
            assert "x-tollgate-replayed" in again.headers
        assert provider.stats()["called"] == before + 2
        until(lambda: len(records(gateway)) == 2 and balance(gateway)["reserved"]["nano_usd"] == 0)
        assert balance(gateway)["spent"]["nano_usd"] == sum(each["cost"]["nano_usd"] for each in records(gateway))
    finally:
        gateway.kill()


def test_two_processes_serve_a_key_once_while_the_first_is_in_flight(
    tmp_path: Path, provider: SimulatedProcess
) -> None:
    before = provider.stats()["called"]
    gateways = [started(tmp_path, provider, place) for place in ("one", "other")]

    async def all_at_once() -> list[httpx.Response | None]:
        return await asyncio.gather(*(ask(gateways[number % 2], "latency_ms=1000&output=20") for number in range(10)))

    try:
        replies = asyncio.run(all_at_once())
        assert {reply.status_code for reply in replies if reply} == {200}
        assert len({reply.content if reply else b"" for reply in replies}) == 1
        assert provider.stats()["called"] == before + 1
        until(lambda: len(records(gateways[0])) == 1)
        assert balance(gateways[1])["spent"] == records(gateways[0])[0]["cost"]
    finally:
        for gateway in gateways:
            gateway.kill()


def test_an_answer_lost_to_kill_9_is_made_once_more_and_what_was_lost_is_booked(
    tmp_path: Path, provider: SimulatedProcess
) -> None:
    before = provider.stats()["called"]
    gateway = started(tmp_path, provider)
    slow = "latency_ms=1500&output=20"

    async def killed() -> list[httpx.Response | None]:
        asking = [asyncio.create_task(ask(gateway, slow)) for _ in range(3)]
        await asyncio.to_thread(until, lambda: provider.stats()["called"] == before + 1)
        gateway.kill()
        return await asyncio.gather(*asking)

    try:
        assert asyncio.run(killed()) == [None] * 3
        gateway.start()
        assert asyncio.run(ask(gateway, slow, timeout_s=1.0)) is None  # nobody knows yet that the first was lost
        assert provider.stats()["called"] == before + 1
        lease_ends(tmp_path)
        answer, again = (asyncio.run(ask(gateway, slow)) for _ in range(2))
        assert answer is not None
        assert again is not None
        assert (answer.status_code, again.status_code, again.content) == (200, 200, answer.content)
        assert provider.stats()["called"] == before + 2
        until(lambda: len(records(gateway)) == 2 and balance(gateway)["reserved"]["nano_usd"] == 0)
        costs = {record["outcome"]: record["cost"]["nano_usd"] for record in records(gateway)}
        assert costs.keys() == {"presumed", "ok"}
        assert balance(gateway)["spent"]["nano_usd"] == sum(costs.values())
    finally:
        gateway.kill()
