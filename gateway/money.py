"""Usage x price -> cost.  Pure and integer; a cost is rounded once, up, per call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct

from gateway.types import (
    INPUT_BUCKETS,
    NANO,
    OUTPUT_BUCKETS,
    WRITE_BUCKETS,
    Bucket,
    Cost,
    NanoUSD,
    Price,
    PriceWindow,
    Tier,
    Usage,
)

GEO = "geo:"
"""Begins the price variant of a call that had to be served in one place: geo:us."""
MILLION = 1_000_000
STANDARD_TIERS = frozenset({"", "default", "standard", "auto", "on_demand"})
REQUEST_FEE = "request"
"""A fee with this name is due once for every call, whether or not its usage says so."""
SIZED_REQUEST = "request:"
"""Begins the names of fees for a call that depend on how much it searches: request:low, request:high."""
IMAGE_INPUT = "image_input"
"""A picture that a picture is made from: due only where the price names it."""
PROVIDER_TOOLS = ("web_search", "web_search_preview", "x_search", "file_search", "code_interpreter")
"""Fees for each call of a tool that the provider runs itself."""
NO_FEES: Mapping[str, int] = {}
BATCH = "batch"
"""The service tier of what is processed in batches."""

_SOUND = frozenset(bucket for bucket in Bucket if bucket.startswith(("audio", "video")))


def nano(dollars: Decimal | str | float) -> NanoUSD:
    """Dollars as NanoUSD, exactly; a float is read as it prints.  More than nine decimals is a ValueError."""
    amount = Decimal(str(dollars)) * NANO
    if amount != amount.to_integral_value():
        raise ValueError(f"{dollars} dollars is finer than a nano-dollar")
    return int(amount)


def dollars(amount: NanoUSD) -> str:
    """NanoUSD in dollars, exact, at least two decimals: 1_500 -> '0.0000015'."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    whole, part = divmod(amount, NANO)
    return f"{sign}{whole}.{f'{part:09d}'.rstrip('0').ljust(2, '0')}"


def cost(usage: Usage, price: Price, at: float) -> Cost:
    """What `usage` costs at `price` at the moment `at` (unix seconds).

    Components sum to the total exactly: the one rounding, up, is spread by running sums.  A bucket or fee without a
    price makes the total None and is named in `unknown`.
    """
    parts, unknown = _parts(usage.tokens, usage.fees, usage.service_tier, price, at)
    return Cost(None, {}, tuple(unknown)) if unknown else _rounded(parts)


