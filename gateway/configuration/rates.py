"""The price list: genai-prices, corrected by `prices.yaml`, changed by a deployment's own `price:`.  Start-up only.

Order: the list of genai-prices as it holds at a date; then every entry of `prices.yaml` that fits, rate by rate; then
the deployment's own price.  A deployment that states any rate (or `per_hour`) stands alone, but for fees per piece that
it does not restate; otherwise its `multiplier`, `discount` and `fees` change the listed price.

What a list leaves out is filled in by these rules, and only these; anything else stays unknown:

* reasoning is billed as output (every provider in the list that does not price it apart);
* cache_read is billed as input where no discount is stated;
* cache_write_5m is billed as input where nothing is stated, and cache_write_30m as cache_write_5m; 1h and 12h are never
  guessed;
* image_in and video_in are billed as input;
* audio is never filled in: it costs many times the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, time
from decimal import ROUND_CEILING, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from gateway.configuration import schema
from gateway.configuration.price_list import Books, books
from gateway.types import NANO, UNKNOWN_PRICE, Bucket, NanoUSD, Price, PriceWindow, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

FILLED: tuple[tuple[Bucket, Bucket], ...] = (
    (Bucket.REASONING, Bucket.OUTPUT),
    (Bucket.CACHE_READ, Bucket.INPUT),
    (Bucket.CACHE_WRITE_5M, Bucket.INPUT),
    (Bucket.CACHE_WRITE_30M, Bucket.CACHE_WRITE_5M),
    (Bucket.IMAGE_IN, Bucket.INPUT),
    (Bucket.VIDEO_IN, Bucket.INPUT),
)
"""(what is not stated, what it is billed as), in the order in which they are filled."""

_BUCKETS: Mapping[str, tuple[Bucket, ...]] = {
    "input_mtok": (Bucket.INPUT,),
    "output_mtok": (Bucket.OUTPUT,),
    "output_reasoning_mtok": (Bucket.REASONING,),
    "cache_read_mtok": (Bucket.CACHE_READ,),
    "cache_write_mtok": (Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_30M),
    "cache_write_5m_mtok": (Bucket.CACHE_WRITE_5M,),
    "cache_write_1h_mtok": (Bucket.CACHE_WRITE_1H,),
    "input_audio_mtok": (Bucket.AUDIO_IN,),
    "cache_audio_read_mtok": (Bucket.AUDIO_CACHE_READ,),
    "output_audio_mtok": (Bucket.AUDIO_OUT,),
    "input_image_mtok": (Bucket.IMAGE_IN,),
    "output_image_mtok": (Bucket.IMAGE_OUT,),
    "input_video_mtok": (Bucket.VIDEO_IN,),
}
_FEES: Mapping[str, tuple[str, int]] = {
    "web_searches_kcount": ("web_search", 1000),
    "storage_searches_kcount": ("file_search", 1000),
    "requests_kcount": ("request", 1000),
    "input_document_kpages": ("page", 1000),
    "input_annotated_document_kpages": ("annotated_page", 1000),
    "input_audio_hours": ("audio_second", 3600),
    "input_mchars": ("character", 1_000_000),
    "output_citation_mtok": ("citation_token", 1_000_000),
}
"""genai-prices' keys -> the fee, and how many of it the price is for."""

_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_Listed = Mapping[str, Any]  # genai-prices' keys -> Decimal | TieredPrices


class Listing(Struct, frozen=True):
    """What the list knows of one model.  `price` is not filled in yet."""

    price: Price = UNKNOWN_PRICE
    context_max: int | None = None
    changes_at: float | None = None  # unix seconds when the price next changes


def listing(
    book: str, model: str, at: float, overrides: Iterable[schema.PriceOverride] = (), newer: Path | None = None
) -> Listing:
    """What is known of `model` at the vendor `book` at the moment `at`; an unknown model is unknown.

    `book` may name several, with commas between them: the first that knows the model holds.  `newer`: see `books`.
    Raises ValueError where the newer list is none, or has a price below zero.
    """
    named = [_page(name.strip(), model, newer) for name in book.split(",")]
    held = next((page for page in named if page[2]), named[0])
    listed = _listing(held[2], at) if held[2] else Listing()
    places = {(book, name.lower()) for book, name, _ in (held, named[0])}
    for override in overrides:
        if any(
            fnmatchcase(book, override.provider) and fnmatchcase(name, override.model.lower()) for book, name in places
        ):
            listed = _corrected(listed, override, at)
    return listed


