"""What a provider's usage block means, in disjoint buckets."""

from typing import Any

import pytest

from gateway import money, usage
from gateway.types import Bucket, Price, Usage
from gateway.usage import shapes

IN, OUT, READ, THINK = Bucket.INPUT, Bucket.OUTPUT, Bucket.CACHE_READ, Bucket.REASONING


def chat(prompt: Any, completion: Any, rules: dict[str, str] | None = None, tier: str = "", **rest: Any) -> Usage:
    block = {"prompt_tokens": prompt, "completion_tokens": completion, **rest}
    found = usage.read(usage.CHAT, block, rules or {}, tier)
    assert found is not None
    return found


def messages(**block: Any) -> Usage:
    found = usage.read(usage.MESSAGES, block)
    assert found is not None
    return found


def thought(n: int) -> dict[str, Any]:
    return {"completion_tokens_details": {"reasoning_tokens": n}}


def cached(n: int) -> dict[str, Any]:
    return {"prompt_tokens_details": {"cached_tokens": n}}


def test_openai_counts_cached_and_reasoning_within_its_totals() -> None:
    found = chat(2006, 300, total_tokens=2306, **cached(1920), **thought(192))
    assert found.tokens == {IN: 86, READ: 1920, OUT: 108, THINK: 192}
    assert found.flags == ()
    assert (found.input_tokens, found.output_tokens) == (2006, 300)


def test_xai_counts_reasoning_beside_the_completion_as_its_total_proves() -> None:
    """A recorded reply of grok; 248,850 nano-dollars by its own ticks."""
    found = chat(468, 82, total_tokens=870, cost_in_usd_ticks=2488500, **cached(305), **thought(320))
    assert found.tokens == {IN: 163, READ: 305, OUT: 82, THINK: 320}
    assert found.reported_cost == 248_850


def test_mistral_counts_audio_beside_the_prompt_as_its_total_proves() -> None:
    found = chat(12, 5, total_tokens=117, prompt_tokens_details={"cached_tokens": 0, "audio_tokens": 100})
    assert found.tokens == {IN: 12, Bucket.AUDIO_IN: 100, OUT: 5}


def test_a_declared_rule_holds_where_the_total_hides_it() -> None:
    """Vercel bills the completion and the reasoning; its total shows only the first."""
    assert chat(10, 20, {"reasoning": "excluded"}, total_tokens=30, **thought(15)).tokens == {
        IN: 10,
        OUT: 20,
        THINK: 15,
    }
    assert chat(10, 213, {"cached": "excluded"}, total_tokens=223, **cached(161)).tokens == {
        IN: 10,
        READ: 161,
        OUT: 213,
    }


def test_a_declared_rule_is_stronger_than_the_total() -> None:
    assert chat(10, 20, {"reasoning": "included"}, total_tokens=45, **thought(15)).tokens == {IN: 10, OUT: 5, THINK: 15}


def test_cached_more_than_the_prompt_is_clamped_and_flagged() -> None:
    found = chat(10, 213, total_tokens=223, **cached(161))
    assert found.tokens == {READ: 10, OUT: 213}
    assert found.flags == ("cache_read 161 is more than the 10 left of its total",)


def test_reasoning_more_than_the_completion_is_clamped_and_flagged() -> None:
    found = chat(22, 105, total_tokens=127, **thought(112))
    assert found.tokens == {IN: 22, THINK: 105}
    assert len(found.flags) == 1


@pytest.mark.parametrize("wrong", [-9, "12", True, 1.5, [1], {"n": 1}, 1 << 80])
def test_what_is_no_count_is_zero_and_flagged(wrong: Any) -> None:
    found = chat(7, wrong)
    assert found.tokens == {IN: 7}
    assert "completion_tokens" in found.flags[0]


@pytest.mark.parametrize("details", [None, [], "x", 3, {"cached_tokens": None}])
def test_details_of_a_wrong_type_are_no_details(details: Any) -> None:
    assert chat(7, 3, prompt_tokens_details=details).tokens == {IN: 7, OUT: 3}


def test_a_whole_float_is_a_count() -> None:
    assert chat(7.0, 3).tokens == {IN: 7, OUT: 3}


def test_a_total_nothing_explains_is_flagged() -> None:
    found = chat(10, 20, total_tokens=99, **thought(15))
    assert found.tokens == {IN: 10, OUT: 5, THINK: 15}
    assert found.flags == ("total_tokens 99 is not the sum of its parts",)


def test_zero_usage_is_usage() -> None:
    found = chat(0, 0, total_tokens=0)
    assert found.tokens == {}
    assert found.exact


@pytest.mark.parametrize("block", [None, {}, [], "x", {"prompt_tokens": None}, {"cost": 1}])
def test_a_block_without_a_count_is_no_usage(block: object) -> None:
    assert usage.read(usage.CHAT, block) is None


