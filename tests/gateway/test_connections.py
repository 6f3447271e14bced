"""The way to a provider, on real sockets: what was never sent is free, a connection that was closed is replaced."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import faulty
import pytest
from faulty import FaultyProvider
from served import Served, served

from gateway.accounts import shared_lines
from gateway.ledger.base import Balance

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  full: {{dialect: openai, base_url: "http://127.0.0.1:{full}/v1", api_key: sk-x, timeouts: {{connect_s: 30}}}}
  hasty: {{dialect: openai, base_url: "http://127.0.0.1:{full}/v1", api_key: sk-x,
    timeouts: {{connect_s: 30, first_byte_s: 0.2, total_s: 0.2}}}}
  leaving: {{dialect: openai, base_url: "http://127.0.0.1:{port}/leaving/v1", api_key: sk-x, retries_max: 0}}
  fine: {{dialect: openai, base_url: "http://127.0.0.1:{port}/fine/v1", api_key: sk-x}}
deployments:
  - {{id: full, provider: full, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: hasty, provider: hasty, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: leaving, provider: leaving, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: fine, provider: fine, upstream_model: m, price: {{input: 9, output: 9}}, output_max: 1024}}
routes:
  both: {{candidates: [hasty, fine], policies: [cheapest]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: total}}]}}
"""
STATED = 14_000  # nano-dollars: what the faulty provider's own usage costs at a dollar per million tokens


@pytest.fixture
def full() -> Iterator[int]:
    """A port whose queue is full: whoever connects waits."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting: list[socket.socket] = []
        try:
            for _ in range(8):  # more than the queue holds, whatever the system makes of 0
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                with suppress(BlockingIOError):
                    waiting[-1].connect(listening.getsockname())
            yield listening.getsockname()[1]
        finally:
            for each in waiting:
                each.close()


@pytest.fixture
async def provider() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as found:
        yield found


@pytest.fixture
async def gateway(tmp_path: Path, provider: FaultyProvider, full: int) -> AsyncIterator[Served]:
    async with served(CONFIG.format(folder=tmp_path, port=provider.port, full=full)) as found:
        yield found


async def balance(gateway: Served) -> Balance:
    """Once nothing is held."""
    lines = shared_lines(gateway.gateway.sites.current.directory.tenants, (), (), now=time.time())
    async with asyncio.timeout(5):
        while True:
            (found,) = await gateway.gateway.parts.ledger.balances(lines)
            if not found.reserved:
                return found
            await asyncio.sleep(0.01)


async def ask(gateway: Served, model: str, **headers: str) -> int:
    body = {"model": model, "messages": [{"role": "user", "content": "Say four words."}]}
    sent = {"authorization": "Bearer key-of-acme", **headers}
    return (await gateway.client.post("/v1/chat/completions", json=body, headers=sent)).status_code


async def test_a_deadline_that_ends_while_connecting_costs_nothing(gateway: Served) -> None:
    assert await ask(gateway, "full", **{"x-stainless-read-timeout": "0.3"}) == 504
    assert (await balance(gateway)).spent == 0
    assert not gateway.records  # it reached nobody


async def test_a_client_that_leaves_while_we_connect_pays_nothing(gateway: Served) -> None:
    asking = asyncio.create_task(ask(gateway, "full"))
    async with asyncio.timeout(5):
        while not gateway.gateway.parts.health.of("full").inflight:  # noqa: ASYNC110  # the other side has no event
            await asyncio.sleep(0.001)
    asking.cancel()
    assert (await balance(gateway)).spent == 0
    assert not gateway.records


async def test_with_another_behind_only_the_one_that_answered_is_paid(gateway: Served) -> None:
    assert await ask(gateway, "both") == 200
    (record,) = gateway.records
    assert (record.deployment, record.cost, record.overhead_cost) == ("fine", 9 * STATED, 0)
    assert (await balance(gateway)).spent == 9 * STATED


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_kept_connection_that_was_closed_is_replaced_unseen_counted_and_charged_once(
    gateway: Served, provider: FaultyProvider, how: str
) -> None:
    async def leaving(call: faulty.Call) -> None:
        if not call.before:
            return await faulty.fine(call)
        return call.reset() if how == "reset" else call.writer.close()

    provider.faults["leaving"] = leaving
    assert [await ask(gateway, "leaving") for _ in range(2)] == [200, 200]
    assert provider.calls["leaving"] == 3
    assert [(record.attempts, record.cost) for record in gateway.records] == [(1, STATED), (2, STATED)]
    assert (await balance(gateway)).spent == 2 * STATED
    told = gateway.gateway.parts.metrics.render().decode()
    assert 'tollgate_retries_total{deployment="leaving",reason="stale_connection"} 1.0' in told
