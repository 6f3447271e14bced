"""Cheap first, judged, and only then the strong model: what the client gets, what it costs, and who is told."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import KEY, Running, Visitor, gateway

from gateway.accounts import shared_lines
from gateway.types import NANO, Outcome, Record

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: cheap, provider: simulated, upstream_model: "sim-cheap?first_token_ms=0&{cheap}",
      price: {{input: 0.1, output: 0.1}}, context_max: 128000, output_max: 4096}}
  - {{id: other, provider: simulated, upstream_model: "sim-other?first_token_ms=0&{other}",
      price: {{input: 0.2, output: 0.2}}, context_max: 128000, output_max: 4096}}
  - {{id: strong, provider: simulated, upstream_model: "sim-strong?first_token_ms=0&{strong}",
      price: {{input: 10, output: 10}}, context_max: 128000, output_max: 4096}}
routes:
  auto:
    candidates: [cheap, other, strong]
    baseline: strong
    policies: [{{output_cap: {{default: 100, max: 1000}}}}, cheapest, {{cascade: {policy}}}]
tenants:
  - {{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], budgets: [{{limit_usd: {limit}, window: day}}]}}
"""


def config(folder: Path, policy: str = "{}", limit: str = "100", **scripts: str) -> str:
    known = {"cheap": "output=10", "other": "output=10", "strong": "output=20"} | scripts
    return CONFIG.format(folder=folder, policy=policy, limit=limit, **known)


async def only(served: Running) -> Record:
    (record,) = await served.settled()
    return record


def exact(record: Record) -> None:
    assert record.cost == sum(record.components.values())


async def test_a_good_cheap_answer_is_all_there_is(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as served:
        reply = await served.chat()
        assert reply.headers["x-tollgate-deployment"] == "cheap"
        assert served.provider.called == 1
        record = await only(served)
        assert (record.outcome, record.deployment, record.overhead_cost) == (Outcome.OK, "cheap", 0)
        exact(record)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("refusal=1", "refusal"),
        ("finish=length", "truncated"),
        ("output=0", "empty"),
        ("finish=content_filter", "refusal"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_poor_answer_is_paid_for_thrown_away_and_shown_as_overhead(
    tmp_path: Path, script: str, reason: str, stream: bool
) -> None:
    async with gateway(config(tmp_path, cheap=script)) as served:
        reply = await served.chat(stream=stream)
        assert reply.status_code == 200
        assert reply.headers["x-tollgate-deployment"] == "strong"
        assert "I cannot help with that" not in reply.text
        record = await only(served)
        assert (record.deployment, record.attempts, served.provider.called) == ("strong", 2, 2)
        assert 0 < record.overhead_cost < 20_000
        assert record.cost is not None
        assert record.cost > record.overhead_cost
        assert f"cascade: escalated, {reason}" in record.reasons
        exact(record)
        metrics = served.gateway.parts.metrics
        assert metrics.nano_usd("tollgate_overhead_cost_usd") == {("acme", "auto"): record.overhead_cost}
        assert f'tollgate_escalations_total{{reason="{reason}",route="auto"}} 1.0' in metrics.render().decode()


async def test_the_hold_is_the_sum_of_all_steps_and_is_given_back(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, cheap="refusal=1")) as served:
        await served.chat()
        record = await only(served)
        assert record.cost is not None
        assert record.reserved > 100 * 10_000 + 100 * 100
        lines = served.gateway.sites.current.pipeline
        balances = await lines.parts.ledger.balances(_lines(served))
        assert [(each.spent, each.reserved) for each in balances] == [(record.cost, 0)]


async def test_where_the_budget_holds_no_second_opinion_the_first_answer_stands(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, limit="0.0005", cheap="refusal=1")) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "cheap")
        assert (await only(served)).overhead_cost == 0


