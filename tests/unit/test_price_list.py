"""The price list: what it says is what is billed, and one that is damaged is neither believed nor passed over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from genai_prices import Usage as Used
from genai_prices.types import ModelInfo

from gateway import money, settings
from gateway.configuration import price_list, rates
from gateway.settings import SettingsError
from gateway.types import Bucket, Price, Usage

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
SIZES = (1, 1000, 128_000, 128_001, 200_000, 200_001, 272_000, 272_001, 1_000_000)
"""Tokens in; the thresholds at which vendors ask for more, and one beyond."""
TIERS = ("", "batch", "flex", "priority", "fast")
SETTINGS = """
providers: {openai: {api_key: k}}
deployments: [{id: m, provider: openai, upstream_model: gpt-4o-mini}]
tenants: [{id: acme, keys: [{name: prod, key: key-of-acme}], budgets: [LIMIT]}]
"""
CAPPED = SETTINGS.replace("LIMIT", "{limit_usd: 5, window: day}")
UNCAPPED = SETTINGS.replace("LIMIT", "{limit_usd: 5, window: day, action: alert}")


def listed() -> Iterator[tuple[str, ModelInfo, Price]]:
    """Every model of the list with a price for text."""
    for book in price_list.books(None).values():
        for model in book.models:
            price = rates.own(rates._listing(model, NOON.timestamp()).price, None)
            if {Bucket.INPUT, Bucket.OUTPUT} <= price.rates.keys():
                yield f"{book.id}/{model.id}", model, price


def theirs(model: ModelInfo, tier: str, count: int, cached: int) -> Decimal:
    """What the authors of the list make of it, in NanoUSD."""
    found = model.get_prices(NOON, {"service_tier": tier, "processing": tier, "speed": tier})
    used = Used(input_tokens=count, cache_read_tokens=cached, output_tokens=1000)
    return found.calc_price(used)["total_price"] * 10**9


def test_every_listed_price_bills_what_the_authors_of_the_list_make_of_it() -> None:
    checked: Counter[str] = Counter()
    for name, model, price in listed():
        discounted = Bucket.CACHE_READ in rates._listing(model, NOON.timestamp()).price.rates
        for tier in [tier for tier in TIERS if not tier or tier in price.variants]:
            for count in SIZES:
                for cached in (0, count // 2) if discounted else (0,):
                    tokens = {Bucket.INPUT: count - cached, Bucket.CACHE_READ: cached, Bucket.OUTPUT: 1000}
                    ours = money.cost(Usage(tokens, service_tier=tier), price, NOON.timestamp()).total
                    assert ours is not None, (name, tier)
                    assert abs(ours - theirs(model, tier, count, cached)) <= 3, (name, tier, count, cached)
                    checked[tier] += 1
    assert checked[""] > 20_000
    assert min(checked[tier] for tier in TIERS) > 100


def test_no_listed_price_is_below_zero_or_nothing_for_one_of_input_and_output() -> None:
    for name, _, price in listed():
        for each in (price, *price.variants.values()):
            assert min(each.rates.values()) >= 0, name
            assert (each.rates[Bucket.INPUT] == 0) == (each.rates[Bucket.OUTPUT] == 0), name


# a list beside the settings


def a_list(prices: Any, model: str = "gpt-4o-mini") -> str:
    entry = {"id": model, "match": {"equals": model}, "prices": prices}
    return json.dumps([{"id": "openai", "name": "OpenAI", "api_pattern": "https://api", "models": [entry]}])


def loaded(folder: Path, text: str, newer: str) -> settings.Settings:
    (folder / "gateway.yaml").write_text(text)
    (folder / price_list.FILE).write_text(newer)
    return settings.load(folder / "gateway.yaml", {})


DAMAGED = {
    "an error page": '{"error": "not found"}',
    "nothing": "",
    "no vendors": "[]",
    "half of one": a_list({"input_mtok": 1})[:90],
    "something else": "[1]",
    "a price in words": a_list({"input_mtok": "cheap"}),
    "a price below zero": a_list({"input_mtok": -1, "output_mtok": 4}),
    "a tier below zero": a_list({"input_mtok": {"base": 1, "tiers": [{"start": 5, "price": -2}]}}),
    "a vendor without a name": '[{"models": []}]',
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("text", [CAPPED, UNCAPPED], ids=["capped", "uncapped"])
def test_a_damaged_list_is_an_error_that_names_its_file_and_never_a_price(
    tmp_path: Path, damage: str, text: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, text, DAMAGED[damage])
    assert str(tmp_path / price_list.FILE) in str(refused.value)


@pytest.mark.parametrize(
    "newer",
    [
        a_list({}),
        a_list({"input_mtok": None, "output_mtok": None}),
        a_list({"output_mtok": 4}),
        a_list({"input_mtok": 1}, "another"),
        '[{"id": "openai", "name": "OpenAI", "api_pattern": "x"}]',
    ],
    ids=["no price", "null", "only output", "another model", "no models"],
)
def test_a_model_that_the_list_has_no_price_for_is_unknown_and_kept_from_hard_caps(tmp_path: Path, newer: str) -> None:
    price = loaded(tmp_path, UNCAPPED, newer).deployments["m"].price
    assert money.cost(Usage({Bucket.INPUT: 5, Bucket.OUTPUT: 5}), price, NOON.timestamp()).total is None
    assert money.bound(price, 5, 5, cache_writes=False) is None
    with pytest.raises(SettingsError, match="deployment 'm' has no known price, but tenant 'acme'"):
        loaded(tmp_path, CAPPED, newer)
