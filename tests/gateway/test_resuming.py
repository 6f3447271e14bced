"""A stream that breaks off goes on from another deployment where its tenant allows it; the client sees one answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from harness import Running, gateway

from gateway.accounts import shared_lines
from gateway.simulated import SimulatedTransport
from gateway.types import Outcome, Record

CONFIG = """
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers: {{simulated: {{dialect: simulated, retries_max: 0}}}}
deployments:
  - {{id: first, provider: simulated, upstream_model: "sim-first?first_token_ms=0&{first}",
      price: {{input: 1, output: 1}}, context_max: 32000, output_max: 4096}}
  - {{id: second, provider: simulated, upstream_model: "sim-second?first_token_ms=0&{second}",
      price: {{input: 2, output: 2}}, context_max: 32000, output_max: 4096}}
  - {{id: third, provider: simulated, upstream_model: "sim-third?first_token_ms=0&{third}",
      price: {{input: 3, output: 3}}, context_max: 32000, output_max: 4096}}
routes: {{auto: {{candidates: [first, second, third], policies: [cheapest]}}}}
tenants:
  - id: acme
    resume_streams: {resume}
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: {limit}, window: day}}]
"""
MESSAGES: Any = [{"role": "user", "content": "Tell a story."}]


def config(folder: Path, first: str, second: str = "output=20", *, resume: bool = True, limit: str = "100") -> str:
    return CONFIG.format(
        folder=folder, first=first, second=second, third="output=20", resume=str(resume).lower(), limit=limit
    )


async def only(served: Running) -> Record:
    (record,) = await served.settled()
    assert record.cost == sum(record.components.values())
    lines = shared_lines(served.gateway.sites.current.directory.tenants, (), (), now=record.at)
    (balance,) = await served.gateway.parts.ledger.balances(lines)
    assert (balance.spent, balance.reserved) == (record.cost, 0)
    return record


async def chat(served: Running, **more: Any) -> tuple[list[Any], str]:
    """Every chunk, as OpenAI's SDK reads it, and the whole text."""
    stream = await served.openai(max_retries=0).chat.completions.create(
        model="auto", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, max_tokens=100, **more
    )
    chunks = [chunk async for chunk in stream]
    return chunks, "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


@pytest.mark.parametrize("breaks", ["reset=middle", "error=middle&status=500"])
async def test_openais_sdk_sees_one_answer_and_both_parts_are_charged(tmp_path: Path, breaks: str) -> None:
    async with gateway(config(tmp_path, f"output=20&{breaks}")) as served:
        chunks, text = await chat(served)
        assert len({chunk.id for chunk in chunks}) == 1
        assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices].count("assistant") == 1
        finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert [finish for finish in finishes if finish] == ["stop"]
        record = await only(served)
        assert (record.deployment, record.outcome, record.attempts) == ("second", Outcome.OK, 2)
        assert 0 < record.overhead_cost < record.cost
        usage = chunks[-1].usage
        assert usage.completion_tokens > record.tokens["output"]
        assert usage.cost == pytest.approx(record.cost / 1e9, abs=1e-12)
        assert len(text.split()) > 20 * 0.6


async def test_the_next_deployment_is_asked_to_go_on_from_what_was_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies: list[bytes] = []
    handle = SimulatedTransport.handle_async_request

    async def seen(self: Any, request: Any) -> Any:
        bodies.append(await request.aread())
        return await handle(self, request)

    monkeypatch.setattr(SimulatedTransport, "handle_async_request", seen)
    async with gateway(config(tmp_path, "output=20&reset=middle")) as served:
        _, text = await chat(served)
        turns = json.loads(bodies[1])["messages"]
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert turns[1]["content"]
        assert text.startswith(turns[1]["content"])
        assert json.loads(bodies[1])["max_tokens"] < json.loads(bodies[0])["max_tokens"] == 100


async def test_anthropics_sdk_sees_one_message(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "output=20&reset=middle")) as served:
        client = served.anthropic(max_retries=0)
        async with client.messages.stream(model="auto", messages=MESSAGES, max_tokens=100) as stream:
            events = [event.type async for event in stream]
            message = await stream.get_final_message()
        assert events.count("message_start") == events.count("message_stop") == events.count("content_block_start") == 1
        assert (message.stop_reason, len(message.content)) == ("end_turn", 1)
        assert (await only(served)).deployment == "second"


async def test_a_stream_that_breaks_twice_goes_on_twice(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "output=20&reset=middle", "output=20&reset=middle")) as served:
        chunks, _ = await chat(served)
        assert len({chunk.id for chunk in chunks}) == 1
        record = await only(served)
        assert (record.deployment, record.attempts, record.outcome) == ("third", 3, Outcome.OK)


async def test_a_deployment_that_fails_at_once_is_passed_over(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "output=20&reset=middle", "status=500")) as served:
        await chat(served)
        assert (await only(served)).deployment == "third"


@pytest.mark.parametrize(
    ("first", "second", "more"),
    [
        ("output=20&reset=middle&tool=f", "output=20", {"tools": [{"type": "function", "function": {"name": "f"}}]}),
        ("output=20&reset=middle", "output=20", {"response_format": {"type": "json_object"}}),
    ],
)
async def test_what_is_more_than_text_ends_with_its_error(
    tmp_path: Path, first: str, second: str, more: dict[str, Any]
) -> None:
    async with gateway(config(tmp_path, first, second)) as served:
        reply = await served.chat(stream=True, **more)
        assert '"error"' in reply.text
        assert "[DONE]" not in reply.text
        assert (await only(served)).outcome is Outcome.BROKEN_STREAM


async def test_nothing_is_resumed_unless_the_tenant_allows_it(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "output=20&reset=middle", resume=False)) as served:
        reply = await served.chat(stream=True)
        assert '"error"' in reply.text
        assert served.provider.called == 1


async def test_a_stream_that_nobody_can_go_on_with_ends_with_an_error_and_what_was_said_is_charged(
    tmp_path: Path,
) -> None:
    text = config(tmp_path, "output=20&reset=middle", "status=500").replace("[first, second, third]", "[first, second]")
    async with gateway(text) as served:
        reply = await served.chat(stream=True)
        assert '"error"' in reply.text
        assert "[DONE]" not in reply.text
        record = await only(served)
        assert record.outcome is not Outcome.OK
        assert record.cost > 0


async def test_a_hard_cap_without_room_for_the_rest_ends_the_stream(tmp_path: Path) -> None:
    async with gateway(config(tmp_path, "output=60&reset=middle", limit="0.00033")) as served:
        reply = await served.chat(stream=True, max_tokens=100)
        assert '"error"' in reply.text
        assert served.provider.called == 1
        assert (await only(served)).cost <= 330_000