@pytest.mark.parametrize(
    "block",
    [
        {"prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6},
        {"num_cached_tokens": 4},
        {"cached_tokens": 4},
        {"cache_read_input_tokens": 4, "prompt_tokens_details": {"cached_tokens": None}},
    ],
)
def test_cached_tokens_are_found_under_every_name(block: dict[str, Any]) -> None:
    assert chat(10, 1, **block).tokens == {IN: 6, READ: 4, OUT: 1}


def test_openai_cache_writes_are_within_the_prompt() -> None:
    """A recorded reply of gpt-5.6."""
    found = chat(1220, 100, total_tokens=1320, prompt_tokens_details={"cached_tokens": 0, "cache_write_tokens": 1217})
    assert found.tokens == {IN: 3, Bucket.CACHE_WRITE_30M: 1217, OUT: 100}


def test_audio_is_counted_apart_from_text() -> None:
    details = {"prompt_tokens_details": {"audio_tokens": 6}, "completion_tokens_details": {"audio_tokens": 80}}
    found = chat(10, 100, total_tokens=110, **details)
    assert found.tokens == {IN: 4, Bucket.AUDIO_IN: 6, OUT: 20, Bucket.AUDIO_OUT: 80}


def test_anthropic_counts_the_cache_beside_the_input_and_thinking_within_the_output() -> None:
    found = messages(
        input_tokens=2081,
        cache_creation_input_tokens=10345,
        cache_read_input_tokens=28203,
        cache_creation={"ephemeral_5m_input_tokens": 345, "ephemeral_1h_input_tokens": 10000},
        output_tokens=504,
        output_tokens_details={"thinking_tokens": 100},
        server_tool_use={"web_search_requests": 3, "web_fetch_requests": 9},
        service_tier="standard",
    )
    assert found.tokens == {
        IN: 2081,
        READ: 28203,
        Bucket.CACHE_WRITE_1H: 10000,
        Bucket.CACHE_WRITE_5M: 345,
        OUT: 404,
        THINK: 100,
    }
    assert found.fees == {"web_search": 3}
    assert found.service_tier == ""
    assert found.input_tokens == 2081 + 10345 + 28203


@pytest.mark.parametrize("split", [None, {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0}])
def test_cache_writes_that_are_not_split_are_of_five_minutes(split: Any) -> None:
    """A recorded reply with web search states 10,345 written and zeros in the split."""
    found = messages(input_tokens=1, output_tokens=1, cache_creation_input_tokens=10345, cache_creation=split)
    assert found.tokens[Bucket.CACHE_WRITE_5M] == 10345
    assert Bucket.CACHE_WRITE_1H not in found.tokens


def test_a_compaction_that_the_totals_leave_out_is_added() -> None:
    passes = [
        {"type": "compaction", "input_tokens": 99195, "output_tokens": 81},
        {"type": "message", "input_tokens": 162, "output_tokens": 11},
    ]
    found = messages(input_tokens=162, output_tokens=11, iterations=passes)
    assert found.tokens == {IN: 99357, OUT: 92}
    assert "compaction" in found.flags[0]


def test_an_advisor_of_another_model_is_never_priced_as_this_one() -> None:
    passes = [
        {"type": "message", "input_tokens": 10, "output_tokens": 5},
        {"type": "advisor_message", "model": "claude-opus-4-8", "input_tokens": 800, "output_tokens": 60},
    ]
    found = messages(input_tokens=10, output_tokens=5, iterations=passes)
    assert found.tokens == {IN: 10, OUT: 5}
    assert found.fees == {"claude-opus-4-8:input": 800, "claude-opus-4-8:output": 60}


def test_passes_that_sum_up_to_the_totals_are_not_added() -> None:
    passes = [{"type": "message", "input_tokens": 10, "output_tokens": 5}, {"type": "x", "input_tokens": 2}]
    assert messages(input_tokens=12, output_tokens=5, iterations=passes).tokens == {IN: 12, OUT: 5}


@pytest.mark.parametrize("passes", [None, 3, ["x"], [{"type": 1, "input_tokens": "x"}]])
def test_passes_of_a_wrong_type_are_no_passes(passes: Any) -> None:
    assert messages(input_tokens=12, output_tokens=5, iterations=passes).tokens == {IN: 12, OUT: 5}


@pytest.mark.parametrize(
    ("block", "nano"),
    [
        ({"cost": 3.75e-05}, 37_500),
        ({"cost": 0}, 0),
        ({"cost": 0.066407}, 66_407_000),
        ({"cost": 1e-10}, 1),
        ({"cost": 0.1 + 0.2}, 300_000_000),
        ({"cost": {"total_cost": 0.00512, "request_cost": 0.005}}, 5_120_000),
        ({"cost_in_usd_ticks": 2488500}, 248_850),
        ({"cost_in_usd_ticks": 1}, 1),
        ({"cost_in_usd_ticks": 0}, None),
        ({"estimated_cost": 0.25}, 250_000_000),
        ({"cost": 0.01, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.2}}, 210_000_000),
        ({"cost": 0.2, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.2}}, 200_000_000),
        ({"cost": True}, None),
        ({"cost": "0.1"}, None),
        ({"cost": -1}, None),
        ({"cost": float("inf")}, None),
        ({"cost": float("nan")}, None),
        ({"cost": 1e300}, None),
        ({}, None),
    ],
)
def test_a_reported_cost_is_exact_and_rounded_up(block: dict[str, Any], nano: int | None) -> None:
    assert chat(1, 1, **block).reported_cost == nano


