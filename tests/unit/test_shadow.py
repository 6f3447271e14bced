"""Who is asked beside, which requests can be repeated, how much two answers agree, and when that is drift."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from gateway import plugins, settings
from gateway.admission import Gate
from gateway.alerting import alerts
from gateway.answers.grading import grade
from gateway.answers.likeness import likeness
from gateway.configuration.schema import Alerts
from gateway.errors import Overloaded
from gateway.explain import explain, in_words
from gateway.plan import Aside, Context, Plan, Said, Step, spread
from gateway.plugins import PluginError
from gateway.settings import SettingsError
from gateway.shadows.compared import Compared, Kind, comparable, compared
from gateway.shadows.payer import payer_of
from gateway.shadows.repeated import ASKED_MAX, repeatable, repeated
from gateway.sql.outcomes import LIKENESS, SHADOW, Agreement
from gateway.types import NANO, Deployment, Estimate, Format, Key, Provider, Request, Route, Tenant
from router_policies.shadow import Shadow

STEP = Step(Deployment("small", Provider("p", "simulated"), "m"), Estimate(9, 9), 100, 30, 0.0)
ROUTE = Route("auto", ("small", "large"))
ASIDE = Aside("large", 0.25, 2 * NANO)


def request(format_: Format = Format.CHAT, **body: Any) -> Request:
    body = {"model": "auto", "messages": [{"role": "user", "content": "hi"}], **body}
    key = Key("k1", "acme", "prod", b"d", models=("auto",))
    headers = {"traceparent": "00-1", "idempotency-key": "i", "anthropic-version": "2023-06-01"}
    return Request(
        "r1",
        format_,
        orjson.dumps(body),
        body,
        "auto",
        stream=False,
        received=1.0,
        key=key,
        tags={"a": "b"},
        user="u",
        task="t",
        cost_max=5,
        headers=headers,
        timeout_s=3.0,
    )


def said(text: str, finish: str = "end", *calls: tuple[str, str]) -> Said:
    return Said(STEP, text, finish, calls)


def test_a_plan_keeps_its_steps_and_says_who_answers_too() -> None:
    plan = Plan((STEP,), reasons=("cheapest",))
    after = Shadow("large", budget_usd=Decimal("0.5")).apply(plan, request(), Context(Tenant("acme"), 0.0))
    assert (after.steps, after.reasons) == (plan.steps, plan.reasons)
    assert after.aside == Aside("large", 0.01, NANO // 2)
    assert explain(after, "auto")["aside"] == {"model": "large", "share": 0.01, "budget_usd": "0.50", "llm": None}
    assert in_words(after, "auto")[-1] == (
        "Beside it: large answers 1.00% of such requests too, unheard, compared by what they say; at most $0.50 a day."
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"by": ""},
        {"by": "x", "share": 1.5},
        {"by": "x", "share": float("nan")},
        {"by": "x", "budget_usd": -1},
        {"by": "x", "budget_usd": "1e9"},
        {"by": "x", "reference": "mine"},
        {"by": "x", "shares": 0.1},
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(PluginError):
        plugins.policy("shadow", options)


@given(share=st.floats(0, 1), more=st.floats(0, 1), name=st.text(min_size=1))
def test_a_larger_share_draws_what_a_smaller_one_draws(share: float, more: float, name: str) -> None:
    small, large = sorted((share, more))
    assert not replace(ASIDE, share=small).draws(name) or replace(ASIDE, share=large).draws(name)
    assert replace(ASIDE, share=1.0).draws(name)
    assert not replace(ASIDE, share=0.0).draws(name)


def test_who_is_drawn_does_not_hang_on_where_a_canary_sends_them() -> None:
    first = [f"req_{n}" for n in range(4000) if spread(f"req_{n}") < 0.5]
    assert sum(ASIDE.draws(name) for name in first) == pytest.approx(len(first) / 4, abs=75)


def test_the_share_drawn_is_the_share_asked_for() -> None:
    drawn = sum(ASIDE.draws(f"req_{n}") for n in range(4000))
    assert drawn == pytest.approx(1000, abs=100)


BASE = """
providers: {sim: {dialect: simulated}}
deployments:
  - {id: small, provider: sim, upstream_model: sim-small, price: {input: 1, output: 2}}
  - {id: large, provider: sim, upstream_model: sim-large, price: {input: 3, output: 9}}
