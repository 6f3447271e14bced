"""Usage x price, in integers.  Figures are the worked examples of published analyses, recomputed."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from gateway import money
from gateway.money import nano
from gateway.plan import Step
from gateway.types import Bucket, Deployment, Estimate, Price, PriceWindow, Provider, Tier, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()  # a Friday


def usd(**rates: str) -> dict[Bucket, int]:
    return {Bucket(name): nano(rate) for name, rate in rates.items()}


def price(**rates: str) -> Price:
    return Price(usd(**rates))


def total(price: Price, at: float = NOON, **tokens: int) -> str:
    cost = money.cost(Usage({Bucket(name): count for name, count in tokens.items()}), price, at).total
    return "unknown" if cost is None else money.dollars(cost)


@pytest.mark.parametrize(
    ("rates", "tokens", "dollars"),
    [
        (("0", "1.20"), (0, 250_000), "0.30"),
        (("2.50", "10"), (1500, 300), "0.00675"),
        (("0.15", "0.60"), (1500, 300), "0.000405"),
        (("5", "20"), (1500, 300), "0.0135"),
        (("15", "75"), (1500, 300), "0.045"),
        (("3", "15"), (1500, 300), "0.009"),
        (("0.80", "4"), (1500, 300), "0.0024"),
        (("1.25", "5"), (1500, 300), "0.003375"),
        (("0.075", "0.30"), (1500, 300), "0.0002025"),
        (("0.27", "1.10"), (1500, 300), "0.000735"),
        (("0.88", "0.88"), (1500, 300), "0.001584"),
        (("3", "15"), (500, 800), "0.0135"),
        (("5", "15"), (700_000, 300_000), "8.00"),
        (("0.50", "1.50"), (700_000, 300_000), "0.80"),
        (("15", "75"), (700_000, 300_000), "33.00"),
        (("3", "15"), (700_000, 300_000), "6.60"),
        (("1", "5"), (700_000, 300_000), "2.20"),
        (("1.25", "5"), (700_000, 300_000), "2.375"),
        (("0.075", "0.30"), (700_000, 300_000), "0.1425"),
        (("0.27", "1.10"), (700_000, 300_000), "0.519"),
        (("0.59", "0.79"), (700_000, 300_000), "0.65"),
        (("3", "15"), (5 * 2000, 5 * 500), "0.0675"),
        (("3", "15"), (50 * 800, 50 * 300), "0.345"),
    ],
)
def test_one_call_costs_its_tokens(rates: tuple[str, str], tokens: tuple[int, int], dollars: str) -> None:
    assert total(price(input=rates[0], output=rates[1]), input=tokens[0], output=tokens[1]) == dollars


@pytest.mark.parametrize(
    ("rates", "tokens", "dollars"),
    [
        (("15", "60"), (500, 800, 4500), "0.3255"),
        (("15", "75"), (2000, 1500, 8000), "0.7425"),
        (("15", "75"), (2000, 1500, 0), "0.1425"),
        (("15", "60"), (800, 500, 12_000), "0.762"),
        (("15", "60"), (800, 500, 3500), "0.252"),
        (("15", "60"), (800, 500, 800), "0.09"),
        (("0.55", "2.19"), (800, 500, 4000), "0.010295"),
        (("15", "75"), (800, 500, 9000), "0.7245"),
        (("1.25", "5"), (800, 500, 5000), "0.0285"),
    ],
)
def test_reasoning_costs_as_much_as_the_answer(
    rates: tuple[str, str], tokens: tuple[int, int, int], dollars: str
) -> None:
    at = price(input=rates[0], output=rates[1], reasoning=rates[1])
    assert total(at, input=tokens[0], output=tokens[1], reasoning=tokens[2]) == dollars


def test_an_image_costs_as_the_input_it_is_counted_in() -> None:
    at = price(input="5", image_in="5", output="20")
    assert total(at, input=30, image_in=1000, output=200) == "0.00915"


GEMINI = Price(usd(input="1.25", cache_read="0.3125", output="5"))


def test_a_cliff_reprices_the_whole_prompt() -> None:
    cliff = Price(GEMINI.rates, tiers=(Tier(200_000, usd(input="2.50", cache_read="0.625", output="10")),))
    assert total(cliff, input=200_000) == "0.25"
    assert total(cliff, input=200_001) == "0.5000025"
    assert total(cliff, input=500_000) == "1.25"
    assert total(cliff, input=500_000, output=5000) == "1.30"
    assert total(cliff, cache_read=500_000, output=5000) == "0.3625"


def test_a_marginal_tier_reprices_only_what_is_above_it() -> None:
    marginal = Price(GEMINI.rates, tiers=(Tier(200_000, usd(input="2.50"), marginal=True),))
    assert total(marginal, input=500_000) == "1.00"
    assert total(marginal, input=200_000) == "0.25"


def test_marginal_tiers_count_no_token_twice_across_buckets() -> None:
    tiers = (Tier(100, usd(input="2", cache_read="1"), marginal=True), Tier(200, usd(input="3"), marginal=True))
    at = Price(usd(input="1", cache_read="0.5", output="7"), tiers=tiers)
    # the cached prefix: 100 at 0.5, 20 at 1; then 80 at 2 and 50 at 3
    assert total(at, cache_read=120, input=130, output=10) == money.dollars(
        50_000 + 20_000 + 160_000 + 150_000 + 70_000
    )


def test_a_tier_is_reached_by_all_input_together() -> None:
    cliff = Price(usd(input="1", cache_read="0.1"), tiers=(Tier(100, usd(input="2", cache_read="0.2")),))
    assert total(cliff, input=60, cache_read=60) == money.dollars(60 * 2000 + 60 * 200)


OFF_PEAK = Price(
    usd(input="0.27", output="1.10"),
    windows=(PriceWindow(16 * 60 + 30, 30, usd(input="0.14", output="0.55")),),
)


@pytest.mark.parametrize(
    ("hour", "minute", "dollars"),
    [(16, 29, "1.37"), (16, 30, "0.69"), (23, 59, "0.69"), (0, 0, "0.69"), (0, 29, "0.69"), (0, 30, "1.37")],
)
def test_off_peak_holds_over_midnight_and_ends_on_the_minute(hour: int, minute: int, dollars: str) -> None:
    at = datetime(2026, 11, 20, hour, minute, tzinfo=UTC).timestamp()
    assert total(OFF_PEAK, at, input=1_000_000, output=1_000_000) == dollars


def test_a_window_over_midnight_belongs_to_the_day_it_began_on() -> None:
    friday = Price(usd(input="2"), windows=(PriceWindow(1380, 60, usd(input="1"), frozenset({4})),))

    def at(day: int, hour: int) -> str:
        return total(friday, datetime(2026, 11, day, hour, 30, tzinfo=UTC).timestamp(), input=1_000_000)

    assert (at(20, 23), at(21, 0)) == ("1.00", "1.00")  # Friday night
    assert (at(20, 0), at(21, 23)) == ("2.00", "2.00")


@pytest.mark.parametrize(("writes", "reads", "kind", "dollars"), [
    (0, 0, "cache_write_5m", "150.00"),
    (200, 800, "cache_write_5m", "49.50"),
    (20, 980, "cache_write_1h", "20.70"),
])  # fmt: skip
def test_a_cached_prefix_costs_its_writes_and_reads(writes: int, reads: int, kind: str, dollars: str) -> None:
    sonnet = price(input="3", cache_write_5m="3.75", cache_write_1h="6", cache_read="0.30", output="15")
    plain = 0 if writes else 1000
    tokens = {kind: writes * 50_000, "cache_read": reads * 50_000, "input": plain * 50_000}
    assert total(sonnet, **tokens) == dollars


def test_batch_is_half_and_stacks_with_cache_reads() -> None:
    half = price(input="1.5", cache_read="0.15", output="7.5")
    sonnet = Price(usd(input="3", cache_read="0.30", output="15"), variants={"batch": half})
    usage = Usage({Bucket.INPUT: 1500, Bucket.OUTPUT: 300}, service_tier="batch")
    assert money.cost(usage, sonnet, NOON).total == nano("0.0045")
    cached = Usage({Bucket.CACHE_READ: 1_000_000}, service_tier="batch")
    assert money.cost(cached, sonnet, NOON).total == nano("0.15")


def test_a_service_tier_without_a_price_is_unknown_and_never_the_standard_rate() -> None:
    cost = money.cost(Usage({Bucket.INPUT: 10}, service_tier="ultrafast"), price(input="1"), NOON)
    assert cost.total is None
    assert cost.unknown == ("service_tier:ultrafast",)
    assert money.cost(Usage({Bucket.INPUT: 10}, service_tier="default"), price(input="1"), NOON).total == 10_000


def test_an_unpriced_bucket_makes_the_cost_unknown_and_names_it() -> None:
    cost = money.cost(Usage({Bucket.INPUT: 10, Bucket.AUDIO_IN: 900}), price(input="1"), NOON)
    assert (cost.total, cost.unknown, dict(cost.components)) == (None, ("audio_in",), {})


def test_a_free_model_costs_zero_and_an_unpriced_one_is_unknown() -> None:
    assert total(price(input="0", output="0"), input=10, output=10) == "0.00"
    assert total(Price(known=False), input=10) == "unknown"


def test_fees_are_billed_per_piece_and_the_request_fee_once_a_call() -> None:
    sonar = Price(usd(input="1", output="1"), fees={"request": nano("0.005"), "web_search": nano("0.01")})
    usage = Usage({Bucket.INPUT: 1000}, {"web_search": 2})
    assert money.cost(usage, sonar, NOON).total == nano("0.001") + nano("0.005") + nano("0.02")
    counted = Usage({Bucket.INPUT: 1000}, {"request": 1})
    assert money.cost(counted, sonar, NOON).total == nano("0.006")
    assert money.cost(Usage({Bucket.INPUT: 1}, {"page": 1}), sonar, NOON).unknown == ("fee:page",)


@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=5), st.lists(st.integers(0, 10**12), min_size=5, max_size=5)
)
def test_components_sum_to_the_total_and_it_is_rounded_up_once(tokens: list[int], rates: list[int]) -> None:
    buckets = list(Bucket)[: len(tokens)]
    cost = money.cost(
        Usage(dict(zip(buckets, tokens, strict=True))), Price(dict(zip(Bucket, rates, strict=False))), NOON
    )
    exact = sum(Decimal(count) * rate for count, rate in zip(tokens, rates, strict=False)) / 10**6
    assert cost.total is not None
    assert sum(cost.components.values()) == cost.total
    assert 0 <= cost.total - exact < 1


RICH = Price(
    usd(input="3", cache_read="0.3", cache_write_5m="3.75", output="15", reasoning="15", audio_in="40", audio_out="80"),
    tiers=(Tier(1000, usd(input="6", cache_read="0.6", cache_write_5m="7.5", output="22.5", reasoning="22.5")),),
    windows=(PriceWindow(0, 600, usd(input="4", output="16")),),
    variants={
        "priority": price(input="30", cache_read="3", output="150", reasoning="150"),
        "flex": price(input="1"),
        "batch": price(input="1"),
    },
    fees={"request": nano("0.005")},
)
COUNT = st.integers(0, 5000)


@given(COUNT, COUNT, COUNT, COUNT, COUNT, st.integers(0, 86_400 * 7), st.sampled_from(["", "priority"]))
def test_no_call_within_the_bound_costs_more_than_it(
    fresh: int, read: int, written: int, output: int, thought: int, at: int, tier: str
) -> None:
    tokens = {
        Bucket.INPUT: fresh,
        Bucket.CACHE_READ: read,
        Bucket.CACHE_WRITE_5M: 0 if tier else written,
        Bucket.OUTPUT: output,
        Bucket.REASONING: thought,
    }
    usage = Usage({bucket: count for bucket, count in tokens.items() if count}, service_tier=tier)
    cost = money.cost(usage, RICH, at).total
    bound = money.bound(RICH, usage.input_tokens, usage.output_tokens, cache_writes=True, service_tier=tier)
    assert cost is not None
    assert bound is not None
    assert cost <= bound


def test_the_bound_knows_tier_service_tier_cache_writes_and_sound() -> None:
    def bound(input_max: int, **more: object) -> int | None:
        return money.bound(RICH, input_max, 0, cache_writes=bool(more.pop("writes", False)), **more)  # type: ignore[arg-type]

    fee = nano("0.005")
    assert bound(1000) == 1000 * 4000 + fee
    assert bound(1001) == 1001 * 6000 + fee
    assert bound(1001, writes=True) == 1001 * 7500 + fee
    assert bound(1000, audio=True) == 1000 * 40_000 + fee
    assert bound(1000, service_tier="priority") == 1000 * 30_000
    assert bound(1000, service_tier="ultrafast") is None
    assert bound(1000, service_tier="flex") == 1000 * 4000  # it may be served, and billed, as the standard tier
    assert bound(1000, service_tier="batch") == 1000 * 1000


def test_a_steps_worst_case_has_the_dearest_of_the_providers_own_tools_at_every_call() -> None:
    listed = replace(price(input="1", output="1"), fees={"web_search": 10, "file_search": 25, "image": 900})
    deployment = Deployment("d", Provider("p", "openai"), "m", listed)

    def worst(calls: int) -> int | None:
        return Step(deployment, Estimate(5, 5), 5, 5, 0.0, provider_calls=calls).worst_cost

    assert worst(0) is not None
    assert (worst(4) or 0) - (worst(0) or 0) == 4 * 25


def test_sound_into_a_model_without_a_price_for_it_has_no_bound() -> None:
    assert money.bound(price(input="1", output="1"), 10, 10, cache_writes=False, audio=True) is None


def test_a_bound_of_an_unknown_price_is_unknown() -> None:
    assert money.bound(Price(known=False), 1, 1, cache_writes=False) is None
    assert money.bound(price(input="1"), 1, 1, cache_writes=False) is None


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0.00"), (1, "0.000000001"), (1_500_000_000, "1.50"), (-5, "-0.000000005")]
)
def test_dollars_are_written_exactly(amount: int, text: str) -> None:
    assert money.dollars(amount) == text


def test_dollars_finer_than_a_nano_dollar_are_refused() -> None:
    assert nano(0.1) == 100_000_000
    with pytest.raises(ValueError, match="finer"):
        nano("0.0000000001")


def test_a_bound_holds_where_the_account_serves_from_one_dearer_place() -> None:
    rates = {Bucket.INPUT: 3_000_000_000, Bucket.OUTPUT: 15_000_000_000}
    geo = Price({bucket: rate * 11 // 10 for bucket, rate in rates.items()})
    price = Price(rates, variants={"geo:us": geo})
    bound = money.bound(price, 1000, 100, cache_writes=False)
    billed = money.cost(Usage({Bucket.INPUT: 1000, Bucket.OUTPUT: 100}, service_tier="geo:us"), price, 0.0)
    assert bound == billed.total