@pytest.mark.parametrize("tier", ["default", "standard", "auto", "on_demand", ""])
def test_the_standard_tier_has_no_name(tier: str) -> None:
    assert chat(1, 1, tier=tier).service_tier == ""
    assert messages(input_tokens=1, output_tokens=1, service_tier=tier).service_tier == ""


def test_the_tier_that_is_billed_is_the_one_the_reply_states() -> None:
    assert chat(1, 1, tier="flex").service_tier == "flex"
    assert chat(1, 1, tier="flex", service_tier="priority").service_tier == "priority"
    assert messages(input_tokens=1, output_tokens=1, service_tier="standard", speed="fast").service_tier == "fast"


def test_the_block_is_kept_as_it_came() -> None:
    block = {"prompt_tokens": 1, "completion_tokens": 2, "new_field": {"x": 1}}
    found = usage.read(usage.CHAT, block)
    assert found is not None
    assert found.reported == block


PRICED = Price(dict.fromkeys((IN, OUT, READ, Bucket.CACHE_WRITE_5M, Bucket.CACHE_WRITE_1H), 1000))
COUNTED: list[tuple[usage.Shape, dict[str, Any]]] = [
    (usage.CHAT, {"prompt_tokens": 10, "completion_tokens": 5}),
    (usage.RESPONSES, {"input_tokens": 10, "output_tokens": 5}),
    (usage.MESSAGES, {"input_tokens": 10, "output_tokens": 5}),
    (usage.GEMINI, {"promptTokenCount": 10, "candidatesTokenCount": 5}),
    (shapes.CONVERSE, {"inputTokens": 10, "outputTokens": 5}),
]


@pytest.mark.parametrize(("shape", "block"), COUNTED)
@pytest.mark.parametrize(
    "stated",
    [
        {"service_tier": "ultrafast"},
        {"service_tier": {"type": "reserved"}},
        {"speed": "turbo"},
        {"inference_geo": "mars"},
        {"inference_geo": ["mars"]},
    ],
)
def test_what_is_served_in_a_way_nobody_knows_is_never_billed_at_the_standard_rate(
    shape: usage.Shape, block: dict[str, Any], stated: dict[str, Any]
) -> None:
    plain, other = usage.read(shape, block), usage.read(shape, block | stated)
    assert plain is not None
    assert other is not None
    assert money.cost(plain, PRICED, 0).total is not None
    assert money.cost(other, PRICED, 0).total is None


def test_fast_and_prioritised_is_neither_alone() -> None:
    found = usage.read(usage.MESSAGES, {"input_tokens": 1, "speed": "fast", "service_tier": "priority"})
    assert found is not None
    assert found.service_tier == "fast,priority"


@pytest.mark.parametrize(
    ("shape", "block", "fee"),
    [
        (usage.MESSAGES, {"input_tokens": 1, "server_tool_use": {"code_execution_requests": 2}}, "code_execution"),
        (usage.RESPONSES, {"input_tokens": 1, "server_side_tool_usage_details": {"drone_calls": 2}}, "drone"),
        (usage.CHAT, {"prompt_tokens": 1, "server_tool_use_details": {"web_search_requests": 2}}, "web_search"),
    ],
)
def test_each_tool_of_the_providers_own_is_a_fee_also_one_that_nobody_knows(
    shape: usage.Shape, block: dict[str, Any], fee: str
) -> None:
    found = usage.read(shape, block)
    assert found is not None
    assert found.fees == {fee: 2}
    assert money.cost(found, PRICED, 0).unknown == (f"fee:{fee}",)


def test_tools_that_cost_nothing_are_no_fees() -> None:
    free = {"web_fetch_requests": 3, "web_search_requests": 0, "note": 7}
    found = usage.read(usage.MESSAGES, {"input_tokens": 1, "server_tool_use": free})
    assert found is not None
    assert found.fees == {}


def test_a_cache_write_of_a_lifetime_nobody_knows_has_no_price() -> None:
    kept = {"ephemeral_5m_input_tokens": 10, "ephemeral_24h_input_tokens": 90}
    block = {"input_tokens": 1, "output_tokens": 1, "cache_creation_input_tokens": 100, "cache_creation": kept}
    found = usage.read(usage.MESSAGES, block)
    assert found is not None
    assert found.tokens == {IN: 1, OUT: 1, Bucket.CACHE_WRITE_5M: 10}
    assert found.fees == {"cache_write_token:ephemeral_24h_input_tokens": 90}
    assert money.cost(found, PRICED, 0).total is None
