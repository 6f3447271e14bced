from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.plan import Context, Plan, Step
from gateway.types import UNKNOWN_PRICE, Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant
from router_policies.budget_aware import BudgetAware
from router_policies.cascade import Cascade
from router_policies.cheapest import Cheapest
from router_policies.output_cap import OutputCap

PROVIDER = Provider("p", "simulated")
CONTEXT = Context(Tenant("acme"), now=0.0)


def step(name: str, dollars: int | None = 1, *, healthy: bool = True, cap: int = 4096, expected: int = 300) -> Step:
    """`dollars` per million tokens, in and out; None: no price is known."""
    rate = (dollars or 0) * 10**9
    price = UNKNOWN_PRICE if dollars is None else Price({Bucket.INPUT: rate, Bucket.OUTPUT: rate})
    deployment = Deployment(name, PROVIDER, name, price)
    return Step(deployment, Estimate(100, 120), output_cap=cap, output_expected=expected, at=0.0, healthy=healthy)


def request(**body: Any) -> Request:
    key = Key("k", "acme", "test", b"")
    return Request("r", Format.CHAT, b"", body, "auto", stream=False, received=0.0, key=key)


def order(*steps: Step) -> list[str]:
    plan = Cheapest().apply(Plan(steps), request(), CONTEXT)
    return [each.deployment.id for each in plan.steps]


def test_the_cheapest_comes_first() -> None:
    assert order(step("dear", 9), step("cheap", 1), step("middle", 3)) == ["cheap", "middle", "dear"]


def test_an_unknown_cost_is_not_zero_but_last() -> None:
    assert order(step("unpriced", None), step("dear", 99), step("free", 0)) == ["free", "dear", "unpriced"]


def test_a_healthy_step_comes_before_a_cheaper_unhealthy_one_even_if_its_cost_is_unknown() -> None:
    assert order(step("ill", 1, healthy=False), step("well", None)) == ["well", "ill"]


def test_equal_costs_keep_their_order() -> None:
    assert order(step("b", 2), step("a", 2), step("c", 1), step("d", 2)) == ["c", "b", "a", "d"]


def test_the_order_is_by_expected_cost_and_not_by_price() -> None:
    talkative = replace(step("talkative", 2), output_expected=4000)
    assert order(talkative, step("terse", 3, expected=10)) == ["terse", "talkative"]


def flexible(name: str, rate: int, flex: int | None) -> Step:
    rates = {Bucket.INPUT: rate, Bucket.OUTPUT: rate}
    variants = {} if flex is None else {"flex": Price({Bucket.INPUT: flex, Bucket.OUTPUT: flex})}
    deployment = Deployment(name, PROVIDER, name, Price(rates, variants=variants))
    return Step(deployment, Estimate(1000, 1000), output_cap=100, output_expected=100, at=0.0)


def tiers(plan: Plan) -> list[tuple[str, str]]:
    return [(step.deployment.id, step.service_tier) for step in plan.steps]


def test_a_request_that_can_wait_is_offered_the_flex_tier_before_the_standard_one_of_the_same_candidate() -> None:
    plan = Plan((flexible("a", 10**9, 5 * 10**8), flexible("b", 8 * 10**8, None)))
    patient, hasty = replace(request(), deadline_s=900.0), replace(request(), deadline_s=899.0)
    after = Cheapest().apply(plan, patient, CONTEXT)
    assert tiers(after) == [("a", "flex"), ("b", ""), ("a", "")]
    assert "cheapest: the deadline allows the flex tier" in after.reasons
    assert after.steps[0].expected_cost == (after.steps[2].expected_cost or 0) / 2
    assert after.steps[0].worst_cost == after.steps[2].worst_cost, "it may be billed at the standard price"
    assert Cheapest().apply(after, patient, CONTEXT).steps == after.steps
    for asked, policy in ((hasty, Cheapest()), (request(), Cheapest()), (patient, Cheapest(flex_from_s=0))):
        assert tiers(policy.apply(plan, asked, CONTEXT)) == [("b", ""), ("a", "")]


def test_a_tier_that_the_client_names_stands() -> None:
    plan = Plan((replace(flexible("a", 10**9, 5 * 10**8), service_tier="priority"),))
    assert tiers(Cheapest().apply(plan, replace(request(), deadline_s=3600.0), CONTEXT)) == [("a", "priority")]


def test_a_cascade_asks_no_model_twice_for_its_two_prices() -> None:
    steps = (flexible("a", 10**8, 5 * 10**7), flexible("b", 2 * 10**8, None), flexible("c", 10**10, 5 * 10**9))
    patient = replace(request(), deadline_s=3600.0)
    plan = Cascade(agree=2).apply(Cheapest().apply(Plan(steps), patient, CONTEXT), patient, CONTEXT)
    assert tiers(plan) == [("a", "flex"), ("b", ""), ("c", "")]


def test_cheapest_says_so_and_an_empty_plan_stays_as_it_is() -> None:
    assert Cheapest().apply(Plan((step("a"),)), request(), CONTEXT).reasons == ("cheapest",)
    assert Cheapest().apply(Plan(()), request(), CONTEXT) == Plan(())