def _corrected(listed: Listing, override: schema.PriceOverride, at: float) -> Listing:
    turns = [moment for moment in (override.since, override.until) if moment is not None and at < moment]
    if turns:
        listed = replace(listed, changes_at=min(turns if listed.changes_at is None else [*turns, listed.changes_at]))
    if (override.since or at) > at or (override.until is not None and override.until <= at):
        return listed
    return replace(listed, price=changed(listed.price, override.price, f"{override.source} ({override.date})"))


def own(listed: Price, shape: schema.PriceShape | None) -> Price:
    """The listed price as a deployment's own `price:` changes or replaces it, filled in by the module's rules."""
    if shape is None:
        return filled(listed)
    if shape.unknown:
        return UNKNOWN_PRICE
    if shape.per_hour is not None and shape.tokens_per_second is not None:
        rate = per_million(shape.per_hour, shape.tokens_per_second, shape.utilization)
        stated = Price(dict.fromkeys((Bucket.INPUT, Bucket.OUTPUT), rate), listed.fees)
        return filled(changed(stated, shape, shape.source or "self-hosted, per hour"))
    if _rates(shape, {}):
        listed = Price(fees=listed.fees)
    return filled(changed(listed, shape, shape.source or "the deployment's own price"))


def per_million(per_hour: Decimal, tokens_per_second: float, utilization: float) -> NanoUSD:
    """What a million tokens cost on a machine: dollars an hour / tokens an hour / the share of it that is used."""
    tokens_an_hour = Decimal(str(tokens_per_second)) * 3600 * Decimal(str(utilization))
    return _nano(per_hour * 1_000_000 / tokens_an_hour)


def filled(price: Price) -> Price:
    """`price` with the module's rules applied to it, its tiers, windows and variants."""
    if not price.known:
        return price
    stated = frozenset(price.rates)
    return replace(
        price,
        rates=_filled(price.rates, stated),
        tiers=tuple(replace(tier, rates=_filled(tier.rates, stated)) for tier in price.tiers),
        windows=tuple(replace(window, rates=_filled(window.rates, stated)) for window in price.windows),
        variants={name: filled(variant) for name, variant in price.variants.items()},
    )


def changed(price: Price, shape: schema.PriceShape, source: str) -> Price:
    """`price` with what `shape` states in its place: rates and fees one by one, tiers and windows as a whole."""
    if shape.unknown:
        return UNKNOWN_PRICE
    rates = {**price.rates, **_rates(shape, price.rates)}
    fees = _fees(price.fees, shape)
    result = Price(
        rates=rates,
        fees=fees,
        tiers=_tiers(shape.tiers, rates) or price.tiers,
        windows=tuple(_window(item, rates) for item in shape.windows) or price.windows,
        known=bool(rates or fees),
        source=f"{price.source}; {source}" if price.source and price.known else source,
    )
    variants = {name: replace(variant, fees=fees) for name, variant in price.variants.items()}
    for name, item in shape.variants.items():
        if not item.like:
            variants[name] = _variant(item, result)
        elif item.like in variants:
            variants[name] = variants[item.like]
    result = _referring(replace(result, variants=variants), shape)
    factor = Decimal(str(shape.multiplier or 1)) * (1 - Decimal(str(shape.discount or 0)))
    return result if factor == 1 or not result.known else scaled(result, factor)


def scaled(price: Price, factor: Decimal) -> Price:
    """Every rate and fee times `factor`, rounded up to a nano-dollar."""
    return replace(
        price,
        rates=_scaled(price.rates, factor),
        fees={name: _up(fee * factor) for name, fee in price.fees.items()},
        tiers=tuple(replace(tier, rates=_scaled(tier.rates, factor)) for tier in price.tiers),
        windows=tuple(replace(window, rates=_scaled(window.rates, factor)) for window in price.windows),
        variants={name: scaled(variant, factor) for name, variant in price.variants.items()},
        source=f"{price.source}, times {factor.normalize():f}",
    )


def facts(model: str, known: Iterable[schema.ModelFacts]) -> schema.ModelFacts | None:
    """The first family whose pattern fits the model's name, or its last part ('openai/gpt-4o' is gpt-4o)."""
    name = model.lower()
    last = name.rsplit("/", 1)[-1]
    for family in known:
        if any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in family.match):
            return family
    return None


