"""Clients that leave: what was generated is paid for, and the provider is told to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import orjson
import pytest
from harness import Visitor, config, gateway
from vendor import Vendor, served

from gateway.ledger.base import Reservation
from gateway.ledger.memory import MemoryLedger
from gateway.types import Outcome


def body(path: str = "/v1/chat/completions", *, stream: bool) -> bytes:
    said = [{"role": "user", "content": "Tell a long story."}]
    if path == "/v1/responses":
        return orjson.dumps({"model": "small", "input": said, "stream": stream, "max_output_tokens": 1000})
    return orjson.dumps({"model": "small", "messages": said, "stream": stream, "max_tokens": 1000})


CLAUDE = "{dialect: anthropic, base_url: 'https://claude.example', api_key: k"


@pytest.mark.parametrize(
    ("path", "speaks"),
    [
        ("/v1/chat/completions", "{dialect: simulated"),
        ("/v1/chat/completions", CLAUDE),
        ("/v1/messages", "{dialect: simulated"),
        ("/v1/messages", CLAUDE),
        ("/v1/responses", "{dialect: simulated"),
    ],
)
async def test_a_client_that_leaves_in_mid_stream_pays_for_what_was_generated_and_the_call_is_cancelled(
    tmp_path: Path, path: str, speaks: str
) -> None:
    text = config(tmp_path, script="?first_token_ms=0&tps=100&output=1000").replace("{dialect: simulated", speaks)
    async with gateway(text) as running:
        visitor = Visitor(running.gateway, path, body(path, stream=True))
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


class Talking(httpx.AsyncByteStream):
    """A response in the making: twenty words, and then nothing any more."""

    def __init__(self) -> None:
        self.left = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        made = {"id": "resp_1", "object": "response", "status": "in_progress", "model": "m", "output": []}
        yield event({"type": "response.created", "sequence_number": 0, "response": made})
        for number in range(20):
            yield event({"type": "response.output_text.delta", "sequence_number": number + 1, "delta": " word"})
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.left = True


def event(data: dict[str, object]) -> bytes:
    return f"event: {data['type']}\ndata: ".encode() + orjson.dumps(data) + b"\n\n"


@dataclass
class Maker(Vendor):
    """Makes no response to its end."""

    talking: Talking = field(default_factory=Talking)

    def _create(self, body: dict[str, object]) -> httpx.Response:
        return httpx.Response(200, stream=self.talking, headers={"content-type": "text/event-stream"})


async def test_a_client_that_leaves_a_response_in_the_making_pays_for_what_was_made_and_it_is_cancelled(
    tmp_path: Path,
) -> None:
    speaks = (
        "{dialect: openai, base_url: 'https://east.example/v1', api_key: k, options: {paths: {responses: /responses}}"
    )
    vendor = Maker()
    async with served(config(tmp_path).replace("{dialect: simulated", speaks), vendor) as running:
        visitor = Visitor(running.gateway, "/v1/responses", body("/v1/responses", stream=True))
        visit = visitor.visit()
        while visitor.received.count(b"\n\n") < 21:
            visitor.came.clear()
            await visitor.came.wait()
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        assert vendor.talking.left
        [record] = running.records
        assert (record.outcome, record.estimated) == (Outcome.CLIENT_GONE, True)
        assert 20 <= record.tokens["output"] <= 22
        assert record.cost == sum(record.tokens.values()) * 1000


async def test_a_client_that_leaves_before_a_whole_reply_pays_for_what_may_have_been_generated(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, script="?first_token_ms=0&tps=100&output=1000")) as running:
        visitor = Visitor(running.gateway, "/v1/chat/completions", body(stream=False))
        visit = visitor.visit()
        await asyncio.sleep(0.2)
        visitor.leave()
        await asyncio.wait_for(visit, 5)
        assert running.provider.abandoned + running.provider.called >= 1
        [record] = await running.settled()
        assert record.outcome is Outcome.CLIENT_GONE
        assert record.estimated
        assert 0 < record.tokens["output"] <= 1000


class Waning(MemoryLedger):
    """Its time passes only when a hold was extended, and then nearly as much of it as the hold lasts."""

    HOLD_S = 0.15

    def __init__(self) -> None:
        super().__init__(clock=lambda: self.now)
        self.now = 1_789_560_000.0
        self.extended = 0

    async def extend(self, reservation: Reservation, ttl_s: float) -> bool:
        found = await super().extend(reservation, ttl_s)
        self.extended += 1
        self.now += 0.9 * self.HOLD_S
        assert await self.expire() == 0
        return found


async def test_a_stream_that_outlasts_its_hold_extends_it(tmp_path: Path) -> None:
    ledger = Waning()
    text = config(tmp_path, script="?first_token_ms=0&tps=20&output=20") + f"ledger: {{hold_s: {ledger.HOLD_S}}}\n"
    async with gateway(text, ledger=ledger) as running:
        reply = await running.chat("small", stream=True, max_tokens=100)
        assert reply.text.endswith("data: [DONE]\n\n")
        [record] = await running.settled()
        assert ledger.extended >= 3  # without them the ledger's time is past the hold's end by far
        assert (record.outcome, record.version) == (Outcome.OK, 1)
        ledger.now += ledger.HOLD_S
        assert await ledger.expire() == 0  # it was settled, not presumed


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
