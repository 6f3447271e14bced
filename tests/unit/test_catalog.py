"""What can be asked for, at which price.  Listed prices are those of the pinned genai-prices."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from msgspec.structs import replace

from gateway import catalog, money, plugins, settings
from gateway.catalog import Catalog
from gateway.configuration import price_list, rates
from gateway.configuration.presets import known
from gateway.configuration.schema import PriceShape, fields_at
from gateway.errors import UnknownModel
from gateway.money import dollars, nano
from gateway.settings import Settings
from gateway.types import UNKNOWN_PRICE, Bucket, Capability, Deployment, Price, Tier, Usage

FRIDAY = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
PROVIDERS = """
providers:
  openai: {}
  anthropic: {}
  deepseek: {}
  vercel: {}
  huggingface: {}
  perplexity: {}
  sim: {dialect: simulated}
  elsewhere: {dialect: openai, base_url: 'https://res.openai.azure.com/openai/v1'}
  nowhere: {dialect: openai, base_url: 'https://llm.example/v1'}
"""


def parse(text: str, at: float = FRIDAY) -> Settings:
    return settings.parse(PROVIDERS + text, {}, "f.yaml", now=at)


def one(provider: str, model: str, more: str = "", at: float = FRIDAY) -> Deployment:
    text = f"deployments:\n  - {{id: d, provider: {provider}, upstream_model: {model}{', ' + more if more else ''}}}\n"
    return parse(text, at).deployments["d"]


def rate(price: Price, bucket: str) -> str | None:
    amount = price.rates.get(Bucket(bucket))
    return None if amount is None else dollars(amount)


def spent(price: Price, at: float = FRIDAY, tier: str = "", **tokens: int) -> str | None:
    usage = Usage({Bucket(name): count for name, count in tokens.items()}, service_tier=tier)
    total = money.cost(usage, price, at).total
    return None if total is None else dollars(total)


# names


@pytest.fixture
def shop() -> Catalog:
    return catalog.build(
        parse(
            """
deployments:
  - {id: small, provider: sim, upstream_model: sim-s, price: {input: 1, output: 1}}
  - {id: large, provider: sim, upstream_model: sim-l, price: {input: 2, output: 2}}
  - {id: large-eu, provider: sim, upstream_model: sim-l, price: {input: 3, output: 3}}
routes:
  auto: {candidates: [large, small], baseline: large}
  sim-s: {candidates: [small]}
