from __future__ import annotations

import json

from gateway.explain import explain, in_words
from gateway.plan import Dropped, Mode, Plan, Step
from gateway.types import UNKNOWN_PRICE, Bucket, Deployment, Estimate, Price, Provider

PROVIDER = Provider("sim", "simulated")


def step(name: str, dollars: int | None, **options: object) -> Step:
    rate = (dollars or 0) * 10**9
    rates = {Bucket.INPUT: rate, Bucket.CACHE_READ: rate // 10, Bucket.OUTPUT: rate}
    price = UNKNOWN_PRICE if dollars is None else Price(rates, source="list")
    given = {"output_cap": 1000, "output_expected": 300, "at": 0.0} | options
    return Step(Deployment(name, PROVIDER, f"{name}-2026", price), Estimate(100, 120), **given)  # type: ignore[arg-type]


PLAN = Plan(
    (step("small", 1), step("large", 10, healthy=False)),
    reasons=("output capped at 1000", "cheapest"),
    dropped=(Dropped("blind", "does not support vision"),),
    baseline=step("large", 10),
)


def test_a_plan_is_told_in_words() -> None:
    assert in_words(PLAN, "auto", "auto") == [
        "'auto' is route 'auto': 2 candidates fit, 1 dropped; each is tried if the one before fails.",
        "1. small (sim: small-2026)",
        "   input about 100 tokens, at most 120; output about 300, at most 1000",
        "   costs about $0.0004, at most $0.00112",
        "2. large (sim: large-2026), out of service",
        "   input about 100 tokens, at most 120; output about 300, at most 1000",
        "   costs about $0.004, at most $0.0112",
        "x  blind: does not support vision",
        "Why: output capped at 1000; cheapest.",
        "Set aside before the call: $0.0112 (the dearest of them).",
        "Baseline large would cost about $0.004: this saves about $0.0036 (90%).",
    ]


def test_the_same_as_figures_is_json_with_exact_dollars() -> None:
    told = json.loads(json.dumps(explain(PLAN, "auto", "auto")))
    assert [candidate["worst_cost_usd"] for candidate in told["candidates"]] == ["0.00112", "0.0112"]
    assert told["candidates"][0]["price_source"] == "list"
    assert told["dropped"] == [{"deployment": "blind", "reason": "does not support vision"}]
    assert (told["reserve_usd"], told["saving_usd"], told["mode"]) == ("0.0112", "0.0036", "failover")
    assert told["baseline"]["deployment"] == "large"


def test_an_unknown_cost_is_said_to_be_unknown_and_not_zero() -> None:
    plan = Plan((step("free", 0), step("unpriced", None)), baseline=step("unpriced", None))
    words = "\n".join(in_words(plan, "auto", "auto"))
    assert "costs about $0.00, at most $0.00" in words
    assert "costs about an unknown amount, at most an unknown amount" in words
    assert "Set aside before the call: unknown" in words
    assert "would cost about an unknown amount." in words
    told = explain(plan, "auto", "auto")
    assert (told["candidates"][1]["worst_cost_usd"], told["reserve_usd"], told["saving_usd"]) == (None, None, None)


def test_what_is_cached_how_often_and_with_what_effort_is_told() -> None:
    line = in_words(Plan((step("a", 1, cached_expected=50, choices=3, effort="low"),)), "a")[2]
    assert line == (
        "   input about 100 tokens, at most 120, 50% of it cached; "
        "output 3 times about 300, at most 1000, reasoning effort low"
    )


def test_a_cascade_sets_all_its_steps_aside() -> None:
    plan = Plan((step("small", 1), step("large", 10)), mode=Mode.CASCADE)
    words = in_words(plan, "auto", "auto")
    assert words[0].endswith("each is tried if the answer before is not good enough.")
    assert words[-1] == "Set aside before the call: $0.01232 (all of them)."


def test_a_choice_dearer_than_the_baseline_is_not_called_a_saving() -> None:
    words = in_words(Plan((step("large", 10),), baseline=step("small", 1)), "large")
    assert words[-1] == "Baseline small would cost about $0.0004: this adds about $0.0036 (900%)."


def test_an_empty_plan_is_told_without_a_reservation() -> None:
    assert in_words(Plan((), dropped=(Dropped("a", "is too small"),)), "auto", "auto") == [
        "'auto' is route 'auto': 0 candidates fit, 1 dropped.",
        "x  a: is too small",
    ]
