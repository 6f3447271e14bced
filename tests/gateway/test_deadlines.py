"""Who may wait for how long: retries, deployments, routes, and clients that say when they will give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import orjson
import pytest
from faulty import ERROR, Call, FaultyProvider, fine
from served import Served, served

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  silent: {{dialect: openai, base_url: "http://127.0.0.1:{port}/no_head/v1", api_key: sk-x}}
  failing: {{dialect: openai, base_url: "http://127.0.0.1:{port}/status_500/v1", api_key: sk-x}}
  limited: {{dialect: openai, base_url: "http://127.0.0.1:{port}/limited_seconds/v1", api_key: sk-x}}
  busy: {{dialect: openai, base_url: "http://127.0.0.1:{port}/status_529/v1", api_key: sk-x}}
  asking: {{dialect: openai, base_url: "http://127.0.0.1:{port}/limited_ms/v1", api_key: sk-x}}
  fine: {{dialect: openai, base_url: "http://127.0.0.1:{port}/fine/v1", api_key: sk-x}}
deployments:
  - {{id: silent, provider: silent, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: hasty, provider: silent, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024,
      timeouts: {{first_byte_s: 0.3, total_s: 0.3}}}}
  - {{id: failing, provider: failing, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: limited, provider: limited, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: busy, provider: busy, upstream_model: m, price: {{input: 2, output: 2}}, output_max: 1024}}
  - {{id: asking, provider: asking, upstream_model: m, price: {{input: 1, output: 1}}, output_max: 1024}}
  - {{id: fine, provider: fine, upstream_model: m, price: {{input: 9, output: 9}}, output_max: 1024}}
routes:
  bounded: {{candidates: [silent], timeout_s: 0.3}}
  all-fail: {{candidates: [failing, busy], policies: [cheapest]}}
  failing-first: {{candidates: [failing, fine], policies: [cheapest]}}
  limited-first: {{candidates: [limited, fine], policies: [cheapest]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
"""


@pytest.fixture
async def provider() -> AsyncIterator[FaultyProvider]:
    async with FaultyProvider() as found:
        yield found


@pytest.fixture
async def gateway(tmp_path: Path, provider: FaultyProvider) -> AsyncIterator[Served]:
    async with served(CONFIG.format(folder=tmp_path, port=provider.port)) as found:
        yield found


async def ask(gateway: Served, model: str, *, stream: bool = False, **headers: str) -> tuple[httpx.Response, float]:
    now = asyncio.get_running_loop().time
    began = now()
    body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "Say four words."}]}
    sent = {"authorization": "Bearer key-of-acme"} | {name.replace("_", "-"): text for name, text in headers.items()}
    reply = await gateway.client.post("/v1/chat/completions", json=body, headers=sent)
    return reply, now() - began


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("header", ["x_stainless_read_timeout", "x_stainless_timeout"])
async def test_a_client_has_its_answer_before_it_gives_up_and_opens_no_circuit(
    gateway: Served, header: str, *, stream: bool
) -> None:
    for _ in range(6):
        reply, took = await ask(gateway, "silent", stream=stream, **{header: "0.4"})
        assert reply.status_code == 504
        assert 0.3 < took < 2
    assert not gateway.gateway.parts.health.of("silent").open


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf", "1e99"])
async def test_a_patience_that_is_none_is_ignored(gateway: Served, value: str) -> None:
    reply, _ = await ask(gateway, "fine", x_stainless_read_timeout=value)
    assert reply.status_code == 200


@pytest.mark.parametrize("model", ["hasty", "bounded"])
async def test_deployments_and_routes_have_deadlines_of_their_own(gateway: Served, model: str) -> None:
    reply, took = await ask(gateway, model)
    assert reply.status_code == 504
    assert took < 2


async def test_a_failure_is_retried_twice_and_each_attempt_is_counted(
    gateway: Served, provider: FaultyProvider
) -> None:
    reply, _ = await ask(gateway, "failing")
    assert reply.status_code == 502
    assert provider.calls["status_500"] == 3
    assert [record.attempts for record in gateway.records] == [3]


async def test_where_all_fail_each_is_tried_as_often_as_its_provider_allows_and_no_round_begins_anew(
    gateway: Served, provider: FaultyProvider
) -> None:
    reply, _ = await ask(gateway, "all-fail")
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "upstream_overloaded")
    first, last = provider.calls["status_500"], provider.calls["status_529"]
    assert 1 <= first <= 3
    assert last == 3
    assert [record.attempts for record in gateway.records] == [first + last]


async def test_a_deployment_that_goes_on_failing_is_left_alone_and_delays_nobody(
    gateway: Served, provider: FaultyProvider
) -> None:
    before = await asyncio.gather(*(ask(gateway, "failing-first") for _ in range(6)))
    assert {reply.status_code for reply, _ in before} == {200}
    calls = provider.calls["status_500"]
    for _ in range(10):
        reply, _ = await ask(gateway, "failing-first")
        assert (reply.status_code, reply.headers["x-tollgate-attempts"]) == (200, "1")
    assert provider.calls["status_500"] == calls
    alone, _ = await ask(gateway, "failing")
    assert (alone.status_code, alone.json()["error"]["code"]) == (503, "no_deployment")
    assert provider.calls["status_500"] == calls


async def test_a_provider_is_asked_again_when_it_said_and_not_before(gateway: Served, provider: FaultyProvider) -> None:
    came: list[float] = []

    async def limited_once(call: Call) -> None:
        came.append(asyncio.get_running_loop().time())
        if len(came) == 1:
            call.all(orjson.dumps(ERROR), 429, retry_after_ms="700")
        else:
            await fine(call)

    provider.faults["limited_ms"] = limited_once
    reply, _ = await ask(gateway, "asking")
    assert (reply.status_code, reply.headers["x-tollgate-attempts"]) == (200, "2")
    assert 0.7 <= came[1] - came[0] < 2


async def test_a_provider_that_asks_for_more_time_than_there_is_is_not_asked_again(
    gateway: Served, provider: FaultyProvider
) -> None:
    reply, took = await ask(gateway, "limited-first")
    assert reply.status_code == 200
    assert provider.calls["limited_seconds"] == 1
    assert took < 2
    refused, _ = await ask(gateway, "limited")  # its only deployment is out of service until then
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_deployment")
    assert 30 <= int(refused.headers["retry-after"]) <= 40
    assert provider.calls["limited_seconds"] == 1
