"""What is asked elsewhere although nothing failed: inputs too long, requests filtered, answers that decline."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import KEY, Running, Visitor, gateway

from gateway.accounts import shared_lines
from gateway.types import Outcome, Record

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: first, provider: simulated, upstream_model: "sim-first?first_token_ms=0&{first}",
      price: {{input: 1, output: 1}}, context_max: 32000, output_max: 4096}}
  - {{id: second, provider: simulated, upstream_model: "sim-second?first_token_ms=0&{second}",
      price: {{input: 2, output: 2}}, context_max: 32000, output_max: 4096}}
  - {{id: third, provider: simulated, upstream_model: "sim-third?first_token_ms=0&{third}",
      price: {{input: 3, output: 3}}, context_max: 128000, output_max: 4096}}
routes:
  auto:
    candidates: [first, second, third]
    policies: [{{output_cap: {{default: 100, max: 1000}}}}, cheapest]
    failover_on: [{on}]
tenants:
  - {{id: acme, keys: [{{name: prod, key: test-key-of-acme}}], budgets: [{{limit_usd: {limit}, window: day}}]}}
"""
FILTERED = "status=400&code=content_filter"
TOO_LONG = "status=400&code=context_length_exceeded"
BOTH = "content_filter, refusal"


def config(folder: Path, on: str = BOTH, limit: str = "100", **scripts: str) -> str:
    known = dict.fromkeys(("first", "second", "third"), "output=10") | scripts
    return CONFIG.format(folder=folder, on=on, limit=limit, **known)


async def only(served: Running) -> Record:
    (record,) = await served.settled()
    assert record.cost == sum(record.components.values())
    lines = shared_lines(served.gateway.sites.current.directory.tenants, (), (), now=record.at)
    (balance,) = await served.gateway.parts.ledger.balances(lines)
    assert (balance.spent, balance.reserved) == (record.cost, 0)
    return record


@pytest.mark.parametrize("stream", [False, True])
async def test_an_input_that_was_too_long_is_tried_on_a_larger_window_only(tmp_path: Path, *, stream: bool) -> None:
    async with gateway(config(tmp_path, first=TOO_LONG)) as served:
        reply = await served.chat(stream=stream)
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "third")
        assert served.provider.called == 2  # the second's window is no larger
        assert (await only(served)).overhead_cost == 0


async def test_an_input_too_long_for_every_window_is_the_clients_error(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, first=TOO_LONG, third=TOO_LONG)) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "context_length_exceeded")
        assert served.provider.called == 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("on", "answered"), [("content_filter", True), ("refusal", False), ("", False)])
async def test_a_filtered_request_is_asked_elsewhere_where_the_route_says_so(
    tmp_path: Path, on: str, *, answered: bool, stream: bool
) -> None:
    async with gateway(config(tmp_path, on, first=FILTERED)) as served:
        reply = await served.chat(stream=stream)
        if answered:
            assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "second")
            record = await only(served)
            assert (record.deployment, record.attempts, record.overhead_cost) == ("second", 2, 0)
        else:
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, "content_filter")
            assert served.provider.called == 1


@pytest.mark.parametrize(
    ("path", "declines", "stream"),
    [
        (f"/v1/{path}", declines, stream)
        for path in ("chat/completions", "messages", "responses")
        for declines in ("refusal=1", "finish=content_filter&output=0")
        for stream in (False, True)
        if (path, declines, stream) != ("messages", "refusal=1", True)  # its words are words until its last event
    ],
)
async def test_an_answer_that_declines_is_asked_elsewhere_and_both_are_paid(
    tmp_path: Path, path: str, declines: str, *, stream: bool
) -> None:
    async with gateway(config(tmp_path, first=declines, second=declines)) as served:
        body = {"model": "auto", "max_tokens": 50, "stream": stream}
        if path.endswith("responses"):
            body = {"model": "auto", "max_output_tokens": 50, "stream": stream, "input": "Say hello."}
        else:
            body["messages"] = [{"role": "user", "content": "Say hello."}]
        reply = await served.client.post(path, json=body, headers={"authorization": f"Bearer {KEY}"})
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "third")
        assert served.provider.called == 3
        record = await only(served)
        assert (record.deployment, record.outcome) == ("third", Outcome.OK)
        assert record.overhead_cost > 0
        assert "refusal" in record.reasons


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_declines_is_the_answer_where_nothing_is_configured(
    tmp_path: Path, *, stream: bool
) -> None:
    async with gateway(config(tmp_path, "content_filter", first="refusal=1")) as served:
        reply = await served.chat(stream=stream)
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "first")
        assert served.provider.called == 1


async def test_where_all_decline_the_client_gets_the_last_word(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, first="refusal=1", second="refusal=1", third="refusal=1")) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "third")
        assert (await only(served)).outcome is Outcome.OK


async def test_an_answer_that_declined_is_better_than_an_error(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, first="refusal=1", second="status=500", third="status=500")) as served:
        reply = await served.chat()
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "first")
        assert (await only(served)).deployment == "first"


async def test_a_good_stream_goes_through_with_its_first_word(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, first="output=20&stall=middle")) as served:
        body = {"model": "auto", "stream": True, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
        visitor = Visitor(served.gateway, "/v1/chat/completions", json.dumps(body).encode())
        task = visitor.visit()
        while b'"content"' not in visitor.received:
            visitor.came.clear()
            await visitor.came.wait()
        visitor.leave()
        await task
        assert (await only(served)).outcome is Outcome.CLIENT_GONE


async def test_a_hard_cap_without_room_for_another_answer_ends_with_the_one_that_declined(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, limit="0.00035", first="refusal=1", second="refusal=1")) as served:
        reply = await served.chat(max_tokens=100)
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "second")
        assert served.provider.called == 2
        record = await only(served)
        assert record.cost < record.reserved <= 350_000


async def test_a_second_answer_never_passes_the_most_a_request_may_cost(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, first="refusal=1")) as served:
        headers = {"authorization": f"Bearer {KEY}", "x-tollgate-max-cost-usd": "0.00036"}
        body = {"model": "auto", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hello."}]}
        reply = await served.client.post("/v1/chat/completions", json=body, headers=headers)
        assert (reply.status_code, reply.headers["x-tollgate-deployment"]) == (200, "second")
        assert (await only(served)).cost <= 360_000
