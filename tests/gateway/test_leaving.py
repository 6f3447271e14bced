"""Clients that leave: what was generated is paid for, and the provider is told to stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
from harness import Visitor, config, gateway

from gateway.types import Outcome


def body(*, stream: bool, **fields: object) -> bytes:
    message = {"role": "user", "content": "Tell a long story."}
    return orjson.dumps({"model": "small", "messages": [message], "stream": stream, **fields})


async def test_a_client_that_leaves_in_mid_stream_pays_for_what_was_generated_and_the_call_is_cancelled(
    tmp_path: Path,
) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&tps=100&output=1000")) as running:
        visitor = Visitor(running.gateway, "/v1/chat/completions", body(stream=True, max_tokens=1000))
        visit = visitor.visit()
        while visitor.received.count(b"\n\n") < 20:
            visitor.came.clear()
            await visitor.came.wait()
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        assert running.provider.abandoned == 1
        [record] = await running.settled()
        assert record.outcome is Outcome.CLIENT_GONE
        assert record.estimated
        assert 15 <= record.tokens["output"] <= 60
        assert record.cost == sum(record.tokens.values()) * 1000


async def test_a_client_that_leaves_before_a_whole_reply_pays_for_what_may_have_been_generated(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&tps=100&output=1000")) as running:
        visitor = Visitor(running.gateway, "/v1/chat/completions", body(stream=False, max_tokens=1000))
        visit = visitor.visit()
        await asyncio.sleep(0.2)
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        assert running.provider.abandoned + running.provider.called >= 1
        [record] = await running.settled()
        assert record.outcome is Outcome.CLIENT_GONE
        assert record.estimated
        assert 0 < record.tokens["output"] <= 1000


async def test_a_stream_that_breaks_tells_the_client_and_charges_what_was_sent(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&output=100&reset=middle")) as running:
        reply = await running.chat("small", stream=True, max_tokens=100)
        assert reply.status_code == 200
        events = [line for line in reply.text.splitlines() if line.startswith("data:")]
        assert "error" in events[-1] or "error" in events[-2]
        [record] = await running.settled()
        assert record.outcome is Outcome.BROKEN_STREAM
        assert record.estimated
        assert 0 < record.tokens["output"] < 100
