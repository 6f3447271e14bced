"""A client that hangs up on a real socket: its provider is told within 100 ms, and what was begun is charged."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

import orjson
import pytest
from faulty import FaultyProvider
from served import Served, served

from gateway.types import Outcome

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  p: {{dialect: openai, base_url: "http://127.0.0.1:{port}/{fault}/v1", api_key: sk-x}}
deployments:
  - {{id: d, provider: p, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
TIMES = 9
TOLD_S = 0.1


async def hang_up(gateway: Served, provider: FaultyProvider, fault: str, *, stream: bool, after_s: float) -> float:
    """Seconds from hanging up until the provider sees it."""
    now = asyncio.get_running_loop().time
    messages = [{"role": "user", "content": "Say four words."}]
    body = orjson.dumps({"model": "d", "stream": stream, "messages": messages})
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-of-acme\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    calls = provider.calls[fault]
    provider.left.pop(fault, None)
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    while provider.calls[fault] == calls:  # noqa: ASYNC110  # it has no event for it
        await asyncio.sleep(0.001)
    await asyncio.sleep(after_s)
    left = now()
    writer.transport.abort()
    async with asyncio.timeout(10):
        while fault not in provider.left:  # noqa: ASYNC110  # the same
            await asyncio.sleep(0.001)
    return provider.left[fault] - left


@pytest.mark.parametrize("after_s", [0.0, 0.2], ids=["at once", "later"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("fault", ["no_head", "stall"], ids=["before the answer", "within it"])
async def test_a_hang_up_reaches_the_provider_within_100_ms_and_is_charged(
    tmp_path: Path, fault: str, after_s: float, *, stream: bool
) -> None:
    async with (
        FaultyProvider() as provider,
        served(CONFIG.format(folder=tmp_path, port=provider.port, fault=fault)) as gateway,
    ):
        took = [await hang_up(gateway, provider, fault, stream=stream, after_s=after_s) for _ in range(TIMES)]
        async with asyncio.timeout(5):
            while len(gateway.records) < TIMES:  # noqa: ASYNC110  # settled a moment later
                await asyncio.sleep(0.01)
    assert statistics.median(took) < TOLD_S
    print(f"{1000 * statistics.median(took):.1f} ms median, {1000 * max(took):.1f} ms at most")
    assert {record.outcome for record in gateway.records} == {Outcome.CLIENT_GONE}
    assert all((record.cost or 0) >= 16_000 for record in gateway.records)