async def test_many_cascades_at_once_never_spend_more_than_the_cap(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{agree: 2}", limit="0.01", other="output=30", strong="output=90")) as served:
        replies = await asyncio.gather(*(served.chat(text=f"Question {n}") for n in range(40)))
        assert {reply.status_code for reply in replies} <= {200, 429}
        (balance,) = await served.gateway.parts.ledger.balances(_lines(served))
        records = await served.settled()
        assert balance.reserved == 0
        assert balance.spent == sum(record.cost or 0 for record in records) <= 10_000_000
        assert {record.deployment for record in records} == {"cheap", "strong"}, "some found no room for a cascade"
        assert any(record.overhead_cost for record in records)


async def test_what_one_request_may_cost_holds_for_the_whole_cascade(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, cheap="refusal=1")) as served:
        await served.chat()
        whole = (await only(served)).reserved
        for most, who in ((whole, "strong"), (whole - 1, "cheap")):
            headers = {"authorization": f"Bearer {KEY}", "x-tollgate-max-cost-usd": f"{most / NANO:.9f}"}
            body = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}
            reply = await served.client.post("/v1/chat/completions", json=body, headers=headers)
            assert reply.headers["x-tollgate-deployment"] == who


async def test_a_cascade_that_would_not_pay_is_none(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{min_price_ratio: 1000}", cheap="refusal=1")) as served:
        await served.chat()
        record = await only(served)
        assert record.deployment == "cheap"
        assert "would not pay" in record.reasons


async def test_when_the_strong_model_fails_the_held_answer_is_better_than_none(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, cheap="finish=length", strong="status=500")) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "cheap")
        record = await only(served)
        assert (record.outcome, record.overhead_cost) == (Outcome.OK, 0)
        exact(record)


async def test_when_the_cheap_one_fails_the_strong_one_answers(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, cheap="status=500")) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "strong")
        assert (await only(served)).overhead_cost == 0


@pytest.mark.parametrize(("other", "winner", "calls"), [("output=10", "cheap", 2), ("output=30", "strong", 3)])
async def test_two_cheap_models_that_agree_are_enough(tmp_path: Path, other: str, winner: str, calls: int) -> None:
    async with gateway(config(tmp_path, "{agree: 2}", other=other)) as served:
        reply = await served.chat()
        assert (reply.headers["x-tollgate-deployment"], served.provider.called) == (winner, calls)
        record = await only(served)
        assert record.overhead_cost > 0
        exact(record)


