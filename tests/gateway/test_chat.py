"""Chat and messages through the whole application, with the official SDKs as clients."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import config, gateway

from gateway.money import nano


async def test_an_answer_names_the_cheapest_deployment_its_cost_and_what_is_left(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        reply = await running.chat(max_tokens=50)
        assert reply.status_code == 200, reply.text
        usage = reply.json()["usage"]
        cost = usage["prompt_tokens"] * 1000 + usage["completion_tokens"] * 1000  # $1 a million is 1000 nano a token
        assert reply.headers["x-tollgate-deployment"] == "small"
        assert reply.headers["x-tollgate-route"] == "auto"
        assert nano(reply.headers["x-tollgate-cost-usd"]) == cost
        assert nano(reply.headers["x-tollgate-budget-remaining-usd"]) == nano(100) - cost
        [record] = await running.settled()
        assert (record.cost, record.tenant, record.model, record.deployment) == (cost, "acme", "auto", "small")
        assert record.baseline_cost == usage["prompt_tokens"] * 10_000 + usage["completion_tokens"] * 30_000


async def test_the_openai_sdk_streams_and_sees_usage_and_cost_only_when_it_asks(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        client = running.openai()
        messages = [{"role": "user", "content": "Count to three."}]
        plain = await client.chat.completions.create(model="auto", messages=messages, stream=True, max_tokens=30)
        chunks = [chunk async for chunk in plain]
        assert all(chunk.choices for chunk in chunks)
        assert all(chunk.usage is None for chunk in chunks)
        asked = await client.chat.completions.create(
            model="auto", messages=messages, stream=True, max_tokens=30, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in asked]
        assert chunks[-1].choices == []
        usage = chunks[-1].usage
        assert usage is not None
        unasked, record = await running.settled()
        assert unasked.cost == record.cost
        assert (
            nano(str(usage.model_extra["cost"]))
            == record.cost
            == (usage.prompt_tokens + usage.completion_tokens) * 1000
        )


async def test_the_anthropic_sdk_is_served_by_an_openai_upstream(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        client = running.anthropic()
        message = await client.messages.create(
            model="auto", max_tokens=40, messages=[{"role": "user", "content": "Hello."}]
        )
        assert message.content[0].type == "text"
        assert message.usage.output_tokens > 0
        async with client.messages.stream(
            model="small", max_tokens=40, messages=[{"role": "user", "content": "Hello."}]
        ) as stream:
            final = await stream.get_final_message()
        assert final.stop_reason in {"end_turn", "max_tokens"}
        records = await running.settled()
        assert [record.endpoint for record in records] == ["messages", "messages"]
        assert all(record.cost for record in records)


async def test_counting_tokens_costs_nothing_and_calls_nobody(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        count = await running.anthropic().messages.count_tokens(
            model="small", messages=[{"role": "user", "content": "Hello there."}]
        )
        assert count.input_tokens > 0
        assert running.provider.called == 0
        assert running.records == []


async def test_models_lists_routes_and_deployments_of_the_key(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        page = await running.openai().models.list()
        assert [model.id for model in page.data] == ["auto", "large", "small"] or {m.id for m in page.data} == {
            "auto",
            "small",
            "large",
        }
        assert (await running.openai().models.retrieve("small")).id == "small"


async def test_the_output_cap_of_the_route_is_what_the_provider_gets(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&output=5000")) as running:
        reply = await running.chat()
        assert reply.json()["usage"]["completion_tokens"] == 256
        assert reply.json()["choices"][0]["finish_reason"] == "length"


ROUTE = """  {name}:
    candidates: [large, small]
    policies: [{policies}]
"""
POLICIES = {
    "none": "",
    "cheapest": "cheapest",
    "capped": "{output_cap: {default: 256, max: 4096}}",
    "difficult": "cheapest, {difficulty: {}}",
    "cascaded": "cheapest, {cascade: {}}",
    "drawn": "{weighted: {weights: {large: 1, small: 1}}}",
    "reasoned": "{reasoning_cap: {easy: none, medium: low, hard: medium}}",
}


@pytest.mark.parametrize("policies", POLICIES.values(), ids=POLICIES)
async def test_a_clients_own_maximum_is_what_the_provider_gets_whatever_the_route_does(
    tmp_path: Path, policies: str
) -> None:
    text = config(tmp_path, script="?first_token_ms=0&output=5000")
    text = text.replace("tenants:\n", ROUTE.format(name="other", policies=policies) + "tenants:\n")
    async with gateway(text) as running:
        for field in ("max_tokens", "max_completion_tokens"):
            reply = await running.chat("other", **{field: 40})
            assert reply.json()["usage"]["completion_tokens"] == 40, reply.text
        for record in await running.settled():
            assert record.reserved < 2 * 100 * 30_000  # both models, question and answer


@pytest.mark.parametrize("fault", ["status=503", "error=before", "reset=connect", "reset=before"])
async def test_a_failure_before_the_first_byte_is_invisible_to_the_client(tmp_path: Path, fault: str) -> None:
    text = config(tmp_path).replace("sim-small?first_token_ms=0", f"sim-small?{fault}")
    async with gateway(text) as running:
        reply = await running.chat(max_tokens=20)
        if fault == "error=before":
            assert reply.status_code in {200, 502}
            return
        assert reply.status_code == 200, reply.text
        assert reply.headers["x-tollgate-deployment"] == "large"
        assert reply.headers["x-tollgate-attempts"] == "2"
        [record] = await running.settled()
        assert record.attempts == 2


async def test_when_every_deployment_fails_the_client_is_told_and_nothing_is_charged(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?status=500")) as running:
        reply = await running.chat()
        assert reply.status_code == 502
        assert reply.json()["error"]["code"] == "upstream_error"
        [record] = await running.settled()
        assert (record.cost, record.status, record.outcome) == (0, 502, "upstream_error")


async def test_missing_usage_is_charged_by_our_own_count_and_marked(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&no_usage=1&output=40")) as running:
        reply = await running.chat(max_tokens=60)
        assert reply.status_code == 200, reply.text
        [record] = await running.settled()
        assert record.estimated
        assert 38 <= record.tokens["output"] <= 42


async def test_every_request_is_counted_once_and_denials_by_the_budget_that_denied(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, limit="0.0000001")) as running:
        await running.chat("small")
        await running.chat("nothing")
        lines = (await running.client.get("/metrics")).text.splitlines()
        counted = [line for line in lines if line.startswith("tollgate_requests_total{")]
        assert sum(float(line.rpartition(" ")[2]) for line in counted) == 2
        denied = 'tollgate_budget_denials_total{account="tenant",tenant="acme",window="day"} 1.0'
        assert denied in lines
    async with gateway(config(tmp_path, script="?status=500")) as running:
        await running.chat("small")
        lines = (await running.client.get("/metrics")).text.splitlines()
        counted = [line for line in lines if line.startswith("tollgate_requests_total{")]
        assert sum(float(line.rpartition(" ")[2]) for line in counted) == 1
