"""Bedrock's Converse.  https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html

options: those of `gateway.dialects.bedrock`, and
  guardrail: {guardrailIdentifier: ..., guardrailVersion: "1"}
  accepts: [cache_control, top_k]     # for models other than Claude and Nova
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import gateway.eventstream  # noqa: F401 - without botocore this dialect is refused at the start, and not at the first stream
from gateway.dialects import bedrock
from gateway.dialects.base import Bill, Call, Decoder
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Format, Provider, Request, Tenant


@dataclass(frozen=True, slots=True)
class BedrockConverse:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "bedrock"
    format: ClassVar[Format] = Format.CONVERSE

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The request in Amazon's words; the model stands in the address."""
        provider = step.deployment.provider
        verb = "converse-stream" if request.stream else "converse"
        return Call(
            url=bedrock.address(provider, step.deployment.upstream_model, verb),
            body=translated_body(request, step, tenant, self.format),
            headers={**bedrock.headers(provider, request), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """No client speaks this format."""
        return Translator(request, step, bill, self.format)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return bedrock.error(status, headers, body, provider, self.clock())
