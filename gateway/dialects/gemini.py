"""Google's generateContent, on AI Studio and on Vertex AI.  https://ai.google.dev/api/generate-content

No client speaks it, so every request and reply is translated.

options:
  path: /models           # after base_url (and the project): where the models are
  auth: x-goog-api-key    # bearer | none | the name of the header that takes the key
  project, location       # on Vertex AI; see gateway.dialects.vertex
  usage: {reasoning: included}  # where its totals differ; see gateway.usage
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from gateway.dialects import refusal, relay, vertex
from gateway.dialects.base import Bill, Call, Decoder
from gateway.dialects.gemini_codec.request_writer import TIERS
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Format, Provider, Request, Tenant


@dataclass(frozen=True, slots=True)
class Gemini:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "gemini"
    format: ClassVar[Format] = Format.GEMINI

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The request in Google's words; model and method are in the URL."""
        provider = step.deployment.provider
        tier: dict[str, str] = {}
        if vertex.is_vertex(provider) and step.service_tier in TIERS:
            tier["X-Vertex-AI-LLM-Shared-Request-Type"] = step.service_tier
        return Call(
            url=_url(provider, step.deployment.upstream_model, stream=request.stream),
            body=translated_body(request, step, tenant, self.format),
            headers={**tier, **relay.headers(provider, request, "x-goog-api-key"), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """See Dialect."""
        return Translator(request, step, bill, self.format)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())


def _url(provider: Provider, model: str, *, stream: bool) -> str:
    """A model that names its own place (tunedModels/x, endpoints/7) keeps it."""
    path = str(provider.options.get("path", "/models")) if "/" not in model else ""
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"{vertex.address(provider)}{path}/{quote(model)}:{method}"
