"""Bedrock's InvokeModel, for the models whose own format the gateway speaks: Claude's (Anthropic's Messages) and
OpenAI's (Chat Completions).  A stream is that format's events inside Amazon's.  Any other model has `bedrock_converse`.

https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages.html

options: those of `gateway.dialects.bedrock`, and those of the model's own format
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from gateway import sse
from gateway.dialects import bedrock, relay
from gateway.dialects.anthropic_messages import AnthropicMessages
from gateway.dialects.base import Bill, Call, Decoder
from gateway.dialects.bedrock_frames import BedrockFrames, chunk
from gateway.dialects.openai_chat import OpenAIChat
from gateway.errors import GatewayError, UnsupportedField
from gateway.plan import Step
from gateway.types import Format, Provider, Request, Tenant

VERSION = "bedrock-2023-05-31"
NOT_TAKEN = ("model", "stream", "service_tier")
"""Fields of Anthropic's that Amazon takes for a mistake; the first two are in the address."""

_METRICS = "amazon-bedrock-invocationMetrics"
_METRICS_BYTES = _METRICS.encode()


@dataclass(frozen=True, slots=True)
class BedrockInvoke:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "bedrock_invoke"
    format: ClassVar[Format] = Format.MESSAGES

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The body as the model's maker would get it.  Raises UnsupportedField for other makers' models."""
        provider, model = step.deployment.provider, step.deployment.upstream_model
        own = self._own(model)
        body = relay.fields(own.encode(request, step, tenant).body)
        if own.format is Format.MESSAGES:
            for name in NOT_TAKEN:
                body.pop(name, None)
            body["anthropic_version"] = VERSION
            if betas := request.headers.get("anthropic-beta"):
                body["anthropic_beta"] = [beta.strip() for beta in betas.split(",")]
        verb = "invoke-with-response-stream" if request.stream else "invoke"
        return Call(
            url=bedrock.address(provider, model, verb),
            body=msgspec.json.encode(body),
            headers={**bedrock.headers(provider, request), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """Reads as the model's own format does, once Amazon's frames are off."""
        own = self._own(step.deployment.upstream_model)
        decoder = own.decoder(request, step, bill)
        return Unframed(decoder, own.format) if request.stream else decoder

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return bedrock.error(status, headers, body, provider, self.clock())

    def _own(self, model: str) -> AnthropicMessages | OpenAIChat:
        if "claude" in model:
            return AnthropicMessages(self.clock)
        if "openai." in model:
            return OpenAIChat(self.clock)
        raise UnsupportedField(
            f"{model} cannot be invoked in its own format; the dialect 'bedrock' can.", param="model"
        )


class Unframed:
    """A Decoder that takes Amazon's frames off and gives another the server-sent events that it expects."""

    def __init__(self, inner: Decoder, format_: Format) -> None:
        self.meter = inner.meter
        self._inner = inner
        self._event = _chat_event if format_ is Format.CHAT else _message_event
        self._frames = BedrockFrames(chunk)

    def feed(self, chunk: bytes) -> bytes:
        """See Decoder.feed."""
        events = self._frames.feed(chunk)
        if self._frames.whole is not None:
            return self._inner.feed(chunk)
        return self._inner.feed(b"".join([self._event(data) for data in events])) if events else b""

    def finish(self) -> bytes:
        """See Decoder.finish."""
        self._frames.rest()
        return self._inner.finish()

    def cut(self, error: GatewayError) -> bytes:
        """See Decoder.cut."""
        return self._inner.cut(error)

    def generated(self) -> str:
        """See Decoder.generated."""
        return self._inner.generated()


class _Typed(msgspec.Struct):
    type: Any = None


class _Metrics(msgspec.Struct):
    inputTokenCount: int = 0  # noqa: N815 - Amazon's name
    outputTokenCount: int = 0  # noqa: N815 - Amazon's name


class _Metered(msgspec.Struct):
    metrics: _Metrics = msgspec.field(name=_METRICS, default_factory=_Metrics)


_TYPE = msgspec.json.Decoder(_Typed)
_METERED = msgspec.json.Decoder(_Metered)


def _message_event(data: bytes) -> bytes:
    try:
        kind = _TYPE.decode(data).type
    except (ValueError, RecursionError):
        kind = None
    return sse.event(data, kind if isinstance(kind, str) and kind.isidentifier() else "")


def _chat_event(data: bytes) -> bytes:
    """The count that Amazon adds stands in for a usage that is not there."""
    if data.find(_METRICS_BYTES) >= 0 and data.find(b'"usage"') < 0:  # `in` raises and catches an error first
        try:
            metrics = _METERED.decode(data).metrics
        except ValueError:
            return sse.event(data)
        total = metrics.inputTokenCount + metrics.outputTokenCount
        counts = {"prompt_tokens": metrics.inputTokenCount, "completion_tokens": metrics.outputTokenCount}
        data = relay.edited(data, {"usage": counts | {"total_tokens": total}})
    return sse.event(data)
