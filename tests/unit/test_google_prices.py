"""What Google bills, by the price list that ships."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway import money
from gateway.configuration import presets, rates
from gateway.money import nano
from gateway.types import Bucket, Price, Usage

AT = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()


def price(model: str) -> Price:
    return rates.own(rates.listing("google", model, AT, presets.known(None, {}).prices).price, None)


def cost(model: str, usage: Usage) -> int | None:
    return money.cost(usage, price(model), AT).total


def test_a_prompt_over_200k_tokens_is_dearer_as_a_whole() -> None:
    below = Usage({Bucket.INPUT: 200_000, Bucket.OUTPUT: 1_000_000})
    above = Usage({Bucket.INPUT: 100_000, Bucket.CACHE_READ: 100_001, Bucket.OUTPUT: 1_000_000})
    assert cost("gemini-2.5-pro", below) == nano("0.25") + nano(10)
    assert cost("gemini-2.5-pro", above) == nano("0.25") + nano("0.02500025") + nano(15)


def test_what_a_tool_read_counts_towards_the_threshold() -> None:
    # the reader puts toolUsePromptTokenCount into the input
    assert cost("gemini-2.5-pro", Usage({Bucket.INPUT: 200_001})) == nano("0.5000025")


@pytest.mark.parametrize(
    ("model", "bucket", "per_million"),
    [
        ("gemini-2.5-flash", Bucket.AUDIO_IN, "1"),
        ("gemini-2.5-flash", Bucket.AUDIO_CACHE_READ, "0.1"),
        ("gemini-2.5-flash", Bucket.IMAGE_IN, "0.3"),
        ("gemini-2.5-flash", Bucket.REASONING, "2.5"),
        ("gemini-2.5-pro", Bucket.AUDIO_IN, "1.25"),
        ("gemini-2.5-flash-image", Bucket.IMAGE_OUT, "30"),
        ("gemini-2.5-flash-preview-tts", Bucket.AUDIO_OUT, "10"),
        ("gemini-2.5-pro-preview-tts", Bucket.AUDIO_OUT, "20"),
        ("models/gemini-2.0-flash", Bucket.INPUT, "0.1"),
        ("claude-sonnet-4-5@20250929", Bucket.CACHE_WRITE_1H, "6"),
    ],
)
def test_every_kind_of_token_has_its_price(model: str, bucket: Bucket, per_million: str) -> None:
    assert price(model).rates[bucket] == nano(per_million)


def test_searches_are_billed_by_the_answer_or_by_the_query() -> None:
    assert cost("gemini-2.5-flash", Usage(fees={"web_search": 1})) == nano("0.035")
    assert cost("gemini-3-flash-preview", Usage(fees={"web_search": 3})) == nano("0.042")


def test_a_cache_is_billed_for_its_tokens_and_hours() -> None:
    assert cost("gemini-2.5-flash", Usage(fees={"cache_token_hour": 100_000 * 24})) == nano("2.40")
    assert cost("gemini-2.5-pro", Usage(fees={"cache_token_hour": 200_000 * 24})) == nano("21.60")


@pytest.mark.parametrize("tier", ["priority", "provisioned", "on_the_moon"])
def test_a_tier_without_a_price_is_unknown_and_not_standard(tier: str) -> None:
    found = money.cost(Usage({Bucket.INPUT: 5}, service_tier=tier), price("gemini-2.5-flash"), AT)
    assert (found.total, found.unknown) == (None, (f"service_tier:{tier}",))


def test_audio_of_a_model_that_lists_no_price_for_it_is_unknown() -> None:
    assert cost("gemini-3.5-flash", Usage({Bucket.AUDIO_IN: 5})) is None
