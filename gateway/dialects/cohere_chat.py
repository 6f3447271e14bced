"""Cohere's Chat v2.  https://docs.cohere.com/reference/chat

options:
  path: /v2/chat      # after base_url
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
class CohereChat:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "cohere"
    format: ClassVar[Format] = Format.COHERE

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The request in Cohere's words."""
        provider = step.deployment.provider
        return Call(
            url=relay.url(provider, "/v2/chat"),
            body=translated_body(request, step, tenant, self.format),
            headers={**relay.headers(provider, request, "bearer"), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """No client speaks this format."""
        return Translator(request, step, bill, self.format)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())
