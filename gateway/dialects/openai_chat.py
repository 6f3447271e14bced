"""OpenAI's Chat Completions, and whatever is made in its image.  https://platform.openai.com/docs/api-reference/chat

What a provider does differently is data in its entry:

    options:
      path: /chat/completions           # after base_url
      query: {api-version: "2024-10-21"}
      auth: bearer                      # bearer | none | the name of the header that takes the key
      max_tokens_field: max_tokens      # else the client's own, or what the model's family takes
      effort_field: reasoning_effort    # or `reasoning`, whose `effort` it then is; or `none`
      stream_usage: asked               # `always` or `never`: it is not asked for usage in streams
      rejects: [user, seed]             # request fields that are an error there
      usage: {cached: excluded, reasoning: excluded}    # where its totals differ; see gateway.usage
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Raw

from gateway import money, sse, usage
from gateway.dialects import gpt, paths, refusal, relay
from gateway.dialects.base import Bill, Call, Decoder, Meter
from gateway.dialects.relay import Fields, StreamRelay, Texts, WholeRelay
from gateway.dialects.translate import Translator, translated_body
from gateway.errors import GatewayError, UnsupportedField
from gateway.plan import Step
from gateway.types import Capability, Format, Provider, Request, Tenant, Usage

DONE = b"[DONE]"
CAPS = ("max_completion_tokens", "max_tokens")
HARMLESS = frozenset({"stream_options", "user", "store"})
"""Fields that do not change the answer: left out without a word where a provider rejects them."""

_NULL = Raw(b"null")


@dataclass(frozen=True, slots=True)
class OpenAIChat:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "openai"
    format: ClassVar[Format] = Format.CHAT

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:
        """The client's own body with the model, cap and effort of the step."""
        provider = step.deployment.provider
        own = request.format is self.format
        body = relay.fields(request.raw if own else translated_body(request, step, tenant, self.format))
        body["model"] = step.deployment.upstream_model
        self._fit(body, step, own=own)
        if request.stream and provider.options.get("stream_usage") not in ("always", "never"):
            body["stream_options"] = {**relay.nested(body.get("stream_options")), "include_usage": True}
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
        provider = step.deployment.provider
        return ChatStream(request, provider, bill, self.clock) if request.stream else ChatWhole(provider, self.clock)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())

    def _fit(self, body: Fields, step: Step, *, own: bool) -> None:
        """The cap and the effort of the step, as the format has them."""
        _cap(body, step, keep_name=own)
        if step.effort is not None:
            _set_effort(body, step)
        relay.set_tier(body, step)


class OpenAICompletions(OpenAIChat):
    """The legacy Completions, which differ in what is asked and not in how.  See Dialect."""

    __slots__ = ()

    format: ClassVar[Format] = Format.COMPLETIONS

    def _fit(self, body: Fields, step: Step, *, own: bool) -> None:  # noqa: ARG002  # only its own is served
        body["max_tokens"] = step.output_cap


def drop_rejected(body: Fields, provider: Provider, tenant: Tenant) -> None:
    """Takes out the fields that the provider rejects.  Raises UnsupportedField for one that matters."""
    for name in provider.options.get("rejects", ()):
        if body.pop(name, _NULL) != _NULL and name not in HARMLESS and not tenant.drop_params:
            raise UnsupportedField(f"'{name}' is not understood by provider {provider.id}; leave it out.", param=name)


def _cap(body: Fields, step: Step, *, keep_name: bool) -> None:
    given = [name for name in CAPS if name in body and body.pop(name) != _NULL]
    name = step.deployment.provider.options.get("max_tokens_field")
    if not name and gpt.needs_completion_cap(step.deployment.upstream_model):
        name = "max_completion_tokens"
    body[name or (given[0] if given and keep_name else "max_tokens")] = step.output_cap


