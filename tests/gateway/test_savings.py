"""What was saved, by cause: each cause alone to the nano-dollar, and all of them to the whole."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from harness import ADMIN_KEY, Running, gateway
from processes import TOLLGATE

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: here, provider: simulated, upstream_model: "sim-a?first_token_ms=0&output=10{script}",
      price: {{input: 1, output: 2, cache_read: 0.1}}, context_max: 128000, output_max: 4096}}
  - {{id: there, provider: simulated, upstream_model: "sim-a?first_token_ms=0&output=10{script}",
      price: {{input: 3, output: 4, cache_read: 0.3}}, context_max: 128000, output_max: 4096}}
  - {{id: strong, provider: simulated, upstream_model: "sim-strong?first_token_ms=0&output=20",
      price: {{input: 10, output: 30, cache_read: 1}}, context_max: 128000, output_max: 4096}}
routes:
  auto: {{candidates: {candidates}, {baseline} policies: {policies}}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""
CAP = "{output_cap: {default: 100}}"


def config(
    folder: Path,
    candidates: str = "[here]",
    baseline: str = "",
    script: str = "",
    policies: str = f"[{CAP}, cheapest]",
) -> str:
    line = f"baseline: {baseline}," if baseline else ""
    return CONFIG.format(folder=folder, candidates=candidates, baseline=line, script=script, policies=policies)


async def saved(running: Running, **query: str) -> dict[str, Any]:
    await running.gateway.parts.recorder.round()
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    reply = await running.client.get("/admin/v1/savings", params=query, headers=headers)
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def causes(found: dict[str, Any]) -> dict[str, int]:
    """What each cause saved that saved or lost anything, after a look at whether all adds up."""
    shown = {**found["measured"], **found["modelled"]}
    amounts = {name: each["nano_usd"] for name, each in shown.items()}
    assert sum(amounts.values()) == found["net"]["nano_usd"]
    assert found["paid"]["nano_usd"] + found["net"]["nano_usd"] == found["otherwise"]["nano_usd"]
    return {name: amount for name, amount in amounts.items() if amount}


async def test_another_model_than_the_reference_is_routing(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "[here, strong]", "strong")) as running:
        tokens = (await running.chat()).json()["usage"]["prompt_tokens"]
        (found,) = (await saved(running))["data"]
        assert causes(found) == {"routing": 1000 * (tokens * (10 - 1) + 10 * (30 - 2))}
        assert list(found["modelled"]) == ["routing", "caps"]


async def test_what_a_cache_gave_is_caching_with_a_reference_or_without(tmp_path: Path) -> None:
    for baseline in ("", "strong"):
        folder = tmp_path / (baseline or "none")
        folder.mkdir()
        async with gateway(config(folder, "[here, strong]", baseline, "&cached=0.5")) as running:
            usage = (await running.chat(text="Say hello. " * 20)).json()["usage"]
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            found = causes((await saved(running))["data"][0])
            assert found["caching"] == cached * 900
            assert found.get("routing", 0) == (
                1000 * (usage["prompt_tokens"] * (10 - 1) + 10 * (30 - 2)) if baseline else 0
            )


async def test_the_same_model_at_a_cheaper_place_is_arbitrage_against_the_mean(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "[there, here]")) as running:
        tokens = (await running.chat()).json()["usage"]["prompt_tokens"]
        (found,) = (await saved(running))["data"]
        here, there = 1000 * (tokens + 20), 1000 * (3 * tokens + 40)
        assert causes(found) == {"arbitrage": (here + there) // 2 - here}


async def test_the_reference_model_at_a_cheaper_place_is_arbitrage_and_no_routing(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "[there, here]", "there")) as running:
        tokens = (await running.chat()).json()["usage"]["prompt_tokens"]
        assert causes((await saved(running))["data"][0]) == {"arbitrage": 1000 * (2 * tokens + 20)}


async def test_answers_thrown_away_are_taken_off(tmp_path: Path) -> None:
    policies = f"[{CAP}, cheapest, {{cascade: {{}}}}]"
    async with gateway(config(tmp_path, "[here, strong]", "strong", "&refusal=1", policies)) as running:
        await running.chat()
        (record,) = await running.settled()
        total = (await saved(running))["total"]
        assert record.deployment == "strong"
        assert record.overhead_cost > 0
        assert causes(total) == {"discarded": -record.overhead_cost}
        assert total["otherwise"]["nano_usd"] == record.baseline_cost


async def test_a_second_opinion_is_taken_off_though_it_approves(tmp_path: Path) -> None:
    policies = f"[{CAP}, cheapest, {{cascade: {{samples: 2, min_price_ratio: 1}}}}]"
    async with gateway(config(tmp_path, "[here, strong]", "strong", policies=policies)) as running:
        await running.chat()
        (record,) = await running.settled()
        assert (record.deployment, running.provider.called) == ("here", 2)
        found = (await saved(running))["total"]
        assert causes(found)["discarded"] == -record.overhead_cost < 0
        assert found["paid"]["nano_usd"] == record.cost


async def test_what_shadows_cost_is_taken_off(tmp_path: Path) -> None:
    policies = f"[{CAP}, cheapest, {{shadow: {{by: strong, share: 1}}}}]"
    async with gateway(config(tmp_path, "[here, strong]", "strong", policies=policies)) as running:
        await running.chat()
        await running.gateway.parts.shadows.stop(10)
        records = await running.settled()
        shadows = sum(record.cost or 0 for record in records if record.shadow_of)
        (own,) = [record for record in records if not record.shadow_of]
        assert shadows > 0
        assert causes((await saved(running))["total"]) == {**own.savings, "shadows": -shadows}


async def test_groups_add_up_to_the_total_and_the_command_says_the_same(tmp_path: Path) -> None:
    text = config(tmp_path, "[here, there, strong]", "strong", "&cached=0.5")
    async with gateway(text) as running:
        for model, times in (("auto", 3), ("there", 2), ("strong", 1)):
            for number in range(times):
                await running.chat(model, f"Say hello {number}. " * 20)
        found = await saved(running, by="deployment")
        assert {each["deployment"] for each in found["data"]} == {"here", "there", "strong"}
        for part in ("paid", "otherwise", "net"):
            assert sum(each[part]["nano_usd"] for each in found["data"]) == found["total"][part]["nano_usd"]
        for each in found["data"]:
            causes(each)
        path = tmp_path / "gateway.yaml"
        path.write_text(text)
        words = [*TOLLGATE, "savings", "-c", str(path), "--by", "deployment"]

        async def told(*options: str) -> str:
            done = await asyncio.to_thread(
                subprocess.run, [*words, *options], capture_output=True, text=True, check=True
            )
            return done.stdout

        shown = json.loads(await told("--json"))
        assert {each["deployment"]: each["net_usd"] for each in shown} == {
            each["deployment"]: each["net"]["usd"] for each in found["data"]
        }
        table = await told()
        assert "routing*" in table
        assert "* modelled" in table


async def test_a_grouping_that_is_none_is_the_clients_mistake(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        reply = await running.client.get("/admin/v1/savings", params={"by": "colour"}, headers=headers)
        assert reply.status_code == 400
        assert "colour" in reply.json()["error"]["message"]


@pytest.mark.parametrize("candidates", ["[here]", "[here, there]", "[there, strong, here]"])
async def test_every_record_is_explained_whatever_served_it(tmp_path: Path, candidates: str) -> None:
    async with gateway(config(tmp_path, candidates, "strong", "&cached=0.3&reasoning=5")) as running:
        await running.chat(text="Say hello. " * 20)
        (record,) = await running.settled()
        assert record.cost is not None
        uncached = sum(record.tokens.get(kind, 0) for kind in ("input", "cache_read"))
        out = record.tokens["output"] + record.tokens["reasoning"]
        assert record.cost + sum(record.savings.values()) == 1000 * (uncached * 10 + out * 30)
