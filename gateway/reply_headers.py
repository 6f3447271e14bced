"""What the reply's headers tell the client about how it was served.  Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from gateway.dialects.endpoints import FREE_FORM
from gateway.exchange import Exchange
from gateway.ledger.base import Balance
from gateway.money import dollars
from gateway.types import CONCURRENT, COST, INPUT_TOKENS, OUTPUT_TOKENS, REQUESTS, TOKENS, NanoUSD, Unit, Usage

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
NO_BUFFERING = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


def reply_headers(exchange: Exchange) -> Headers:
    """Headers of a 200.  What it cost is known only where the whole reply is: not at the start of a stream."""
    request, step = exchange.request, exchange.step
    headers = [EVENTS, *NO_BUFFERING] if request.stream else [_media(exchange)]
    headers += (
        (b"x-tollgate-request-id", request.id.encode()),
        (b"x-tollgate-deployment", _text(step.deployment.id)),
        (b"x-tollgate-attempts", b"%d" % (exchange.attempts + exchange.retries)),
    )
    if exchange.route is not None:
        headers.append((b"x-tollgate-route", _text(exchange.route.id)))
    if exchange.plan.reasons:
        headers.append((b"x-tollgate-reasons", _text("; ".join(exchange.plan.reasons))))
    decoder = exchange.decoder
    spent: NanoUSD | None = None
    if decoder is not None and decoder.meter.usage is not None and not request.stream:
        spent = _cost_headers(exchange, decoder.meter.usage, headers)
    left = exchange.remaining(exchange.plan.worst_cost or 0 if spent is None else spent)
    if left is not None:
        headers.append((b"x-tollgate-budget-remaining-usd", dollars(left).encode()))
    if exchange.balances:
        headers += rate_headers(exchange.balances, request.received)
    return headers


def _media(exchange: Exchange) -> tuple[bytes, bytes]:
    """Only sound and plain text come in more than one type."""
    if exchange.request.format not in FREE_FORM or exchange.decoder is None:
        return JSON
    return (b"content-type", _text(exchange.decoder.meter.media_type or "application/octet-stream"))


def _cost_headers(exchange: Exchange, usage: Usage, headers: Headers) -> NanoUSD | None:
    headers.append((b"x-tollgate-cached-input-tokens", b"%d" % usage.cached_tokens))
    total = exchange.bill(usage).total
    baseline = exchange.baseline_cost(usage)
    if baseline is not None:
        headers.append((b"x-tollgate-baseline-cost-usd", dollars(baseline).encode()))
    if total is None:
        return None
    spent = total + exchange.overhead
    headers.append((b"x-tollgate-cost-usd", dollars(spent).encode()))
    return spent


def rate_headers(balances: Iterable[Balance], now: float) -> Headers:
    """OpenAI's `x-ratelimit-*` of the limit on requests and of those on tokens that have the least left."""
    tightest: dict[Unit, Balance] = {}
    for balance in balances:
        unit = balance.limit.unit
        if unit is COST or unit is CONCURRENT:
            continue
        if unit not in tightest or balance.remaining < tightest[unit].remaining:
            tightest[unit] = balance
    headers: Headers = []
    for unit, balance in tightest.items():
        limit, remaining, reset = NAMES[unit]
        headers.append((limit, b"%d" % balance.limit.amount))
        headers.append((remaining, b"%d" % balance.remaining))
        # A rolling window is as it was before only when all of it has passed.
        wait_s = balance.limit.window.rolling_s if balance.resets is None else balance.resets - now
        if wait_s > 0:
            headers.append((reset, duration(wait_s)))
    return headers


Names = tuple[bytes, bytes, bytes]


def _names(kind: bytes) -> Names:
    return b"x-ratelimit-limit-" + kind, b"x-ratelimit-remaining-" + kind, b"x-ratelimit-reset-" + kind


NAMES: dict[Unit, Names] = {
    REQUESTS: _names(b"requests"),
    TOKENS: _names(b"tokens"),
    INPUT_TOKENS: _names(b"input-tokens"),  # Anthropic's words for what OpenAI does not limit
    OUTPUT_TOKENS: _names(b"output-tokens"),
}


@lru_cache(maxsize=1024)
def duration(seconds: float) -> bytes:
    """As OpenAI writes it: 120ms, 7.66s, 1s, 6m0s, 23h59m1s."""
    millis = math.ceil(seconds * 1000)
    if millis < 1000:  # a second
        return b"%dms" % millis
    whole, rest = divmod(millis, 1000)
    minutes, whole = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{whole + rest / 1000:g}s"
    if hours:
        return f"{hours}h{minutes}m{text}".encode()
    return (f"{minutes}m{text}" if minutes else text).encode()


@lru_cache(maxsize=4096)
def _text(value: str) -> bytes:
    """A header value: visible ASCII stays, everything else is percent-encoded."""
    return quote(value, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"%")[:1024].encode("ascii")
