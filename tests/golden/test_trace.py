"""One request as a collector gets it over OTLP from the real exporters: its trace is held against a golden one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from collector import Collector, attributes, collecting
from harness import KEY, config
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.semconv.attributes import error_attributes, http_attributes, service_attributes

from gateway import __version__, settings
from gateway.app import Gateway, running
from gateway.simulated import SimulatedTransport
from gateway.watching import watching

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
DOWN = "  - {id: down, provider: simulated, upstream_model: 'sim-down?status=503', price: {input: 0, output: 0}}\n"
SMALL = "sim-small?first_token_ms=0&output=7"
SECRET = "the content of a conversation"
VARIES = {"tollgate.request.id", "tollgate.key", "gen_ai.response.id"}

ASKED = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "simulated"}
GOLDEN: dict[str, tuple[str, str, dict[str, Any]]] = {
    "chat failing": (
        "SERVER",
        "client",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "failing",
            "gen_ai.response.model": "sim-small",
            "http.response.status_code": 200,
            "tollgate.attempts": 2,
            "tollgate.cost_nano_usd": 19_000,
            "tollgate.deployment": "small",
            "tollgate.outcome": "ok",
            "tollgate.tenant": "acme",
        },
    ),
    "plan": (
        "INTERNAL",
        "chat failing",
        {
            "tollgate.plan.reasons": ["cheapest"],
            "tollgate.plan.steps": ["down", "small"],
            "tollgate.route": "failing",
        },
    ),
    "ledger reserve": ("INTERNAL", "chat failing", {}),
    "chat sim-down?status=503": (
        "CLIENT",
        "chat failing",
        {
            **ASKED,
            "error.type": "upstream_overloaded",
            "gen_ai.request.model": "sim-down?status=503",
            "tollgate.deployment": "down",
        },
    ),
    f"chat {SMALL}": (
        "CLIENT",
        "chat failing",
        {
            **ASKED,
            "gen_ai.request.model": SMALL,
            "gen_ai.response.finish_reasons": ["stop"],
            "gen_ai.response.model": "sim-small",
            "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 7,
            "tollgate.deployment": "small",
        },
    ),
    "ledger settle": ("INTERNAL", "chat failing", {}),
}
"""Span: kind, whose child, and what it says."""


async def collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, status: int, *, limit: str = "100", **fields: Any
) -> Collector:
    """What came from a gateway that has answered one request and has stopped."""
    with collecting() as found:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": found.url, "OTEL_SERVICE_NAME": "the-gateway"}
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        text = config(tmp_path, script="?first_token_ms=0&output=7", limit=limit).replace(
            "routes:", f"{DOWN}routes:\n  failing: {{candidates: [down, small], policies: [cheapest]}}"
        )
        app = Gateway(lambda: settings.parse(text, {}), transport=lambda _: SimulatedTransport(), watched=watching(env))
        async with running(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as client:
                turns = [{"role": "user", "content": SECRET}]
                body = {"model": model, "messages": turns, "max_tokens": 20, **fields}
                headers = {"authorization": f"Bearer {KEY}", "traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01"}
                reply = await client.post("/v1/chat/completions", json=body, headers=headers)
                assert reply.status_code == status
        return found


@pytest.fixture
async def collector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """After one request that failed over once."""
    return await collected(tmp_path, monkeypatch, "failing", 200)


def told(collector: Collector) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Spans by name: kind, parent's name, attributes but for what is another in each run."""
    names = {span.span_id: span.name for span in collector.spans} | {bytes.fromhex(CLIENT_SPAN): "client"}
    return {
        span.name: (
            Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
            names[span.parent_span_id],
            {name: value for name, value in sorted(attributes(span).items()) if name not in VARIES},
        )
        for span in collector.spans
    }


async def test_the_trace_a_collector_gets_is_the_golden_one(collector: Collector) -> None:
    assert told(collector) == GOLDEN
    assert {span.trace_id.hex() for span in collector.spans} == {TRACE}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in collector.spans)


async def test_a_collector_knows_which_service_sent_it(collector: Collector) -> None:
    for resource in collector.resources:
        assert resource[service_attributes.SERVICE_NAME] == "the-gateway"
        assert resource[service_attributes.SERVICE_VERSION] == __version__


