"""What `/healthz`, `/readyz` and `/metrics` say while a real Redis hangs, and what requests are told meanwhile."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Running, config, gateway
from services import RedisServer

from gateway.ledger.open import open_redis


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


async def probed(running: Running, path: str) -> int:
    return (await running.client.get(path)).status_code


async def test_a_gateway_whose_redis_hangs_is_alive_and_not_ready_and_refuses_at_once(
    tmp_path: Path, redis_server: RedisServer
) -> None:
    async with gateway(config(tmp_path), ledger=open_redis(redis_server.url)) as running:
        assert (await probed(running, "/healthz"), await probed(running, "/readyz")) == (200, 200)
        redis_server.signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            refused = await asyncio.gather(*(running.chat("small", max_tokens=5) for _ in range(50)))
            assert {(reply.status_code, reply.json()["error"]["code"]) for reply in refused} == {
                (503, "ledger_unavailable")
            }
            assert all(int(reply.headers["retry-after"]) > 0 for reply in refused)
            assert (await probed(running, "/healthz"), await probed(running, "/readyz")) == (200, 503)
            assert "tollgate_ledger_up 0.0" in (await running.client.get("/metrics")).text
            assert time.monotonic() - began < 5  # of which 4 s are what the two probes may wait for it
            assert running.provider.called == 0
        finally:
            redis_server.signal(signal.SIGCONT)
        async with asyncio.timeout(10):
            while await probed(running, "/readyz") != 200:  # noqa: ASYNC110  # it is connected to on the real clock
                await asyncio.sleep(0.01)
        assert (await running.chat("small", max_tokens=5)).status_code == 200
