"""A stream that broke off goes on from another deployment, where its tenant allows it: `resume_streams: true`.

The next step is asked the same conversation with what has been said and a turn that asks for the rest; what it says is
written as the rest of the same reply.  Only text is continued: where a tool was called, the answer has a shape to keep
or there is nothing to go on from, the stream ends with its error.  Both parts are paid for, and the client's usage is
of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from msgspec.structs import replace

from gateway.dialects.base import Decoder, Meter
from gateway.dialects.deltas import (
    Delta,
    EncryptedReasoning,
    PartEnded,
    ReasoningDelta,
    SignatureDelta,
    Started,
    TextDelta,
    UsageSeen,
)
from gateway.dialects.translate import CODECS, heading
from gateway.errors import GatewayError, UpstreamFailure
from gateway.exchange import Exchange
from gateway.plan import Step
from gateway.tokens import Counter
from gateway.trial import Trial
from gateway.types import Bucket, Cost, Estimate, Format, Request, Usage

if TYPE_CHECKING:
    from gateway.pipeline import Pipeline, Send

FORMATS = frozenset({Format.CHAT, Format.MESSAGES})
SHAPED = ("response_format", "output_config", "output_format")
KEPT_BYTES_MAX = 1024 * 1024
CONTINUE = "Your answer was cut off. Go on exactly where it ends: repeat nothing, add no introduction."
TURNS_TOKENS = 64
"""At most, of what is added beside the text."""
CONTINUABLE = (Started, TextDelta, UsageSeen, PartEnded, ReasoningDelta, SignatureDelta, EncryptedReasoning)
UNSEEN = (Started, ReasoningDelta, SignatureDelta, EncryptedReasoning)
"""Of the rest: the client has had the beginning, and thoughts do not stand behind what was said."""


class Kept:
    """A Send that remembers what its client has got, up to a bound."""

    def __init__(self, send: Send) -> None:
        self.data = bytearray()
        self._send = send

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """See Send."""
        await self._send.start(status, headers)

    async def chunk(self, data: bytes) -> None:
        """See Send."""
        if len(self.data) <= KEPT_BYTES_MAX:
            self.data += data
        await self._send.chunk(data)

    async def end(self, data: bytes) -> None:
        """See Send."""
        await self._send.end(data)


def kept(exchange: Exchange, send: Send) -> Send:
    """The same, remembering where the answer may have to be gone on with."""
    request = exchange.request
    if not (exchange.tenant.resume_streams and request.stream and request.format in FORMATS):
        return send
    shaped = any(request.body.get(name) for name in SHAPED)
    one = all(step.choices == 1 for step in exchange.plan.steps) and exchange.plan.judge is None
    return Kept(send) if one and not shaped and isinstance(request.body.get("messages"), list) else send


async def ended(exchange: Exchange, error: GatewayError, send: Send, pipeline: Pipeline, *, last: bool) -> bool:
    """Whether a client that has seen the beginning was told inside the stream that nobody goes on with it."""
    if exchange.first_byte is None or exchange.decoder is None:
        return False
    if not last and await begun(exchange, error, send, pipeline.parts.counter, pipeline.now()):
        return False
    await send.end(exchange.decoder.cut(error))
    return True


async def begun(exchange: Exchange, error: GatewayError, send: Send, counter: Counter, now: float) -> bool:
    """Whether another step may go on; then the exchange is ready for it, and the first part is booked as a trial."""
    if not isinstance(send, Kept) or not isinstance(error, UpstreamFailure) or len(send.data) > KEPT_BYTES_MAX:
        return False
    deltas = _read(exchange, bytes(send.data))
    text = "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))
    if not text.strip() or not all(isinstance(delta, CONTINUABLE) for delta in deltas):
        return False
    made = await exchange.tokens_generated(counter)
    tokens = await counter.count_long_text(text, exchange.step.deployment)
    first = exchange.first_byte if exchange.resumed is None else exchange.resumed.first_byte
    if exchange.spilt and exchange.spilt[-1][0] is exchange.step:
        exchange.spilt.pop()  # it is no waste
    exchange.shelve(None, b"", made, now)
    exchange.opened, exchange.decoder = True, None
    exchange.resumed = Begun(tuple(deltas), text, tokens, first, tuple(exchange.trials))
    return True


@dataclass(frozen=True, slots=True, eq=False)
class Begun:
    """What the client has of an answer that broke off.  `tokens`: of its text."""

    said: tuple[Delta, ...]
    text: str
    tokens: int
    first_byte: float | None
    parts: tuple[Trial, ...]

    def asks(self, request: Request) -> Request:
        """The conversation, what has been said, and to go on."""
        turns = ({"role": "assistant", "content": self.text}, {"role": "user", "content": CONTINUE})
        body = {**request.body, "messages": [*request.body["messages"], *turns]}
        return replace(request, body=body, raw=orjson.dumps(body))

    def rest(self, step: Step) -> Step:
        """The step with a longer input and what is left of its output."""
        known, more = step.estimate, TURNS_TOKENS + self.tokens
        estimate = Estimate(known.expected + more, known.bound + TURNS_TOKENS + len(self.text.encode(errors="replace")))
        return replace(step, estimate=estimate).capped(max(1, step.output_cap - self.tokens))

    def continued(self, decoder: Decoder, exchange: Exchange) -> Decoder:
        """Writes what `decoder` reads as the rest."""
        return Continued(decoder, self, exchange)


class Continued:
    """A Decoder of the rest: what another one writes is read again, and written by who has written the beginning."""

    def __init__(self, decoder: Decoder, begun: Begun, exchange: Exchange) -> None:
        request, step = exchange.request, exchange.step
        codec = CODECS[request.format]
        self.meter: Meter = decoder.meter
        self._decoder, self._parts, self._bill = decoder, begun.parts, exchange.bill
        self._frames, self._reader = codec.frames(), codec.reader(step.deployment.provider, request.received)
        self._writer = codec.writer(heading(request, step))
        for delta in begun.said:
            self._writer.write(delta)

    def feed(self, chunk: bytes) -> bytes:
        """See Decoder."""
        return self._written(self._frames.feed(self._decoder.feed(chunk)))

    def finish(self) -> bytes:
        """See Decoder."""
        last = [*self._frames.feed(self._decoder.finish()), *self._frames.rest()]
        return self._written(last) + self._writer.end(*self._told())

    def cut(self, error: GatewayError) -> bytes:
        """See Decoder."""
        return self._decoder.cut(error)

    def generated(self) -> str:
        """See Decoder."""
        return self._decoder.generated()

    def _written(self, events: Iterable[bytes]) -> bytes:
        deltas = (delta for event in events for delta in self._reader.read(event))
        return b"".join(self._writer.write(delta) for delta in deltas if not isinstance(delta, UNSEEN))

    def _told(self) -> tuple[Usage | None, Cost | None]:
        """What all parts used and cost together."""
        usage = self.meter.usage
        if usage is None:
            return None, None
        tokens: dict[Bucket, int] = {}
        for part in (usage, *(each.usage for each in self._parts)):
            _add(tokens, part.tokens)
        costs = [self._bill(usage).total, *(each.cost.total for each in self._parts)]
        known = [cost for cost in costs if cost is not None]
        total = sum(known) if len(known) == len(costs) else None
        return replace(usage, tokens=tokens, exact=False, reported_cost=None), Cost(total)


def _add(tokens: dict[Bucket, int], more: Mapping[Bucket, int]) -> None:
    for bucket, count in more.items():
        tokens[bucket] = tokens.get(bucket, 0) + count


def _read(exchange: Exchange, data: bytes) -> list[Delta]:
    """What the client has been told; nothing where that cannot be read."""
    codec = CODECS[exchange.request.format]
    reader = codec.reader(exchange.step.deployment.provider, exchange.request.received)
    try:
        return [delta for event in codec.frames().feed(data) for delta in reader.read(event)]
    except (GatewayError, orjson.JSONDecodeError):
        return []