def _set_effort(body: Fields, step: Step) -> None:
    place = step.deployment.provider.options.get("effort_field", "reasoning_effort")
    word = gpt.effort_word(step.deployment.upstream_model, step.effort or "")
    if not word or place == "none" or Capability.REASONING not in step.deployment.capabilities:
        return
    if place == "reasoning":
        body.pop("reasoning_effort", None)
        body["reasoning"] = {**relay.nested(body.get("reasoning")), "effort": word}
    else:
        body[place] = word


class _Said(msgspec.Struct, gc=False):
    """A delta or a message, as far as it is text.  Providers send anything anywhere: no field has a type."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: Any = 0
    delta: _Said | None = None
    message: _Said | None = None
    text: Any = None  # of the legacy Completions
    finish_reason: Any = None
    error: Any = None


class _Chunk(msgspec.Struct, gc=False):
    """A chunk of a stream, or a whole reply."""

    choices: list[_Choice] | None = None
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    x_groq: Any = None
    error: Any = None


_CHUNK = msgspec.json.Decoder(_Chunk)
_ERROR = Raw(b'"error"')
_FLAT = {"message", "detail"}
"""Fields of an error that is not wrapped in `error`."""


class _Reading:
    """What both ways of reading learn into the meter."""

    def __init__(self, meter: Meter, texts: Texts, provider: Provider, clock: Callable[[], float]) -> None:
        self.meter, self.texts = meter, texts
        self._provider, self._clock = provider, clock
        self.finished: set[object] = set()  # indexes of choices
        self._tier: object = ""
        self._rules = provider.options.get("usage", {})

    def choices(self, choices: list[_Choice]) -> None:
        """Text and ends.  Raises the error a choice ends with."""
        for choice in choices:
            said = choice.delta or choice.message
            if said is not None:
                self._text(said)
            if choice.text:
                self.texts.add(choice.text)
            if choice.finish_reason:
                self.finished.add(choice.index if isinstance(choice.index, int) else 0)
                self.meter.finish_reason = str(choice.finish_reason)
            if choice.error:
                raise refusal.reported({"error": choice.error}, self._provider, self._clock())

    def usage(self, chunk: _Chunk) -> Usage | None:
        """The usage of a chunk, kept as the last word on it."""
        if chunk.service_tier:
            self._tier = chunk.service_tier
        block = chunk.usage
        if not block and isinstance(chunk.x_groq, dict):
            block = chunk.x_groq.get("usage")
        found = usage.read(usage.CHAT, block, self._rules, self._tier) if block else None
        if found is not None:
            self.meter.usage = found
        return found

    def reported(self, data: bytes) -> GatewayError:
        """The error that an event or a body is, in whichever shape."""
        return relay.reported(data, self._provider, self._clock())

    def whole(self, body: bytes) -> None:
        """A whole reply.  Raises the error it is, ValueError for what is none."""
        chunk = _CHUNK.decode(body)
        self.meter.response_model = str(chunk.model or "")
        self.usage(chunk)
        if chunk.choices is None:
            raise self.reported(body)
        self.choices(chunk.choices)

    def _text(self, said: _Said) -> None:
        texts = self.texts
        if type(said.content) is str:
            texts.add(said.content)
        elif said.content:
            _add_parts(texts, said.content)
        if thought := said.reasoning_content or said.reasoning:
            texts.add(thought)
        if said.refusal:
            texts.add(said.refusal)
        if said.tool_calls or said.function_call or said.audio:
            _add_calls(texts, said)


def _add_parts(texts: Texts, content: object) -> None:
    """Mistral's content may be a list of parts, some of them thoughts that are lists again."""
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict):
            texts.add(part.get("text"))
            _add_parts(texts, part.get("thinking"))


def _add_calls(texts: Texts, said: _Said) -> None:
    calls = said.tool_calls if isinstance(said.tool_calls, list) else []
    functions = [call.get("function") or call.get("custom") for call in calls if isinstance(call, dict)]
    for function in (*functions, said.function_call):
        if isinstance(function, dict):
            texts.add(function.get("name"))
            texts.add(function.get("arguments") or function.get("input"))
    if isinstance(said.audio, dict):
        texts.add(said.audio.get("transcript"))


