"""Anthropic's Messages.  https://docs.anthropic.com/en/api/messages

options:
  path: /v1/messages          # after base_url
  auth: x-api-key             # bearer | none | the name of the header that takes the key
  version: "2023-06-01"       # of the API, for clients that name none
  usage: {cached: excluded}   # where its totals differ; see gateway.usage
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from gateway import money, sse, usage
from gateway.dialects import claude, refusal, relay, signatures
from gateway.dialects.base import Bill, Call, Decoder, Meter
from gateway.dialects.efforts import BUDGETS
from gateway.dialects.relay import Fields, StreamRelay, Texts, WholeRelay
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Capability, Format, Provider, Request, Tenant

VERSION = "2023-06-01"
BUDGET_MIN = 1024
"""Anthropic takes no smaller thinking budget."""


@dataclass(frozen=True, slots=True)
class AnthropicMessages:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "anthropic"
    format: ClassVar[Format] = Format.MESSAGES

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The client's own body with the model, cap and effort of the step."""
        provider = step.deployment.provider
        own = request.format is self.format
        body = relay.fields(request.raw if own else translated_body(request, step, tenant, self.format))
        body["model"] = step.deployment.upstream_model
        body["max_tokens"] = step.output_cap
        if own and signatures.in_bytes(request.raw):
            _drop_foreign_thoughts(body, request.body, step)
        if own and step.effort is not None:
            _set_effort(body, request.body, step, step.effort)
        version = {"anthropic-version": str(provider.options.get("version", VERSION))}
        passed_on = request.headers if own else {}
        return Call(
            url=relay.url(provider, "/v1/messages"),
            body=msgspec.json.encode(body),
            headers={**version, **passed_on, **relay.headers(provider, request, "x-api-key"), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """Relays to a client of this format, translates for any other."""
        if request.format is not self.format:
            return Translator(request, step, bill, self.format)
        provider = step.deployment.provider
        return MessagesStream(provider, bill, self.clock) if request.stream else MessagesWhole(provider, self.clock)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())


def _drop_foreign_thoughts(body: Fields, said: Mapping[str, Any], step: Step) -> None:
    """Takes out what Gemini thought; a tool loop that began with such thoughts ends without a budget for more."""
    body["messages"] = signatures.without_gemini(said.get("messages"))
    if claude.thinks_by_budget(step.deployment.upstream_model) and _answers_a_tool(said.get("messages")):
        body.pop("thinking", None)


def _set_effort(body: Fields, said: Mapping[str, Any], step: Step, effort: str) -> None:
    """The policy's effort in place of the client's thinking, as far as Anthropic would take it here."""
    model = step.deployment.upstream_model
    config = {name: value for name, value in _mapping(said.get("output_config")).items() if name != "effort"}
    body.pop("thinking", None)
    body.pop("output_config", None)
    by_budget = claude.thinks_by_budget(model)
    able = Capability.REASONING in step.deployment.capabilities and _may_think(said, by_budget=by_budget)
    if effort == "none" or not able or (by_budget and step.output_cap <= BUDGET_MIN):
        if claude.thinks_unasked(model):
            body["thinking"] = {"type": "disabled"}
    elif by_budget:
        budget = min(max(BUDGETS.get(effort, BUDGETS["medium"]), BUDGET_MIN), step.output_cap - 1)
        body["thinking"] = {"type": "enabled", "budget_tokens": budget}
    else:
        body["thinking"] = {"type": "adaptive"}
        config["effort"] = "low" if effort == "minimal" else effort
    if config:
        body["output_config"] = config


def _may_think(said: Mapping[str, Any], *, by_budget: bool) -> bool:
    """Thinking excludes a forced tool, sampling, and (with a budget) a tool loop that began without it."""
    if _mapping(said.get("tool_choice")).get("type") in ("any", "tool"):
        return False
    if said.get("top_k") is not None or said.get("temperature") not in (None, 1):
        return False
    thought = _mapping(said.get("thinking")).get("type") in ("enabled", "adaptive")
    return thought or not (by_budget and _answers_a_tool(said.get("messages")))


def _answers_a_tool(messages: object) -> bool:
    last = _mapping(messages[-1]).get("content") if isinstance(messages, list) and messages else None
    return isinstance(last, list) and any(_mapping(block).get("type") == "tool_result" for block in last)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


class _Delta(msgspec.Struct, gc=False):
    """Providers send anything anywhere: no field has a type."""

    text: Any = None
    thinking: Any = None
    partial_json: Any = None
    stop_reason: Any = None


class _Event(msgspec.Struct, gc=False):
    """An event of a stream."""

    type: Any = None
    delta: _Delta | None = None
    message: Any = None
    content_block: Any = None
    usage: Any = None
    error: Any = None


_EVENT = msgspec.json.Decoder(_Event)


def _event(raw: bytes) -> _Event | None:
    """What an event says; None if it is none of this format."""
    start = raw.find(b"data: {")
    if start >= 0:
        try:
            return _EVENT.decode(raw[start + 6 :])
        except ValueError:
            pass  # perhaps it has more lines than one
    try:
        return _EVENT.decode(relay.data(raw))
    except (ValueError, RecursionError):
        return None


class _Reading:
    """What both ways of reading learn into the meter."""

    def __init__(self, meter: Meter, texts: Texts, provider: Provider, clock: Callable[[], float]) -> None:
        self.meter, self.texts = meter, texts
        self._provider, self._clock = provider, clock
        self._rules = provider.options.get("usage", {})
        self._block: dict[str, Any] = {}

    def usage(self, block: object) -> None:
        """Keeps what is new: the counts are cumulative, and the last event may leave out what the first one told."""
        self._block |= {name: value for name, value in _mapping(block).items() if value is not None}
        found = usage.read(usage.MESSAGES, self._block, self._rules)
        if found is not None:
            self.meter.usage = found

    def message(self, message: Mapping[str, Any]) -> None:
        """A whole message, or the empty one that begins a stream."""
        self.meter.response_model = str(message.get("model") or "")
        self.meter.finish_reason = str(message.get("stop_reason") or "")
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            self.block(block)
        self.usage(message.get("usage"))

    def block(self, block: object) -> None:
        """The text of a content block, whatever its type."""
        block = _mapping(block)
        for name in ("text", "thinking", "name"):
            self.texts.add(block.get(name))
        if block.get("input"):
            self.texts.add(msgspec.json.encode(block["input"]).decode())

    def reported(self, data: bytes) -> GatewayError:
        """The error that an event or a body is."""
        return relay.reported(data, self._provider, self._clock())

    def whole(self, body: bytes) -> None:
        """A whole reply.  Raises the error it is, ValueError for what is none."""
        message = msgspec.json.decode(body, type=dict[str, Any])
        if message.get("type") != "message" and "content" not in message:
            raise self.reported(body)
        self.message(message)


class MessagesWhole(WholeRelay):
    """A reply in one piece."""

    def __init__(self, provider: Provider, clock: Callable[[], float]) -> None:
        super().__init__()
        self._reading = _Reading(self.meter, self._texts, provider, clock)

    def _learn(self, body: bytes) -> None:
        self._reading.whole(body)


class MessagesStream(StreamRelay):
    """A stream of typed events."""

    def __init__(self, provider: Provider, bill: Bill, clock: Callable[[], float]) -> None:
        super().__init__()
        self._reading = _Reading(self.meter, self._texts, provider, clock)
        self._bill = bill

    def cut(self, error: GatewayError) -> bytes:
        """An Anthropic-shaped error event."""
        what = {"type": error.anthropic_type, "message": error.message, "code": relay.error_code(error)}
        return sse.event(msgspec.json.encode({"type": "error", "error": what}), "error")

    def _event(self, raw: bytes) -> bytes:
        event = _event(raw)
        if event is None:
            return self._odd(raw)
        delta = event.delta
        if event.type == "content_block_delta":
            if delta is not None:
                self._texts.add(delta.text or delta.thinking or delta.partial_json)
        elif event.type == "content_block_start":
            self._reading.block(event.content_block)
        elif event.type == "message_start":
            self._reading.message(_mapping(event.message))
        elif event.type == "message_delta":
            return self._message_delta(raw, event)
        elif event.type == "message_stop":
            self.meter.complete = True
        elif event.type == "error" or event.error:
            raise self._reading.reported(relay.data(raw))
        return raw

    def _message_delta(self, raw: bytes, event: _Event) -> bytes:
        """The end: why, and the usage, to which its cost is added."""
        if event.delta is not None and event.delta.stop_reason:
            self.meter.finish_reason = str(event.delta.stop_reason)
        if not isinstance(event.usage, dict):
            return raw
        self._reading.usage(event.usage)
        total = self._bill(self.meter.usage).total if self.meter.usage is not None else None
        if total is None:
            return raw
        return relay.with_usage_cost(raw, money.dollars(total))

    def _odd(self, raw: bytes) -> bytes:
        """What is no event of this format: comments pass, the [DONE] of others does not, for SDKs read it as JSON."""
        data = sse.parse(raw).data
        if data is None or not data.strip():
            return raw
        if data.strip() == b"[DONE]":
            return b""
        relay.check_json(data)
        return raw

    def _end(self) -> bytes | None:
        return sse.event(b'{"type":"message_stop"}', "message_stop") if self.meter.finish_reason else None

    def _learn_whole(self, body: bytes) -> None:
        self._reading.whole(body)
