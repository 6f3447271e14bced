"""What holds of every policy that ships, for every plan."""

from __future__ import annotations

from copy import deepcopy
from time import perf_counter_ns
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.plan import Context, Plan, Policy, Step, cost_key
from gateway.types import (
    UNKNOWN_PRICE,
    Bucket,
    Deployment,
    Estimate,
    Format,
    Key,
    Price,
    Provider,
    Request,
    Tenant,
)
from router_policies.cheapest import Cheapest
from router_policies.output_cap import OutputCap

POLICIES: list[Policy] = [
    Cheapest(),
    OutputCap(default=256),
    OutputCap(max=1024),
    OutputCap(default=64, max=64),
    OutputCap(default=100, max=2000),
]
CONTEXT = Context(Tenant("acme"), now=0.0)
RATES = st.integers(0, 200).map(lambda dollars: dollars * 10**9)
PRICES = st.one_of(
    st.just(UNKNOWN_PRICE),
    st.builds(lambda given, got: Price({Bucket.INPUT: given, Bucket.OUTPUT: got}), RATES, RATES),
)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    provider = Provider("p", "simulated")
    steps = []
    for number in range(draw(st.integers(0, 8))):
        expected = draw(st.integers(0, 100_000))
        cap = draw(st.integers(1, 100_000))
        step = Step(
            Deployment(f"d{number}", provider, f"m{number}", draw(PRICES)),
            Estimate(expected, expected + draw(st.integers(0, 1000))),
            output_cap=cap,
            output_expected=draw(st.integers(0, cap)),
            at=0.0,
            choices=draw(st.integers(1, 4)),
            healthy=draw(st.booleans()),
        )
        steps.append(step)
    return Plan(tuple(steps), reasons=("first",))


def request(body: dict[str, Any]) -> Request:
    key = Key("k", "acme", "test", b"")
    return Request("r", Format.CHAT, b"", body, "auto", stream=False, received=0.0, key=key)


CAPS = st.one_of(st.none(), st.integers(1, 100_000))
REQUESTS = st.builds(
    lambda one, other: request({"max_tokens": one, "max_completion_tokens": other, "model": "auto"}), CAPS, CAPS
)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@given(plan=plans(), request=REQUESTS)
def test_a_plan_never_gains_a_candidate_and_never_loses_one_without_saying_so(
    policy: Policy, plan: Plan, request: Request
) -> None:
    before = [step.deployment.id for step in plan.steps]
    after = policy.apply(plan, request, CONTEXT)
    names = [step.deployment.id for step in after.steps]
    assert sorted([*names, *(gone.deployment for gone in after.dropped)]) == sorted(before)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@given(plan=plans(), request=REQUESTS)
def test_the_same_input_gives_the_same_output_and_is_left_as_it_was(
    policy: Policy, plan: Plan, request: Request
) -> None:
    kept = deepcopy(plan)
    first = policy.apply(plan, request, CONTEXT)
    assert policy.apply(plan, request, CONTEXT) == first
    assert plan == kept
    assert policy.apply(first, request, CONTEXT).steps == first.steps, "applying it again changes nothing"


@given(plan=plans(), request=REQUESTS)
def test_cheapest_orders_by_health_then_cost_and_moves_no_equal_past_another(plan: Plan, request: Request) -> None:
    steps = Cheapest().apply(plan, request, CONTEXT).steps
    places = {step.deployment.id: place for place, step in enumerate(plan.steps)}
    keys = [(not step.healthy, *cost_key(step.expected_cost), places[step.deployment.id]) for step in steps]
    assert keys == sorted(keys)


@given(plan=plans(), request=REQUESTS, default=CAPS, most=CAPS)
def test_no_cap_is_ever_raised_and_none_passes_the_maximum(
    plan: Plan, request: Request, default: int | None, most: int | None
) -> None:
    if default is None and most is None:
        return
    if default is not None and most is not None:
        default = min(default, most)
    after = OutputCap(default, most).apply(plan, request, CONTEXT)
    for before, step in zip(plan.steps, after.steps, strict=True):
        assert step.output_cap <= before.output_cap
        assert step.output_expected <= step.output_cap
        assert most is None or step.output_cap <= most
        assert before.worst_cost is None or (step.worst_cost or 0) <= before.worst_cost


@pytest.mark.parametrize(("policy", "most_us"), [(Cheapest(), 60), (OutputCap(default=256), 400)], ids=repr)
def test_a_policy_takes_microseconds(policy: Policy, most_us: int) -> None:
    """The quickest of many runs over four candidates; generous: only a change of kind fails on a busy machine."""
    price = Price({Bucket.INPUT: 10**9, Bucket.OUTPUT: 10**9})
    provider = Provider("p", "simulated")
    steps = [Step(Deployment(f"d{n}", provider, "m", price), Estimate(9, 9), 4096, 300, 0.0) for n in range(4)]
    plan, asked = Plan(tuple(steps)), request({"model": "auto"})
    quickest = min(_timed(lambda: policy.apply(plan, asked, CONTEXT)) for _ in range(300))
    assert quickest / 1000 < most_us


def _timed(act: Any) -> int:
    began = perf_counter_ns()
    act()
    return perf_counter_ns() - began