def _fees(listed: Mapping[str, NanoUSD], shape: schema.PriceShape) -> dict[str, NanoUSD]:
    """The stated fees over the listed ones; one that is told apart (`request:low`) replaces the flat one."""
    told_apart = {kind for name in shape.fees if (kind := name.partition(":")[0]) != name}
    kept = {name: fee for name, fee in listed.items() if name not in told_apart}
    return {**kept, **{name: _nano(fee) for name, fee in shape.fees.items()}}


def _page(book: str, model: str, newer: Path | None) -> tuple[str, str, ModelInfo | None]:
    """The book and the model by the names that the list has for them, and what it says there.

    `{vendor}` in the name of a book is the model's part before '/', `{suffix}` the part after its last ':'.
    """
    if not book:
        return "", model, None
    if model.startswith("arn:"):  # of a model or an inference profile at Amazon
        model = model.rpartition("/")[2]
    if "{vendor}" in book:
        vendor, _, model = model.partition("/")
        book = book.replace("{vendor}", {"xai": "x-ai", "moonshot": "moonshotai"}.get(vendor, vendor))
    if "{suffix}" in book:
        model, _, suffix = model.rpartition(":")
        book = book.replace("{suffix}", suffix)
    known = books(newer) if book else {}
    found = known.get(book)
    return book, model, found.find_model(model, all_providers=list(known.values())) if found else None


def every(known: Books, at: float) -> dict[str, Price]:
    """Every price of a list by vendor/model, without its source.  Raises ValueError for one below zero."""
    models = [(book.id, model) for book in known.values() for model in book.models]
    return {f"{book}/{model.id}": _bare(_listing(model, at).price) for book, model in models}


def _bare(price: Price) -> Price:
    return replace(price, source="", variants={name: _bare(variant) for name, variant in price.variants.items()})


def _listing(model: ModelInfo, at: float) -> Listing:
    from genai_prices.types import ConditionalPrice, StartDateConstraint, TimeOfDateConstraint  # noqa: PLC0415 - as above

    now = datetime.fromtimestamp(at, UTC)
    periods = model.prices if isinstance(model.prices, list) else [ConditionalPrice(prices=model.prices)]
    base: _Listed = periods[0].prices.__dict__ if periods else {}
    windows: list[tuple[time, time, _Listed]] = []
    starts: list[float] = []
    for period in reversed(periods):  # the last that holds wins
        when, prices = period.constraint, period.prices.__dict__
        if isinstance(when, TimeOfDateConstraint):
            windows.append((when.start_time, when.end_time, prices))
        elif isinstance(when, StartDateConstraint) and not when.active(now):
            starts.append(datetime.combine(when.start_date, time(), UTC).timestamp())
        else:
            base = prices
            break
    variants: dict[str, dict[str, Any]] = {}
    for variant in model.price_variants or ():
        if isinstance(variant.constraint, StartDateConstraint) and not variant.constraint.active(now):
            starts.append(datetime.combine(variant.constraint.start_date, time(), UTC).timestamp())
        elif name := _variant_name(variant.when):
            told = variants.setdefault(name, {})
            told.update({key: value for key, value in variant.prices.__dict__.items() if key not in told})
    source = f"genai-prices at {now:%Y-%m-%d}"
    return Listing(
        replace(
            _price(base, windows, source),
            variants={name: _overlaid(base, windows, told, source) for name, told in variants.items()},
        ),
        model.context_window,
        min(starts, default=None),
    )


def _variant_name(when: Mapping[str, str]) -> str:
    """A service tier, 'batch' or 'fast' by its own name; another dimension with its name; '' for the standard one."""
    if len(when) == 1:
        ((dimension, value),) = when.items()
        if dimension in {"service_tier", "processing", "speed"}:
            return "" if value == "default" else value
    return ",".join(f"{dimension}={value}" for dimension, value in sorted(when.items()))


def _overlaid(base: _Listed, windows: list[tuple[time, time, _Listed]], told: _Listed, source: str) -> Price:
    return _price({**base, **told}, [(start, end, {**rates, **told}) for start, end, rates in windows], source)


def _price(base: _Listed, windows: list[tuple[time, time, _Listed]], source: str) -> Price:
    rates, fees = _listed_rates(base, None), _listed_fees(base)
    starts = sorted({tier.start for value in base.values() for tier in getattr(value, "tiers", ())})
    return Price(
        rates=rates,
        fees=fees,
        tiers=tuple(Tier(start, _listed_rates(base, start)) for start in starts),
        windows=tuple(
            PriceWindow(
                start.hour * 60 + start.minute,
                end.hour * 60 + end.minute,
                _filled(_listed_rates(prices, None), frozenset()),
            )
            for start, end, prices in windows
        ),
        known=bool(rates or fees),
        source=source,
    )


