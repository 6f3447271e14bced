"""Usage blocks of providers whose format no client speaks; see `gateway.usage`.

Measured on recorded traffic: Converse counts cached tokens beside the input (25 of 25 totals); what Cohere bills is
never what it counts (141 of 141: a hidden preamble is not billed).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from gateway import usage
from gateway.types import Bucket, Usage
from gateway.usage import Part, Shape

CONVERSE = Shape(
    input=(("inputTokens",),),
    output=(("outputTokens",),),
    parts=(
        Part(
            Bucket.CACHE_READ,
            (("cacheReadInputTokens",), ("cacheReadInputTokenCount",)),
            "cached",
            included=False,
        ),
        Part(Bucket.CACHE_WRITE_1H, (("cacheDetails", "1h"),), "cache_writes", included=False),
        Part(
            Bucket.CACHE_WRITE_5M,
            (("cacheDetails", "5m"),),
            "cache_writes",
            included=False,
            sum_path=("cacheWriteInputTokens",),
        ),
    ),
    total=("totalTokens",),
    lifetimes=("cacheDetails",),
)
"""Bedrock's Converse; reasoning is within the output and not told apart."""

COHERE = Shape(
    input=(("billed_units", "input_tokens"), ("tokens", "input_tokens")),
    output=(("billed_units", "output_tokens"), ("tokens", "output_tokens")),
    parts=(Part(Bucket.REASONING, (("tokens", "reasoning_tokens"),), "reasoning"),),
    fees=(
        ("search_unit", ("billed_units", "search_units")),
        ("classification", ("billed_units", "classifications")),
    ),
)
"""Cohere's own API: what is billed.  What was counted, and what its cache held at no discount, stays in `reported`."""

OLLAMA = Shape(input=(("prompt_eval_count",),), output=(("eval_count",),), parts=())
"""Ollama's own API.  A prompt that is still in its cache may be counted in part, or not at all."""


def read_converse(block: object, rules: Mapping[str, str], tier: object = "") -> Usage | None:
    """As `usage.read`; Converse lists its cache writes by lifetime."""
    if not isinstance(block, Mapping):
        return None
    details = block.get("cacheDetails")
    by_ttl: dict[str, Any] = {}
    for item in details if isinstance(details, list) else ():
        if isinstance(item, Mapping) and isinstance(item.get("ttl"), str):
            by_ttl[item["ttl"]] = item.get("inputTokens")
    found = usage.read(CONVERSE, {**block, "cacheDetails": by_ttl}, rules, tier)
    return None if found is None else replace(found, reported=block)