"""


def test_a_route_with_a_shadow_brings_the_tenant_that_pays() -> None:
    found = settings.parse(BASE + "routes: {auto: {candidates: [small], policies: [{shadow: {by: large}}]}}", {})
    (payer,) = found.tenants
    assert (payer.id, payer.priority, payer.on_ledger_outage) == ("shadow:auto", "idle", "refuse")
    assert [(limit.amount, limit.action) for limit in payer.limits] == [(NANO, "deny")]


@pytest.mark.parametrize(
    ("policies", "problem"),
    [
        ("[{shadow: {by: lrage}}]", "there is no route or deployment 'lrage'; did you mean 'large'?"),
        ("[{shadow: {by: large, llm: judge}}]", "there is no route or deployment 'judge'"),
        ("[{shadow: {by: large}}, {shadow: {by: small}}]", "only one policy of a route may ask another plan beside"),
    ],
)
def test_a_shadow_that_cannot_be_is_a_problem_of_the_file(policies: str, problem: str) -> None:
    with pytest.raises(SettingsError) as refused:
        settings.parse(f"{BASE}routes: {{auto: {{candidates: [small], policies: {policies}}}}}", {})
    assert any(problem in str(each) for each in refused.value.problems)


# what is repeated


@pytest.mark.parametrize(
    ("more", "can"),
    [
        ({}, True),
        ({"n": 1, "tools": [{"type": "function", "function": {"name": "f"}}]}, True),
        ({"n": 2}, False),
        ({"background": True}, False),
        ({"conversation": "c"}, False),
        ({"tools": [{"type": "web_search"}]}, False),
        ({"tools": [{"name": "f", "input_schema": {}}]}, True),
        ({"tools": 5}, False),
        ({"tools": ["x"]}, False),
        ({"mcp_servers": [{}]}, False),
        ({"filler": "x" * ASKED_MAX}, False),
    ],
)
def test_only_what_does_nothing_else_is_repeated(more: dict[str, Any], can: bool) -> None:
    assert repeatable(request(**more)) is can


def test_what_builds_on_another_answer_and_what_cannot_be_read_are_not_repeated() -> None:
    assert not repeatable(replace(request(), pinned="small"))
    assert not repeatable(request(Format.EMBEDDINGS))


def test_a_repeated_request_is_the_same_question_and_carries_no_name_of_the_client() -> None:
    payer = payer_of("auto", ASIDE)
    again = repeated(request(), ROUTE, "large", payer, 7.0)
    assert (again.raw, again.body) == (request().raw, request().body)
    assert (again.id, again.shadow_of, again.received) == ("r1.shadow", "r1", 7.0)
    assert (again.model, again.pinned) == ("auto", "large"), "a candidate is asked as part of its route"
    assert (again.key.id, again.key.tenant, again.key.models) == ("", "shadow:auto", ("auto",))
    assert (again.user, again.task, again.tags, again.cost_max, again.timeout_s) == ("", "", {}, None, None)
    assert again.headers == {"anthropic-version": "2023-06-01"}
    other = repeated(request(), ROUTE, "elsewhere", payer, 7.0)
    assert (other.model, other.pinned) == ("elsewhere", "")


@pytest.mark.parametrize("format_", [Format.RESPONSES, Format.CHAT])
def test_the_provider_is_told_to_keep_nothing_of_it(format_: Format) -> None:
    again = repeated(request(format_, store=True), ROUTE, "large", payer_of("auto", ASIDE), 7.0)
    assert orjson.loads(again.raw) == again.body == {**request(store=False).body}


# how much answers agree

ANSWERS = st.builds(
    said,
    st.one_of(st.text(), st.sampled_from(["42", "The answer is 42.", '{"a": 1}', "```json\n[1]\n```", "word " * 30])),
)


@given(one=ANSWERS, other=ANSWERS)
def test_agreement_is_from_0_to_1_and_the_same_both_ways(one: Said, other: Said) -> None:
    assert compared(one, other) == compared(other, one)
    assert 0 <= compared(one, other).agreement <= 1
    assert not likeness(one, one).exact or likeness(one, one).score == 1


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        (said("The answer is 42."), said("So we get $\\boxed{42.0}$"), Compared(1.0, Kind.EXACT)),
        (said("41"), said("42"), Compared(0.0, Kind.EXACT)),
        (said('{"a": 1, "b": 2}'), said('```json\n{"b": 2, "a": 1}\n```'), Compared(1.0, Kind.EXACT)),
        (said("", "tools", ("f", '{"x":1}')), said("", "tools", ("f", '{ "x": 1 }')), Compared(1.0, Kind.EXACT)),
        (said("", "tools", ("f", "{}")), said("Sure, here it is."), Compared(0.0, Kind.EXACT)),
        (said("I cannot", "refused"), said("42"), Compared(0.0, Kind.EXACT)),
        (said("a b c d " * 20), said("a b c e " * 20), Compared(0.6, Kind.LIKENESS)),
    ],
)
def test_answers_are_compared_by_what_can_be_right_or_wrong_in_them(one: Said, other: Said, found: Compared) -> None:
    assert compared(one, other) == found


def test_what_was_cut_off_or_cannot_be_read_is_not_compared() -> None:
    assert comparable(said("a"), said("b", "tools"))
    assert not comparable(said("a"), said("b", "length"))
    assert not comparable(said("a", ""), said("b"))


@pytest.mark.parametrize(("text", "value"), [("85", 0.85), ("I would say 7 of 100: 93", 0.93), ("none", None)])
def test_a_grade_is_the_last_number_or_none(text: str, value: float | None) -> None:
    assert grade(text) == value


# drift

NOON = 1_789_560_000.0


def agreement(mean: float, count: int = 100, *, late: bool = True, source: str = SHADOW + "exact") -> Agreement:
    return Agreement("auto", "small", source, late, count, mean)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ([agreement(0.69)], True),
        ([agreement(0.71)], False),
        ([agreement(0.69, 49)], False),
        ([agreement(0.8), agreement(0.96, late=False)], True),
        ([agreement(0.8), agreement(0.9, late=False)], False),
        ([agreement(0.3, source=LIKENESS)], False),
        ([agreement(0.3, source=LIKENESS), agreement(0.5, late=False, source=LIKENESS)], True),
        ([agreement(0.1, late=False)], False),
    ],
)
def test_drift_is_little_agreement_or_less_than_there_was(found: list[Agreement], told: bool) -> None:
    alert = list(alerts.drift(found, Alerts(), NOON))
    assert [each.kind for each in alert] == (["drift"] if told else [])
    assert all(each.id.endswith("2026-09-16") for each in alert), "it is told once a day"


def test_a_spare_place_is_taken_only_while_half_of_them_are_free() -> None:
    gate = Gate(4.0, lambda: 100.0)
    gate.take_spare("shadow:auto", 0.5)
    gate.take_spare("shadow:auto", 0.5)
    with pytest.raises(Overloaded):
        gate.take_spare("shadow:auto", 0.5)
    gate.take("acme")
    gate.take("acme")
    assert gate.taken == 4, "who pays may take every place, for the others are no tenants here"
    for tenant in ("shadow:auto", "shadow:auto", "acme", "acme"):
        gate.leave(tenant)
    assert (gate.taken, gate.holding) == (0, {})
