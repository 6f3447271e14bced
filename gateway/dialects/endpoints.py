"""The endpoints beside conversation: embeddings, rerank, moderations, images, transcriptions, translations, speech.

One way for all: the client's bytes go to the provider with the model of the step, the provider's come back as they
are.  What differs is a row of `ENDPOINTS`: which pieces a reply stands for.  Whether it is billed by the piece or by
tokens is the price's to say: a price that knows the piece bills it, any other bills the tokens that the reply reports.
Where a reply reports nothing (sound, plain text), what it used is counted by ourselves and marked as estimated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from gateway import money, multipart, sse, usage
from gateway.dialects import paths, refusal, relay
from gateway.dialects.base import Bill, Call, Decoder
from gateway.dialects.relay import StreamRelay, WholeRelay
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.tokens.endpoints import image_pieces, seconds_expected
from gateway.types import Bucket, Format, Provider, Request, Tenant, Usage

SPEECH_TOKENS_CHARACTER = 1.4
"""gpt-4o-mini-tts: $0.015 a minute is 1,250 tokens of it, in which 900 characters are read."""
LETTERS_TOKEN = 4


class _Reply(msgspec.Struct):
    """A reply, or an event of one, as far as it is metered.  Providers send anything anywhere: no field has a type."""

    type: Any = ""
    model: Any = ""
    usage: Any = None
    meta: Any = None
    error: Any = None
    duration: Any = None
    text: Any = None
    delta: Any = None
    data: Raw = Raw()
    message: Any = None
    id: Any = None


_REPLY = msgspec.json.Decoder(_Reply)
_ITEMS = msgspec.json.Decoder(list[Raw])
_UNREAD = _Reply()


@dataclass(frozen=True, slots=True)
class Pieces:
    """What a reply stands for, by the piece.  `exact`: as the provider says, or as the request does."""

    counts: Mapping[str, int]
    exact: bool = True


_NO_PIECES = Pieces({})


def _no_pieces(_asked: Mapping[str, Any], _step: Step, _reply: _Reply) -> Pieces:
    return _NO_PIECES


def _search_units(_asked: Mapping[str, Any], step: Step, reply: _Reply) -> Pieces:
    units = _billed(reply).get("search_units")
    if isinstance(units, int | float) and units > 0:
        return Pieces({"search_unit": ceil(units)})
    return Pieces(step.pieces, exact=False)


def _images(asked: Mapping[str, Any], _step: Step, reply: _Reply) -> Pieces:
    try:
        return Pieces(image_pieces(asked, len(_ITEMS.decode(reply.data))))
    except ValueError:
        return _NO_PIECES  # an event of a stream


def _seconds(_asked: Mapping[str, Any], step: Step, reply: _Reply) -> Pieces:
    block = reply.usage if isinstance(reply.usage, Mapping) else {}
    for stated in (block.get("seconds"), block.get("prompt_audio_seconds"), reply.duration):
        if isinstance(stated, int | float) and 0 < stated < usage.TOKENS_MAX:
            return Pieces({"audio_second": ceil(stated)})
    return Pieces({"audio_second": seconds_expected(step.pieces)}, exact=False)


def _characters(_asked: Mapping[str, Any], step: Step, _reply: _Reply) -> Pieces:
    return Pieces(step.pieces)


def _billed(reply: _Reply) -> Mapping[str, Any]:
    """Cohere's units."""
    units = reply.meta.get("billed_units") if isinstance(reply.meta, Mapping) else None
    return units if isinstance(units, Mapping) else {}


ENDPOINTS: Mapping[Format, Callable[[Mapping[str, Any], Step, _Reply], Pieces]] = {
    Format.EMBEDDINGS: _no_pieces,
    Format.MODERATIONS: _no_pieces,
    Format.RERANK: _search_units,
    Format.IMAGES: _images,
    Format.IMAGE_EDITS: _images,
    Format.IMAGE_VARIATIONS: _images,
    Format.TRANSCRIPTIONS: _seconds,
    Format.TRANSLATIONS: _seconds,
    Format.SPEECH: _characters,
}
FREE_FORM = frozenset({Format.SPEECH, Format.TRANSCRIPTIONS, Format.TRANSLATIONS})
"""A reply may be sound or plain text, and need not be JSON."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """See Dialect."""

    clock: Callable[[], float] = time.time  # unix seconds, for replies that say when and not how long

    name: ClassVar[str] = "endpoints"
    format: ClassVar[Format] = Format.EMBEDDINGS

    def encode(self, request: Request, step: Step, tenant: Tenant) -> Call:  # noqa: ARG002 - nothing can be dropped
        """The client's own body, JSON or a form, with the model of the step."""
        deployment = step.deployment
        headers = relay.headers(deployment.provider, request, "bearer")
        form = request.headers.get("content-type", "")
        boundary = multipart.boundary(form)
        if boundary is None:
            body = relay.edited(request.raw, {"model": deployment.upstream_model})
        else:
            body = multipart.edited(request.raw, boundary, {"model": deployment.upstream_model})
            headers["content-type"] = form
        if request.format in FREE_FORM:
            headers["accept"] = "*/*"
        return Call(
            url=paths.url(deployment.provider, request.format, deployment.upstream_model),
            body=body,
            headers={**headers, **deployment.provider.headers},
        )

    def decoder(self, request: Request, step: Step, bill: Bill) -> Decoder:  # noqa: ARG002 - the reply is not changed
        """Relays; nothing is translated."""
        reading = _Reading(request, step, self.clock)
        return EndpointStream(reading) if request.stream else EndpointWhole(reading)

    def error(self, status: int, headers: Mapping[str, str], body: bytes, provider: Provider) -> GatewayError:
        """See Dialect."""
        return refusal.refusal(status, headers, body, provider, self.clock())


