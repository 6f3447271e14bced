"""`Idempotency-Key`: one answer and one charge, however often, wherever and whenever it is asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from harness import KEY, Running, Visitor, config, gateway

SLOW = "?first_token_ms=100"
OTHER = "test-key-of-other"
TWO_TENANTS = f"""
  - id: other
    keys: [{{name: prod, key: {OTHER}}}]
"""


async def ask(running: Running, text: str = "Say hello.", who: str = KEY, **more: Any) -> httpx.Response:
    body = {"model": "small", "messages": [{"role": "user", "content": text}], **more}
    headers = {"authorization": f"Bearer {who}", "idempotency-key": "k1"}
    return await running.client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_second_answer_is_the_first_one_and_costs_nothing(tmp_path: Path, *, stream: bool) -> None:
    async with gateway(config(tmp_path)) as running:
        first, second = await ask(running, stream=stream), await ask(running, stream=stream)
        assert (second.status_code, second.content) == (first.status_code, first.content)
        assert second.headers["x-tollgate-request-id"] == first.headers["x-tollgate-request-id"]
        assert "x-tollgate-replayed" in second.headers
        assert "x-tollgate-replayed" not in first.headers
        assert running.provider.called == 1
        assert len(await running.settled()) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_who_asks_while_the_first_is_served_follows_it(tmp_path: Path, *, stream: bool) -> None:
    async with gateway(config(tmp_path, script=SLOW)) as running:
        replies = await asyncio.gather(*(ask(running, stream=stream) for _ in range(8)))
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.content for reply in replies}) == 1
        assert running.provider.called == 1
        assert len(await running.settled()) == 1


async def test_a_key_survives_a_restart(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        first = await ask(running)
    async with gateway(config(tmp_path)) as running:
        assert (await ask(running)).content == first.content
        assert running.provider.called == 0


async def test_two_gateways_on_one_database_serve_a_key_once(tmp_path: Path) -> None:
    text = config(tmp_path, script=SLOW)
    async with gateway(text) as one, gateway(text) as other:
        replies = await asyncio.gather(ask(one), ask(other), ask(one), ask(other))
        assert len({reply.content for reply in replies}) == 1
        assert one.provider.called + other.provider.called == 1


async def test_tenants_do_not_see_each_others_answers(tmp_path: Path) -> None:
    async with gateway(config(tmp_path) + TWO_TENANTS) as running:
        await ask(running)
        assert "x-tollgate-replayed" not in (await ask(running, who=OTHER)).headers
        assert running.provider.called == 2


async def test_a_key_for_another_request_is_a_conflict(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        await ask(running)
        reply = await ask(running, text="Say something else.")
        assert reply.status_code == 409
        assert reply.json()["error"]["param"] == "idempotency-key"
        assert running.provider.called == 1


async def test_a_request_that_failed_may_be_made_again(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?status=500")) as running:
        assert (await ask(running)).status_code == 502
        assert (await ask(running)).status_code == 502
        assert running.provider.called == 2


async def test_a_client_that_left_finds_its_answer_when_it_asks_again(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=300")) as running:
        body = {"model": "small", "messages": [{"role": "user", "content": "Say hello."}]}
        visitor = Visitor(running.gateway, "/v1/chat/completions", orjson.dumps(body))
        visitor.scope["headers"].append((b"idempotency-key", b"k1"))
        visit = visitor.visit()
        while not running.provider.called:  # noqa: ASYNC110  # the provider has no event for it
            await asyncio.sleep(0.01)
        visitor.leave()
        await visit
        headers = {"authorization": f"Bearer {KEY}", "idempotency-key": "k1"}
        reply = await running.client.post("/v1/chat/completions", content=orjson.dumps(body), headers=headers)
        assert reply.status_code == 200
        assert running.provider.called == 1
        (record,) = await running.settled()
        assert record.outcome == "ok"
