"""Another plan answers too, unheard: who pays, what is kept, and that no client ever notices."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import ADMIN_KEY, KEY, Running, Visitor, gateway

from gateway.accounts import shared_lines
from gateway.plan import Aside
from gateway.shadows.beside import WAITING_MAX
from gateway.types import NANO, Outcome, Record

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: cheap, provider: simulated, upstream_model: "sim-cheap?first_token_ms=0&{cheap}",
      price: {{input: 0.1, output: 0.1}}, context_max: 128000, output_max: 4096}}
  - {{id: strong, provider: simulated, upstream_model: "sim-strong?first_token_ms=0&{strong}",
      price: {{input: 10, output: 10}}, context_max: 128000, output_max: 4096}}
  - {{id: grader, provider: simulated, upstream_model: "sim-grader?first_token_ms=0",
      price: {{input: 1, output: 1}}, context_max: 128000, output_max: 4096, tier: {tier}}}
routes:
  auto:
    candidates: [cheap, strong]
    baseline: strong
    policies: [{{output_cap: {{default: 100, max: 1000}}}}, cheapest, {{shadow: {policy}}}]
  other: {{candidates: [strong], policies: [{{output_cap: {{default: 100}}}}]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], models: {models},
      budgets: [{{limit_usd: {limit}, window: day}}]}}
"""
ALL = "{by: strong, share: 1}"


def config(folder: Path, policy: str = ALL, limit: str = "100", **scripts: str) -> str:
    folder.mkdir(exist_ok=True)
    known = {"cheap": "output=10", "strong": "output=10", "tier": '""', "models": '["*"]'} | scripts
    return CONFIG.format(folder=folder, policy=policy, limit=limit, **known)


async def records(served: Running) -> tuple[Record, list[Record]]:
    """The client's own one, and those of its shadow."""
    await served.gateway.parts.shadows.stop(10)
    found = await served.settled()
    (own,) = [record for record in found if not record.shadow_of]
    return own, [record for record in found if record.shadow_of]


async def spent(served: Running) -> dict[str, tuple[int, int]]:
    site = served.gateway.sites.current
    lines = shared_lines(site.directory.tenants, site.settings.limits, now=time.time())
    balances = await served.gateway.parts.ledger.balances(lines)
    return {balance.account.id: (balance.spent, balance.reserved) for balance in balances}


def counted(served: Running, result: str) -> float:
    series = f'tollgate_shadows_total{{result="{result}",route="auto"}} '
    text = served.gateway.parts.metrics.render().decode()
    return sum(float(line.removeprefix(series)) for line in text.splitlines() if line.startswith(series))


async def outcomes(served: Running) -> list[dict[str, Any]]:
    headers = {"authorization": f"Bearer {ADMIN_KEY}"}
    while await served.gateway.parts.recorder.round():
        continue
    reply = await served.client.get("/admin/v1/outcomes", params={"since": "0"}, headers=headers)
    found: list[dict[str, Any]] = reply.json()["data"]
    return found


@pytest.mark.parametrize("stream", [False, True])
async def test_the_other_plan_answers_too_and_one_record_says_what_that_cost(tmp_path: Path, stream: bool) -> None:
    async with gateway(config(tmp_path)) as served:
        reply = await served.chat(stream=stream)
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "cheap")
        own, (shadow,) = await records(served)
        assert (own.deployment, own.overhead_cost, own.shadow_of) == ("cheap", 0, "")
        assert (shadow.tenant, shadow.route, shadow.deployment) == ("shadow:auto", "auto", "strong")
        assert (shadow.shadow_of, shadow.outcome, shadow.stream) == (own.id, Outcome.OK, stream)
        assert shadow.cost
        assert (shadow.overhead_cost, shadow.baseline_cost) == (shadow.cost, 0), "nobody would have asked"
        assert shadow.cost == sum(shadow.components.values())
        assert counted(served, "compared") == 1


