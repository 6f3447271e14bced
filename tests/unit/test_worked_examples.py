"""Worked examples of tiers, caches, storage and hours, and rules that recorded costs have taught; see test_money."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import corpus
import pytest

from gateway import money, plugins, settings, usage
from gateway.dialects.openai_responses_codec.metering import metered
from gateway.money import nano
from gateway.plan import Context, Plan, Stats, Step
from gateway.types import Bucket, Deployment, Estimate, Format, Price, PriceWindow, Provider, Tenant, Tier, Usage
from gateway.usage.tables import CHAT, MESSAGES

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()  # a Friday
FREE = {"input_tokens": 0, "output_tokens": 0}
IN, OUT, READ = Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ


def at(day: int, hour: int, month: int = 11) -> float:
    return datetime(2026, month, day, hour, tzinfo=UTC).timestamp()


def rates(**dollars: str) -> dict[Bucket, int]:
    return {Bucket(name): nano(rate) for name, rate in dollars.items()}


def spent(price: Price, tokens: dict[Bucket, int], times: int = 1, when: float = NOON) -> str:
    total = money.cost(Usage(tokens), price, when).total
    return "unknown" if total is None else money.dollars(times * total)


def one(preset: str, model: str, when: float = NOON) -> Deployment:
    config = {
        "providers": {preset: {"api_key": "k"}},
        "deployments": [{"id": "d", "provider": preset, "upstream_model": model}],
    }
    return settings.parse(json.dumps(config), {}, now=when).deployments["d"]


def test_ten_long_queries_cost_a_third_once_their_prompt_is_cached() -> None:
    above = Tier(200_000, rates(input="2.50", cache_read="0.625", output="10"))
    pro = Price(rates(input="1.25", cache_read="0.3125", output="10"), tiers=(above,))
    assert spent(pro, {IN: 500_000, OUT: 5000}) == "1.30"
    assert spent(pro, {READ: 500_000, OUT: 5000}) == "0.3625"
    first, again = (nano(spent(pro, {bucket: 500_000, OUT: 5000})) for bucket in (IN, READ))
    assert (money.dollars(first + 9 * again), money.dollars(10 * first)) == ("4.5625", "13.00")


@pytest.mark.parametrize(
    ("price", "dollars"),
    [
        (("3", "15"), "15600.00"),
        (("2.50", "10"), "12925.00"),
        (("1.25", "5"), "6462.50"),
        (("0.27", "1.10"), "1396.50"),
    ],
)
def test_a_day_of_long_prompts_without_a_cache(price: tuple[str, str], dollars: str) -> None:
    assert spent(Price(rates(input=price[0], output=price[1])), {IN: 50_500, OUT: 300}, 100_000) == dollars


def test_a_day_of_long_prompts_read_from_the_cache() -> None:
    sonnet = Price(rates(input="3", cache_read="0.30", output="15"))
    assert spent(sonnet, {READ: 50_000, IN: 500, OUT: 300}, 100_000) == "2100.00"


@pytest.mark.parametrize(
    ("model", "tokens", "dollars"), [("gemini-2.5-flash", 100_000, "2.40"), ("gemini-2.5-pro", 200_000, "21.60")]
)
def test_a_cache_that_is_kept_costs_by_the_hour(model: str, tokens: int, dollars: str) -> None:
    cost = money.cost(Usage(fees={"cache_token_hour": tokens * 24}), one("gemini", model).price, NOON)
    assert cost.total is not None
    assert money.dollars(cost.total) == dollars


def test_off_peak_hours_of_two_models() -> None:
    for day, night in ((("0.27", "1.10"), ("0.14", "0.55")), (("0.55", "2.19"), ("0.28", "1.10"))):
        window = PriceWindow(16 * 60 + 30, 30, rates(input=night[0], output=night[1]))
        price = Price(rates(input=day[0], output=day[1]), windows=(window,))
        assert spent(price, {IN: 10**6}) == money.dollars(nano(day[0]))
        assert spent(price, {OUT: 10**6}, when=at(20, 17)) == money.dollars(nano(night[1]))


@pytest.mark.parametrize(("day", "peak"), [(20, True), (21, False), (22, False), (23, True)])
def test_deepseek_has_peak_hours_on_working_days_only(day: int, peak: bool) -> None:
    price = one("deepseek", "deepseek-v4-pro").price
    dear, usual = (spent(price, {IN: 10**6}, when=at(day, hour)) for hour in (2, 12))
    assert (dear != usual) is peak


def test_the_place_of_inference_costs_a_tenth_more_and_an_unknown_one_is_unknown() -> None:
    price = one("anthropic", "claude-opus-4-8").price
    costs = {}
    for geo in ("global", "us", "mars"):
        found = usage.read(MESSAGES, {"input_tokens": 10**6, "output_tokens": 0, "inference_geo": geo})
        assert found is not None
        costs[geo] = money.cost(found, price, NOON).total
    assert costs["global"] is not None
    assert costs["us"] == costs["global"] * 11 // 10
    assert costs["mars"] is None


@pytest.mark.parametrize(("size", "fee"), [("low", "0.006"), ("medium", "0.01"), ("high", "0.014"), ("vast", None)])
def test_a_call_to_perplexity_costs_by_how_much_it_searched(size: str, fee: str | None) -> None:
    found = usage.read(CHAT, {"prompt_tokens": 1000, "completion_tokens": 0, "search_context_size": size})
    assert found is not None
    total = money.cost(found, one("perplexity", "sonar-pro").price, NOON).total
    assert total == (None if fee is None else nano(fee) + nano("0.003"))


def test_a_call_that_does_not_say_how_much_it_searched_costs_the_most() -> None:
    assert money.total({IN: 1000}, one("perplexity", "sonar").price, NOON) == nano("0.012") + nano("0.001")


def test_a_retired_model_costs_what_its_last_seller_asks_from_the_day_on() -> None:
    names = ("anthropic/claude-3.5-sonnet", "anthropic/claude-3-5-sonnet-20241022")
    for name in names:
        before, after = (one("openrouter", name, at(1, 12, month) - 365 * 86400).price for month in (11, 12))
        assert (spent(before, {IN: 10**6}), spent(after, {IN: 10**6})) == ("3.00", "6.00")
        assert spent(after, {READ: 10**6}) == "0.60"


def test_a_retired_name_costs_what_it_did_until_the_day_and_then_what_serves_it() -> None:
    before, after = (one("xai", "grok-3-mini", at(day, 12, month=5)).price for day in (14, 16))
    assert (spent(before, {IN: 10**5}), spent(after, {IN: 10**5})) == ("0.03", "0.125")


def test_a_tool_without_a_price_makes_the_cost_unknown() -> None:
    price = one("xai", "grok-4.3").price
    assert money.cost(Usage({IN: 1}, {"web_search": 2}), price, NOON).total == nano("0.01") + 1250
    assert money.cost(Usage({IN: 1}, {"document_search": 1}), price, NOON).unknown == ("fee:document_search",)


@pytest.mark.parametrize(
    ("model", "offered", "fee"),
    [
        ("gpt-4o", "web_search_preview", "0.025"),
        ("gpt-4.1-mini", "web_search_preview_2025_03_11", "0.025"),
        ("gpt-4o", "web_search", "0.01"),
        ("gpt-5", "web_search_preview", "0.01"),
        ("o4-mini", "web_search_preview", "0.01"),
    ],
)
def test_a_search_costs_by_the_tool_that_was_offered_and_whether_the_model_reasons(
    model: str, offered: str, fee: str
) -> None:
    search = {"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}
    opened = {"type": "web_search_call", "status": "completed", "action": {"type": "open_page", "url": "x"}}
    reply = {"tools": [{"type": offered}], "output": [search, opened, search], "usage": FREE}
    deployment = one("openai", model)
    found = metered(reply, deployment.provider)
    assert found is not None
    assert money.cost(found, deployment.price, NOON).total == 2 * nano(fee)


def test_a_picture_that_a_response_draws_has_an_unknown_cost_and_not_none() -> None:
    deployment = one("openai", "gpt-5")
    found = metered(
        {"output": [{"type": "image_generation_call", "result": "aGk="}], "usage": FREE}, deployment.provider
    )
    assert found is not None
    assert money.cost(found, deployment.price, NOON).unknown == ("fee:image_generation",)


@pytest.mark.parametrize(("model", "fee"), [("gpt-4o-search-preview", "0.025"), ("gpt-5-search-api", "0.01")])
def test_a_model_that_always_searches_costs_so_by_the_call_and_is_held_so(model: str, fee: str) -> None:
    price = one("openai", model).price
    found = usage.read(CHAT, {"prompt_tokens": 0, "completion_tokens": 0})
    assert found is not None
    assert money.cost(found, price, NOON).total == nano(fee)
    assert money.bound(price, 0, 0, cache_writes=False) == nano(fee)


@pytest.mark.parametrize("model", ["sonar", "sonar-pro"])
def test_a_search_of_any_size_is_within_the_bound(model: str) -> None:
    price = one("perplexity", model).price
    bound = money.bound(price, 1000, 1000, cache_writes=False)
    assert bound is not None
    for size in ("low", "medium", "high"):
        found = usage.read(CHAT, {"prompt_tokens": 1000, "completion_tokens": 1000, "search_context_size": size})
        assert found is not None
        assert (money.cost(found, price, NOON).total or bound + 1) <= bound


def test_flex_at_google_costs_half_but_for_what_is_read_from_the_cache_and_priority_is_unknown() -> None:
    price = one("gemini", "gemini-2.5-flash").price
    tokens = {IN: 10**6, OUT: 10**6, READ: 10**6}
    assert money.cost(Usage(tokens), price, NOON).total == nano("2.83")
    assert money.cost(Usage(tokens, service_tier="flex"), price, NOON).total == nano("0.15") + nano("1.25") + nano(
        "0.03"
    )
    assert money.cost(Usage(tokens, service_tier="priority"), price, NOON).unknown == ("service_tier:priority",)
    no_batch = one("gemini", "gemini-3-pro-preview").price
    assert money.cost(Usage(tokens, service_tier="flex"), no_batch, NOON).total is None


def test_pictures_that_a_picture_is_made_from_cost_where_the_price_says_so() -> None:
    pieces = {"image": 1, "image_input": 2}
    assert money.by_piece(pieces, one("xai", "grok-imagine-image-quality").price) == nano("0.07")
    assert money.by_piece(pieces, Price(fees={"image": 5})) == 5
    assert money.by_piece({"image:4k": 1}, one("xai", "grok-imagine-image-quality").price) is None


OFFERS = {
    "batch": ("0.65", None),
    "reserved": ("0.95", None),
    "third": ("1.20", 120.0),
    "fourth": ("1.50", 140.0),
    "fifth": ("2.10", 95.0),
    "sixth": ("2.55", 210.0),
    "fast": ("3.20", 750.0),
    "faster": ("4.20", 620.0),
}
"""Of the same open model: what a million tokens of output cost, and how many come in a second."""


def chosen(*left_out: str, **bounds: float) -> str:
    """The price that is paid for a million tokens where these offers are not to be had and these bounds are set."""
    steps, stats = [], {}
    for name, (dollars, speed) in OFFERS.items():
        if name not in left_out:
            deployment = Deployment(name, Provider("p", "simulated"), name, Price(rates(input="0", output=dollars)))
            steps.append(Step(deployment, Estimate(0, 0), 10**6, 10**6, NOON))
            stats[name] = Stats(tokens_per_second=speed)
    asked = corpus.request(Format.CHAT, {})
    plan = plugins.policy("arbitrage", bounds).apply(Plan(tuple(steps)), asked, Context(Tenant("acme"), NOON, stats))
    return spent(plan.steps[0].deployment.price, {OUT: 10**6})


def test_of_eight_offers_the_cheapest_that_is_quick_enough_is_paid() -> None:
    prices = [float(dollars) for dollars, _ in OFFERS.values()]
    assert round(max(prices) / min(prices), 2) == 6.46
    assert chosen() == "0.65"  # within an hour
    assert chosen("batch") == "0.95"  # now, and committed
    assert chosen("batch", "reserved") == "1.20"
    assert chosen("batch", "reserved", tokens_per_second_min=500.0) == "3.20"
