from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from gateway import plugins
from gateway.answers.likeness import alike, final_answer
from gateway.plan import Context, Mode, Plan, Said, Step, Verdict
from gateway.plugins import PluginError
from gateway.types import Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant
from router_policies.cascade import Cascade
from router_policies.cascade.flaws import fits, flaw
from router_policies.cascade.judge import Panel

PROVIDER = Provider("p", "simulated")
CONTEXT = Context(Tenant("acme"), now=0.0)


def step(name: str, dollars: float = 1, *, quality: float | None = None, healthy: bool = True) -> Step:
    price = Price({Bucket.INPUT: int(dollars * 10**9), Bucket.OUTPUT: int(dollars * 10**9)})
    deployment = Deployment(name, PROVIDER, name, price, quality=quality)
    return Step(deployment, Estimate(100, 120), output_cap=500, output_expected=100, at=0.0, healthy=healthy)


def request(**body: Any) -> Request:
    body.setdefault("messages", [{"role": "user", "content": "hi"}])
    raw = json.dumps(body).encode()
    return Request("r", Format.CHAT, raw, body, "auto", stream=False, received=0.0, key=Key("k", "a", "n", b""))


def said(text: str = "", finish: str = "end", *, calls: Any = (), logprobs: Any = (), judging: bool = False) -> Said:
    return Said(replace(step("d"), judging=judging), text, finish, tuple(calls), tuple(logprobs))


CHEAP, OTHER, STRONG = step("cheap", 0.1), step("other", 0.2), step("strong", 10)


def names(plan: Plan) -> list[str]:
    return [each.deployment.id for each in plan.steps]


def test_the_cheapest_is_asked_before_the_strong_and_the_hold_is_the_sum() -> None:
    plan = Cascade().apply(Plan((CHEAP, OTHER, STRONG)), request(), CONTEXT)
    assert (plan.mode, names(plan)) == (Mode.CASCADE, ["cheap", "strong"])
    assert plan.worst_cost == (CHEAP.worst_cost or 0) + (STRONG.worst_cost or 0)
    assert [gone.deployment for gone in plan.dropped] == ["other"]


@pytest.mark.parametrize(
    ("options", "order"),
    [
        ({"agree": 2}, ["cheap", "other", "strong"]),
        ({"samples": 3}, ["cheap", "cheap", "cheap", "strong"]),
        ({"llm": "other"}, ["cheap", "other", "strong"]),
        ({"strong": "other", "min_price_ratio": 1.5}, ["cheap", "other"]),
        ({"agree": 3}, ["cheap", "other", "strong"]),
    ],
)
def test_the_steps_are_those_the_judges_need(options: dict[str, Any], order: list[str]) -> None:
    plan = Cascade(**options).apply(Plan((CHEAP, OTHER, STRONG)), request(), CONTEXT)
    assert names(plan) == order
    assert (plan.mode is Mode.CASCADE) is (options != {"agree": 3})


def test_the_strong_one_is_the_best_rated_and_not_the_dearest() -> None:
    plan = Plan((step("cheap", 0.1, quality=0.5), step("dear", 30, quality=0.7), step("good", 10, quality=0.9)))
    assert names(Cascade().apply(plan, request(), CONTEXT)) == ["cheap", "good"]


def test_without_the_price_ratio_there_is_no_cascade_and_it_is_said() -> None:
    plan = Cascade(min_price_ratio=10).apply(Plan((step("cheap", 2), STRONG)), request(), CONTEXT)
    assert plan.mode is Mode.FAILOVER
    assert plan.reasons == ("cascade: would not pay, strong is too cheap",)


