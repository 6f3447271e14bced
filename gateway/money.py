"""Usage x price -> cost.  Pure and integer; a cost is rounded once, up, per call."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

from gateway.types import INPUT_BUCKETS, NANO, OUTPUT_BUCKETS, Bucket, Cost, NanoUSD, Price, PriceWindow, Tier, Usage

MILLION = 1_000_000
STANDARD_TIERS = frozenset({"", "default", "standard", "auto", "on_demand"})


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
    base, variant_missing = _variant(price, usage.service_tier)
    unknown = [f"service_tier:{usage.service_tier}"] if variant_missing else []
    if not price.known:
        unknown.append("price")
    total_in = usage.input_tokens
    window = _window_rates(base, at)
    parts: list[tuple[str, int]] = []
    for bucket, tokens in usage.tokens.items():
        amount = _charge(bucket, tokens, total_in, base, window)
        if amount is None:
            unknown.append(bucket)
        else:
            parts.append((bucket, amount))
    for fee, count in usage.fees.items():
        if (rate := base.fees.get(fee)) is None:
            unknown.append(f"fee:{fee}")
        else:
            parts.append(("fee", count * rate * MILLION))
    if unknown:
        return Cost(None, {}, tuple(unknown))
    return _rounded(parts)


def bound(price: Price, input_max: int, output_max: int, *, cache_writes: bool, fees: int = 0) -> NanoUSD | None:
    """The most a call with at most these tokens can cost, whatever the hour, the tier and the cache.  None: unknown."""
    if not price.known:
        return None
    excluded = set() if cache_writes else {b for b in INPUT_BUCKETS if b.startswith("cache_write")}
    excluded |= {b for b in Bucket if b.startswith(("audio", "video"))}
    rates_in: list[NanoUSD] = []
    rates_out: list[NanoUSD] = []
    for rates in _reachable(price, input_max):
        rates_in += [r for b, r in rates.items() if b in INPUT_BUCKETS and b not in excluded]
        rates_out += [r for b, r in rates.items() if b in OUTPUT_BUCKETS and b not in excluded]
    if (input_max and not rates_in) or (output_max and not rates_out):
        return None
    return _up(input_max * max(rates_in, default=0) + output_max * max(rates_out, default=0)) + fees


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
    if not price.windows:
        return None
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


def _charge(
    bucket: Bucket, tokens: int, total_in: int, price: Price, window: Mapping[Bucket, NanoUSD] | None
) -> int | None:
    """Tokens x rate, in millionths of a nano-dollar."""
    base = window[bucket] if window and bucket in window else price.rates.get(bucket)
    tier = _tier(price.tiers, total_in)
    if tier is None or bucket not in tier.rates:
        return None if base is None else tokens * base
    if not tier.marginal:
        return tokens * tier.rates[bucket]
    if bucket not in INPUT_BUCKETS:
        return None if base is None else tokens * base
    if base is None:
        return None
    above = min(tokens, total_in - tier.above)
    return (tokens - above) * base + above * tier.rates[bucket]


def _tier(tiers: tuple[Tier, ...], total_in: int) -> Tier | None:
    reached = [tier for tier in tiers if total_in > tier.above]
    return reached[-1] if reached else None


def _rounded(parts: list[tuple[str, int]]) -> Cost:
    components: dict[str, NanoUSD] = {}
    running = booked = 0
    for name, amount in parts:
        running += amount
        share = _up(running) - booked
        booked += share
        components[name] = components.get(name, 0) + share
    return Cost(booked, components)


def _up(amount: int) -> NanoUSD:
    return -(-amount // MILLION)
