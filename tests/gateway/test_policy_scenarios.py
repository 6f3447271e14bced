"""The scenarios of docs/policies.md, as they stand there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from harness import KEY, Running, gateway

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
BLOCK = re.compile(r"```yaml\n# scenario: (\w+)\n(.*?)```", re.DOTALL)
SCENARIOS: dict[str, str] = dict(BLOCK.findall(PAGE.read_text()))
REST = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
tenants: [{{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], budgets: [{{limit_usd: 5, window: day}}]}}]
"""


@asynccontextmanager
async def scenario(name: str, folder: Path, *changes: tuple[str, str]) -> AsyncIterator[Running]:
    text = SCENARIOS["deployments"] + SCENARIOS[name]
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    async with gateway(REST.format(folder=folder) + text) as served:
        yield served


async def ask(served: Running, *texts: str, **more: Any) -> Any:
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(texts)]
    headers = {"authorization": f"Bearer {KEY}", **more.pop("headers", {})}
    body = {"model": "auto", "messages": turns, **more}
    reply = await served.client.post("/v1/chat/completions", json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    return reply


async def where(served: Running, *texts: str, **more: Any) -> str:
    return str((await ask(served, *texts, **more)).headers["x-tollgate-deployment"])


async def test_every_scenario_on_the_page_is_run_here() -> None:
    here = {name.removeprefix("test_").partition("__")[0] for name in globals() if "__" in name}
    assert set(SCENARIOS) - {"deployments"} <= here


async def test_affinity__a_conversation_stays_where_it_was_read(tmp_path: Path) -> None:
    long = "Tell me about the sea and everything in it, at length. " * 200
    async with scenario("affinity", tmp_path) as served:
        assert await where(served, "Short.") == "small"
        reply = await served.chat("small-eu", long)  # where the first turn went, for whatever reason
        answer = reply.json()["choices"][0]["message"]["content"]
        again = await ask(served, long, answer, "Go on.")
        assert again.headers["x-tollgate-deployment"] == "small-eu"
        assert "affinity" in again.headers["x-tollgate-reasons"]
        assert await where(served, "Another. " + long) == "small"


async def test_reasoning_cap__the_ceiling_is_sent_upstream_and_bounds_the_hold(tmp_path: Path) -> None:
    async with scenario("reasoning_cap", tmp_path) as served:
        reply = await ask(served, "Think.")
        assert reply.json()["usage"]["completion_tokens"] == 200  # 400 of reasoning were wanted
        (record,) = await served.settled()
        assert record.reasons == "reasoning capped at low"
        assert record.cost is not None
        assert record.cost <= record.reserved < 10_000 * 300


async def test_arbitrage__nothing_runs_outside_its_regions(tmp_path: Path) -> None:
    async with scenario("arbitrage", tmp_path) as served:
        assert {await where(served, f"{n}") for n in range(3)} == {"small-eu"}


async def test_weighted__a_tenth_of_the_users_try_the_new_one_and_stay_there(tmp_path: Path) -> None:
    async with scenario("weighted", tmp_path) as served:
        first = {user: await where(served, "hi", user=f"u{user}") for user in range(40)}
        second = {user: await where(served, "and now?", user=f"u{user}") for user in range(40)}
        assert first == second
        assert 0 < list(first.values()).count("small-eu") < 12


async def test_sticky__each_user_keeps_a_place_and_both_places_are_used(tmp_path: Path) -> None:
    async with scenario("sticky", tmp_path) as served:
        first = [await where(served, "hi", user=f"u{user}") for user in range(12)]
        assert first == [await where(served, "and now?", user=f"u{user}") for user in range(12)]
        assert set(first) == {"small", "small-eu"}


async def test_fallback__the_next_in_order_answers_when_the_first_fails(tmp_path: Path) -> None:
    async with scenario("fallback", tmp_path) as served:
        assert await where(served, "hi") == "large"
    async with scenario("fallback", tmp_path, ("sim-large?", "sim-large?status=500&")) as served:
        assert await where(served, "hi") == "small-eu"


async def test_skill__the_task_says_who(tmp_path: Path) -> None:
    async with scenario("skill", tmp_path) as served:
        assert await where(served, "hi") == "small"
        assert await where(served, "hi", headers={"x-tollgate-tags": "skill=law"}) == "large"


async def test_shadow__half_are_answered_twice_and_the_savings_are_what_is_left(tmp_path: Path) -> None:
    async with scenario("shadow", tmp_path) as served:
        assert {await where(served, f"Question {n}") for n in range(20)} == {"small"}
        await served.gateway.parts.shadows.stop(10)
        records = await served.settled()
        shadows = [record for record in records if record.shadow_of]
        assert 2 < len(shadows) < 18
        assert {record.deployment for record in shadows} == {"large"}
        gross = sum((record.baseline_cost or 0) - (record.cost or 0) for record in records if not record.shadow_of)
        net = sum((record.baseline_cost or 0) - (record.cost or 0) for record in records)
        assert net == gross - sum(record.cost or 0 for record in shadows)


async def test_cascade__a_poor_answer_costs_a_little_and_a_good_one_saves_a_lot(tmp_path: Path) -> None:
    async with scenario("cascade", tmp_path) as served:
        assert await where(served, "Say hello.") == "small"
        (record,) = await served.settled()
        assert record.cost is not None
        assert record.baseline_cost is not None
        assert record.cost * 20 <= record.baseline_cost
    async with scenario("cascade", tmp_path, ("sim-small?", "sim-small?refusal=1&")) as served:
        assert await where(served, "Say hello.") == "large"
        (record,) = await served.settled()
        assert record.cost is not None
        assert 0 < record.overhead_cost < record.cost / 50