def _listed_rates(prices: _Listed, above: int | None) -> dict[Bucket, NanoUSD]:
    """The base rates, or the rates that differ once the input passes `above`."""
    rates: dict[Bucket, NanoUSD] = {}
    for key, value in prices.items():
        for bucket in _BUCKETS.get(key, ()) if value is not None else ():
            if above is None:
                rates[bucket] = _nano(value if _is_flat(value) else value.base)
            elif reached := [tier for tier in getattr(value, "tiers", ()) if tier.start <= above]:
                rates[bucket] = _nano(reached[-1].price)
    return rates


def _listed_fees(prices: _Listed) -> dict[str, NanoUSD]:
    listed = {name: (value, *_FEES[name]) for name, value in prices.items() if name in _FEES and _is_flat(value)}
    return {fee: _nano(value / count) for value, fee, count in listed.values()}


def _is_flat(value: object) -> bool:
    return isinstance(value, Decimal)


def _filled(rates: Mapping[Bucket, NanoUSD], stated: frozenset[Bucket]) -> dict[Bucket, NanoUSD]:
    result = dict(rates)
    for bucket, source in FILLED:
        if bucket not in stated and bucket not in result and source in result:
            result[bucket] = result[source]
    return result


def _rates(shape: schema.RatesShape, base: Mapping[Bucket, NanoUSD]) -> dict[Bucket, NanoUSD]:
    """The rates that `shape` states; one that names another bucket is billed as that."""
    stated = {bucket: rate for bucket in Bucket if (rate := getattr(shape, bucket.value)) is not None}
    rates = {bucket: _nano(rate) for bucket, rate in stated.items() if isinstance(rate, Decimal)}
    for bucket, rate in stated.items():
        if isinstance(rate, Bucket):
            billed = rates.get(rate, base.get(rate))
            if billed is not None:
                rates[bucket] = billed
    return rates


def _tiers(shapes: Iterable[schema.TierShape], base: Mapping[Bucket, NanoUSD]) -> tuple[Tier, ...]:
    tiers = [Tier(shape.above, _rates(shape, base), shape.marginal) for shape in shapes]
    return tuple(sorted(tiers, key=lambda tier: tier.above))


def _window(shape: schema.WindowShape, base: Mapping[Bucket, NanoUSD]) -> PriceWindow:
    weekdays = frozenset(_WEEKDAYS.index(day) for day in shape.weekdays)
    return PriceWindow(shape.start, shape.end, _rates(shape, base), weekdays)


def _variant(shape: schema.VariantShape, standard: Price) -> Price:
    """A share of every standard rate, not of fees, or stated rates over the standard ones; tiers as stated, or so."""
    if shape.multiplier:
        standard = replace(scaled(standard, Decimal(str(shape.multiplier))), fees=standard.fees)
    else:
        standard = replace(standard, tiers=(), windows=())
    rates = {**standard.rates, **_rates(shape, standard.rates)}
    return replace(standard, rates=rates, tiers=_tiers(shape.tiers, rates) or standard.tiers)


def _referring(price: Price, shape: schema.RatesShape) -> Price:
    """Tiers, windows and variants in which what is billed as another bucket follows that bucket's rate."""
    rules = [(bucket, rate) for bucket in Bucket if isinstance(rate := getattr(shape, bucket.value), Bucket)]

    def spread(rates: Mapping[Bucket, NanoUSD]) -> dict[Bucket, NanoUSD]:
        return {**rates, **{bucket: rates[billed] for bucket, billed in rules if billed in rates}}

    if not rules:
        return price
    return replace(
        price,
        tiers=tuple(replace(tier, rates=spread(tier.rates)) for tier in price.tiers),
        windows=tuple(replace(window, rates=spread(window.rates)) for window in price.windows),
        variants={
            name: _referring(replace(variant, rates=spread(variant.rates)), shape)
            for name, variant in price.variants.items()
        },
    )


def _scaled(rates: Mapping[Bucket, NanoUSD], factor: Decimal) -> dict[Bucket, NanoUSD]:
    return {bucket: _up(rate * factor) for bucket, rate in rates.items()}


def _nano(dollars: Decimal) -> NanoUSD:
    if dollars < 0:
        raise ValueError(f"a price is below zero: {dollars}")
    return _up(dollars * NANO)


def _up(amount: Decimal) -> NanoUSD:
    return int(amount.to_integral_value(ROUND_CEILING))
