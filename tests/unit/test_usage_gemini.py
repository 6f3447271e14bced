"""Google's usage block in disjoint buckets."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.usage import GEMINI, read


def buckets(**block: Any) -> dict[str, int]:
    found = read(GEMINI, block)
    assert found is not None
    assert found.flags == ()
    return {bucket.value: count for bucket, count in found.tokens.items()}


def each(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in counts.items()]


def test_thoughts_and_what_tools_read_are_beside_and_cached_is_within() -> None:
    assert buckets(
        promptTokenCount=100,
        cachedContentTokenCount=60,
        candidatesTokenCount=10,
        thoughtsTokenCount=7,
        toolUsePromptTokenCount=30,
        totalTokenCount=147,
    ) == {"input": 70, "cache_read": 60, "output": 10, "reasoning": 7}


def test_the_total_moves_nothing_though_it_could_be_summed_otherwise() -> None:
    # 40 cached and 40 thoughts: a total that proved which of them is beside could not tell them apart
    assert buckets(
        promptTokenCount=100,
        cachedContentTokenCount=40,
        thoughtsTokenCount=40,
        candidatesTokenCount=5,
        totalTokenCount=145,
    ) == {"input": 60, "cache_read": 40, "output": 5, "reasoning": 40}


def test_modalities_are_told_apart_cached_or_not() -> None:
    assert buckets(
        promptTokenCount=100,
        promptTokensDetails=each(TEXT=20, AUDIO=50, IMAGE=20, VIDEO=8, DOCUMENT=2),
        cachedContentTokenCount=37,
        cacheTokensDetails=each(TEXT=10, AUDIO=20, IMAGE=7),
        candidatesTokenCount=30,
        candidatesTokensDetails=each(TEXT=5, IMAGE=20, AUDIO=5),
        totalTokenCount=130,
    ) == {
        "input": 12,
        "cache_read": 17,
        "audio_cache_read": 20,
        "audio_in": 30,
        "image_in": 13,
        "video_in": 8,
        "output": 5,
        "image_out": 20,
        "audio_out": 5,
    }


def test_a_modality_may_be_a_number() -> None:
    details = [{"modality": 1, "tokenCount": 4}, {"modality": 4, "tokenCount": 6}, {"modality": 99, "tokenCount": 1}]
    assert buckets(promptTokenCount=11, promptTokensDetails=details, totalTokenCount=11) == {"input": 5, "audio_in": 6}


def test_a_modality_that_stands_twice_is_summed() -> None:
    details = [{"modality": "AUDIO", "tokenCount": 4}, {"modality": "AUDIO", "tokenCount": 6}]
    assert buckets(promptTokenCount=10, promptTokensDetails=details) == {"audio_in": 10}


def test_a_total_that_is_not_the_sum_is_flagged() -> None:
    found = read(
        GEMINI, {"promptTokenCount": 10, "candidatesTokenCount": 5, "thoughtsTokenCount": 3, "totalTokenCount": 15}
    )
    assert found is not None
    assert found.output_tokens == 8
    assert found.flags == ("totalTokenCount 15 is not the sum of its parts",)


def test_more_cached_than_there_is_is_clamped_and_flagged() -> None:
    found = read(GEMINI, {"promptTokenCount": 10, "cachedContentTokenCount": 15, "candidatesTokenCount": 1})
    assert found is not None
    assert (found.input_tokens, found.cached_tokens) == (10, 10)
    assert found.flags == ("cache_read 15 is more than the 10 left of its total",)


def test_a_provider_may_have_its_own_rule() -> None:
    block = {"promptTokenCount": 10, "candidatesTokenCount": 8, "thoughtsTokenCount": 3, "totalTokenCount": 18}
    found = read(GEMINI, block, {"reasoning": "included"})
    assert found is not None
    assert (found.output_tokens, found.flags) == (8, ())


@pytest.mark.parametrize("block", [{}, {"trafficType": "ON_DEMAND"}, {"totalTokenCount": 5}, None, []])
def test_a_block_without_counts_is_not_zero(block: Any) -> None:
    assert read(GEMINI, block) is None


@pytest.mark.parametrize("details", [3, {}, [3], [{"modality": []}], [{"modality": "AUDIO", "tokenCount": "x"}]])
def test_details_of_any_shape_break_nothing(details: Any) -> None:
    found = read(GEMINI, {"promptTokenCount": 5, "promptTokensDetails": details})
    assert found is not None
    assert found.input_tokens == 5