class ChatWhole(WholeRelay):
    """A reply in one piece."""

    def __init__(self, provider: Provider, clock: Callable[[], float]) -> None:
        super().__init__()
        self._reading = _Reading(self.meter, self._texts, provider, clock)

    def _learn(self, body: bytes) -> None:
        self._reading.whole(body)


class ChatStream(StreamRelay):
    """A stream of chunks."""

    def __init__(self, request: Request, provider: Provider, bill: Bill, clock: Callable[[], float]) -> None:
        super().__init__()
        self._reading = _Reading(self.meter, self._texts, provider, clock)
        self._bill = bill
        self._asked = _asked_for_usage(request.body)
        n = request.body.get("n")
        self._choices = n if isinstance(n, int) else 1

    def cut(self, error: GatewayError) -> bytes:
        """An OpenAI-shaped error event, and no [DONE]."""
        what = {"message": error.message, "type": error.type, "param": error.param, "code": relay.error_code(error)}
        return sse.event(msgspec.json.encode({"error": what}))

    def _event(self, raw: bytes) -> bytes:
        chunk = _chunk(raw)
        if chunk is None:
            return self._odd(raw)
        reading = self._reading
        if not self.meter.response_model and chunk.model:
            self.meter.response_model = str(chunk.model)
        relayed = self._usage(raw, chunk) if chunk.usage or chunk.x_groq else None  # also of a choice that is an error
        if chunk.choices:
            reading.choices(chunk.choices)
        if chunk.error:
            raise reading.reported(relay.data(raw))
        if relayed is not None:
            return relayed
        return raw if chunk.choices is not None else self._without_choices(raw)

    def _usage(self, raw: bytes, chunk: _Chunk) -> bytes:
        """An event with usage: with its cost for the client who asked, without usage for the one who did not."""
        found = self._reading.usage(chunk)
        if not chunk.usage:
            return raw
        if not self._asked:
            data = relay.data(raw)
            return relay.with_data(raw, data, relay.edited(data, {}, ("usage",))) if chunk.choices else b""
        total = self._bill(found).total if found is not None else None
        return raw if total is None else relay.with_usage_cost(raw, money.dollars(total))

    def _odd(self, raw: bytes) -> bytes:
        """An event that is no chunk: the end, a comment, nothing, or what cannot be read."""
        data = sse.parse(raw).data
        if data is None and raw.lstrip().startswith(b"error:"):  # llama.cpp
            raise self._reading.reported(raw.lstrip()[6:])
        if data is None or not data.strip():
            return raw
        if data.strip() == DONE:
            self.meter.complete = True
            return raw
        relay.check_json(data)
        return raw  # of a shape nobody knows: not ours to judge

    def _without_choices(self, raw: bytes) -> bytes:
        """An event of another kind, or an error laid flat."""
        event = sse.parse(raw)
        said = relay.nested(Raw(event.data or b""))
        if event.name == "error" or said.get("object") == _ERROR or (said.keys() & _FLAT and "id" not in said):
            raise self._reading.reported(event.data or b"")
        return raw

    def _end(self) -> bytes | None:
        return sse.event(DONE) if len(self._reading.finished) >= self._choices else None

    def _learn_whole(self, body: bytes) -> None:
        self._reading.whole(body)


def _asked_for_usage(body: Mapping[str, Any]) -> bool:
    """OpenAI's way of asking, or OpenRouter's."""
    for field, name in (("stream_options", "include_usage"), ("usage", "include")):
        options = body.get(field)
        if isinstance(options, Mapping) and options.get(name) is True:
            return True
    return False


def _chunk(raw: bytes) -> _Chunk | None:
    """The chunk that an event holds; None if it holds none."""
    if raw.startswith(b"data: {"):
        try:
            return _CHUNK.decode(raw[6:])
        except ValueError:
            pass  # perhaps it has more lines than one
    try:
        return _CHUNK.decode(relay.data(raw))
    except (ValueError, RecursionError):
        return None