@pytest.mark.parametrize(
    ("body", "cap"),
    [
        ({}, 500),
        ({"max_tokens": None}, 500),
        ({"max_completion_tokens": None, "max_tokens": None}, 500),
        ({"max_tokens": 4096}, 2000),
        ({"max_completion_tokens": 4096}, 2000),
        ({"max_tokens": None, "max_completion_tokens": 4096}, 2000),
    ],
)
def test_the_default_is_for_those_who_name_no_maximum_and_the_maximum_for_all(body: dict[str, Any], cap: int) -> None:
    plan = OutputCap(default=500, max=2000).apply(Plan((step("a"),)), request(**body), CONTEXT)
    assert plan.steps[0].output_cap == cap
    assert plan.reasons == (f"output capped at {cap}",)


def test_what_the_client_asked_for_is_kept_where_it_is_lower() -> None:
    plan = Plan((step("a", cap=100),))
    assert OutputCap(default=500, max=2000).apply(plan, request(max_tokens=100), CONTEXT) is plan


def test_a_lower_ceiling_of_the_deployment_is_never_raised() -> None:
    plan = OutputCap(default=500).apply(Plan((step("small", cap=64), step("large"))), request(), CONTEXT)
    assert [each.output_cap for each in plan.steps] == [64, 500]


def test_a_capped_step_costs_less_at_worst_and_expects_no_more_than_its_cap() -> None:
    before = step("a", 1)
    after = OutputCap(max=200).apply(Plan((before,)), request(), CONTEXT).steps[0]
    assert after.output_expected == 200
    assert (before.worst_cost, after.worst_cost) == ((120 + 4096) * 1000, (120 + 200) * 1000)
    assert after.expected_cost == (100 + 200) * 1000


def test_only_a_default_leaves_those_who_name_a_maximum_alone() -> None:
    plan = Plan((step("a"),))
    assert OutputCap(default=500).apply(plan, request(max_tokens=4096), CONTEXT) is plan


def test_only_a_maximum_holds_for_those_who_name_none() -> None:
    assert OutputCap(max=700).apply(Plan((step("a"),)), request(), CONTEXT).steps[0].output_cap == 700


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give default"),
        ({"default": 0}, "default must be a whole number of tokens, 1 or more, not 0"),
        ({"max": -5}, "max must be a whole number"),
        ({"max": 1.5}, "max must be a whole number"),
        ({"default": True}, "default must be a whole number"),
        ({"default": "many"}, "not 'many'"),
        ({"default": 10, "max": 5}, r"default \(10\) must not be above max \(5\)"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        OutputCap(**options)


# budget_aware


def filled(share: float) -> Context:
    return Context(Tenant("acme"), now=0.0, fill=share)


def test_a_budget_with_room_changes_nothing() -> None:
    plan = Plan((step("dear", 9), step("cheap", 1)))
    assert BudgetAware().apply(plan, request(), filled(0.79)) is plan


def test_a_plan_gets_cheaper_in_stages_as_the_budget_fills() -> None:
    plan = Plan((step("dear", 9), step("cheap", 1)))
    asked = request(reasoning_effort="high")
    half = BudgetAware().apply(plan, asked, filled(0.8))
    assert [each.deployment.id for each in half.steps] == ["cheap", "dear"]
    assert [each.effort for each in half.steps] == ["low", "low"]
    assert [each.output_cap for each in half.steps] == [4096, 4096]
    nearly = BudgetAware().apply(plan, asked, filled(0.9))
    assert [each.output_cap for each in nearly.steps] == [1024, 1024]
    full = BudgetAware().apply(plan, asked, filled(0.95))
    assert [each.deployment.id for each in full.steps] == ["cheap"]
    assert all(each.degraded for each in (half, nearly, full))
    assert full.reasons == ("budget 95% full",)


def test_a_healthy_candidate_comes_before_a_cheaper_ill_one_however_full_the_budget_is() -> None:
    plan = Plan((step("ill", 1, healthy=False), step("well", 9)))
    full = BudgetAware().apply(plan, request(), filled(1.5))
    assert full.steps[0].deployment.id == "well"


@pytest.mark.parametrize(
    ("body", "effort"),
    [
        ({}, None),
        ({"reasoning_effort": "minimal"}, None),
        ({"reasoning": {"effort": "xhigh"}}, "low"),
        ({"output_config": {"effort": "max"}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9999}}, "low"),
        ({"thinking": {"type": "disabled"}}, None),
    ],
)
def test_effort_is_lowered_where_it_is_asked_for_and_never_raised(body: dict[str, Any], effort: str | None) -> None:
    plan = Plan((step("one", 1),))
    assert BudgetAware().apply(plan, request(**body), filled(0.85)).steps[0].effort == effort


@pytest.mark.parametrize("options", [{"cheaper_from": 0}, {"effort": "loud"}, {"output_cap": 0}])
def test_a_wrong_option_of_budget_aware_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="budget_aware"):
        BudgetAware(**options)