async def test_records_ledger_and_metrics_tell_the_same_and_savings_are_net_of_shadows(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        await asyncio.gather(*(served.chat(text=f"Question {n}") for n in range(8)))
        await served.gateway.parts.shadows.stop(10)
        found = await served.settled()
        assert len(found) == 16
        by_tenant = {
            tenant: sum(record.cost or 0 for record in found if record.tenant == tenant)
            for tenant in ("acme", "shadow:auto")
        }
        assert await spent(served) == {tenant: (cost, 0) for tenant, cost in by_tenant.items()}
        metrics = served.gateway.parts.metrics
        assert metrics.nano_usd("tollgate_overhead_cost_usd") == {("shadow:auto", "auto"): by_tenant["shadow:auto"]}
        compared = sum(metrics.nano_usd("tollgate_compared_cost_usd").values())
        assert compared == sum(by_tenant.values())
        baseline = sum(metrics.nano_usd("tollgate_baseline_cost_usd").values())
        assert baseline == sum(record.baseline_cost or 0 for record in found if record.tenant == "acme")


async def test_a_budget_of_shadows_is_never_passed_and_no_tenant_pays(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: strong, share: 1, budget_usd: 0.003}", limit="0.01")) as served:
        for turn in range(4):
            replies = await asyncio.gather(*(served.chat(text=f"Question {turn} {n}") for n in range(12)))
            assert {reply.status_code for reply in replies} == {200}
        await served.gateway.parts.shadows.stop(10)
        found = await served.settled()
        balances = await spent(served)
        own = sum(record.cost or 0 for record in found if record.tenant == "acme")
        assert balances["acme"] == (own, 0)
        shadows = [record for record in found if record.shadow_of]
        assert balances["shadow:auto"] == (sum(record.cost or 0 for record in shadows), 0)
        assert 0 < balances["shadow:auto"][0] <= 0.003 * NANO
        assert counted(served, "over_budget") > 0
        assert counted(served, "over_budget") + counted(served, "compared") == 48
        assert len(shadows) == counted(served, "compared")


async def test_a_tenant_whose_budget_is_nearly_gone_still_gets_what_it_would_have_got(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, limit="0.00002")) as served:
        statuses = [(await served.chat(text=f"{n}")).status_code for n in range(12)]
        await served.gateway.parts.shadows.stop(10)
        with_shadows = statuses.count(200)
    async with gateway(config(tmp_path / "b", ALL.replace("1", "0"), limit="0.00002")) as served:
        statuses = [(await served.chat(text=f"{n}")).status_code for n in range(12)]
    assert with_shadows == statuses.count(200) > 0


async def test_the_same_requests_are_drawn_wherever_they_come(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: strong, share: 0.3}")) as served:
        for n in range(30):
            await served.chat(text=f"{n}")
        await served.gateway.parts.shadows.stop(10)
        found = await served.settled()
        aside = Aside("strong", 0.3, 0)
        drawn = {record.id for record in found if not record.shadow_of and aside.draws(record.id)}
        assert {record.shadow_of for record in found if record.shadow_of} == drawn


async def test_the_client_has_its_answer_before_anyone_else_is_asked(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, strong="output=10&latency_ms=60000")) as served:
        body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
        visitor = Visitor(served.gateway, "/v1/chat/completions", json.dumps(body).encode())
        await visitor.visit()
        assert visitor.status == 200
        assert served.provider.called == 1
        await until_called(served, 2)
        await served.gateway.parts.shadows.stop()
        (shadow,) = [record for record in await served.settled() if record.shadow_of]
        assert shadow.outcome is Outcome.CLIENT_GONE, "it was given up, and what it may have cost is paid"
        assert shadow.cost
        assert counted(served, "given_up") == 1
        assert (await spent(served))["shadow:auto"] == (shadow.cost, 0)