@given(cheap=st.integers(1, 50), dear=st.integers(1, 50), accepted=st.integers(0, 100))
def test_with_a_measured_share_there_is_a_cascade_just_where_it_costs_less_than_the_strong_one_alone(
    cheap: int, dear: int, accepted: int
) -> None:
    first, strong = step("first", cheap, quality=0.1), step("strong", dear, quality=0.9)
    plan = Cascade(accepted=accepted / 100).apply(Plan((first, strong)), request(), CONTEXT)
    tried, alone = first.expected_cost or 0, strong.expected_cost or 0
    gain = accepted * alone - 100 * tried  # of a hundred requests, what is spared less what is tried
    if abs(gain) > 1:
        assert (plan.mode is Mode.CASCADE) is (gain > 0)


def test_what_is_unhealthy_is_not_tried() -> None:
    plan = Cascade().apply(Plan((replace(CHEAP, healthy=False), OTHER, STRONG)), request(), CONTEXT)
    assert names(plan) == ["other", "strong"]


@pytest.mark.parametrize("asked", [request(background=True), replace(request(), format=Format.EMBEDDINGS)])
def test_what_cannot_be_judged_is_no_cascade(asked: Request) -> None:
    plan = Plan((CHEAP, STRONG))
    assert Cascade().apply(plan, asked, CONTEXT) is plan


@given(
    st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=6),
    st.sampled_from([{}, {"agree": 2}, {"samples": 2}, {"llm": "d1"}, {"strong": "d0", "min_price_ratio": 1.0}]),
)
def test_a_cascade_never_gains_a_deployment_and_changes_nothing_the_second_time(
    rows: list[tuple[float, bool]], options: dict[str, Any]
) -> None:
    plan = Plan(tuple(step(f"d{n}", dollars, healthy=well) for n, (dollars, well) in enumerate(rows)))
    policy = Cascade(**options)
    after = policy.apply(plan, request(), CONTEXT)
    assert {*names(after), *(gone.deployment for gone in after.dropped)} == set(names(plan))
    assert policy.apply(after, request(), CONTEXT).steps == after.steps
    assert policy.apply(plan, request(), CONTEXT) == after
    if after.mode is Mode.CASCADE:
        assert not after.steps[-1].judging
        assert all((each.expected_cost or 0) <= (after.steps[-1].expected_cost or 0) for each in after.steps)


TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "required": ["city"]}}}]
SCHEMA = {
    "type": "json_schema",
    "json_schema": {"schema": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
}


@pytest.mark.parametrize(
    ("body", "answer", "wrong"),
    [
        ({}, said("Fine."), ""),
        ({}, said("Fine.", "length"), "truncated"),
        ({}, said("x", ""), "unreadable"),
        ({}, said("  "), "empty"),
        ({}, said("x", "refused"), "refusal"),
        ({}, said("I'm sorry, but I cannot help with that."), "refusal"),
        ({}, said("I can\u2019t assist with this request."), "refusal"),
        ({}, said("As an AI language model, I have no opinion."), "refusal"),
        ({}, said("Long ago. " * 40 + "I cannot help it, she said."), ""),
        ({"tools": TOOLS}, said(calls=[("look", '{"city": "Rome"}')]), ""),
        ({"tools": TOOLS}, said(calls=[("look", '{"town": "Rome"}')]), "invalid_tool_call"),
        ({"tools": TOOLS}, said(calls=[("look", '{"city": ')]), "invalid_tool_call"),
        ({"tools": TOOLS}, said(calls=[("fly", '{"city": "Rome"}')]), "invalid_tool_call"),
        ({"response_format": SCHEMA}, said('{"n": 4}'), ""),
        ({"response_format": SCHEMA}, said('{"n": "four"}'), "invalid_schema"),
        ({"response_format": SCHEMA}, said("four"), "invalid_schema"),
        ({"response_format": {"type": "json_object"}}, said("{}"), ""),
    ],
)
def test_what_is_seen_to_be_wrong(body: dict[str, Any], answer: Said, wrong: str) -> None:
    assert flaw(request(**body), answer) == wrong


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON, schema=JSON)
def test_any_schema_can_be_held_against_any_value(value: Any, schema: Any) -> None:
    assert fits(value, schema) in (True, False)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So \\boxed{42}", "42"),
        ("Steps...\n#### 1,024", "1024"),
        ("The answer is **B**.", "b"),
        ("Answer: 3.50 dollars", "3.5"),
        ("Paris", "paris"),
        ("A long text that comes to no conclusion whatsoever, sadly.", None),
    ],
)
def test_what_an_answer_comes_to(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (said("2+2 is four. The answer is 4"), said("#### 4"), True),
        (said("The answer is 4"), said("The answer is 5"), False),
        (said('{"a": 1, "b": 2}'), said('{"b":2,"a":1}'), True),
        (said('{"a": 1}'), said("a is 1"), False),
        (said(calls=[("f", '{"x": 1}')]), said(calls=[("f", '{"x":1}')]), True),
        (said(calls=[("f", '{"x": 1}')]), said(calls=[("g", '{"x": 1}')]), False),
        (said("red blue green yellow " * 5), said("yellow green blue red " * 5), True),
        (said("red blue green yellow " * 5), said("one two three four " * 5), False),
    ],
)
def test_whether_two_answers_say_the_same(one: Said, other: Said, same: bool) -> None:
    assert alike(one, other, 0.8) is same


