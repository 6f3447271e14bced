"""What the reply's headers tell the client about how it was served.  Pure."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from gateway.exchange import Exchange
from gateway.ledger.base import Balance
from gateway.money import dollars
from gateway.types import NanoUSD, Unit, Usage

Headers = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
NO_BUFFERING = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))


def reply_headers(exchange: Exchange) -> Headers:
    """Headers of a 200.  What it cost is known only where the whole reply is: not at the start of a stream."""
    request, step = exchange.request, exchange.step
    headers = [EVENTS, *NO_BUFFERING] if request.stream else [JSON]
    headers.append((b"x-tollgate-request-id", request.id.encode()))
    headers.append((b"x-tollgate-deployment", _text(step.deployment.id)))
    headers.append((b"x-tollgate-attempts", b"%d" % (exchange.attempts + exchange.retries)))
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
    for balance in exchange.balances:
        if (names := RATE_HEADERS.get(balance.limit.unit)) is not None:
            headers += _rate_headers(balance, names)
    return headers


def _cost_headers(exchange: Exchange, usage: Usage, headers: Headers) -> NanoUSD | None:
    headers.append((b"x-tollgate-cached-input-tokens", b"%d" % usage.cached_tokens))
    total = exchange.bill(usage).total
    baseline = exchange.baseline_cost(usage)
    if baseline is not None:
        headers.append((b"x-tollgate-baseline-cost-usd", dollars(baseline).encode()))
    if total is None:
        return None
    headers.append((b"x-tollgate-cost-usd", dollars(total + exchange.wasted).encode()))
    return total + exchange.wasted


RATE_HEADERS = {
    Unit.REQUESTS: (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests"),
    Unit.TOKENS: (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens"),
}


def _rate_headers(balance: Balance, names: tuple[bytes, bytes]) -> Headers:
    limit, remaining = names
    return [(limit, b"%d" % balance.limit.amount), (remaining, b"%d" % balance.remaining)]


@lru_cache(maxsize=4096)
def _text(value: str) -> bytes:
    """A header value: visible ASCII stays, everything else is percent-encoded."""
    return quote(value, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~\"%")[:1024].encode("ascii")