async def test_one_model_asked_thrice_must_say_the_same(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{samples: 3}")) as served:
        reply = await served.chat()
        assert (reply.headers["x-tollgate-deployment"], served.provider.called) == ("cheap", 3)


@pytest.mark.parametrize(("grade", "winner"), [("93", "cheap"), ("20", "strong"), ("no idea", "strong")])
async def test_a_model_that_grades_decides_and_its_call_is_overhead(tmp_path: Path, grade: str, winner: str) -> None:
    policy = "{llm: other, score_min: 0.7}"
    async with gateway(config(tmp_path, policy)) as served:
        seen: list[dict[str, Any]] = []
        _answer_with(served, "sim-other", grade, seen)
        reply = await served.chat()
        assert reply.headers["x-tollgate-deployment"] == winner
        assert "Say hello." in json.dumps(seen)
        record = await only(served)
        assert record.overhead_cost > 0
        exact(record)


async def test_a_stream_is_held_with_comments_until_it_is_judged(tmp_path: Path) -> None:
    script = "output=5&tps=50&refusal=1"
    async with gateway(config(tmp_path, "{keep_alive_s: 0.01}", cheap=script)) as served:
        reply = await served.chat(stream=True)
        assert reply.text.startswith(": still thinking\n\n")
        assert reply.text.rstrip().endswith("data: [DONE]")
        assert "I cannot" not in reply.text
        assert (await only(served)).deployment == "strong"


async def test_the_official_client_reads_a_held_stream(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{keep_alive_s: 0.01}", cheap="output=5&tps=50")) as served:
        stream = await served.openai().chat.completions.create(
            model="auto", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices])
        assert text
        assert (await only(served)).deployment == "cheap"


async def test_a_stream_that_begun_with_comments_and_then_fails_says_so_inside(tmp_path: Path) -> None:
    served_config = config(tmp_path, "{keep_alive_s: 0.01}", cheap="tps=50&reset=middle", strong="status=500")
    async with gateway(served_config) as served:
        reply = await served.chat(stream=True)
        assert reply.status_code == 200
        assert '"error"' in reply.text


async def test_a_stream_that_begins_well_goes_through_before_it_is_whole(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{early_chars: 40}", cheap="output=60")) as served:
        reply = await served.chat(stream=True)
        assert reply.headers["x-tollgate-deployment"] == "cheap"
        assert reply.text.count("[DONE]") == 1
        record = await only(served)
        assert (record.outcome, record.overhead_cost) == (Outcome.OK, 0)


async def test_a_stream_that_begins_with_a_refusal_never_reaches_the_client(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{early_chars: 10}", cheap="refusal=1")) as served:
        reply = await served.chat(stream=True)
        assert reply.headers["x-tollgate-deployment"] == "strong"
        assert "I cannot" not in reply.text


async def test_an_answer_that_takes_too_long_is_left_and_paid_for(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "{trial_ms_max: 60}", cheap="latency_ms=30000")) as served:
        reply = await served.chat()
        assert reply.headers["x-tollgate-deployment"] == "strong"
        record = await only(served)
        assert "cascade: escalated, late" in record.reasons
        assert record.overhead_cost > 0
        assert record.estimated
        assert record.latency_ms < 10_000


async def test_a_client_that_leaves_while_it_waits_pays_for_what_was_tried(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, cheap="refusal=1", strong="latency_ms=30000")) as served:
        body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}]}
        visitor = Visitor(served.gateway, "/v1/chat/completions", json.dumps(body).encode())
        visit = visitor.visit()
        asked = asyncio.Event()
        plain = served.provider.handle_async_request

        async def seen(call: httpx.Request) -> httpx.Response:
            if b"sim-strong" in await call.aread():
                asked.set()
            return await plain(call)

        served.provider.handle_async_request = seen  # type: ignore[method-assign]
        await asked.wait()
        visitor.leave()
        await visit
        record = await only(served)
        assert record.outcome is Outcome.CLIENT_GONE
        assert record.overhead_cost > 0
        balances = await served.gateway.parts.ledger.balances(_lines(served))
        assert [each.reserved for each in balances] == [0]


async def test_messages_and_tools_are_judged_as_chat_is(tmp_path: Path) -> None:
    tools: list[Any] = [{"name": "look", "input_schema": {"type": "object"}}]
    async with gateway(config(tmp_path, cheap="tool=book", strong="tool=look")) as served:
        reply = await served.anthropic().messages.create(
            model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}], tools=tools
        )
        assert reply.content[0].type == "tool_use"
        record = await only(served)
        assert record.deployment == "strong"
        assert "invalid_tool_call" in record.reasons


def _lines(served: Running) -> Any:
    site = served.gateway.sites.current
    return shared_lines(site.directory.tenants, site.settings.limits, now=time.time())


def _answer_with(served: Running, model: str, text: str, seen: list[dict[str, Any]]) -> None:
    """The simulated provider answers calls of `model` with this text."""
    plain = served.provider.handle_async_request

    async def answered(request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        if not body["model"].startswith(model):
            return await plain(request)
        seen.append(body)
        message = {"role": "assistant", "content": text}
        usage = {"prompt_tokens": 50, "completion_tokens": 1, "total_tokens": 51}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return httpx.Response(
            200, json={"id": "x", "object": "chat.completion", "model": model, "choices": choices, "usage": usage}
        )

    served.provider.handle_async_request = answered  # type: ignore[method-assign]