@pytest.mark.parametrize(
    ("panel", "heard", "verdict"),
    [
        (Panel(), [said("ok")], Verdict(take=0)),
        (Panel(), [said("")], Verdict(reason="empty")),
        (Panel(agreeing=2), [said("4")], Verdict()),
        (Panel(agreeing=2), [said("4"), said("4")], Verdict(take=0)),
        (Panel(agreeing=2), [said("4"), said("5")], Verdict(reason="disagreement")),
        (Panel(logprob_min=0.8), [said("4", logprobs=[-0.1, -0.1])], Verdict(take=0)),
        (Panel(logprob_min=0.8), [said("4", logprobs=[-0.1, -0.9])], Verdict(reason="unsure")),
        (Panel(logprob_min=0.8), [said("4")], Verdict(reason="unsure")),
        (Panel(llm=True), [said("4")], Verdict()),
        (Panel(llm=True), [said("4"), said("71", judging=True)], Verdict(take=0, reason="judged well")),
        (Panel(llm=True), [said("4"), said("69", judging=True)], Verdict(reason="judged_poor")),
        (Panel(llm=True), [said("4"), said("hm", judging=True)], Verdict(reason="judge_unclear")),
    ],
)
def test_the_verdict(panel: Panel, heard: list[Said], verdict: Verdict) -> None:
    assert panel.verdict(request(), heard) == verdict


def test_log_probabilities_are_asked_for_where_they_are_needed() -> None:
    asked = Panel(logprob_min=0.8).asks(request(), CHEAP, [])
    assert json.loads(asked.raw)["logprobs"] is True
    same = request()
    assert Panel().asks(same, CHEAP, []) is same


def test_a_grader_is_shown_the_request_and_the_answer_and_its_hold_bounds_both() -> None:
    asked = request(messages=[{"role": "user", "content": "Was ist größer? " * 3000}])
    plan = Cascade(llm="other", min_price_ratio=1).apply(Plan((CHEAP, OTHER, STRONG)), asked, CONTEXT)
    grader = plan.steps[1]
    assert grader.judging
    assert plan.judge is not None
    shown = plan.judge.asks(asked, grader, [said("ä" * 50_000)])
    assert len(shown.body["messages"][1]["content"]) <= grader.estimate.bound
    assert not shown.stream


@pytest.mark.parametrize(
    "options",
    [
        {"min_price_ratio": 0.5},
        {"accepted": 1.5},
        {"agree": 0},
        {"agree": 2, "samples": 2},
        {"logprob_min": 1.5},
        {"score_min": -1},
        {"keep_alive_s": 0},
        {"trial_ms_max": 0},
        {"early_chars": 0},
        {"early_chars": 50, "agree": 2},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        plugins.policy("cascade", options)