async def test_every_name_on_the_wire_is_of_the_conventions_or_our_own(collector: Collector) -> None:
    modules = (gen_ai_attributes, http_attributes, error_attributes)
    known = {value for module in modules for value in vars(module).values() if isinstance(value, str)}
    points = [point for metric in collector.metrics for point in metric.histogram.data_points]
    used = {name for holder in [*collector.spans, *points] for name in attributes(holder)}
    assert {name for name in used if not name.startswith("tollgate.")} <= known
    assert points


async def test_the_measurements_on_the_wire_are_those_of_the_conventions(collector: Collector) -> None:
    metrics = {metric.name: metric for metric in collector.metrics}
    assert set(metrics) == {gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE, gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION}
    assert metrics["gen_ai.client.token.usage"].unit == "{token}"
    assert metrics["gen_ai.client.operation.duration"].unit == "s"
    tokens = {
        attributes(point)["gen_ai.token.type"]: point.sum
        for point in metrics["gen_ai.client.token.usage"].histogram.data_points
    }
    said = told(collector)[f"chat {SMALL}"][2]
    assert tokens == {"input": said["gen_ai.usage.input_tokens"], "output": said["gen_ai.usage.output_tokens"]}


async def test_no_content_and_no_secret_goes_over_the_wire(collector: Collector) -> None:
    wire = b"".join(each.SerializeToString() for each in [*collector.spans, *collector.metrics])
    assert not [word for word in (SECRET, KEY) if word.encode() in wire]


def points(collector: Collector, name: str) -> list[Any]:
    (metric,) = [metric for metric in collector.metrics if metric.name == name]
    return list(metric.histogram.data_points)


async def test_the_measurements_have_the_attributes_and_buckets_that_the_conventions_ask_for(
    collector: Collector,
) -> None:
    asked = {"gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"}
    (duration,) = points(collector, gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION)
    assert set(attributes(duration)) == asked
    assert list(duration.explicit_bounds) == [0.01 * 2**power for power in range(14)]
    tokens = points(collector, gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE)
    assert {frozenset(attributes(point)) for point in tokens} == {frozenset(asked | {"gen_ai.token.type"})}
    assert all(list(point.explicit_bounds) == [4**power for power in range(14)] for point in tokens)


async def test_a_stream_is_one_whole_trace_and_says_what_it_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = told(await collected(tmp_path, monkeypatch, "small", 200, stream=True))
    client = f"chat {SMALL}"
    assert {name: parent for name, (_, parent, _) in spans.items()} == {
        "chat small": "client",
        "plan": "chat small",
        "ledger reserve": "chat small",
        client: "chat small",
        "ledger settle": "chat small",
    }
    assert spans[client][2] == GOLDEN[client][2]
    assert spans["chat small"][2] == {
        **GOLDEN["chat failing"][2],
        "gen_ai.request.model": "small",
        "tollgate.attempts": 1,
    }


async def test_a_request_that_fails_says_so_in_its_attempt_its_trace_and_its_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = await collected(tmp_path, monkeypatch, "down", 503)
    spans = told(found)
    assert set(spans) == {"chat down", "plan", "ledger reserve", "chat sim-down?status=503", "ledger settle"}
    root = spans["chat down"][2]
    assert (root["error.type"], root["tollgate.outcome"]) == ("upstream_overloaded", "upstream_error")
    bad = {span.name for span in found.spans if span.status.code == Status.STATUS_CODE_ERROR}
    assert bad == {"chat down", "chat sim-down?status=503"}
    (duration,) = points(found, gen_ai_metrics.GEN_AI_CLIENT_OPERATION_DURATION)
    assert attributes(duration)["error.type"] == "upstream_overloaded"


async def test_a_full_budget_is_seen_where_the_ledger_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await collected(tmp_path, monkeypatch, "small", 429, limit="0.000001")
    spans = told(found)
    assert set(spans) == {"chat small", "plan", "ledger reserve"}
    assert spans["ledger reserve"][2] == {"error.type": "budget_exceeded"}
    assert spans["chat small"][2]["error.type"] == "budget_exceeded"
    assert not found.metrics, "no provider was asked"
