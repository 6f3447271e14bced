"""What holds of every policy that ships, for every plan."""

from __future__ import annotations

from copy import deepcopy
from time import perf_counter_ns
from typing import Any

import pytest
from hypothesis import given, strategies as st

from gateway.plan import Context, Plan, Policy, Stats, Step, Talk, cost_key
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
from router_policies.affinity import Affinity
from router_policies.arbitrage import Arbitrage
from router_policies.cheapest import Cheapest
from router_policies.fallback import Fallback
from router_policies.output_cap import OutputCap
from router_policies.reasoning_cap import ReasoningCap
from router_policies.shadow import Shadow
from router_policies.skill import Skill
from router_policies.sticky import Sticky
from router_policies.weighted import Weighted

POLICIES: list[Policy] = [
    Cheapest(),
    OutputCap(default=256),
    OutputCap(max=1024),
    OutputCap(default=64, max=64),
    OutputCap(default=100, max=2000),
    Affinity(),
    Affinity(within=0.5, tokens_min=1),
    Arbitrage(),
    Arbitrage(ttft_ms_max=300, error_rate_max=0.2, latency=1.0),
    Arbitrage(tokens_per_second_min=50, strict=True, price=0.0, latency=1.0),
    Arbitrage(regions=("eu",)),
    Fallback(("d3", "d1", "d9")),
    ReasoningCap(default="low", tokens_max=700),
    ReasoningCap(default="none", shrink_from=0.01),
    Skill({"law": ("d2",), "*": ("d5", "d0")}, default=("d4",)),
    Shadow("d1", share=0.5),
    Sticky("conversation", within=0.3),
    Sticky("user"),
    Weighted({"d0": 1, "d1": 2, "d7": 0}),
    Weighted({"d2": 5, "d3": 0.5}, sticky="user"),
]
STATS = {
    f"d{n}": Stats(100.0 * n or None, 20.0 * n or None, error_rate=n / 10) for n in range(7)
}  # the last was never seen
CONTEXT = Context(Tenant("acme"), now=0.0, stats=STATS, fill=0.5)
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
            Deployment(
                f"d{number}", provider, f"m{number}", draw(PRICES), region=draw(st.sampled_from(("eu", "us", "")))
            ),
            Estimate(expected, expected + draw(st.integers(0, 1000))),
            output_cap=cap,
            output_expected=draw(st.integers(0, cap)),
            at=0.0,
            choices=draw(st.integers(1, 4)),
            healthy=draw(st.booleans()),
            cached_expected=draw(st.integers(0, expected)),
            effort=draw(st.sampled_from((None, "none", "high"))),
            talks=draw(st.sampled_from(({}, {("", "low"): Talk(40, 900), ("", "none"): Talk(90)}))),
        )
        steps.append(step)
    return Plan(tuple(steps), reasons=("first",), task=draw(st.sampled_from(("", "law", "gsm"))))


def request(body: dict[str, Any]) -> Request:
    key = Key("k", "acme", "test", b"")
    return Request("r", Format.CHAT, b"", body, "auto", stream=False, received=0.0, key=key)


CAPS = st.one_of(st.none(), st.integers(1, 100_000))
REQUESTS = st.builds(
    lambda one, other: request({"max_tokens": one, "max_completion_tokens": other, "model": "auto"}), CAPS, CAPS
)


@pytest.mark.parametrize("policy", POLICIES, ids=repr)
@given(plan=plans(), request=REQUESTS)
def test_a_plan_is_left_as_it_was_and_the_next_has_the_same_candidates_but_for_those_said_to_be_gone(
    policy: Policy, plan: Plan, request: Request
) -> None:
    kept = deepcopy(plan)
    after = policy.apply(plan, request, CONTEXT)
    assert policy.apply(plan, request, CONTEXT) == after
    assert plan == kept
    assert policy.apply(after, request, CONTEXT).steps == after.steps, "applying it again changes nothing"
    names = [step.deployment.id for step in after.steps]
    assert sorted([*names, *(gone.deployment for gone in after.dropped)]) == sorted(
        step.deployment.id for step in plan.steps
    )


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


SORTERS = [policy for policy in POLICIES if isinstance(policy, Affinity | Fallback | Skill | Sticky | Weighted)]


@pytest.mark.parametrize("policy", SORTERS, ids=repr)
@given(plan=plans(), request=REQUESTS)
def test_a_policy_that_chooses_never_puts_the_unhealthy_first_in_place_of_the_healthy(
    policy: Policy, plan: Plan, request: Request
) -> None:
    after = policy.apply(plan, request, CONTEXT)
    if after is not plan and any(step.healthy for step in plan.steps):
        assert after.steps[0].healthy


@given(plan=plans(), request=REQUESTS)
def test_arbitrage_orders_by_health_and_then_by_price_when_only_price_counts(plan: Plan, request: Request) -> None:
    steps = Arbitrage().apply(plan, request, CONTEXT).steps
    keys = [(not step.healthy, *cost_key(step.expected_cost)) for step in steps]
    assert keys == sorted(keys)


MOST_US = [(Cheapest(), 60), *((policy, 400) for policy in POLICIES[1:])]


@pytest.mark.parametrize(("policy", "most_us"), MOST_US, ids=repr)
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
