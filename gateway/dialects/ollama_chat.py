"""Ollama's own chat.  https://docs.ollama.com/api/chat

Ollama cuts a prompt that is longer than its context without a word: state `num_ctx`, or OLLAMA_CONTEXT_LENGTH there,
and the same number as the deployment's context_max.

options:
  path: /api/chat      # after base_url
  num_ctx: 8192        # tokens of context to be loaded
  keep_alive: 30m      # how long the model stays in memory
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from gateway.dialects import refusal, relay
from gateway.dialects.base import Bill, Call, Decoder
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Format, Provider, Request, Tenant


@dataclass(frozen=True, slots=True)
class OllamaChat:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "ollama"
    format: ClassVar[Format] = Format.OLLAMA

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The request in Ollama's words."""
        provider = step.deployment.provider
        accept = {"accept": "application/x-ndjson" if request.stream else "application/json"}
        return Call(
            url=relay.url(provider, "/api/chat"),
            body=translated_body(request, step, tenant, self.format),
            headers={**relay.headers(provider, request, "bearer"), **accept, **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """No client speaks this format."""
        return Translator(request, step, bill, self.format)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())