def charged(calculated: Cost, reported: NanoUSD) -> Cost:
    """What the provider says that it charged, in the proportions that we calculated, or whole where we have none."""
    if calculated.total == reported:
        return calculated
    if not calculated.total:
        return Cost(reported, {"reported": reported})
    parts = [(name, amount * reported * MILLION // calculated.total) for name, amount in calculated.components.items()]
    found = _rounded(parts)
    components = dict(found.components)
    name = max(components, key=components.__getitem__)
    components[name] += reported - (found.total or 0)
    return Cost(reported, components)


def total(tokens: Mapping[Bucket, int], price: Price, at: float, service_tier: str = "") -> NanoUSD | None:
    """The total that `cost` finds for a call that used these tokens; None: unknown."""
    if price.windows or price.tiers or price.fees or service_tier not in STANDARD_TIERS or not price.known:
        parts, unknown = _parts(tokens, NO_FEES, service_tier, price, at)
        return None if unknown else -(-sum([amount for _, amount in parts]) // MILLION)
    exact, rates = 0, price.rates
    for bucket, count in tokens.items():
        rate = rates.get(bucket)
        if rate is None:
            return None
        exact += count * rate
    return -(-exact // MILLION)


def bound(
    price: Price,
    input_max: int,
    output_max: int,
    *,
    cache_writes: bool,
    fees: int = 0,
    service_tier: str = "",
    audio: bool = False,
) -> NanoUSD | None:
    """The most a call with at most these tokens can cost, whatever the hour, the context tier and the cache.

    `cache_writes`: the call may write to the provider's cache; `audio`: sound or film goes in or may come out.  One
    that cannot serve the `service_tier` asked for bills the standard one, so the dearer of both is assumed, but for a
    batch.  None: unknown, as for a `service_tier` that has no price.
    """
    tier = "" if service_tier in STANDARD_TIERS else service_tier
    call = (tier, cache_writes, audio)
    ceilings: Ceilings | None = price.worked_out.get(call)
    if ceilings is None:
        if tier and tier not in price.variants:  # a client's word: nothing is kept for it
            return None
        ceilings = price.worked_out[call] = _ceilings(price, *call)
    for above, dearest_in, dearest_out in ceilings.rates:
        if input_max > above:
            if (input_max and dearest_in is None) or (output_max and dearest_out is None):
                return None
            exact = input_max * (dearest_in or 0) + output_max * (dearest_out or 0)
            return -(-exact // MILLION) + fees + ceilings.fee
    return None


def fees_of(pieces: Mapping[str, int], price: Price) -> Mapping[str, int] | None:
    """The pieces by the names of their fees; None unless the price knows every one.

    A price with only `image` is that of any image; one that tells images apart (`image:hd`, `image:1024x1792`) prices
    those that it names and no others.
    """
    if not pieces or not price.fees:
        return None
    named = {
        _fee_of(piece, price): count for piece, count in pieces.items() if piece != IMAGE_INPUT or piece in price.fees
    }
    return None if "" in named else named


def _fee_of(piece: str, price: Price) -> str:
    if piece in price.fees:
        return piece
    kind = piece.partition(":")[0]
    flat = kind in price.fees and not any(fee.startswith(f"{kind}:") for fee in price.fees)
    return kind if flat else ""


def called(calls: int, price: Price) -> NanoUSD:
    """The most that so many calls of the provider's own tools can cost."""
    return calls * max(price.fees.get(tool, 0) for tool in PROVIDER_TOOLS)


def by_piece(pieces: Mapping[str, int], price: Price) -> NanoUSD | None:
    """What so many pieces cost, with the fee of the call; None where the price is not by the piece."""
    named = fees_of(pieces, price)
    if named is None:
        return None
    return sum(count * price.fees[fee] for fee, count in named.items()) + price.fees.get(_dearest_request(price), 0)


class Ceilings(Struct, frozen=True):
    """What calls at one price can cost at most.  `fee`: of a call.

    `rates`: above how many tokens in, then the dearest rates in and out (None: there is none) whatever the hour; the
    largest inputs first, () where nothing is known.
    """

    rates: tuple[tuple[int, NanoUSD | None, NanoUSD | None], ...]
    fee: NanoUSD


def _ceilings(price: Price, service_tier: str, cache_writes: bool, audio: bool) -> Ceilings:
    base = price.variants[service_tier] if service_tier else price
    if not price.known or (audio and Bucket.AUDIO_IN not in base.rates):
        return Ceilings((), 0)
    prices = [base] if base is price or service_tier == BATCH else [base, price]
    # where a call is served may be the account's setting, which no request shows
    prices += [variant for place, variant in price.variants.items() if place.startswith(GEO)]
    barred = (frozenset() if cache_writes else WRITE_BUCKETS) | (frozenset() if audio else _SOUND)
    edges = {-1, *(tier.above for each in prices for tier in each.tiers)}
    rates: list[tuple[int, NanoUSD | None, NanoUSD | None]] = []
    for above in sorted(edges, reverse=True):
        reachable = [
            (bucket, rate)
            for each in prices
            for found in _reachable(each, above + 1)
            for bucket, rate in found.items()
            if bucket not in barred
        ]
        dearest_in = max((rate for bucket, rate in reachable if bucket in INPUT_BUCKETS), default=None)
        dearest_out = max((rate for bucket, rate in reachable if bucket in OUTPUT_BUCKETS), default=None)
        rates.append((above, dearest_in, dearest_out))
    return Ceilings(tuple(rates), base.fees.get(_dearest_request(base), 0))


def _parts(
    tokens: Mapping[Bucket, int], fees: Mapping[str, int], service_tier: str, price: Price, at: float
) -> tuple[list[tuple[str, int]], list[str]]:
    """What each bucket and fee costs, in millionths of a nano-dollar; and what has no price."""
    base, variant_missing = _variant(price, service_tier)
    unknown = [f"service_tier:{service_tier}"] if variant_missing else []
    if not price.known:
        unknown.append("price")
    parts: list[tuple[str, int]] = []
    for bucket, amount in _charges(tokens, base, at):
        if amount is None:
            unknown.append(bucket)
        else:
            parts.append((bucket, amount))
    for fee, count in _pieces(fees, base) if fees or base.fees else ():
        if (rate := base.fees.get(fee)) is None:
            unknown.append(f"fee:{fee}")
        else:
            parts.append(("fee", count * rate * MILLION))
    return parts, unknown


def _pieces(fees: Mapping[str, int], price: Price) -> Iterable[tuple[str, int]]:
    sized = [fee for fee in fees if fee.startswith(SIZED_REQUEST)]
    owed = _dearest_request(price)
    if not owed:  # the size of a search is of no account where calls are free
        return [(fee, count) for fee, count in fees.items() if fee not in sized] if sized else fees.items()
    if REQUEST_FEE in price.fees and sized:
        return [(REQUEST_FEE if fee in sized and fee not in price.fees else fee, n) for fee, n in fees.items()]
    if sized or REQUEST_FEE in fees:
        return fees.items()
    return ((owed, 1), *fees.items())


def _dearest_request(price: Price) -> str:
    """The fee of a call that does not say how much it searched; "": calls have none."""
    if not price.fees:
        return ""
    owed = [fee for fee in price.fees if fee == REQUEST_FEE or fee.startswith(SIZED_REQUEST)]
    return max(owed, key=price.fees.__getitem__, default="")


def _reachable(price: Price, input_max: int) -> list[Mapping[Bucket, NanoUSD]]:
    rates = [price.rates]
    rates += [window.rates for window in price.windows]
    rates += [tier.rates for tier in price.tiers if input_max > tier.above]
    return rates


def _variant(price: Price, service_tier: str) -> tuple[Price, bool]:
    if service_tier in STANDARD_TIERS:
        return price, False
    if (variant := price.variants.get(service_tier)) is not None:
        return variant, False
    return price, True


def _window_rates(price: Price, at: float) -> Mapping[Bucket, NanoUSD] | None:
    now = datetime.fromtimestamp(at, UTC)
    minute = now.hour * 60 + now.minute
    for window in price.windows:
        if _holds(window, minute, now.weekday()):
            return window.rates
    return None


def _holds(window: PriceWindow, minute: int, weekday: int) -> bool:
    start, end = window.start_minute, window.end_minute
    if start <= end:
        return start <= minute < end and weekday in window.weekdays
    if minute >= start:
        return weekday in window.weekdays
    return minute < end and (weekday - 1) % 7 in window.weekdays


def _charges(tokens: Mapping[Bucket, int], price: Price, at: float) -> Iterable[tuple[Bucket, int | None]]:
    """Tokens x rate of each bucket, in millionths of a nano-dollar; None where there is no rate."""
    rates = price.rates
    if price.windows and (window := _window_rates(price, at)) is not None:
        rates = {**rates, **window}
    if price.tiers:
        total_in = sum(count for bucket, count in tokens.items() if bucket in INPUT_BUCKETS)
        reached = [tier for tier in price.tiers if total_in > tier.above]
        if reached and reached[-1].marginal:
            return _marginal(tokens, rates, reached)
        if reached:
            rates = {**rates, **reached[-1].rates}
    return [(bucket, None if (rate := rates.get(bucket)) is None else count * rate) for bucket, count in tokens.items()]


def _marginal(
    tokens: Mapping[Bucket, int], rates: Mapping[Bucket, NanoUSD], tiers: list[Tier]
) -> Iterator[tuple[Bucket, int | None]]:
    """Each stretch of the input at its own tier's rate.  Tokens read from the cache come first: they are a prefix."""
    position = 0
    for bucket in sorted(tokens, key=lambda bucket: bucket is not Bucket.CACHE_READ):
        count, rate = tokens[bucket], rates.get(bucket)
        if rate is None or bucket not in INPUT_BUCKETS:
            yield bucket, None if rate is None else count * rate
        else:
            edges = [(0, rate), *((tier.above, tier.rates.get(bucket, rate)) for tier in tiers)]
            yield bucket, _stretches(position, position + count, edges)
        position += count if bucket in INPUT_BUCKETS else 0


def _stretches(start: int, end: int, edges: list[tuple[int, NanoUSD]]) -> int:
    ends = [edge for edge, _ in edges[1:]] + [end]
    return sum(
        max(0, min(end, until) - max(start, since)) * rate for (since, rate), until in zip(edges, ends, strict=True)
    )


def _rounded(parts: list[tuple[str, int]]) -> Cost:
    components: dict[str, NanoUSD] = {}
    running = booked = 0
    for name, amount in parts:
        running += amount
        share = -(-running // MILLION) - booked
        booked += share
        components[name] = components.get(name, 0) + share
    return Cost(booked, components)
