"""Gemini behind the whole application, with the official SDKs of others as clients: served, counted, billed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Running

from gateway import settings
from gateway.app import Gateway, running
from gateway.credentials.keyring import Keyring
from gateway.dialects.base import Call
from gateway.errors import UpstreamDenied
from gateway.money import nano
from gateway.simulated import SimulatedTransport
from gateway.types import Provider, Record

CONFIG = """
admin_key: test-admin-key
database: sqlite:///{folder}/tollgate.db
spool: {folder}/spool
providers:
  gemini: {{api_key: google-key, retries_max: 0}}
  vertex: {{options: {{project: my-project, location: us-central1}}, retries_max: 0}}
deployments:
  - {{id: flash, provider: gemini, upstream_model: gemini-2.5-flash}}
  - {{id: cloud, provider: vertex, upstream_model: gemini-2.5-pro}}
tenants:
  - id: acme
    keys: [{{name: prod, key: test-key-of-acme}}]
    budgets: [{{limit_usd: 100, window: day}}]
"""

USAGE = {
    "promptTokenCount": 1000,
    "cachedContentTokenCount": 400,
    "toolUsePromptTokenCount": 100,
    "candidatesTokenCount": 20,
    "thoughtsTokenCount": 80,
    "totalTokenCount": 1200,
}
FLASH_COST = 700 * 300 + 400 * 30 + 100 * 2500  # NanoUSD: $0.30, $0.03 and $2.50 a million


@dataclass
class Google(httpx.AsyncBaseTransport):
    """Answers what it was told to, and remembers what it was asked."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200
    asked: list[httpx.Request] = field(default_factory=list)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.asked.append(request)
        if "alt=sse" in str(request.url):
            body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in self.chunks)
        else:
            body = json.dumps(self.chunks[0]).encode()
        return httpx.Response(self.status, content=body)


class Fixed:
    """Credentials without a network."""

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        return {"authorization": f"Bearer of-{provider.options['project']}"}