class _Reading:
    """What a reply used."""

    def __init__(self, request: Request, step: Step, clock: Callable[[], float]) -> None:
        self.request = request
        self.step = step
        self._clock = clock
        self._pieces = ENDPOINTS[request.format]

    def usage(self, reply: _Reply) -> Usage:
        """By the piece where the price is, else in tokens; else our own count."""
        block = reply.usage if isinstance(reply.usage, Mapping) else _billed(reply)
        provider, price = self.step.deployment.provider, self.step.deployment.price
        pieces = self._pieces(self.request.body, self.step, reply)
        read = usage.read(usage.ENDPOINTS, block, provider.options.get("usage", {}))
        if (fees := money.fees_of(pieces.counts, price)) is not None:
            found = Usage(fees=fees, exact=pieces.exact, reported=block)
        elif read is not None:
            found = read
        elif pieces.counts and pieces.exact and self.request.format is not Format.SPEECH:
            found = Usage(fees=pieces.counts, reported=block)  # its price is not known
        else:
            found = Usage(self._counted(reply), exact=False, reported=block)
        return replace(found, reported_cost=usage.reported_cost(block))

    def _counted(self, reply: _Reply) -> dict[Bucket, int]:
        asked = self.request.body
        match self.request.format:
            case Format.SPEECH:
                out = ceil(len(str(asked.get("input") or "")) * SPEECH_TOKENS_CHARACTER)
                tokens = {Bucket.INPUT: self.step.estimate.expected, Bucket.OUTPUT: out}
            case Format.TRANSCRIPTIONS | Format.TRANSLATIONS:
                out = ceil(len(str(reply.text or "")) / LETTERS_TOKEN)
                tokens = {Bucket.AUDIO_IN: self.step.estimate.expected, Bucket.OUTPUT: out}
            case _:
                tokens = {Bucket.INPUT: self.step.estimate.expected}
        return {bucket: count for bucket, count in tokens.items() if count}

    def reported(self, data: bytes) -> GatewayError:
        """The error that an event or a body is, in whichever shape."""
        return relay.reported(data, self.step.deployment.provider, self._clock())


class EndpointWhole(WholeRelay):
    """A reply in one piece."""

    def __init__(self, reading: _Reading) -> None:
        super().__init__()
        self._reading = reading

    def generated(self) -> str:
        """Nothing is counted as text: a reply that broke off is a guess."""
        return ""

    def _learn(self, body: bytes) -> None:
        free = self._reading.request.format in FREE_FORM
        reply = _read(body) if free else _REPLY.decode(body)
        if reply.error and (free or not reply.data):
            raise self._reading.reported(body)
        if free and reply is _UNREAD:
            reply = _Reply(text=body.decode(errors="replace") if body[:1].isascii() and len(body) < 1 << 20 else "")
        self.meter.response_model = str(reply.model or "")
        self.meter.usage = self._reading.usage(reply)


class EndpointStream(StreamRelay):
    """A stream of typed events, or a whole reply where the provider does not stream this."""

    def __init__(self, reading: _Reading) -> None:
        super().__init__()
        self._reading = reading

    def cut(self, error: GatewayError) -> bytes:
        """An OpenAI-shaped error event."""
        what = {"message": error.message, "type": error.type, "param": error.param, "code": relay.error_code(error)}
        return sse.event(msgspec.json.encode({"error": what}))

    def _event(self, raw: bytes) -> bytes:
        data = relay.data(raw)
        if not data.startswith(b"{"):
            self.meter.complete = self.meter.complete or data.strip() == b"[DONE]"
            return raw
        reply = _read(data)
        if reply.error:
            raise self._reading.reported(data)
        self._texts.add(reply.delta)
        if str(reply.type).endswith((".done", ".completed")):
            self.meter.complete = True
            self.meter.usage = self._reading.usage(reply)
        return raw

    def _end(self) -> bytes | None:
        return None

    def _learn_whole(self, body: bytes) -> None:
        raise self._reading.reported(body)


def _read(data: bytes) -> _Reply:
    try:
        return _REPLY.decode(data)
    except (ValueError, RecursionError):
        return _UNREAD
