"""A request's trace: the spans there are, what they say, whose they are, and what they never say."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from harness import KEY, config
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode, format_span_id

from gateway import logs, settings
from gateway.app import Gateway, running
from gateway.simulated import SimulatedTransport
from gateway.tracing import PROVIDERS, Tracing
from gateway.watching import Unwatched, watching

CLIENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
DOWN = "  - {id: down, provider: simulated, upstream_model: 'sim-down?status=503', price: {input: 0, output: 0}}\n"
SECRET = "the content of a conversation"


class Listening(httpx.AsyncBaseTransport):
    """The simulated provider, and the headers it was sent."""

    def __init__(self) -> None:
        self.provider = SimulatedTransport()
        self.headers: list[httpx.Headers] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.headers.append(request.headers)
        return await self.provider.handle_async_request(request)


@dataclass
class Traced:
    """A gateway whose spans and measurements stay in memory."""

    client: httpx.AsyncClient
    transport: Listening
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    records: list[Any] = field(default_factory=list)

    async def chat(self, model: str = "small", **headers: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 20}
        found = {"authorization": f"Bearer {KEY}", **headers}
        return await self.client.post("/v1/chat/completions", json=body, headers=found)

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    exporter, reader, transport = InMemorySpanExporter(), InMemoryMetricReader(), Listening()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    watched = Tracing(tracers, MeterProvider([reader]))
    text = config(tmp_path).replace(
        "routes:", f"{DOWN}routes:\n  failing: {{candidates: [down, small], policies: [cheapest]}}"
    )
    app = Gateway(lambda: settings.parse(text, {}), transport=lambda _: transport, watched=watched)
    async with running(app):
        made = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=made, base_url="http://gateway") as client:
            yield Traced(client, transport, exporter, reader)


def tree(spans: dict[str, ReadableSpan]) -> dict[str, str | None]:
    names = {span.context.span_id: name for name, span in spans.items() if span.context}
    return {name: names.get(span.parent.span_id, "client") if span.parent else None for name, span in spans.items()}


async def test_a_request_is_one_trace_of_plan_ledger_and_attempts(traced: Traced) -> None:
    reply = await traced.chat("failing", traceparent=CLIENT)
    assert reply.status_code == 200
    spans = traced.spans()
    assert tree(spans) == {
        "chat failing": "client",
        "plan": "chat failing",
        "ledger reserve": "chat failing",
        "chat sim-down?status=503": "chat failing",
        "chat sim-small?first_token_ms=0": "chat failing",
        "ledger settle": "chat failing",
    }
    assert {f"{span.context.trace_id:032x}" for span in spans.values() if span.context} == {CLIENT.split("-")[1]}


async def test_the_request_id_joins_trace_reply_and_what_it_cost(traced: Traced) -> None:
    reply = await traced.chat()
    said = dict(traced.spans()["chat small"].attributes or {})
    assert said["tollgate.request.id"] == reply.headers["x-tollgate-request-id"]
    assert said["tollgate.cost_nano_usd"] == round(float(reply.headers["x-tollgate-cost-usd"]) * 1e9)
    assert (said["tollgate.outcome"], said["http.response.status_code"], said["tollgate.tenant"]) == ("ok", 200, "acme")


async def test_a_line_of_the_log_names_its_trace(traced: Traced) -> None:
    stream = io.StringIO()
    logs.configure(stream)
    try:
        await traced.chat(traceparent=CLIENT)
    finally:
        structlog.reset_defaults()
    (line,) = [orjson.loads(line) for line in stream.getvalue().splitlines() if '"request"' in line]
    assert line["trace_id"] == CLIENT.split("-")[1]


async def test_an_attempt_says_what_was_asked_answered_and_used(traced: Traced) -> None:
    usage = (await traced.chat()).json()["usage"]
    span = traced.spans()["chat sim-small?first_token_ms=0"]
    said = dict(span.attributes or {})
    assert span.kind is SpanKind.CLIENT
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.request.model"] == "sim-small?first_token_ms=0"
    assert said["gen_ai.usage.input_tokens"] == usage["prompt_tokens"]
    assert said["gen_ai.usage.output_tokens"] == usage["completion_tokens"]
    assert list(said["gen_ai.response.finish_reasons"]) in (["stop"], ["length"])


async def test_an_attempt_that_failed_says_why_and_the_request_is_well(traced: Traced) -> None:
    await traced.chat("failing")
    spans = traced.spans()
    failed = spans["chat sim-down?status=503"]
    assert failed.status.status_code is StatusCode.ERROR
    assert (failed.attributes or {})["error.type"] == "upstream_overloaded"
    assert spans["chat failing"].status.status_code is StatusCode.UNSET


async def test_the_provider_is_told_the_attempt_it_belongs_to(traced: Traced) -> None:
    await traced.chat(traceparent=CLIENT)
    context = traced.spans()["chat sim-small?first_token_ms=0"].context
    assert context is not None
    trace_id, span_id = traced.transport.headers[-1]["traceparent"].split("-")[1:3]
    assert (trace_id, span_id) == (CLIENT.split("-")[1], format_span_id(context.span_id))


async def test_nothing_of_the_conversation_and_no_secret_is_in_a_trace(traced: Traced) -> None:
    said = (await traced.chat()).json()["choices"][0]["message"]["content"]
    shown = "".join(span.to_json() for span in traced.spans().values())
    assert said
    assert not [word for word in (SECRET, said, KEY) if word in shown]


async def test_names_are_those_of_the_conventions(traced: Traced) -> None:
    await traced.chat("failing")
    known = {
        value
        for name, value in vars(gen_ai_attributes).items()
        if name.startswith("GEN_AI_") and isinstance(value, str)
    }
    used = {name for span in traced.spans().values() for name in span.attributes or {}}
    assert {name for name in used if name.startswith("gen_ai.")} <= known
    assert {name.partition(".")[0] for name in used} == {"gen_ai", "tollgate", "error", "http"}
    assert set(PROVIDERS.values()) <= {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    data = traced.reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for scope in data.resource_metrics[0].scope_metrics for metric in scope.metrics}
    assert set(metrics) == {gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION}
    kinds = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"].data.data_points
    }
    assert set(kinds) == {"input", "output"}
    assert all(kinds.values())


def test_off_nothing_of_it_is_imported_or_done() -> None:
    assert isinstance(watching({}), Unwatched)
    assert isinstance(watching({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}), Unwatched)
    code = "import sys, gateway.app; print('gateway.tracing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
