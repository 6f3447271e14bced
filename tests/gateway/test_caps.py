"""A cap is hard: exact numbers, on every ledger, with everything at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import config, gateway

from gateway.ledger.base import Ledger
from gateway.ledger.memory import MemoryLedger
from gateway.ledger.open import open_redis
from gateway.money import dollars, nano

TEXT = "Write exactly fifty tokens, please."


async def cost_of_one(folder: Path) -> int:
    async with gateway(config(folder, script="?first_token_ms=0&output=50")) as running:
        reply = await running.chat("small", TEXT, max_tokens=50)
        return nano(reply.headers["x-tollgate-cost-usd"])


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
async def test_of_200_requests_at_once_exactly_the_37_that_fit_succeed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, redis_url: str, redis_prefix: str, kind: str
) -> None:
    one = await cost_of_one(tmp_path_factory.mktemp("first"))
    limit = 37 * one + one - 1
    ledgers: dict[str, Callable[[], Ledger | None]] = {
        "memory": MemoryLedger,
        "sqlite": lambda: None,  # the configuration's own
        "redis": lambda: open_redis(redis_url, prefix=redis_prefix, timeout_s=5.0, connect_timeout_s=5.0),
    }
    text = config(tmp_path, limit=dollars(limit), script="?first_token_ms=5&output=50")
    async with gateway(text, ledger=ledgers[kind]()) as running:
        replies = await asyncio.gather(*(running.chat("small", TEXT, max_tokens=50) for _ in range(200)))
        statuses = Counter(reply.status_code for reply in replies)
        assert statuses == {200: 37, 429: 163}
        refused = next(reply for reply in replies if reply.status_code == 429)
        error = refused.json()["error"]
        assert error["code"] == "budget_exceeded"
        for word in ("tenant acme", "day", dollars(limit), dollars(one)):
            assert word in error["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert int(refused.headers["retry-after"]) > 0
        records = await running.settled()
        assert sum(record.cost or 0 for record in records) == 37 * one
        metrics = (await running.client.get("/metrics")).text
        spent = next(line for line in metrics.splitlines() if line.startswith("tollgate_budget_spent_usd{"))
        assert nano(spent.rpartition(" ")[2]) == 37 * one


async def test_answers_shorter_than_their_cap_give_back_what_they_did_not_use(tmp_path: Path) -> None:
    text = config(tmp_path, limit="0.0011", script="?first_token_ms=0&output=10")
    async with gateway(text) as running:
        for _ in range(10):  # each holds about 0.00091, and uses about 0.00003
            assert (await running.chat("small", "Hi.", max_tokens=900)).status_code == 200


async def test_a_refused_request_reaches_no_provider_and_leaves_no_record(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, limit="0.0000001")) as running:
        reply = await running.chat("small")
        assert reply.status_code == 429
        assert running.provider.called == 0
        assert running.records == []


async def test_a_nearly_full_budget_gives_up_the_dear_failover_before_it_refuses(tmp_path: Path) -> None:
    text = config(tmp_path, limit="0.0005", script="?first_token_ms=0&output=50")
    async with gateway(text) as running:  # the large model could cost 0.0015
        reply = await running.chat("auto", TEXT, max_tokens=50)
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-tollgate-deployment"] == "small"
