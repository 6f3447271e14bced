"""OpenAI's Responses, and what is made in its image.  https://platform.openai.com/docs/api-reference/responses

options: as in `openai_chat`, but for what concerns chat alone, and

    reasoning_summary: auto           # ask for what the model thought in short, where a client speaks another format
    accepts: [encrypted_reasoning]    # what the model thought comes back encrypted, as from OpenAI's own models

A response that the provider stores goes to the client with an id that names the deployment (`stored`); everything else
is relayed as it came.  One that is made in the background is not over when its reply is: `Meter.pending` says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from gateway import money, sse
from gateway.dialects import gpt, paths, refusal, relay, stored
from gateway.dialects.base import Bill, Call, Decoder, Meter
from gateway.dialects.openai_chat import drop_rejected
from gateway.dialects.openai_responses_codec.metering import metered
from gateway.dialects.openai_responses_codec.shapes import error_event
from gateway.dialects.relay import Fields, StreamRelay, Texts, WholeRelay
from gateway.dialects.stored import Stored
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Capability, Deployment, Format, Provider, Request, Tenant

_NULL = Raw(b"null")
PENDING = frozenset({"queued", "in_progress"})


@dataclass(frozen=True, slots=True)
class OpenAIResponses:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "openai_responses"
    format: ClassVar[Format] = Format.RESPONSES

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The client's own body with the model, cap and effort of the step."""
        provider = step.deployment.provider
        own = request.format is self.format
        body = relay.fields(request.raw if own else translated_body(request, step, tenant, self.format))
        body["model"] = step.deployment.upstream_model
        body["max_output_tokens"] = step.output_cap
        if step.effort is not None and own:
            _set_effort(body, step)
        relay.set_tier(body, step)
        before = request.body.get("previous_response_id")
        if own and isinstance(before, str):
            body["previous_response_id"] = stored.read(before, tenant.id).id
        drop_rejected(body, provider, tenant)
        passed_on = {name: value for name, value in request.headers.items() if not name.startswith("anthropic-")}
        return Call(
            url=paths.url(provider, self.format, step.deployment.upstream_model),
            body=msgspec.json.encode(body),
            headers={**passed_on, **relay.headers(provider, request, "bearer"), **provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:
        """Relays to a client of this format, translates for any other."""
        if request.format is not self.format:
            return Translator(request, step, bill, self.format)
        kind = ResponsesStream if request.stream else ResponsesWhole
        return kind(_Reading(request, step, bill, self.clock))

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())


def kept(deployment: Deployment, id_: str, below: str = "", *, method: str = "GET", query: str = "") -> Call:
    """The call that asks the provider for a response it keeps, or for what is `below` it: /cancel, /input_items."""
    provider = deployment.provider
    url = paths.url(provider, Format.RESPONSES, deployment.upstream_model, f"/{id_}{below}")
    if query:
        url += f"{'&' if '?' in url else '?'}{query}"
    return Call(url, b"", {**relay.proof(provider, "bearer"), **provider.headers}, method)


def _set_effort(body: Fields, step: Step) -> None:
    word = gpt.effort_word(step.deployment.upstream_model, step.effort or "")
    if word and Capability.REASONING in step.deployment.capabilities:
        body["reasoning"] = {**relay.nested(body.get("reasoning")), "effort": word}


_NOTHING = Raw()


class _Response(msgspec.Struct, gc=False):
    """A response as far as it is metered.  Providers send anything anywhere: no field has a type."""

    id: Any = ""
    status: Any = ""
    model: Any = ""
    store: Any = None
    service_tier: Any = None
    usage: Any = None
    error: Any = None
    incomplete_details: Any = None
    output: Any = None


class _Event(msgspec.Struct, gc=False):
    type: Any = ""
    delta: Any = None
    response: Raw = _NOTHING


_RESPONSE = msgspec.json.Decoder(_Response)
_EVENT = msgspec.json.Decoder(_Event)


class _Reading:
    """What both ways of reading learn into the meter, and how a response's ids and usage are told."""

    def __init__(self, request: Request, step: Step, bill: Bill, clock: Callable[[], float]) -> None:
        self.meter = Meter()
        self.texts = Texts()
        self.request = request
        self.provider = step.deployment.provider
        self._deployment = step.deployment.id
        self._bill = bill
        self._clock = clock

    def learn(self, response: _Response) -> None:
        """Its state.  Raises the error it failed with."""
        meter = self.meter
        meter.response_model = str(response.model or "")
        found = metered(msgspec.structs.asdict(response), self.provider)
        if found is not None:
            meter.usage = found
        details = response.incomplete_details
        reason = details.get("reason") if isinstance(details, Mapping) else None
        meter.finish_reason = str(reason or response.status or "")
        background = self.request.body.get("background") is True
        meter.pending = str(response.id) if background and str(response.status) in PENDING else ""
        if response.status == "failed":
            meter.complete = True
            raise refusal.reported({"error": response.error}, self.provider, self._clock())

    def told(self, raw: bytes, response: _Response, *, cost: bool) -> bytes:
        """The response object as the client gets it."""
        changes: dict[str, object] = {}
        if self.request.body.get("store") is not False and response.store is not False and response.id:
            tenant = self.request.key.tenant
            changes["id"] = Stored(self._deployment, str(response.id)).told(tenant)
            if before := self.request.body.get("previous_response_id"):
                changes["previous_response_id"] = before
        total = self._bill(self.meter.usage).total if cost and self.meter.usage is not None else None
        if total is not None:
            usage = relay.nested(relay.fields(raw).get("usage"))
            changes["usage"] = {**usage, "cost": Raw(money.dollars(total).encode())}
        return relay.edited(raw, changes) if changes else raw

    def reported(self, data: bytes) -> GatewayError:
        """The error that an event or a body is, in whichever shape."""
        return relay.reported(data, self.provider, self._clock())


class ResponsesWhole(WholeRelay):
    """A reply in one piece."""

    def __init__(self, reading: _Reading) -> None:
        super().__init__()
        self._reading, self.meter, self._texts = reading, reading.meter, reading.texts
        self._response = _Response()

    def finish(self) -> bytes:
        """The body.  Raises the error it holds, UpstreamBroken for what cannot be read."""
        return self._reading.told(super().finish(), self._response, cost=False)

    def _learn(self, body: bytes) -> None:
        self._response = _RESPONSE.decode(body)
        if self._response.output is None and str(self._response.status) not in PENDING | {"failed", "cancelled"}:
            raise self._reading.reported(body)
        self._reading.learn(self._response)


class ResponsesStream(StreamRelay):
    """A stream of typed events.  What comes before anything is made waits: a failure at the start stays invisible."""

    def __init__(self, reading: _Reading) -> None:
        super().__init__()
        self._reading, self.meter, self._texts = reading, reading.meter, reading.texts
        self._held: list[bytes] | None = None if reading.request.body.get("background") is True else []
        self._failed = b""

    def cut(self, error: GatewayError) -> bytes:
        """The provider's own last event where it failed by one, else an error event."""
        return self._failed or error_event(error)

    def _event(self, raw: bytes) -> bytes:
        event = _event(raw)
        if event is None:
            return self._odd(raw)
        kind = str(event.type)
        if kind.endswith(".delta"):
            self._texts.add(event.delta)
        elif bytes(event.response)[:1] == b"{":
            return self._state(raw, kind, event.response)
        elif kind == "error":
            raise self._reading.reported(relay.data(raw))
        return self._released(raw)

    def _state(self, raw: bytes, kind: str, data: Raw) -> bytes:
        response = _RESPONSE.decode(data)
        last = kind not in ("response.created", "response.queued", "response.in_progress")
        try:
            self._reading.learn(response)
        except GatewayError:
            self._failed = self._retold(raw, bytes(data), response)
            raise
        told = self._retold(raw, bytes(data), response, cost=last)
        if last:
            self.meter.complete = True
        elif self._held is not None:
            self._held.append(told)
            return b""
        return self._released(told)

    def _retold(self, raw: bytes, response: bytes, found: _Response, *, cost: bool = False) -> bytes:
        told = self._reading.told(response, found, cost=cost)
        if told is response:
            return raw
        data = relay.data(raw)
        return relay.with_data(raw, data, relay.edited(data, {"response": Raw(told)}))

    def _released(self, raw: bytes) -> bytes:
        if self._held is None:
            return raw
        out, self._held = b"".join((*self._held, raw)), None
        return out

    def _odd(self, raw: bytes) -> bytes:
        """What is no event of this format: a comment, [DONE], or what cannot be read."""
        data = sse.parse(raw).data
        if data is not None and data.strip() not in (b"", b"[DONE]"):
            relay.check_json(data)
            if relay.nested(Raw(data)).get("error", _NULL) != _NULL:
                raise self._reading.reported(data)
        return raw if self._held is None else b""

    def _end(self) -> bytes | None:
        return None

    def _learn_whole(self, body: bytes) -> None:
        raise self._reading.reported(body)


def _event(raw: bytes) -> _Event | None:
    """The event, if it is one of this format's."""
    try:
        event = _EVENT.decode(relay.data(raw))
    except (ValueError, RecursionError):
        return None
    return event if event.type else None
