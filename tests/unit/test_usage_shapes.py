"""Usage of providers whose format no client speaks, and what Amazon's many names of one model cost."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import usage
from gateway.configuration import rates
from gateway.types import Bucket, Usage
from gateway.usage import shapes

IN, OUT, READ = Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ
SHORT, LONG = Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H
FRIDAY = 1_795_132_800.0  # 2026-11-20


def converse(tier: object = "", **block: Any) -> Usage:
    found = shapes.read_converse(block, {}, tier)
    assert found is not None
    return found


def test_converse_counts_the_cache_beside_the_input() -> None:
    block = {"inputTokens": 3, "outputTokens": 47, "totalTokens": 1078, "cacheReadInputTokens": 1028}
    found = converse(**block)
    assert found.tokens == {IN: 3, OUT: 47, READ: 1028}
    assert (found.flags, found.reported) == ((), block)


def test_cache_writes_are_split_by_their_lifetime() -> None:
    details = [{"ttl": "1h", "inputTokens": 300}, {"ttl": "5m", "inputTokens": 100}]
    found = converse(inputTokens=3, outputTokens=1, cacheWriteInputTokens=400, totalTokens=404, cacheDetails=details)
    assert found.tokens == {IN: 3, OUT: 1, LONG: 300, SHORT: 100}
    assert found.reported["cacheDetails"] is details
    assert converse(inputTokens=3, outputTokens=1, cacheWriteInputTokens=400).tokens == {IN: 3, OUT: 1, SHORT: 400}


def test_cache_writes_of_an_hour_only_leave_none_of_five_minutes() -> None:
    details = [{"ttl": "1h", "inputTokens": 400}]
    assert converse(inputTokens=3, outputTokens=1, cacheWriteInputTokens=400, cacheDetails=details).tokens[LONG] == 400
    assert SHORT not in converse(inputTokens=3, outputTokens=1, cacheWriteInputTokens=400, cacheDetails=details).tokens


@pytest.mark.parametrize("details", [None, 7, [], [None], [{"ttl": 3}], [{"ttl": "1h"}], {"1h": 3}])
def test_details_of_a_wrong_type_are_no_details(details: Any) -> None:
    found = converse(inputTokens=3, outputTokens=1, cacheWriteInputTokens=400, cacheDetails=details)
    assert found.tokens == {IN: 3, OUT: 1, SHORT: 400}


@pytest.mark.parametrize("block", [None, [], "usage", {}, {"totalTokens": 3}])
def test_a_block_without_a_count_is_no_usage(block: object) -> None:
    assert shapes.read_converse(block, {}) is None


def test_the_tier_is_the_replys() -> None:
    assert converse("flex", inputTokens=3, outputTokens=1).service_tier == "flex"
    assert converse("default", inputTokens=3, outputTokens=1).service_tier == ""


def test_cohere_is_counted_as_it_bills() -> None:
    block = {
        "billed_units": {"input_tokens": 84, "output_tokens": 314, "search_units": 2},
        "tokens": {"input_tokens": 1501, "output_tokens": 346, "reasoning_tokens": 304},
        "cached_tokens": 1008,
    }
    found = usage.read(shapes.COHERE, block)
    assert found is not None
    assert found.tokens == {IN: 84, OUT: 10, Bucket.REASONING: 304}
    assert (found.fees, found.reported, found.flags) == ({"search_unit": 2}, block, ())


def test_cohere_without_a_bill_is_counted_as_it_counts() -> None:
    found = usage.read(shapes.COHERE, {"tokens": {"input_tokens": 15, "output_tokens": 3}})
    assert found is not None
    assert found.tokens == {IN: 15, OUT: 3}


def listed(model: str) -> int | None:
    return rates.listing("aws", model, FRIDAY).price.rates.get(IN)


@pytest.mark.parametrize("prefix", ["us.", "eu.", "jp.", "au.", ""])
def test_one_continent_or_region_costs_a_tenth_more_than_the_world(prefix: str) -> None:
    for model in (
        "anthropic.claude-sonnet-4-5-20250929-v1:0",
        "anthropic.claude-opus-4-6-v1",
        "anthropic.claude-opus-5",
    ):
        world, regional = listed(f"global.{model}"), listed(f"{prefix}{model}")
        assert world is not None
        assert regional == world * 11 // 10, model


def test_older_models_cost_the_same_everywhere() -> None:
    model = "anthropic.claude-3-7-sonnet-20250219-v1:0"
    assert listed(f"us.{model}") == listed(model) == 3_000_000_000


@pytest.mark.parametrize(
    "model", ["us.anthropic.claude-sonnet-4-5-20250929-v1:0", "us.anthropic.claude-opus-5", "amazon.nova-lite-v1:0"]
)
def test_an_arn_costs_what_it_names(model: str) -> None:
    assert listed(f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/{model}") == listed(model) is not None


def test_an_applications_own_profile_has_no_known_price() -> None:
    assert listed("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/1arbu5hu2sjr") is None
