"""What we calculate is what providers say that they charged, on recorded calls whose reply states a cost.

Each row is metered by the dialect and priced by the deployment that a configuration with the preset would make, with
the list as it was on the day of the call (where neither the recording nor the reply has a date: as it is now).
"""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache

import corpus
import pytest
from corpus import Row

from gateway import money, plugins, settings
from gateway.errors import GatewayError
from gateway.plan import Step
from gateway.types import Cost, Deployment, Estimate, Format, Usage

pytestmark = pytest.mark.corpus

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
PRESETS = {"vercel-gateway": "vercel"}
FORMATS = {
    "chat": Format.CHAT,
    "responses": Format.RESPONSES,
    "embeddings": Format.EMBEDDINGS,
    "rerank": Format.RERANK,
    "audio": Format.TRANSCRIPTIONS,
    "images": Format.IMAGES,
}
ROUNDED = {"7992d826be8c6c2e"}
"""Of August 2025, when Perplexity still rounded each part of its cost to a thousandth of a dollar."""

OPEN_WEIGHTS = re.compile(
    r"(alibaba|deepseek|google/gemma|meta-llama|minimax|mistralai|moonshotai|nousresearch|openai/gpt-oss|qwen|z-ai)"
)
"""Models that many sell: OpenRouter charges what the one charges whom it chose, its list has the one it prefers."""
OTHERWISE = {
    "0cc016a70ff728a8": "a cheaper model's name, served at grok-3-fast's price",
    "94417f7f6bf6a959": "a cheaper model's name, served at grok-3-fast's price",
    "9a343c68b0556865": "Vertex's price, while the list has AI Studio's",
    "54fa914762824d32": "the recording does not say which model",
    "5af0976beb839b16": "the recording does not say which model",
    "e5d747303c3031b6": "a reply that is an error",
}
CLASSES = {
    "equal": 608,
    "another seller than the list's": 117,
    "a model without a list price, whose cost is unknown and not a guess": 18,
    "a reply that was not charged": 2,
    **Counter(OTHERWISE.values()),
}
"""OpenRouter's 751, by why our figure is theirs or is not."""


@cache
def costed(provider: str) -> tuple[Row, ...]:
    """The provider's rows with a cost of its own."""
    if not corpus.CORPUS.exists():
        pytest.skip(f"no recorded traffic at {corpus.CORPUS}")
    with gzip.open(corpus.CORPUS, "rt") as lines:
        rows = [json.loads(line) for line in lines if '"provider_reported_cost_usd"' in line and provider in line]
    return tuple(
        row for row in rows if row["provider"] == provider and row.get("provider_reported_cost_usd") is not None
    )


def moment(row: Row) -> float:
    """When the call was made."""
    captured = row.get("captured_at")
    if captured and captured[:1].isdigit():
        return datetime.fromisoformat(captured).timestamp()
    if captured:
        return parsedate_to_datetime(captured).timestamp()
    created = re.search(rb'"created(?:_at)?": ?(1[67]\d{8})\b', corpus.body(row))
    return float(created[1]) if created else NOW.timestamp()


@cache
def deployment(preset: str, model: str, at: float) -> Deployment:
    """As a configuration makes it."""
    config = {
        "providers": {preset: {"api_key": "k"}},
        "deployments": [{"id": "d", "provider": preset, "upstream_model": model}],
    }
    return settings.parse(json.dumps(config), {}, now=at).deployments["d"]


def priced(row: Row) -> tuple[Usage, Cost]:
    """What was used by the reply, and what that costs.  Raises GatewayError for a reply that is one."""
    at = moment(row)
    place = deployment(PRESETS.get(row["provider"], row["provider"]), row["model"] or "unsaid", at)
    asked = row["request_body"] if isinstance(row["request_body"], dict) else {}
    request = corpus.request(FORMATS[row["kind"]], {**asked, "stream": bool(row["streaming"])})
    step = Step(place, Estimate(7, 9), 500, 50, 0.0)
    decoder = plugins.dialect(place.provider.dialect).decoder(request, step, lambda usage: Cost(0))
    corpus.drain(decoder, [corpus.body(row)])
    assert decoder.meter.usage is not None
    return decoder.meter.usage, money.cost(decoder.meter.usage, place.price, at)


def equal(row: Row, usage: Usage, cost: Cost) -> bool:
    """Within a thousandth; what the provider says is read as its reply has it."""
    reported = usage.reported_cost
    assert reported is not None
    if not (row["provider"] == "openrouter" and usage.reported.get("is_byok")):  # whose model is paid upstream
        assert abs(reported - money.nano(f"{row['provider_reported_cost_usd']:.9f}")) <= 1
    return cost.total is not None and abs(cost.total - reported) <= max(1, reported / 1000)


def unequal(provider: str) -> list[str]:
    found = []
    for row in costed(provider):
        usage, cost = priced(row)
        if row["id"] not in ROUNDED and not equal(row, usage, cost):
            found.append(f"{row['id']} {row['model']}: {cost} for {usage.reported_cost}")
    return found


@pytest.mark.parametrize(("provider", "count"), [("xai", 174), ("vercel-gateway", 65), ("perplexity", 36)])
def test_every_cost_is_the_one_that_the_provider_reports(provider: str, count: int) -> None:
    assert len(costed(provider)) == count
    assert unequal(provider) == []


def test_a_cost_that_was_rounded_is_ours_rounded_as_it_was() -> None:
    [row] = [row for row in costed("perplexity") if row["id"] in ROUNDED]
    usage, cost = priced(row)
    parts = [round(amount, -6) for amount in cost.components.values()]
    assert sum(parts) == usage.reported_cost == 5_000_000


def why(row: Row, cost: Cost) -> str:
    """Why OpenRouter's cost is not ours; "": nobody knows."""
    if row["id"] in OTHERWISE:
        return OTHERWISE[row["id"]]
    if cost.unknown:
        return "a model without a list price, whose cost is unknown and not a guess"
    if not row["provider_reported_cost_usd"]:
        return "a reply that was not charged"
    return "another seller than the list's" if OPEN_WEIGHTS.match(row["model"]) else ""


def test_most_of_openrouters_costs_are_calculated_and_every_other_has_its_reason() -> None:
    rows = costed("openrouter")
    reasons: Counter[str] = Counter()
    for row in rows:
        try:
            usage, cost = priced(row)
        except GatewayError:
            reasons[OTHERWISE[row["id"]]] += 1
            continue
        reasons["equal" if equal(row, usage, cost) else why(row, cost)] += 1
    assert sum(reasons.values()) == len(rows) == 751
    assert reasons["equal"] >= 0.8 * len(rows), reasons
    assert reasons == CLASSES