async def test_so_many_may_wait_and_no_more(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: strong, share: 1, budget_usd: 1000}", strong="stall=headers")) as served:
        for n in range(WAITING_MAX + 5):
            await served.chat(text=f"{n}", max_tokens=5)
        assert counted(served, "crowded") == 5
        assert served.provider.called <= WAITING_MAX + 5 + 4
        await served.gateway.parts.shadows.stop()
        assert counted(served, "given_up") == WAITING_MAX
        assert (await spent(served))["shadow:auto"][1] == 0


async def test_a_shadow_that_fails_is_counted_and_costs_nothing(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, strong="status=500")) as served:
        assert (await served.chat()).status_code == 200
        _, (shadow,) = await records(served)
        assert (shadow.outcome, shadow.cost) == (Outcome.UPSTREAM_ERROR, 0)
        assert counted(served, "failed") == 1
        assert await outcomes(served) == []


@pytest.mark.parametrize(
    ("strong", "agreement", "kind"),
    [("output=10", 1.0, "exact"), ("refusal=1", 0.0, "exact"), ("output=90", 1.0, "likeness")],
)
async def test_agreement_is_a_metric_and_where_it_is_exact_a_label(
    tmp_path: Path, strong: str, agreement: float, kind: str
) -> None:
    long = "Tell me everything. " * 5
    async with gateway(config(tmp_path, cheap="echo=1" if kind == "exact" else "output=90", strong=strong)) as served:
        if kind == "exact" and agreement:
            served.provider.handle_async_request = _answering(served, {"sim-cheap": "So it is 42.", "sim-strong": "42"})
        await served.chat(text=long)
        own, _ = await records(served)
        text = served.gateway.parts.metrics.render().decode()
        labels = f'{{deployment="cheap",kind="{kind}",other="strong",route="auto"}}'
        assert f"tollgate_shadow_agreement_total{labels} {agreement}" in text
        assert f"tollgate_shadow_compared_total{labels} 1.0" in text
        said = await outcomes(served)
        if kind == "likeness":
            assert said == [], "words in common say nothing of quality"
        else:
            assert [(each["deployment"], each["mean"]) for each in said] == [("cheap", agreement)]
        assert own.deployment == "cheap"


async def test_what_clients_say_of_an_answer_counts_more_than_a_comparison(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, strong="refusal=1")) as served:
        reply = await served.chat()
        await records(served)
        said = {"outcomes": [{"request": reply.headers["x-tollgate-request-id"], "score": 0.75}]}
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        assert [each["mean"] for each in await outcomes(served)] == [0.0]
        await served.client.post("/admin/v1/outcomes", json=said, headers=headers)
        assert [each["mean"] for each in await outcomes(served)] == [0.75]
        said["outcomes"][0]["source"] = "shadow:exact"
        refused = await served.client.post("/admin/v1/outcomes", json=said, headers=headers)
        assert refused.status_code == 400, "what the gateway compares only the gateway says"


async def test_a_new_cheap_model_can_be_measured_by_what_is_served(tmp_path: Path) -> None:
    policy = "{by: cheap, share: 1, reference: served}"
    async with gateway(config(tmp_path, policy, cheap="refusal=1")) as served:
        await served.client.post(
            "/v1/chat/completions",
            json={"model": "other", "messages": [{"role": "user", "content": "hi"}]},
            headers={"authorization": f"Bearer {KEY}"},
        )
        assert served.provider.called == 1, "the other route has no shadow"
    text = config(tmp_path / "b", policy, cheap="refusal=1").replace("cheapest,", "{fallback: {order: [strong]}},")
    async with gateway(text) as served:
        await served.chat()
        await records(served)
        assert [(each["deployment"], each["mean"]) for each in await outcomes(served)] == [("cheap", 0.0)]


