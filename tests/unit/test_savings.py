"""The chain from what was billed to what the reference would have cost: links that traffic cannot easily show."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from gateway import money
from gateway.plan import Plan, Step, Talk
from gateway.savings import savings
from gateway.types import Bucket, Cost, Deployment, Estimate, Format, Key, Price, Provider, Request, Usage

RATES = {Bucket.INPUT: 4_000_000, Bucket.OUTPUT: 8_000_000, Bucket.REASONING: 8_000_000, Bucket.CACHE_READ: 400_000}
RATES |= {Bucket.CACHE_WRITE_5M: 5_000_000}
HALF = {bucket: rate // 2 for bucket, rate in RATES.items()}
PRICE = Price(RATES, variants={"batch": Price(HALF), "priority": Price({b: 2 * r for b, r in RATES.items()})})
PLACE = Deployment("place", Provider("p", "simulated"), "vendor/model", PRICE)
DEAR = replace(PLACE, id="dear", upstream_model="reference", price=Price({b: 10 * r for b, r in RATES.items()}))
REQUEST = Request("r", Format.CHAT, b"{}", {}, "auto", False, 0.0, Key("k", "t", "n", b""))
USAGE = Usage({Bucket.INPUT: 1000, Bucket.OUTPUT: 100})


def step(place: Deployment = PLACE, **fields: object) -> Step:
    return Step(place, Estimate(1000, 1000), 1000, 100, 0.0, **fields)  # type: ignore[arg-type]


def priced(usage: Usage, place: Deployment) -> Cost:
    return money.cost(usage, place.price, 0.0)


def of(usage: Usage, plan: Plan | None = None, billed: int | None = None, own: Step | None = None) -> dict[str, int]:
    own = own or step()
    paid = priced(usage, own.deployment).total if billed is None else billed
    return savings(REQUEST, plan or Plan((own,)), own, usage, paid, priced)


def test_half_the_price_in_a_batch_is_saved_by_the_batch() -> None:
    assert of(replace(USAGE, service_tier="batch")) == {"batch": (1000 * 4 + 100 * 8) // 2}


def test_priority_costs_and_is_no_saving() -> None:
    assert of(replace(USAGE, service_tier="priority")) == {"tier": -(1000 * 4 + 100 * 8)}


def test_what_writing_to_a_cache_costs_is_taken_off_caching() -> None:
    assert of(Usage({Bucket.CACHE_WRITE_5M: 1000, Bucket.OUTPUT: 100})) == {"caching": -1000}


def test_a_provider_that_charges_less_than_it_lists_is_told_apart() -> None:
    assert of(USAGE, billed=1000) == {"reported": 4800 - 1000}


def test_thoughts_that_a_cap_spared_are_priced_where_the_answer_came_from() -> None:
    own = step(effort="low", talks={("", ""): Talk(100.0, 50.0)})
    assert of(USAGE, own=own) == {"caps": 50 * 8}
    assert of(Usage({**USAGE.tokens, Bucket.REASONING: 60}), own=own) == {}


@pytest.mark.parametrize("place", ["vendor/model", "other/Model"])
def test_a_model_is_known_under_another_vendors_name(place: str) -> None:
    other = replace(PLACE, id="other", upstream_model=place, price=Price({b: 3 * r for b, r in RATES.items()}))
    assert of(USAGE, Plan((step(), step(other)))) == {"arbitrage": 4800}


def test_an_unknown_cost_saves_nothing_and_a_reference_without_a_price_explains_nothing() -> None:
    assert savings(REQUEST, Plan((step(),)), step(), USAGE, None, priced) == {}
    unknown = replace(DEAR, price=Price(known=False))
    assert of(USAGE, Plan((step(),), baseline=step(unknown))) == {}


counts = st.integers(0, 100_000)


@given(
    tokens=st.fixed_dictionaries(dict.fromkeys(RATES, counts)),
    tier=st.sampled_from(["", "batch", "priority"]),
    billed=st.integers(0, 10**9),
)
def test_the_causes_add_up_to_the_reference_less_what_was_billed(
    tokens: dict[Bucket, int], tier: str, billed: int
) -> None:
    usage = Usage({bucket: count for bucket, count in tokens.items() if count}, service_tier=tier)
    found = of(usage, Plan((step(),), baseline=step(DEAR)), billed)
    fresh = sum(tokens[bucket] for bucket in (Bucket.INPUT, Bucket.CACHE_READ, Bucket.CACHE_WRITE_5M))
    out = tokens[Bucket.OUTPUT] + tokens[Bucket.REASONING]
    assert billed + sum(found.values()) == 10 * (4 * fresh + 8 * out)
