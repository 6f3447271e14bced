"""Anthropic's Messages on Google's cloud: the model is in the URL, the version in the body.

https://docs.anthropic.com/en/api/claude-on-vertex-ai

options: those of `anthropic`, and
  project, location       # see gateway.dialects.vertex
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from gateway.dialects import relay, vertex
from gateway.dialects.anthropic_messages import AnthropicMessages
from gateway.dialects.base import Call
from gateway.plan import Step
from gateway.types import Request, Tenant

VERSION = "vertex-2023-10-16"


class VertexAnthropic(AnthropicMessages):
    """See Dialect."""

    __slots__ = ()

    name: ClassVar[str] = "vertex_anthropic"

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """As Anthropic's, at rawPredict or streamRawPredict."""
        call = super().encode(request, step, tenant)
        provider = step.deployment.provider
        body = relay.fields(call.body)
        del body["model"]
        body["anthropic_version"] = VERSION
        method = "streamRawPredict" if request.stream else "rawPredict"
        model = quote(step.deployment.upstream_model, safe="@")
        headers = {name: value for name, value in call.headers.items() if name != "anthropic-version"}
        return replace(
            call,
            url=f"{vertex.address(provider)}/publishers/anthropic/models/{model}:{method}",
            body=msgspec.json.encode(body),
            headers=headers,
        )
