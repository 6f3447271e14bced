"""What a request is charged: the same in every format, streamed or whole, and within what was set aside for it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import config, gateway
from vendor import Served, Vendor, served

from gateway.ledger.base import Line
from gateway.money import nano
from gateway.types import Account

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  anthropic: {{api_key: k, retries_max: 0}}
  east: {{dialect: openai, base_url: "https://east.example/v1", api_key: k, retries_max: 0}}
deployments:
  - {{id: listed, provider: anthropic, upstream_model: claude-sonnet-4-5}}
  - {{id: own, provider: anthropic, upstream_model: claude-sonnet-4-5,
      price: {{input: 3, output: 15, cache_read: 0.3, cache_write_5m: 3.75}}}}
  - {{id: voice, provider: east, upstream_model: m, price: {{input: 1, output: 2}}, output_max: 500}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
AUTH = {"authorization": "Bearer key-of-acme"}
SAID = {"role": "user", "content": "Hello."}
ASKED: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [SAID], "max_tokens": 100},
    "messages": {"messages": [SAID], "max_tokens": 100},
    "responses": {"input": "Hello.", "max_output_tokens": 100},
}
CACHED = {"input_tokens": 10, "cache_creation_input_tokens": 2000, "cache_read_input_tokens": 3000}
COST = 10 * 3000 + 2000 * 3750 + 3000 * 300 + 20 * 15_000  # NanoUSD: $3, $3.75, $0.30 and $15 a million


class Claude(Vendor):
    """Answers every message with the same usage, as Anthropic writes it: streamed in two halves."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        message: dict[str, Any] = {"id": "m1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5"}
        text, end = {"type": "text", "text": "Hi."}, {"stop_reason": "end_turn", "stop_sequence": None}
        if not body.get("stream"):
            usage = {**CACHED, "output_tokens": 20}
            return httpx.Response(200, json={**message, **end, "content": [text], "usage": usage})
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**message, "content": [], "usage": {**CACHED, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi."}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": {"output_tokens": 20}},
            {"type": "message_stop"},
        ]
        told = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        return httpx.Response(200, text=told, headers={"content-type": "text/event-stream"})


async def spent(site: Served) -> tuple[int, int]:
    [tenant] = [each for each in site.gateway.sites.current.directory.tenants if each.id == "acme"]
    line = Line(Account("tenant", "acme", "acme"), tenant.limits[0], 0)
    [balance] = await site.gateway.parts.ledger.balances([line])
    return balance.spent, balance.reserved


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("model", ["listed", "own"])
async def test_cached_tokens_cost_the_same_in_every_format_streamed_or_whole(
    tmp_path: Path, path: str, model: str
) -> None:
    async with served(CONFIG.format(folder=tmp_path), Claude()) as site:
        for stream in (False, True):
            body = {"model": model, "stream": stream, **ASKED[path]}
            reply = await site.http.post(f"/v1/{path}", json=body, headers=AUTH)
            assert reply.status_code == 200, reply.text
        assert [(record.cost, record.estimated) for record in site.records] == [(COST, False)] * 2
        assert await spent(site) == (2 * COST, 0)


async def test_a_stream_costs_what_the_whole_answer_costs_though_its_client_did_not_ask_for_usage(
    tmp_path: Path,
) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&cached=0.5&reasoning=7&output=30")) as running:
        for fields in ({}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}):
            assert (await running.chat("large", "Say hello. " * 20, max_tokens=50, **fields)).status_code == 200
        whole, *streams = await running.settled()
        assert whole.tokens["cache_read"] > 20
        assert whole.cost == sum(
            whole.tokens[kind] * rate
            for kind, rate in {"input": 10_000, "cache_read": 1000, "output": 30_000, "reasoning": 30_000}.items()
        )
        assert [(each.tokens, each.cost) for each in streams] == [(whole.tokens, whole.cost)] * 2


async def test_no_more_long_requests_pass_at_once_than_their_dearer_rate_leaves_room_for(tmp_path: Path) -> None:
    price = "{input: 1, output: 1, tiers: [{above: 1000, input: 4, output: 4}]}"
    text = config(tmp_path, limit="0.03", script="?first_token_ms=5&output=50")
    async with gateway(text.replace("{input: 1, output: 1}", price)) as running:
        long = "word " * 3000  # two at the dearer rate, nine at the other
        replies = await asyncio.gather(*(running.chat("small", long, max_tokens=50) for _ in range(9)))
        assert sorted(reply.status_code for reply in replies) == [200] * 2 + [429] * 7
        assert sum(record.cost or 0 for record in await running.settled()) <= nano("0.03")


async def test_a_tier_is_held_at_its_own_rate(tmp_path: Path) -> None:
    price = "{input: 1, output: 1, variants: {priority: {multiplier: 4}}}"
    async with gateway(config(tmp_path, limit="0.0004").replace("{input: 1, output: 1}", price)) as running:
        refused = await running.chat("small", max_tokens=100, service_tier="priority")
        assert (refused.status_code, running.provider.called) == (429, 0)
        assert (await running.chat("small", max_tokens=100)).status_code == 200


async def test_what_has_no_price_is_charged_as_all_that_was_set_aside_and_shown_as_unknown(tmp_path: Path) -> None:
    details = {"completion_tokens_details": {"audio_tokens": 15}}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hi."}}
    usage = {"prompt_tokens": 9, "completion_tokens": 20, "total_tokens": 29, **details}
    reply = httpx.Response(200, json={"id": "c", "model": "m", "choices": [choice], "usage": usage})
    async with served(CONFIG.format(folder=tmp_path), Vendor(replies={"/v1/chat/completions": reply})) as site:
        body = {"model": "voice", **ASKED["chat/completions"]}
        answer = await site.http.post("/v1/chat/completions", json=body, headers=AUTH)
        assert answer.status_code == 200
        assert "x-tollgate-cost-usd" not in answer.headers
        [record] = site.records
        assert record.cost is None
        assert record.reserved > 100 * 2000
        assert await spent(site) == (record.reserved, 0)
        told = (await site.http.get("/metrics")).text
        assert 'tollgate_price_unknown_total{deployment="voice"} 1.0' in told
        assert nano(next(line for line in told.splitlines() if "budget_spent_usd{" in line).split()[-1]) == (
            record.reserved
        )
