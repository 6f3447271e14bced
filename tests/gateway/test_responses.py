"""`/v1/responses` through the whole application, with the official SDK as client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import openai
import pytest
from harness import config, gateway
from pydantic import BaseModel
from vendor import Served, Vendor, served

from gateway.jobs.unfinished import KIND
from gateway.ledger.base import Line
from gateway.sql import jobs
from gateway.types import Account

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  east: {{dialect: openai, base_url: "https://east.example/v1", api_key: k, retries_max: 0,
          options: {{paths: {{responses: /responses}}}}}}
  west: {{dialect: openai, base_url: "https://west.example/v1", api_key: k, retries_max: 0,
          options: {{paths: {{responses: /responses}}}}}}
deployments:
  - {{id: cheap, provider: east, upstream_model: gpt-5-mini, price: {{input: 1, output: 2, cache_read: 0.1}},
      context_max: 100000, output_max: 1000}}
  - {{id: dear, provider: west, upstream_model: gpt-5, price: {{input: 10, output: 20, cache_read: 1}},
      context_max: 100000, output_max: 1000}}
routes:
  auto: {{candidates: [cheap, dear], policies: [cheapest]}}
tenants:
  - {{id: acme, keys: [{{name: prod, key: key-of-acme}}], budgets: [{{limit_usd: 100, window: day}}]}}
  - {{id: other, keys: [{{name: prod, key: key-of-other}}]}}
"""
CHEAP = 60 * 1000 + 40 * 100 + 20 * 2000
"""Nano-dollars of the vendor's usual usage on `cheap`."""


@pytest.fixture
def settings(tmp_path: Path) -> str:
    return CONFIG.format(folder=tmp_path)


async def test_a_stored_response_goes_back_to_the_deployment_that_made_it(settings: str) -> None:
    async with served(settings) as site:
        client = site.openai()
        site.vendor.down = {"east.example"}
        first = await client.responses.create(model="auto", input="Hello.")
        site.vendor.down = set()
        assert first.output_text == "Hello."
        second = await client.responses.create(model="auto", input="And again.", previous_response_id=first.id)
        _, url, body = site.vendor.calls[-1]
        assert url == "https://west.example/v1/responses"  # though the other is cheaper
        assert body["previous_response_id"] == "resp_0001"
        assert second.previous_response_id == first.id
        assert [record.deployment for record in site.records] == ["dear", "dear"]


async def test_looking_at_a_response_costs_nothing_and_is_never_charged_twice(settings: str) -> None:
    async with served(settings) as site:
        client = site.openai()
        made = await client.responses.create(model="cheap", input="Hello.")
        for _ in range(5):
            assert (await client.responses.retrieve(made.id)).id == made.id
        assert (await client.responses.input_items.list(made.id)).data == []
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        assert [(record.cost, record.endpoint) for record in site.records] == [(CHEAP, "responses")]


async def test_nobody_else_sees_a_response(settings: str) -> None:
    async with served(settings) as site:
        made = await site.openai().responses.create(model="cheap", input="Hello.")
        other = site.openai("key-of-other")
        calls = len(site.vendor.calls)
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as refused:
            await other.responses.create(model="cheap", input="x", previous_response_id=made.id)
        assert refused.value.param == "previous_response_id"
        with pytest.raises(openai.NotFoundError):
            await other.responses.retrieve("resp_0001")  # the provider's own id is nobody's
        assert len(site.vendor.calls) == calls


async def test_a_stream_has_the_same_ids_and_its_cost(settings: str) -> None:
    async with served(settings) as site:
        async with site.openai().responses.stream(model="cheap", input="Hello.") as stream:
            events = [event async for event in stream]
        final = events[-1].response  # type: ignore[union-attr]  # the last event has it
        assert final.id == events[0].response.id  # type: ignore[union-attr]  # so has the first
        assert final.usage.model_extra["cost"] == CHEAP / 1e9
        assert site.records[0].cost == CHEAP
        assert (await site.openai().responses.retrieve(final.id)).output_text == "Hello."


async def booked(site: Served) -> None:
    async with asyncio.timeout(20):
        while not site.records:  # noqa: ASYNC110 - metrics tell nobody
            await asyncio.sleep(0.01)


async def spent(site: Served) -> tuple[int, int]:
    tenant = next(each for each in site.gateway.sites.current.directory.tenants if each.id == "acme")
    line = Line(Account("tenant", "acme", "acme"), tenant.limits[0], 0)
    [balance] = await site.gateway.parts.ledger.balances([line])
    return balance.spent, balance.reserved


async def forever(_: float) -> None:
    await asyncio.Event().wait()


async def test_an_answer_whose_gateway_was_stopped_is_settled_by_the_next(settings: str) -> None:
    vendor = Vendor(looks_until_done=3)
    async with served(settings, vendor) as site:
        site.gateway.parts.background._sleep = forever
        await site.openai().responses.create(model="auto", input="Hello.", background=True)
        assert (await spent(site))[1] > CHEAP
    assert site.records == []
    async with served(settings, vendor) as site:
        site.gateway.runner.pause = lambda _: 0.01
        await booked(site)
        [record] = site.records
        assert (record.cost, record.outcome.value, record.response_model) == (CHEAP, "ok", "gpt-5-mini")
        assert (record.route, record.baseline_cost, record.estimated) == ("auto", None, False)
        assert await spent(site) == (CHEAP, 0)
    async with served(settings, vendor) as site:
        assert await site.gateway.runner.jobs.under_way((KIND,)) == []