async def test_a_model_may_compare_and_its_call_is_a_shadow_too(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: strong, share: 1, llm: grader}")) as served:
        seen: list[dict[str, Any]] = []
        served.provider.handle_async_request = _answering(served, {"sim-grader": "85"}, seen)
        await served.chat(text="What is the sea?")
        own, shadows = await records(served)
        assert [record.deployment for record in shadows] == ["strong", "grader"]
        assert {record.shadow_of for record in shadows} == {own.id}
        assert all(record.overhead_cost == record.cost for record in shadows)
        asked = json.dumps(seen)
        assert "What is the sea?" in asked
        assert "<reference>" in asked
        assert (await outcomes(served))[0]["mean"] == 0.85
        cost = sum(record.cost or 0 for record in shadows)
        assert (await spent(served))["shadow:auto"] == (cost, 0)


async def test_a_shadow_may_go_where_its_tenant_may_and_nowhere_else(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: other, share: 1}")) as served:
        await served.chat()
        _, (shadow,) = await records(served)
        assert (shadow.model, shadow.route, shadow.deployment) == ("other", "auto", "strong")
    async with gateway(config(tmp_path / "b", "{by: other, share: 1}", models="[auto]")) as served:
        assert (await served.chat()).status_code == 200
        assert (await records(served))[1] == []
        assert counted(served, "failed") == 1
    async with gateway(config(tmp_path / "c", "{by: grader, share: 1}", tier="frontier")) as served:
        assert (await served.chat()).status_code == 200
        assert (await records(served))[1] == []


async def test_nothing_of_the_client_is_in_a_shadow_record_but_whose_request_it_repeats(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        headers = {"authorization": f"Bearer {KEY}", "x-tollgate-user": "u1", "x-tollgate-task": "t1"}
        headers |= {"x-tollgate-tags": "feature=search", "x-tollgate-max-cost-usd": "0.0005"}
        body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
        await served.client.post("/v1/chat/completions", json=body, headers=headers)
        own, (shadow,) = await records(served)
        assert (own.user, own.task, dict(own.tags)) == ("u1", "t1", {"feature": "search"})
        assert (shadow.user, shadow.task, dict(shadow.tags), shadow.key) == ("", "", {}, "")
        assert shadow.outcome is Outcome.OK, "what a client will pay for one request is for its own"


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2},
        {"tools": [{"type": "web_search"}]},
        {"web_search_options": {}, "tools": [{"type": "mcp"}]},
        {"audio": {"voice": "alloy"}},
    ],
)
async def test_what_would_do_something_twice_is_not_repeated(tmp_path: Path, more: dict[str, Any]) -> None:
    async with gateway(config(tmp_path)) as served:
        await served.chat(**more)
        await served.gateway.parts.shadows.stop(10)
        assert not [record for record in await served.settled() if record.shadow_of]


async def test_the_answer_of_the_same_deployment_is_not_asked_for_again(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{by: cheap, share: 1}")) as served:
        await served.chat()
        await served.gateway.parts.shadows.stop(10)
        assert served.provider.called == 1
        assert counted(served, "same") == 1


async def test_messages_and_responses_have_shadows_that_leave_nothing_with_the_provider(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        await served.anthropic().messages.create(
            model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}]
        )
        await served.openai().responses.create(model="auto", input="hi")
        await served.gateway.parts.shadows.stop(10)
        shadows = [record for record in await served.settled() if record.shadow_of]
        assert sorted(record.endpoint for record in shadows) == ["messages", "responses"]
        assert counted(served, "compared") == 2


async def until_called(served: Running, times: int) -> None:
    while served.provider.called < times:  # noqa: ASYNC110 - the transport has no event for it
        await asyncio.sleep(0.001)


def _answering(served: Running, answers: dict[str, str], seen: list[dict[str, Any]] | None = None) -> Any:
    """The simulated provider, but these models answer with these texts."""
    plain = served.provider.handle_async_request

    async def answered(request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        text = answers.get(body["model"].partition("?")[0])
        if text is None:
            return await plain(request)
        if seen is not None:
            seen.append(body)
        usage = {"prompt_tokens": 50, "completion_tokens": 5, "total_tokens": 55}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return httpx.Response(
            200, json={"id": "x", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}
        )

    return answered
