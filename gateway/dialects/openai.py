"""A provider in OpenAI's image, with all that it takes: each request goes where its own format is spoken.

Chat, legacy completions and the endpoints of `endpoints` are taken by all, Responses by those who say so
(`options: {paths: {responses: /responses}}`).  A request of another format is translated into chat; into Responses
where the model, or the provider, has no chat (`chat_serves_all: true`: its chat has every model).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import ClassVar

from gateway.dialects import gpt, paths
from gateway.dialects.base import Bill, Call, Decoder, Dialect
from gateway.dialects.endpoints import ENDPOINTS, Endpoints
from gateway.dialects.openai_chat import OpenAIChat, OpenAICompletions
from gateway.dialects.openai_responses import OpenAIResponses
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Deployment, Format, Provider, Request, Tenant


class OpenAI:
    """See Dialect."""

    name: ClassVar[str] = "openai"
    format: ClassVar[Format] = Format.CHAT

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._chat: Dialect = OpenAIChat(clock)
        self._completions = OpenAICompletions(clock)
        self._responses = OpenAIResponses(clock)
        self._endpoints = Endpoints(clock)

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """See Dialect."""
        return self._of(request.format, step.deployment).encode(request, step, tenant)

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """See Dialect."""
        return self._of(request.format, step.deployment).decoder(request, step, bill)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return self._chat.error(status, headers, body, provider)

    def _of(self, format_: Format, deployment: Deployment) -> Dialect:
        if format_ in ENDPOINTS:
            return self._endpoints
        if format_ is OpenAICompletions.format:
            return self._completions
        if paths.speaks_responses(deployment.provider) and (
            format_ is OpenAIResponses.format
            or (
                gpt.needs_responses(deployment.upstream_model)
                and not deployment.provider.options.get("chat_serves_all")
            )
            or paths.path(deployment.provider, self.format) is None
        ):
            return self._responses
        return self._chat
