"""From the client's format to the provider's and back, through the hub; see `gateway.conversation`.

The dialects call this when a request's format is not theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from gateway.dialects.anthropic_messages_codec import MessagesCodec
from gateway.dialects.base import Bill, Meter
from gateway.dialects.bedrock_converse_codec import ConverseCodec
from gateway.dialects.codec import Codec, Heading, ProviderCodec
from gateway.dialects.cohere_chat_codec import CohereCodec
from gateway.dialects.deltas import (
    ArgumentsDelta,
    Delta,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Started,
    TextDelta,
    ToolCallStarted,
    UsageSeen,
    fold,
)
from gateway.dialects.gemini_codec import GeminiCodec
from gateway.dialects.ollama_chat_codec import OllamaCodec
from gateway.dialects.openai_chat_codec import ChatCodec
from gateway.dialects.openai_responses_codec import ResponsesCodec
from gateway.dialects.relay import BODY_BYTES_MAX, Texts
from gateway.errors import GatewayError, InvalidRequest, UnsupportedField, UpstreamBroken
from gateway.plan import Step
from gateway.types import Format, Request, Tenant

TOO_DEEP = "The provider's answer is nested too deeply."

CODECS: Mapping[Format, Codec] = {codec.format: codec for codec in (ChatCodec(), MessagesCodec(), ResponsesCodec())}
PROVIDERS: Mapping[Format, ProviderCodec] = {
    **CODECS,
    **{codec.format: codec for codec in (GeminiCodec(), ConverseCodec(), CohereCodec(), OllamaCodec())},
}
"""CODECS, and the formats that no client speaks."""


def translated_body(request: Request, step: Step, tenant: Tenant, to: Format) -> bytes:
    """The request as a provider of the format `to` reads it, with the model, cap and effort of the step.

    Raises InvalidRequest naming the path of what is malformed, and UnsupportedField naming what `to` cannot say (left
    out instead when `tenant.drop_params`).
    """
    if request.format not in CODECS:
        provider = step.deployment.provider
        raise UnsupportedField(f"Provider {provider.id} does not take requests for {request.format}.", param="model")
    try:
        conversation = CODECS[request.format].read_request(request.body)
        return orjson.dumps(PROVIDERS[to].write_request(conversation, step, drop_params=tenant.drop_params))
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise InvalidRequest("The body is nested too deeply, or holds what JSON cannot.") from error


class Translator:
    """A Decoder that reads the format `of` the provider and writes the client's."""

    def __init__(self, request: Request, step: Step, bill: Bill, of: Format) -> None:
        self.meter = Meter()
        self._codec = CODECS[request.format]
        self._bill = bill
        self._heading = heading(request, step)
        self._reader = PROVIDERS[of].reader(step.deployment.provider, request.received)
        self._writer = self._codec.writer(self._heading) if request.stream else None
        self._frames = PROVIDERS[of].frames()
        self._whole: bytearray | None = None if request.stream else bytearray()
        self._failure: GatewayError | None = None
        self._texts = Texts()
        self._calls: set[tuple[int, int]] = set()  # that have begun: choice and index

    def feed(self, chunk: bytes) -> bytes:
        """See Decoder.feed.  An error is raised once everything before it has been returned."""
        if self._failure is not None:
            raise self._failure
        if self._whole is None:
            data = self._frames.feed(chunk)
            self._whole = self._frames.whole
            return self._events(data)
        self._whole += chunk
        if len(self._whole) > BODY_BYTES_MAX:
            raise UpstreamBroken(f"The provider sent more than {BODY_BYTES_MAX} bytes.")
        return b""

    def finish(self) -> bytes:
        """See Decoder.finish."""
        if self._failure is not None:
            raise self._failure
        if self._whole is not None:
            return self._reply(bytes(self._whole))
        last = self._events(self._frames.rest())
        if self._failure is not None:
            raise self._failure
        return last + self._end()

    def cut(self, error: GatewayError) -> bytes:
        """See Decoder.cut.  A reply that is not streamed just ends."""
        return self._codec.error(error) if self._writer is not None else b""

    def generated(self) -> str:
        """See Decoder.generated.  Of a whole reply that broke off, all that came of its body."""
        return str(self._texts) or (self._whole or b"").decode(errors="replace")

    def _events(self, events: Iterable[bytes]) -> bytes:
        out: list[bytes] = []
        try:
            for data in events:
                out += [self._write(delta) for delta in self._read(data)]
        except GatewayError as error:
            self._failure = error
            if not any(out):
                raise
        return b"".join(out)

    def _reply(self, data: bytes) -> bytes:
        deltas = self._read(data, whole=True)
        if self._writer is not None:
            return b"".join([self._write(delta) for delta in deltas]) + self._end()
        usage = self.meter.usage
        try:
            return self._codec.write_reply(fold(deltas), self._heading, self._bill(usage) if usage else None)
        except orjson.JSONEncodeError as error:
            raise UpstreamBroken(TOO_DEEP) from error

    def _read(self, data: bytes, *, whole: bool = False) -> list[Delta]:
        try:
            deltas = list(self._reader.read_whole(data) if whole else self._reader.read(data))
        except (orjson.JSONDecodeError, InvalidRequest) as error:
            raise UpstreamBroken(f"The provider sent what cannot be read: {error}") from error
        for delta in deltas:
            self._learn(delta)
        if self._reader.failure is not None:
            raise self._reader.failure
        self.meter.complete = self._reader.complete
        return deltas

    def _learn(self, delta: Delta) -> None:
        match delta:
            case TextDelta(text) | ReasoningDelta(text) | RefusalDelta(text):
                self._texts.add(text)
            case ToolCallStarted(index=index, name=name, choice=choice):
                self._calls.add((choice, index))
                self._texts.add(name)
            case ArgumentsDelta(index, text, choice):
                if (choice, index) not in self._calls:
                    raise UpstreamBroken("The provider sent arguments of a tool call that never began.")
                self._texts.add(text)
            case Started(model=model):
                self.meter.response_model = model
            case UsageSeen(usage):
                self.meter.usage = usage
            case Finished(finish, choice=0):
                self.meter.finish_reason = self._codec.finishes[finish]
            case _:
                pass

    def _write(self, delta: Delta) -> bytes:
        try:
            return self._writer.write(delta) if self._writer is not None else b""
        except orjson.JSONEncodeError as error:
            raise UpstreamBroken(TOO_DEEP) from error

    def _end(self) -> bytes:
        if not self._reader.complete:
            raise UpstreamBroken("The provider's answer broke off.")
        usage = self.meter.usage
        return self._writer.end(usage, self._bill(usage) if usage else None) if self._writer is not None else b""


def heading(request: Request, step: Step) -> Heading:
    """What a stream to this client begins with."""
    asked = False
    for field, name in (("stream_options", "include_usage"), ("usage", "include")):  # OpenAI's way, and OpenRouter's
        options = request.body.get(field)
        asked = asked or (isinstance(options, Mapping) and options.get(name) is True)
    return Heading(
        id=request.id,
        model=step.deployment.upstream_model,
        created=int(request.received),
        input_expected=step.estimate.expected,
        include_usage=asked,
    )
