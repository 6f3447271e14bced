"""What a provider says that a call cost, what we calculate, and which of both is owed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from vendor import Vendor, served

from gateway import money, settings
from gateway.document import SettingsError
from gateway.types import Cost

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  router: {{preset: openrouter, base_url: "https://east.example/v1", api_key: k}}
  own: {{preset: openrouter, base_url: "https://east.example/v1", api_key: k, options: {{cost: calculated}}}}
deployments:
  - {{id: embed, provider: router, upstream_model: openai/text-embedding-3-small}}
  - {{id: marked-up, provider: router, upstream_model: openai/text-embedding-3-small, price: {{multiplier: 2}}}}
  - {{id: calculated, provider: own, upstream_model: openai/text-embedding-3-small}}
  - {{id: small, provider: own, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""


def embeddings(**usage: Any) -> httpx.Response:
    data = [{"object": "embedding", "index": 0, "embedding": [0.5]}]
    block = {"prompt_tokens": 31, "total_tokens": 31, **usage}
    return httpx.Response(200, json={"object": "list", "data": data, "model": "m", "usage": block})


@pytest.mark.parametrize(
    ("model", "stated", "owed", "calculated"),
    [
        ("embed", {"cost": 7e-7}, 700, 620),
        ("embed", {"cost": 0}, 0, 620),
        ("embed", {}, 620, 620),
        ("marked-up", {"cost": 7e-7}, 1240, 1240),
        ("calculated", {"cost": 7e-7}, 620, 620),
    ],
)
async def test_the_reported_cost_is_owed_where_nobody_says_otherwise_and_all_are_kept(
    tmp_path: Path, model: str, stated: dict[str, Any], owed: int, calculated: int
) -> None:
    vendor = Vendor(replies={"/v1/embeddings": embeddings(**stated)})
    async with served(CONFIG.format(folder=tmp_path), vendor) as found:
        reply = await found.http.post(
            "/v1/embeddings", json={"model": model, "input": "x"}, headers={"authorization": "Bearer key-of-acme"}
        )
        assert money.nano(reply.headers["x-tollgate-cost-usd"]) == owed
        [record] = found.records
        assert (record.cost, record.calculated_cost) == (owed, calculated)
        assert record.reported_cost == (money.nano(f"{stated['cost']:.9f}") if stated else None)
        assert sum(record.components.values()) == owed


HEAD = {"id": "c", "created": 1, "model": "m", "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
SAID = {"role": "assistant", "content": "Some words that nobody bills."}


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_of_nothing_is_believed_and_not_replaced_by_our_own_count(tmp_path: Path, *, stream: bool) -> None:
    choice = {"index": 0, "delta" if stream else "message": SAID, "finish_reason": "stop"}
    reply = httpx.Response(200, json={**HEAD, "object": "chat.completion", "choices": [choice]})
    if stream:
        chunk = json.dumps({**HEAD, "object": "chat.completion.chunk", "choices": [choice]})
        kind = {"content-type": "text/event-stream"}
        reply = httpx.Response(200, text=f"data: {chunk}\n\ndata: [DONE]\n\n", headers=kind)
    async with served(CONFIG.format(folder=tmp_path), Vendor(replies={"/v1/chat/completions": reply})) as found:
        body = {"model": "small", "stream": stream, "messages": [{"role": "user", "content": "Say a few words."}]}
        headers = {"authorization": "Bearer key-of-acme"}
        answer = await found.http.post("/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        [record] = found.records
    assert (record.cost, record.estimated, sum(record.tokens.values())) == (0, False, 0)


@pytest.mark.parametrize("reported", [0, 1, 999, 1000, 1001, 123_456_789])
def test_components_of_a_reported_cost_are_in_proportion_and_sum_to_it(reported: int) -> None:
    found = money.charged(Cost(1000, {"input": 333, "output": 667}), reported)
    assert found.total == sum(found.components.values()) == reported
    assert abs(found.components["input"] * 1000 - reported * 333) <= 2000


def test_a_reported_cost_is_known_where_ours_is_not() -> None:
    assert money.charged(Cost(None, {}, ("price",)), 5) == Cost(5, {"reported": 5})


def test_a_cost_is_reported_or_calculated_and_nothing_else() -> None:
    with pytest.raises(SettingsError, match="must be reported or calculated"):
        settings.parse("providers: {xai: {api_key: k, options: {cost: guessed}}}", {})