"""
        )
    )


def test_a_route_a_deployment_and_a_model_are_found_by_name(shop: Catalog) -> None:
    route, candidates = shop.resolve("auto")
    assert [deployment.id for deployment in candidates] == ["large", "small"]
    assert shop.baseline(route) is shop.deployments["large"]
    route, (large,) = shop.resolve("large")
    assert (route, large.id) == (None, "large")
    assert shop.baseline(route) is None
    assert shop.names() == ("auto", "sim-s", "small", "large", "large-eu")


def test_a_route_wins_over_an_upstream_model_of_its_name(shop: Catalog) -> None:
    route, _ = shop.resolve("sim-s")
    assert route is shop.routes["sim-s"]


def test_a_model_that_two_deployments_serve_must_be_asked_for_by_deployment(shop: Catalog) -> None:
    with pytest.raises(UnknownModel, match=r"Several deployments serve it; ask for one of them: 'large', 'large-eu'\."):
        shop.resolve("sim-l")


@pytest.mark.parametrize(("asked", "near"), [("atuo", "auto"), ("smal", "small"), ("large-us", "large-eu")])
def test_an_unknown_model_names_the_nearest(shop: Catalog, asked: str, near: str) -> None:
    assert near in shop.nearest(asked)
    with pytest.raises(UnknownModel, match=f"There is no model '{asked}'. Did you mean .*'{near}'"):
        shop.resolve(asked)


def test_a_huge_model_name_is_neither_searched_nor_repeated_whole(shop: Catalog) -> None:
    with pytest.raises(UnknownModel) as refused:
        shop.resolve("x" * 10**7)
    assert len(str(refused.value)) < 200


# the list


def test_a_listed_price_is_taken_to_the_nano_dollar_with_its_date() -> None:
    price = one("openai", "gpt-4o-mini").price
    assert [rate(price, bucket) for bucket in ("input", "cache_read", "output")] == ["0.15", "0.075", "0.60"]
    assert price.source.split("; ")[0] == "genai-prices at 2026-11-20"
    assert spent(price, input=1500, output=300) == "0.000405"


def test_what_the_list_leaves_out_is_filled_in_by_the_rules_and_audio_never_is() -> None:
    price = one("openai", "gpt-4o-audio-preview").price
    assert rate(price, "reasoning") == rate(price, "output")
    assert rate(price, "cache_read") == rate(price, "cache_write_5m") == rate(price, "image_in") == rate(price, "input")
    assert rate(price, "cache_write_1h") is None
    assert rate(price, "audio_in") is None
    assert spent(price, input=100, audio_in=900) is None


def test_a_listed_audio_price_is_taken() -> None:
    price = one("openai", "gpt-audio").price
    assert (rate(price, "audio_in"), rate(price, "audio_out")) == ("32.00", "64.00")


def test_context_tiers_reprice_every_bucket_as_the_list_says() -> None:
    price = one("anthropic", "claude-sonnet-4-5").price
    assert spent(price, input=200_000, output=1000) == "0.615"
    assert spent(price, input=200_001) == dollars(200_001 * 6000)
    assert spent(price, cache_read=100_000, cache_write_1h=100_001, reasoning=10) == dollars(
        100_000 * 600 + 100_001 * 12_000 + 10 * 22_500
    )


def test_gemini_above_200k_is_a_cliff() -> None:
    google = rates.own(rates.listing("google", "gemini-2.5-pro", FRIDAY).price, None)
    assert spent(google, input=500_000) == "1.25"
    assert spent(google, input=200_000) == "0.25"


def test_batch_flex_and_priority_have_their_own_price_and_another_tier_has_none() -> None:
    price = one("openai", "gpt-5").price
    costs = {
        tier: spent(price, tier=tier, input=10**6) for tier in ("", "default", "flex", "priority", "batch", "scale")
    }
    assert costs == {
        "": "1.25",
        "default": "1.25",
        "flex": "0.625",
        "priority": "2.50",
        "batch": "0.625",
        "scale": None,
    }
    assert spent(one("anthropic", "claude-sonnet-4-5").price, tier="batch", input=1500, output=300) == "0.0045"


def test_a_variants_flat_rate_is_not_tiered_by_the_standard_one() -> None:
    price = one("openai", "gpt-5.5").price
    assert spent(price, tier="priority", input=300_000) == dollars(300_000 * 12_500)
    assert spent(price, input=300_000) == dollars(300_000 * 10_000)


def test_the_price_is_the_one_that_holds_at_the_moment_and_says_when_it_changes() -> None:
    before = datetime(2026, 8, 16, tzinfo=UTC).timestamp()
    change = datetime(2026, 8, 17, tzinfo=UTC).timestamp()
    assert rate(one("deepseek", "deepseek-v4-pro", at=before).price, "input") == "0.435"
    assert rate(one("deepseek", "deepseek-v4-pro").price, "input") == "0.66"
    text = "deployments: [{id: d, provider: deepseek, upstream_model: deepseek-v4-pro}]\n"
    assert parse(text, before).prices_change_at == change
    assert parse(text).prices_change_at is None


def test_a_peak_price_holds_on_working_days_only() -> None:
    price = one("deepseek", "deepseek-v4-pro").price

    def at(day: int, hour: int) -> str | None:
        return spent(price, datetime(2026, 11, day, hour, tzinfo=UTC).timestamp(), input=10**6)

    assert (at(20, 0), at(20, 2), at(20, 4), at(20, 7)) == ("0.66", "1.32", "0.66", "1.32")
    assert at(21, 2) == "0.66"  # a Saturday


def test_listed_off_peak_hours_are_windows() -> None:
    price = rates.own(rates.listing("deepseek", "deepseek-chat", FRIDAY).price, None)
    noon, night = FRIDAY, datetime(2026, 11, 20, 20, tzinfo=UTC).timestamp()
    assert spent(price, noon, input=10**6, output=10**6) == "1.37"
    assert spent(price, night, input=10**6, output=10**6) == "0.685"


def test_fees_are_per_piece() -> None:
    price = one("anthropic", "claude-opus-4-7").price
    cost = money.cost(Usage({Bucket.INPUT: 1000}, {"web_search": 3}), price, FRIDAY)
    assert cost.total == nano("0.005") + 3 * nano("0.01")
    sonar = one("perplexity", "sonar").price
    searched = money.cost(Usage({Bucket.INPUT: 1000}, {"request:high": 1}), sonar, FRIDAY)
    assert searched.total == nano("0.001") + nano("0.012")


@pytest.mark.parametrize(
    ("provider", "model", "input_price"),
    [
        ("vercel", "openai/gpt-5", "1.25"),
        ("vercel", "xai/grok-4.5", "2.00"),
        ("elsewhere", "gpt-4o", "2.50"),
        ("nowhere", "gpt-4o", None),
        ("sim", "gpt-4o", None),
        ("openai", "no-such-model", None),
        ("vercel", "gpt-5", None),
    ],
)
def test_a_price_is_found_by_preset_or_address_or_it_is_unknown(
    provider: str, model: str, input_price: str | None
) -> None:
    price = one(provider, model).price
    assert rate(price, "input") == input_price
    assert price.known == (input_price is not None)


def test_hugging_face_routes_price_by_the_suffix() -> None:
    assert rates.listing("huggingface_{suffix}", "openai/gpt-oss-120b:groq", FRIDAY).price.known
    assert not rates.listing("huggingface_{suffix}", "openai/gpt-oss-120b", FRIDAY).price.known


# a deployment's own price


def test_an_own_price_stands_alone_with_the_same_rules() -> None:
    price = one("anthropic", "claude-sonnet-4-5", "price: {input: 2, output: 8}").price
    assert (rate(price, "cache_read"), rate(price, "reasoning")) == ("2.00", "8.00")
    assert (price.tiers, price.variants) == ((), {})
    assert price.fees == {"web_search": nano("0.01")}
    assert spent(price, input=500_000) == "1.00"


def test_a_discount_and_a_multiplier_change_every_part_of_the_listed_price() -> None:
    listed = one("anthropic", "claude-sonnet-4-5").price
    price = one("anthropic", "claude-sonnet-4-5", "price: {multiplier: 1.1, discount: 0.1}").price
    assert rate(price, "input") == "2.97"
    assert price.tiers[0].rates[Bucket.OUTPUT] == nano("22.275")
    assert price.variants["batch"].rates[Bucket.INPUT] == nano("1.485")
    assert price.source == f"{listed.source}; the deployment's own price, times 0.99"


def test_a_discount_is_rounded_up_and_never_to_zero() -> None:
    price = rates.scaled(Price({Bucket.INPUT: 1}, fees={"request": 3}), Decimal("0.5"))
    assert (price.rates[Bucket.INPUT], price.fees["request"]) == (1, 2)


@pytest.mark.parametrize(
    ("per_hour", "speed", "used", "per_million"),
    [
        ("2.90", 4200, 1.0, "0.1918"),
        ("2.90", 1500, 1.0, "0.5370"),
        ("2.90", 2500, 1.0, "0.3222"),
        ("2.49", 3000, 1.0, "0.2306"),
    ],
)
def test_a_machine_by_the_hour_has_a_price_per_million(
    per_hour: str, speed: float, used: float, per_million: str
) -> None:
    exact = rates.per_million(Decimal(per_hour), speed, used)
    assert f"{exact / 10**9:.4f}" == per_million


@pytest.mark.parametrize(("used", "per_million"), [(1.0, "1.85"), (0.5, "3.70"), (0.3, "6.17"), (0.2, "9.25")])
def test_an_idle_machine_makes_its_tokens_dearer(used: float, per_million: str) -> None:
    assert f"{rates.per_million(Decimal(175_000) / (365 * 24), 3000, used) / 10**9:.2f}" == per_million


def test_a_self_hosted_deployment_is_priced_in_and_out() -> None:
    price = one("nowhere", "llama", "price: {per_hour: 2.49, tokens_per_second: 3000, utilization: 0.5}").price
    assert rate(price, "input") == rate(price, "output") == rate(price, "cache_read") == "0.461111112"


def test_own_tiers_windows_variants_and_fees_are_taken() -> None:
    price = one(
        "nowhere",
        "m",
        "price: {input: 1.25, output: 5, cache_read: 0.3125, fees: {request: 0.005},"
        " tiers: [{above: 200000, marginal: true, input: 2.5}],"
        " windows: [{start: 16:30, end: 00:30, weekdays: [mon, fri], input: 0.5}],"
        " variants: {batch: {multiplier: 0.5}, flex: {input: 1}}}",
    ).price
    assert price.tiers == (Tier(200_000, {**price.tiers[0].rates}, marginal=True),)
    assert spent(price, input=500_000) == dollars(nano("1.00") + nano("0.005"))
    assert (price.windows[0].start_minute, price.windows[0].end_minute) == (990, 30)
    assert price.windows[0].weekdays == {0, 4}
    assert rate(price.variants["batch"], "cache_read") == "0.15625"
    assert rate(price.variants["batch"], "reasoning") == "2.50"
    assert (rate(price.variants["flex"], "input"), rate(price.variants["flex"], "output")) == ("1.00", "5.00")


def test_a_stated_discount_that_a_tier_does_not_restate_holds_in_the_tier() -> None:
    price = one("nowhere", "m", "price: {input: 1, output: 5, cache_read: 0.1, tiers: [{above: 100, input: 2}]}").price
    assert spent(price, input=100, cache_read=100) == dollars(100 * 2000 + 100 * 100)
    unstated = one("nowhere", "m", "price: {input: 1, output: 5, tiers: [{above: 100, input: 2}]}").price
    assert spent(unstated, input=100, cache_read=100) == dollars(200 * 2000)


def test_of_two_variants_with_one_name_the_first_that_holds_wins() -> None:
    price = rates.listing("openrouter", "mistralai/mistral-large-4-0", FRIDAY).price
    assert price.variants["route=mistral/eu"].rates[Bucket.INPUT] == nano("0.77")


def test_what_is_billed_as_another_bucket_follows_it_into_tiers_and_variants() -> None:
    overrides = known(None, {}).prices
    listed = rates.listing("google", "gemini-2.5-pro", FRIDAY, overrides).price
    assert listed.rates[Bucket.AUDIO_IN] == listed.rates[Bucket.INPUT]
    assert listed.tiers[0].rates[Bucket.AUDIO_IN] == listed.tiers[0].rates[Bucket.INPUT]
    assert listed.variants["batch"].rates[Bucket.AUDIO_IN] == listed.variants["batch"].rates[Bucket.INPUT]


def test_a_price_can_be_declared_unknown() -> None:
    assert one("openai", "gpt-4o", "price: unknown").price == UNKNOWN_PRICE
    assert one("nowhere", "m", "price: {discount: 0.5}").price == replace(
        UNKNOWN_PRICE, source="the deployment's own price"
    )


def test_every_bucket_can_be_priced() -> None:
    assert set(Bucket) <= set(PriceShape.model_fields)
    assert "above" in fields_at(PriceShape, ("tiers", 0))


# what models are


@pytest.mark.parametrize(
    ("provider", "model", "output_max", "lacks"),
    [
        ("openai", "gpt-4o-mini-2024-07-18", 16_384, {"audio", "reasoning"}),
        ("openai", "gpt-3.5-turbo", 4096, {"vision", "audio", "json_schema", "files", "reasoning"}),
        ("openai", "gpt-5-mini", 128_000, {"audio", "logprobs"}),
        ("openai", "o1-mini", None, {"tools", "json_schema", "json_object", "vision", "audio", "files", "logprobs"}),
        ("anthropic", "claude-3-5-haiku-latest", 8192, {"audio", "logprobs", "n", "reasoning"}),
        ("anthropic", "claude-opus-4-1", 32_000, {"audio", "logprobs", "n"}),
        ("anthropic", "claude-opus-4-5", 64_000, {"audio", "logprobs", "n"}),
        ("anthropic", "claude-opus-4-7", 128_000, {"audio", "logprobs", "n"}),
        ("anthropic", "claude-sonnet-5", 128_000, {"audio", "logprobs", "n"}),
        ("anthropic", "claude-sonnet-4-5", 64_000, {"audio", "logprobs", "n"}),
        ("vercel", "openai/gpt-4.1", 32_768, {"audio", "reasoning"}),
        ("nowhere", "who-knows", None, set()),
    ],
)
def test_a_family_says_what_a_model_can_and_an_unknown_one_can_everything(
    provider: str, model: str, output_max: int | None, lacks: set[str]
) -> None:
    deployment = one(provider, model)
    assert deployment.output_max == output_max
    assert set(Capability) - deployment.capabilities == lacks


def test_what_the_operator_says_of_a_model_holds() -> None:
    deployment = one(
        "openai",
        "gpt-4o",
        "context_max: 99, output_max: 9, capabilities: [tools], tokenizer: mine, region: eu, cache_writes: true",
    )
    assert (deployment.context_max, deployment.output_max, deployment.capabilities) == (99, 9, {"tools"})
    assert (deployment.tokenizer, deployment.region, deployment.cache_writes) == ("mine", "eu", True)


@pytest.mark.parametrize(
    ("model", "writes"), [("gpt-5.6-sol", True), ("gpt-6-luna", True), ("gpt-5.5", False), ("gpt-4o", False)]
)
def test_models_that_charge_cache_writes_unasked_are_known(model: str, writes: bool) -> None:
    deployment = one("openai", model)
    assert deployment.cache_writes is writes
    assert money.bound(deployment.price, 1000, 0, cache_writes=writes) == 1000 * (
        max(amount for bucket, amount in deployment.price.rates.items() if bucket.startswith(("input", "cache")))
        // 10**6
    )


def test_the_context_of_a_listed_model_is_known() -> None:
    assert one("openai", "gpt-4o").context_max == 128_000
    assert one("openai", "gpt-4.1").context_max == 1_047_576
    assert one("nowhere", "m").context_max is None


def test_every_preset_names_an_installed_dialect_and_its_source() -> None:
    presets = known(None, {}).providers
    assert len(presets) >= 24
    for name, preset in presets.items():
        assert preset.dialect in plugins.dialect_names(), name
        assert preset.base_url.startswith("http") or name.startswith("azure"), name  # whose address is the customer's
        assert preset.source, name


def test_every_preset_that_names_a_price_list_names_one_that_exists() -> None:
    for name, preset in known(None, {}).providers.items():
        if preset.prices and "{" not in preset.prices:
            assert preset.prices.split(",")[0] in price_list.books(None), name
