"""Policies that choose among candidates: who goes first, who is dropped, and what they refuse to be told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from msgspec.structs import replace

from gateway import plugins
from gateway.plan import Context, Plan, Policy, Stats, Step, Talk
from gateway.plugins import PluginError
from gateway.types import Bucket, Capability, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant

PROVIDER = Provider("p", "simulated")


def step(name: str, dollars: int = 1, *, region: str = "", **more: Any) -> Step:
    rates = dict.fromkeys((Bucket.INPUT, Bucket.OUTPUT, Bucket.REASONING), dollars * 10**9)
    deployment = Deployment(name, PROVIDER, name, Price({**rates, Bucket.CACHE_READ: 0}), region=region)
    return Step(deployment, Estimate(2000, 2000), output_cap=4096, output_expected=0, at=0.0, **more)


def request(**body: Any) -> Request:
    known = {name: body.pop(name) for name in ("id", "user", "task", "tags") if name in body}
    body.setdefault("messages", [{"role": "user", "content": "hi"}])
    made = Request("r", Format.CHAT, b"", body, "auto", stream=False, received=0.0, key=Key("k", "acme", "t", b""))
    return replace(made, **known)


def context(fill: float = 0.0, **stats: Stats) -> Context:
    return Context(Tenant("acme"), now=0.0, stats=stats, fill=fill)


def applied(name: str, options: Mapping[str, Any], plan: Plan, asked: Request | None = None, at: Any = None) -> Plan:
    return plugins.policy(name, options).apply(plan, asked or request(), at or context())


def names(plan: Plan) -> list[str]:
    return [each.deployment.id for each in plan.steps]


# reasoning_cap

CAPS = {"easy": "none", "medium": "low", "hard": "medium"}


@pytest.mark.parametrize(("level", "effort"), [("easy", "none"), ("medium", "low"), ("hard", "medium"), ("", None)])
def test_reasoning_is_capped_by_how_hard_the_request_is(level: str, effort: str | None) -> None:
    plan = applied("reasoning_cap", CAPS, Plan((step("a"),), level=level))
    assert plan.steps[0].effort == effort


def test_without_a_word_on_the_request_the_default_holds() -> None:
    assert applied("reasoning_cap", {"default": "low"}, Plan((step("a"),))).steps[0].effort == "low"


@pytest.mark.parametrize(
    ("asked", "effort"), [("minimal", None), ("none", None), ("low", None), ("high", "low"), ("max", "low")]
)
def test_a_client_that_asks_for_less_gets_less_and_one_that_asks_for_more_gets_the_cap(
    asked: str, effort: str | None
) -> None:
    plan = applied("reasoning_cap", CAPS, Plan((step("a"),), level="medium"), request(reasoning_effort=asked))
    assert plan.steps[0].effort == effort


def test_a_candidate_that_does_not_reason_is_left_alone() -> None:
    plain = step("a")
    plain = replace(plain, deployment=replace(plain.deployment, capabilities=frozenset({Capability.TOOLS})))
    plan = Plan((plain,), level="hard")
    assert applied("reasoning_cap", {**CAPS, "tokens_max": 5}, plan) is plan


def test_the_ceiling_on_tokens_holds_for_answers_that_think_and_no_others() -> None:
    options = {**CAPS, "tokens_max": 500}
    assert applied("reasoning_cap", options, Plan((step("a"),), level="hard")).steps[0].output_cap == 500
    assert applied("reasoning_cap", options, Plan((step("a"),), level="easy")).steps[0].output_cap == 4096


def test_the_cap_is_a_word_lower_once_a_budget_is_nearly_full() -> None:
    plan = applied("reasoning_cap", CAPS, Plan((step("a"),), level="hard"), at=context(0.9))
    assert plan.steps[0].effort == "low"
    assert plan.reasons == ("reasoning capped at low: hard",)


def test_less_effort_is_expected_to_cost_what_such_answers_have_cost() -> None:
    talks = {("", "none"): Talk(100, 0), ("", "high"): Talk(100, 3000)}
    thinker = step("a", talks=talks).thinking("high")
    calm = applied("reasoning_cap", CAPS, Plan((thinker,), level="easy")).steps[0]
    assert (thinker.expected_cost, calm.expected_cost) == (5_100_000, 2_100_000)


# arbitrage

QUICK, SLOW = Stats(first_token_ms=200, tokens_per_second=90), Stats(first_token_ms=900, tokens_per_second=20)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"ttft_ms_max": 500}, "takes 900 ms to its first token, more than 500"),
        ({"tokens_per_second_min": 40}, "gives 20.0 tokens per second, less than 40"),
    ],
)
def test_whoever_breaks_a_bound_is_dropped_and_it_is_said_why(options: dict[str, Any], reason: str) -> None:
    plan = applied("arbitrage", options, Plan((step("slow", 1), step("quick", 9))), at=context(slow=SLOW, quick=QUICK))
    assert names(plan) == ["quick"]
    assert [gone.reason for gone in plan.dropped] == [reason]


def test_whoever_fails_too_often_is_dropped() -> None:
    plan = Plan((step("bad"), step("good")))
    after = applied("arbitrage", {"error_rate_max": 0.1}, plan, at=context(bad=Stats(error_rate=0.5)))
    assert names(after) == ["good"]


def test_nobody_is_dropped_when_nobody_keeps_the_bounds_unless_they_are_strict() -> None:
    plan, now = Plan((step("slow", 2), step("slower", 1))), context(slow=SLOW, slower=SLOW)
    kept = applied("arbitrage", {"ttft_ms_max": 500}, plan, at=now)
    assert names(kept) == ["slower", "slow"]
    assert kept.reasons == ("arbitrage: no candidate keeps the bounds",)
    assert names(applied("arbitrage", {"ttft_ms_max": 500, "strict": True}, plan, at=now)) == []


def test_a_region_is_a_rule_and_never_bent() -> None:
    plan = Plan((step("here", region="eu"), step("there", region="us"), step("nobody_knows")))
    assert names(applied("arbitrage", {"regions": ["eu"]}, plan)) == ["here"]
    assert names(applied("arbitrage", {"regions": ["mars"]}, plan)) == []


def test_the_weights_say_what_a_quicker_answer_is_worth() -> None:
    plan, now = Plan((step("slow", 1), step("quick", 2))), context(slow=SLOW, quick=QUICK)
    assert names(applied("arbitrage", {}, plan, at=now)) == ["slow", "quick"]
    assert names(applied("arbitrage", {"latency": 0.2}, plan, at=now)) == ["slow", "quick"]  # 1 + 0.9 < 2 + 0.2
    assert names(applied("arbitrage", {"latency": 0.5}, plan, at=now)) == ["quick", "slow"]  # 2 + 0.5 < 1 + 2.25


# weighted, sticky, affinity, fallback, skill


def test_traffic_is_divided_by_weight() -> None:
    plan = Plan((step("old"), step("canary"), step("spare")))
    drawn = Counter(
        names(applied("weighted", {"weights": {"old": 95, "canary": 5}}, plan, request(id=f"{n}")))[0]
        for n in range(4000)
    )
    assert set(drawn) == {"old", "canary"}
    assert 140 < drawn["canary"] < 260  # 200 expected, 14 is a standard deviation


def test_a_sticky_canary_keeps_its_users_and_its_share() -> None:
    plan, options = Plan((step("old"), step("canary"))), {"weights": {"old": 80, "canary": 20}, "sticky": "user"}
    firsts = {
        user: {names(applied("weighted", options, plan, request(id=f"{n}", user=user)))[0] for n in range(5)}
        for user in map(str, range(500))
    }
    assert all(len(seen) == 1 for seen in firsts.values())
    assert 60 < sum(seen == {"canary"} for seen in firsts.values()) < 140


def test_a_raised_weight_takes_users_from_others_and_loses_none() -> None:
    plan = Plan((step("old"), step("canary")))

    def on_canary(share: float) -> set[str]:
        options = {"weights": {"old": 100 - share, "canary": share}, "sticky": "user"}
        users = map(str, range(400))
        return {user for user in users if names(applied("weighted", options, plan, request(user=user)))[0] == "canary"}

    assert on_canary(10) < on_canary(30)


def test_an_unhealthy_candidate_is_never_drawn() -> None:
    plan = Plan((step("ill", healthy=False), step("well")))
    after = applied("weighted", {"weights": {"ill": 99, "well": 1}}, plan)
    assert names(after) == ["well", "ill"]


def test_a_conversation_stays_as_it_grows_and_other_conversations_go_elsewhere() -> None:
    plan = Plan(tuple(step(f"d{n}") for n in range(4)))

    def first(*texts: str) -> str:
        turns = [{"role": "user" if place % 2 == 0 else "assistant", "content": t} for place, t in enumerate(texts)]
        return names(applied("sticky", {}, plan, request(messages=turns)))[0]

    assert first("hello") == first("hello", "hi", "and now?")
    assert {first(f"hello {n}") for n in range(60)} == {"d0", "d1", "d2", "d3"}


def test_sticky_moves_only_those_whose_candidate_is_gone() -> None:
    all_of_them = [step(f"d{n}") for n in range(4)]
    for user in map(str, range(100)):
        before = names(applied("sticky", {"by": "user"}, Plan(tuple(all_of_them)), request(user=user)))[0]
        after = names(applied("sticky", {"by": "user"}, Plan(tuple(all_of_them[:3])), request(user=user)))[0]
        assert before in (after, "d3")


def test_sticky_never_costs_more_than_it_may() -> None:
    plan = Plan((step("cheap", 100), step("near", 104), step("dear", 110)))
    firsts = {names(applied("sticky", {"by": "user"}, plan, request(user=f"{n}")))[0] for n in range(50)}
    assert firsts == {"cheap", "near"}


def test_affinity_stays_where_the_conversation_is_cached_while_that_is_cheaper() -> None:
    warm = step("warm", 3, cached_expected=1800)  # 200 x 3 < 2000 x 1
    assert names(applied("affinity", {}, Plan((step("cold", 1), warm)))) == ["warm", "cold"]
    lukewarm = step("warm", 3, cached_expected=1200)  # 800 x 3 > 2000 x 1
    plan = Plan((step("cold", 1), lukewarm))
    assert applied("affinity", {}, plan) is plan
    assert names(applied("affinity", {"within": 0.2}, plan)) == ["warm", "cold"]


def test_affinity_does_not_stay_for_a_few_tokens() -> None:
    plan = Plan((step("cold", 1), step("warm", 1, cached_expected=1000)))
    assert applied("affinity", {}, plan) is plan


def test_fallback_keeps_its_order_but_for_the_unhealthy() -> None:
    plan = Plan((step("c"), step("a", healthy=False), step("other"), step("b")))
    assert names(applied("fallback", {"order": ["a", "b", "c"]}, plan)) == ["b", "c", "other", "a"]


@pytest.mark.parametrize(
    ("task", "tags", "first"),
    [
        ("mmlu/law", {}, "jurist"),
        ("mmlu/physics", {}, "all"),
        ("gsm", {}, "counter"),
        ("poems", {}, "poet"),
        ("", {}, "poet"),
        ("gsm", {"skill": "mmlu/law"}, "jurist"),
    ],
)
def test_the_skilled_go_first(task: str, tags: dict[str, str], first: str) -> None:
    plan = Plan(tuple(step(name) for name in ("all", "jurist", "counter", "poet")), task=task)
    options = {"tasks": {"mmlu/law": ["jurist"], "mmlu/*": ["all"], "gsm": ["counter"]}, "default": ["poet"]}
    assert names(applied("skill", options, plan, request(tags=tags)))[0] == first


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("reasoning_cap", {"easy": "loud"}),
        ("reasoning_cap", {"tokens_max": 0}),
        ("reasoning_cap", {"shrink_from": 0}),
        ("arbitrage", {"ttft_ms_max": 0}),
        ("arbitrage", {"error_rate_max": 2}),
        ("arbitrage", {"price": 0}),
        ("arbitrage", {"latency": -1}),
        ("arbitrage", {"regions": "eu"}),
        ("weighted", {"weights": {}}),
        ("weighted", {"weights": {"a": -1}}),
        ("weighted", {"weights": {"a": 0}}),
        ("weighted", {"weights": {"a": 1}, "sticky": "moon"}),
        ("sticky", {"by": "request"}),
        ("sticky", {"within": -0.1}),
        ("affinity", {"within": -1}),
        ("affinity", {"tokens_min": 0}),
        ("fallback", {"order": []}),
        ("fallback", {"order": ["a", "a"]}),
        ("skill", {"tasks": {}}),
        ("skill", {"tasks": {"x": "a"}}),
    ],
)
def test_a_wrong_option_is_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        plugins.policy(name, options)


def test_every_policy_that_ships_is_a_policy() -> None:
    assert isinstance(plugins.policy("weighted", {"weights": {"a": 1}}), Policy)