async def test_an_answer_whose_hold_expired_while_nobody_lived_is_settled_late_with_what_it_cost(settings: str) -> None:
    text, vendor = settings + "ledger: {hold_s: 0.2, timeout_s: 2}\n", Vendor(looks_until_done=1)
    async with served(text, vendor) as site:
        site.gateway.parts.background._sleep = forever
        await site.openai().responses.create(model="cheap", input="Hello.", background=True)
        _, held = await spent(site)
    async with served(text, vendor) as site:
        site.gateway.runner.kinds = {}  # not yet
        async with asyncio.timeout(20):
            while await spent(site) != (held, 0):
                await site.gateway.parts.ledger.expire()
                await asyncio.sleep(0.01)
    async with served(text, vendor) as site:
        site.gateway.runner.pause = lambda _: 0.01
        async with asyncio.timeout(20):
            while await spent(site) != (CHEAP, 0):  # noqa: ASYNC110 - a ledger tells nobody
                await asyncio.sleep(0.01)


async def test_two_who_follow_one_answer_settle_it_once(settings: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "LEASE_S", -60.0)  # as if its gateway had been paused for longer than its lease
    async with served(settings, Vendor(looks_until_done=1)) as site:
        turn = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await turn.wait()

        site.gateway.runner.pause = lambda _: 0.01
        site.gateway.parts.background._sleep = sleep
        await site.openai().responses.create(model="cheap", input="Hello.", background=True)
        await booked(site)
        turn.set()
        async with asyncio.timeout(20):
            while site.gateway.parts.background._tasks:  # noqa: ASYNC110 - tasks tell nobody
                await asyncio.sleep(0.01)
        assert await spent(site) == (CHEAP, 0)


async def test_what_is_made_in_the_background_is_settled_once_when_it_is_there(settings: str) -> None:
    async with served(settings, Vendor(looks_until_done=4)) as site:
        turn = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await turn.wait()

        site.gateway.parts.background._sleep = sleep
        made = await site.openai().responses.create(model="cheap", input="Hello.", background=True)
        assert made.status == "queued"
        assert site.records == []  # nothing is booked before anyone knows
        polled = await site.openai().responses.retrieve(made.id)
        assert polled.status == "queued"
        assert site.records == []
        turn.set()
        await booked(site)
        assert [(record.cost, record.outcome.value) for record in site.records] == [(CHEAP, "ok")]
        assert (await site.openai().responses.retrieve(made.id)).status == "completed"
        assert len(site.records) == 1


async def test_what_is_cancelled_in_the_background_owes_what_went_in(settings: str) -> None:
    async with served(settings, Vendor(looks_until_done=1000)) as site:
        turn = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await turn.wait()

        site.gateway.parts.background._sleep = sleep
        made = await site.openai().responses.create(model="cheap", input="Hello.", background=True)
        assert (await site.openai().responses.cancel(made.id)).status == "cancelled"
        turn.set()
        await booked(site)
        [record] = site.records
        assert record.estimated
        assert record.cost == record.tokens_estimated * 1000


class Answer(BaseModel):
    """What the model shall say."""

    city: str
    population: int


async def test_the_sdk_is_served_by_a_chat_provider(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        client = running.openai()
        whole = await client.responses.create(
            model="auto", instructions="Be brief.", input="Count to three.", max_output_tokens=30
        )
        assert whole.output_text
        assert whole.usage is not None
        assert whole.status in {"completed", "incomplete"}
        parsed = await client.responses.parse(model="auto", input="The capital of France?", text_format=Answer)
        assert isinstance(parsed.output_parsed, Answer)
        async with client.responses.stream(model="auto", input="Hello.") as stream:
            kinds = [event.type async for event in stream]
            final = await stream.get_final_response()
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert final.output_text
        assert final.usage is not None
        assert [record.endpoint for record in running.records] == ["responses"] * 3  # one for each request
        assert all(record.cost for record in running.records)


async def test_tools_and_their_results_go_to_a_chat_provider_and_back(tmp_path: Path) -> None:
    async with gateway(config(tmp_path)) as running:
        client = running.openai()
        tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}}
        asked = await client.responses.create(model="auto", input="Weather?", tools=[tool], tool_choice="required")  # type: ignore[list-item]  # a plain dict
        [call] = [item for item in asked.output if item.type == "function_call"]
        assert call.name == "get_weather"
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}
        answer = await client.responses.create(
            model="auto", input=[{"role": "user", "content": "Weather?"}, call.model_dump(), result], tools=[tool]
        )  # type: ignore[call-overload]  # plain dicts
        assert answer.status == "completed"


@pytest.mark.parametrize("field", ["background", "previous_response_id", "prompt"])
async def test_what_a_chat_provider_cannot_do_is_refused_by_name(tmp_path: Path, field: str) -> None:
    async with gateway(config(tmp_path)) as running:
        value = {"background": True, "previous_response_id": "resp_1", "prompt": {"id": "p"}}[field]
        with pytest.raises(openai.BadRequestError) as refused:
            await running.openai().responses.create(model="small", input="x", extra_body={field: value})
        assert refused.value.param == field


async def test_counting_the_input_costs_nothing(settings: str) -> None:
    async with served(settings) as site:
        counted = await site.openai().responses.input_tokens.count(model="cheap", input="Hello there.")
        assert counted.input_tokens > 0
        assert site.vendor.calls == []