def candidate(*parts: dict[str, Any], finish: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {"content": {"role": "model", "parts": list(parts)}, "index": 0}
    if finish:
        found["finishReason"] = finish
    return {"candidates": [found], "modelVersion": "gemini-2.5-flash", "responseId": "r7", "usageMetadata": USAGE}


@asynccontextmanager
async def gateway(folder: Path, google: Google) -> AsyncIterator[Running]:
    text = CONFIG.format(folder=folder)
    app = Gateway(lambda: settings.parse(text, {}), transport=lambda _: google)
    async with running(app):
        app.parts.credentials._make = lambda _: Fixed()
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", timeout=30) as client:
            found = Running(app, SimulatedTransport(), client)
            observe = app.parts.metrics.observe

            def seen(record: Record, *rest: Any) -> None:
                found.records.append(record)
                observe(record, *rest)

            app.parts.metrics.observe = seen  # type: ignore[method-assign]
            yield found


async def test_a_tool_loop_of_the_openai_sdk_is_served_by_gemini_and_costs_what_google_bills(tmp_path: Path) -> None:
    call = {"functionCall": {"name": "look", "args": {"at": "sky"}}, "thoughtSignature": "AA=="}
    google = Google([candidate(call, finish="STOP")])
    tools = [
        {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}
    ]
    messages: list[Any] = [{"role": "user", "content": "Look."}]
    async with gateway(tmp_path, google) as running_:
        client = running_.openai()
        first = await client.chat.completions.create(model="flash", messages=messages, tools=tools)
        [asked] = first.choices[0].message.tool_calls or ()
        assert (asked.function.name, json.loads(asked.function.arguments)) == ("look", {"at": "sky"})
        assert first.choices[0].finish_reason == "tool_calls"
        messages += [
            first.choices[0].message.model_dump(),
            {"role": "tool", "tool_call_id": asked.id, "content": "blue"},
        ]
        google.chunks = [candidate({"text": "It is blue."}, finish="STOP")]
        second = await client.chat.completions.create(model="flash", messages=messages, tools=tools)
        assert second.choices[0].message.content == "It is blue."
        assert second.usage is not None
        assert second.usage.model_dump()["cost"] * 1_000_000_000 == FLASH_COST
        records = await running_.settled()
    assert [record.cost for record in records] == [FLASH_COST, FLASH_COST]
    sent = json.loads(google.asked[1].content)
    assert sent["contents"][1]["parts"][0]["thoughtSignature"] == "AA=="
    assert sent["contents"][2]["parts"][0]["functionResponse"]["response"] == {"result": "blue"}
    assert google.asked[1].headers["x-goog-api-key"] == "google-key"


async def test_the_anthropic_sdk_streams_thoughts_and_text_of_gemini_on_vertex(tmp_path: Path) -> None:
    google = Google(
        [
            candidate({"text": "hm", "thought": True}),
            candidate({"text": "It is "}),
            candidate({"text": "blue."}, finish="STOP"),
        ]
    )
    async with gateway(tmp_path, google) as running_:
        thinking = {"type": "enabled", "budget_tokens": 2048}
        async with running_.anthropic().messages.stream(
            model="cloud", max_tokens=4000, messages=[{"role": "user", "content": "Why?"}], thinking=thinking
        ) as stream:
            message = await stream.get_final_message()
        [record] = await running_.settled()
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[1].text == "It is blue."
    assert (message.stop_reason, message.usage.output_tokens) == ("end_turn", 100)
    assert record.cost == 700 * 1250 + 400 * 125 + 100 * 10_000
    [asked] = google.asked
    assert asked.headers["authorization"] == "Bearer of-my-project"
    assert str(asked.url) == (
        "https://us-central1-aiplatform.googleapis.com/v1/projects/my-project/locations/us-central1"
        "/publishers/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    )
    config = json.loads(asked.content)["generationConfig"]
    assert config == {"maxOutputTokens": 4000, "thinkingConfig": {"includeThoughts": True, "thinkingBudget": 2048}}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_that_gemini_answers_is_recorded_and_charged_once(tmp_path: Path, *, stream: bool) -> None:
    google = Google([candidate({"text": "It is blue."}, finish="STOP")])
    async with gateway(tmp_path, google) as running_:
        body = {"model": "flash", "input": "Why?", "stream": stream}
        headers = {"authorization": "Bearer test-key-of-acme"}
        assert (await running_.client.post("/v1/responses", json=body, headers=headers)).status_code == 200
        [record] = running_.records
        assert (record.endpoint, record.cost) == ("responses", FLASH_COST)
        metrics = (await running_.client.get("/metrics")).text
    spent = next(line for line in metrics.splitlines() if line.startswith("tollgate_budget_spent_usd{"))
    assert nano(spent.rpartition(" ")[2]) == FLASH_COST


async def test_a_key_that_google_refuses_is_our_affair_and_costs_nothing(tmp_path: Path) -> None:
    error = {
        "error": {
            "code": 400,
            "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT",
        }
    }
    async with gateway(tmp_path, Google([error], status=400)) as running_:
        reply = await running_.chat("flash")
        [record] = await running_.settled()
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_denied")
    assert "key" not in reply.json()["error"]["message"].replace("gateway's own key", "")
    assert record.cost == 0


async def test_credentials_that_cannot_be_had_reach_no_provider(tmp_path: Path) -> None:
    google = Google([candidate({"text": "x"}, finish="STOP")])
    async with gateway(tmp_path, google) as running_:
        assert isinstance(running_.gateway.parts.credentials, Keyring)
        running_.gateway.parts.credentials._make = lambda _: Broken()
        reply = await running_.chat("cloud")
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_denied")
    assert google.asked == []
    assert running_.records == []


class Broken:
    """Credentials that are not there."""

    async def headers(self, provider: Provider, call: Call) -> Mapping[str, str]:
        raise UpstreamDenied("none")
