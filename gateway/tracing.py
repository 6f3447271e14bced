"""OpenTelemetry traces and metrics in the GenAI semantic conventions: a request, its plan, attempts and ledger.

On where the environment names an OTLP endpoint (`gateway.watching`); every other `OTEL_*` variable is the SDK's.  Off,
nothing here is even imported: the traced parts stand in for the usual ones, which know nothing of it.
What was asked and answered is never recorded.

    chat auto                  server; continues the client's `traceparent`
      plan
      ledger reserve
      chat gpt-5-mini          client; the provider gets its `traceparent`
      ledger settle
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec.structs import replace
from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider, format_trace_id
from structlog.contextvars import bound_contextvars

from gateway import __version__
from gateway.credentials.keyring import Keyring
from gateway.dialects.base import Call, Dialect
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.pipeline import Pipeline, Send
from gateway.plan import Plan, Step
from gateway.planner import Planner
from gateway.tokens import Content
from gateway.transport.base import Answer
from gateway.types import Bucket, Format, Outcome, Provider, Record, Request, Route, Tenant, Usage
from gateway.upstream import Terms, TransportFor, Upstream

NAME = "tollgate"
OPERATIONS: Mapping[Format, str] = {
    Format.COMPLETIONS: "text_completion",
    Format.EMBEDDINGS: "embeddings",
    Format.GEMINI: "generate_content",
}
"""Operations by format, as the conventions call them; the others are chat."""
PROVIDERS: Mapping[str, str] = {
    "openai": "openai",
    "openai_responses": "openai",
    "anthropic": "anthropic",
    "vertex_anthropic": "gcp.vertex_ai",
    "gemini": "gcp.gemini",
    "bedrock": "aws.bedrock",
    "bedrock_invoke": "aws.bedrock",
    "cohere": "cohere",
}
"""Providers by dialect, as the conventions call them; the others go by their own id."""
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


class Tracing:
    """One per process: where spans and measurements go."""

    def __init__(self, spans: TracerProvider, meters: MeterProvider) -> None:
        self.tracer = spans.get_tracer(NAME, __version__)
        meter = meters.get_meter(NAME, __version__)
        self._providers: tuple[Any, ...] = (spans, meters)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens in and out.", explicit_bucket_boundaries_advisory=TOKENS
        )
        self._seconds = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Whole requests.", explicit_bucket_boundaries_advisory=SECONDS
        )

    def measure(self, record: Record, labels: Mapping[str, str]) -> None:
        """One request that reached a provider."""
        error = {"error.type": record.error} if record.error else {}
        self._seconds.record(record.latency_ms / 1000, {**labels, **error})
        used = Usage({Bucket(kind): count for kind, count in record.tokens.items()})
        self._tokens.record(used.input_tokens, {**labels, "gen_ai.token.type": "input"})
        self._tokens.record(used.output_tokens, {**labels, "gen_ai.token.type": "output"})

    def pipeline(self, *parts: Any, **options: Any) -> Pipeline:  # noqa: ANN401  # the pipeline's own
        """One that is watched."""
        return TracedPipeline(self, *parts, **options)

    def planner(self, *parts: Any, **options: Any) -> Planner:  # noqa: ANN401  # the planner's own
        """One that is watched."""
        return TracedPlanner(self, *parts, **options)

    def upstream(self, transport_for: TransportFor, keyring: Keyring) -> Upstream:
        """One whose calls say which span they belong to."""
        return TracedUpstream(transport_for, keyring)

    def close(self) -> None:
        """Sends what is left.  Blocks for a while."""
        for provider in self._providers:
            if hasattr(provider, "shutdown"):
                provider.shutdown()


def over_otlp() -> Tracing:
    """To the endpoint of the environment, in batches, from a thread of its own.  ImportError without the packages."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415  # optional
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # optional
    from opentelemetry.sdk.metrics import MeterProvider as Meters  # noqa: PLC0415  # optional
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415  # optional
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # optional
    from opentelemetry.sdk.trace import TracerProvider as Tracers  # noqa: PLC0415  # optional
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  # optional

    named = {"service.name": os.environ.get("OTEL_SERVICE_NAME", NAME), "service.version": __version__}
    resource = Resource.create(named)
    spans = Tracers(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(spans, Meters([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource))


class TracedPipeline(Pipeline):
    """The pipeline, watched."""

    def __init__(self, tracing: Tracing, *parts: Any, **options: Any) -> None:  # noqa: ANN401  # the pipeline's own
        super().__init__(*parts, **options)
        self.tracing = tracing

    async def run(self, request: Request, tenant: Tenant, send: Send) -> Outcome:
        """Under a span that continues the client's."""
        before = propagate.extract(request.headers)
        labels = {"gen_ai.operation.name": _operation(request), "gen_ai.request.model": request.model}
        own = {"tollgate.request.id": request.id, "tollgate.tenant": tenant.id, "tollgate.key": request.key.id}
        with (
            _span(self.tracing, _name(labels), SpanKind.SERVER, {**labels, **own}, before) as span,
            bound_contextvars(trace_id=format_trace_id(span.get_span_context().trace_id)),
        ):
            return await super().run(request, tenant, send)

    async def hold(self, exchange: Exchange) -> None:
        """Under a span of its own."""
        with _span(self.tracing, "ledger reserve"):
            await super().hold(exchange)

    async def attempt(self, exchange: Exchange, step: Step, send: Send) -> None:
        """Under a span of its own, which the provider may continue."""
        labels = _labels(exchange.request, step)
        with _span(self.tracing, _name(labels), SpanKind.CLIENT, labels) as span:
            try:
                await super().attempt(exchange, step, send)
            finally:
                _answered(span, exchange)

    async def book(self, exchange: Exchange, usage: Usage | None) -> Record:
        """Under a span of its own; the request's span learns how it ended."""
        around = trace.get_current_span()
        with _span(self.tracing, "ledger settle"):
            record = await super().book(exchange, usage)
        _ended(around, record)
        self.tracing.measure(record, _labels(exchange.request, exchange.step))
        return record


class TracedPlanner(Planner):
    """The planner, watched."""

    def __init__(self, tracing: Tracing, *parts: Any, **options: Any) -> None:  # noqa: ANN401  # the planner's own
        super().__init__(*parts, **options)
        self.tracing = tracing

    def plan(
        self, request: Request, tenant: Tenant, content: Content, now: float, fill: float = 0.0
    ) -> tuple[Route | None, Plan]:
        """Under a span that says what was chosen and why."""
        with _span(self.tracing, "plan") as span:
            route, plan = super().plan(request, tenant, content, now, fill)
            span.set_attribute("tollgate.route", route.id if route else "")
            span.set_attribute("tollgate.plan.steps", [step.deployment.id for step in plan.steps])
            span.set_attribute("tollgate.plan.reasons", list(plan.reasons))
            return route, plan


class TracedUpstream(Upstream):
    """Calls tell the provider which span they belong to."""

    async def open(self, call: Call, provider: Provider, dialect: Dialect, terms: Terms | None = None) -> Answer:
        """As the usual one."""
        headers = dict(call.headers)
        propagate.inject(headers)
        return await super().open(replace(call, headers=headers), provider, dialect, terms)


@contextmanager
def _span(
    tracing: Tracing,
    name: str,
    kind: SpanKind = SpanKind.INTERNAL,
    labels: Mapping[str, str] | None = None,
    parent: Context | None = None,
) -> Iterator[Span]:
    with tracing.tracer.start_as_current_span(
        name, parent, kind, labels, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except GatewayError as error:
            span.set_attribute("error.type", error.code)
            span.set_status(StatusCode.ERROR)
            raise
        except Exception as bug:
            span.set_attribute("error.type", type(bug).__name__)
            span.set_status(StatusCode.ERROR)
            raise


def _operation(request: Request) -> str:
    return OPERATIONS.get(request.format, "chat")


def _name(labels: Mapping[str, str]) -> str:
    return f"{labels['gen_ai.operation.name']} {labels['gen_ai.request.model']}"


def _labels(request: Request, step: Step) -> dict[str, str]:
    provider = step.deployment.provider
    return {
        "gen_ai.operation.name": _operation(request),
        "gen_ai.provider.name": PROVIDERS.get(provider.dialect, provider.id),
        "gen_ai.request.model": step.deployment.upstream_model,
    }


def _answered(span: Span, exchange: Exchange) -> None:
    meter = exchange.decoder.meter if exchange.decoder else None
    span.set_attribute("tollgate.deployment", exchange.step.deployment.id)
    if meter is None:
        return
    if meter.response_model:
        span.set_attribute("gen_ai.response.model", meter.response_model)
    if meter.finish_reason:
        span.set_attribute("gen_ai.response.finish_reasons", [meter.finish_reason])
    if meter.usage is not None:
        span.set_attribute("gen_ai.usage.input_tokens", meter.usage.input_tokens)
        span.set_attribute("gen_ai.usage.output_tokens", meter.usage.output_tokens)
        span.set_attribute("gen_ai.usage.cache_read.input_tokens", meter.usage.cached_tokens)


def _ended(span: Span, record: Record) -> None:
    span.set_attribute("tollgate.outcome", record.outcome)
    span.set_attribute("tollgate.deployment", record.deployment)
    span.set_attribute("tollgate.attempts", record.attempts)
    if record.status:
        span.set_attribute("http.response.status_code", record.status)
    if record.response_model:
        span.set_attribute("gen_ai.response.model", record.response_model)
    if record.cost is not None:
        span.set_attribute("tollgate.cost_nano_usd", record.cost)
    if record.error:
        span.set_attribute("error.type", record.error)
        span.set_status(StatusCode.ERROR)
