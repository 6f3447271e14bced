"""LiteLLM's prices per token as ours per million, and what its model_info says of a model."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from gateway.configuration import rates
from gateway.configuration.presets import Known
from gateway.imports.base import Section, plain
from gateway.types import NANO, Capability

MILLION = 1_000_000
RATES = {
    "input_cost_per_token": "input",
    "output_cost_per_token": "output",
    "cache_read_input_token_cost": "cache_read",
    "cache_creation_input_token_cost": "cache_write_5m",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h",
    "output_cost_per_reasoning_token": "reasoning",
    "input_cost_per_audio_token": "audio_in",
    "output_cost_per_audio_token": "audio_out",
    "input_cost_per_image_token": "image_in",
    "output_cost_per_image_token": "image_out",
}
TIERS = {"128k": 128_000, "200k": 200_000, "256k": 256_000, "272k": 272_000}
FEES = {"input_cost_per_query": "request", "input_cost_per_request": "request"}
LACKED = {
    "supports_function_calling": Capability.TOOLS,
    "supports_response_schema": Capability.JSON_SCHEMA,
    "supports_vision": Capability.VISION,
    "supports_audio_input": Capability.AUDIO,
    "supports_pdf_input": Capability.FILES,
    "supports_reasoning": Capability.REASONING,
}


def price(info: Section, params: Section) -> dict[str, Any]:
    """The price that the entry states itself; parameters win over model_info, as in LiteLLM."""
    found: dict[str, Any] = {}
    for section in (info, params):
        found |= {ours: million(rate) for theirs, ours in RATES.items() if (rate := section.number(theirs)) is not None}
        for theirs, ours in FEES.items():
            if (fee := section.number(theirs)) is not None:
                found.setdefault("fees", {})[ours] = plain(fee)
    if tiers := [tier for section in (info, params) for tier in _tiers(section)]:
        found["tiers"] = tiers
    if found and "input" not in found and "fees" not in found:
        found["input"] = 0
    return found


def _tiers(section: Section) -> list[dict[str, Any]]:
    tiers = []
    for words, above in TIERS.items():
        rated = {
            ours: million(rate)
            for theirs, ours in RATES.items()
            if (rate := section.number(f"{theirs}_above_{words}_tokens")) is not None
        }
        if rated:
            tiers.append({"above": above, **rated})
    return tiers


def listed(book: str, model: str, now: float, known: Known) -> dict[str, Any]:
    """The base rates the price list has for the model, to be stated where the vendor's name for it is one's own."""
    found = rates.listing(book, model, now, known.prices).price
    if not found.known:
        return {}
    return {str(bucket): plain(Decimal(rate) / NANO) for bucket, rate in found.rates.items()}


def facts(info: Section) -> dict[str, Any]:
    """Context, longest answer and what the model cannot do."""
    found: dict[str, Any] = {}
    legacy = info.count("max_tokens")
    if context := info.count("max_input_tokens"):
        found["context_max"] = context
    if output := info.count("max_output_tokens") or legacy:
        found["output_max"] = output
    lacks = {capability for name, capability in LACKED.items() if info.take(name) is False}
    if lacks:
        found["capabilities"] = sorted(str(capability) for capability in Capability if capability not in lacks)
    return found


def million(rate: Decimal) -> int | float:
    """Dollars a token as dollars a million tokens."""
    return plain(rate * MILLION)
