"""A verifier learned from answers: its bound, and what it decides as the judge of a cascade."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from easy_and_hard import made_outcomes

from gateway import plugins
from gateway.answers.verifying import verifier
from gateway.plan import Context, Plan, Said, Step, Verdict
from gateway.plugins import PluginError
from gateway.types import Bucket, Deployment, Estimate, Format, Key, Price, Provider, Request, Tenant
from router_policies.cascade import Cascade
from router_policies.cascade.judge import Panel
from router_policies.difficulty import artifact
from router_policies.difficulty.answers import ACCEPTED_MIN, NEVER, answered, bound, calibrated, train_verifier
from router_policies.difficulty.learn import Options, learn
from router_policies.difficulty.outcomes import Outcomes, OutcomesError

OPTIONS = Options(directions_max=40)
RIGHT, WRONG = "The apple is red, as is said there.", "I guess that nobody could ever tell, maybe blue."


def recorded(count: int = 300) -> Outcomes:
    """Right answers read otherwise than wrong ones."""
    made = made_outcomes(count)
    answers = np.where(made.scores > 0.5, RIGHT, WRONG).astype(object)
    return replace(made, answers=answers)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verifier")
    train_verifier(recorded(), out, accuracy=0.95, options=OPTIONS)
    return out


def of(question: str) -> Request:
    body = {"messages": [{"role": "user", "content": question}]}
    raw = json.dumps(body).encode()
    return Request("r", Format.CHAT, raw, body, "auto", stream=False, received=0.0, key=Key("k", "a", "n", b""))


def step(name: str, dollars: float) -> Step:
    price = Price(dict.fromkeys((Bucket.INPUT, Bucket.OUTPUT), int(dollars * 10**9)))
    deployment = Deployment(name, Provider("p", "simulated"), name, price)
    return Step(deployment, Estimate(100, 120), output_cap=500, output_expected=100, at=0.0)


def said(text: str, finish: str = "end") -> Said:
    return Said(CHEAP, text, finish)


CHEAP, STRONG = step("cheap", 0.1), step("strong", 10)


ASKED = of("What colour is the redfox apple that newcat bought at the market this morning?")
HARD = of("Prove the redfox theorem for the newcat manifold using spectral sequences and sheaves.")
SEEN = Context(Tenant("acme"), now=0.0)


def test_it_tells_right_answers_from_wrong_ones_and_its_card_says_how_well(trained: Path) -> None:
    read = verifier(str(trained))
    right, wrong = read.right(ASKED, RIGHT), read.right(HARD, WRONG)
    assert right is not None
    assert wrong is not None
    assert right > read.bound > wrong
    told = artifact.card(trained)["verifier"]
    assert told["tested"]["accuracy"] >= 0.95
    assert 0 < told["tested"]["accepted"] < 1
    assert told["auroc"] > 0.95


def test_it_says_nothing_of_what_is_unlike_all_it_learned_from_or_says_nothing(trained: Path) -> None:
    read = verifier(str(trained))
    assert read.right(ASKED, " ") is None
    assert read.right(of(""), RIGHT) is None
    assert read.right(of("quod erat demonstrandum lorem ipsum dolor sit amet"), "consectetur adipiscing elit") is None


def test_a_bound_is_the_least_from_which_answers_are_right_as_often_as_wanted() -> None:
    p = np.repeat([0.55, 0.75, 0.95], 100)
    right = np.concatenate([np.tile([1, 0], 50), np.repeat([1, 0], [80, 20]), np.repeat([1, 0], [98, 2])]).astype(float)
    assert bound(p, right, 0.95) == pytest.approx(0.76)
    assert bound(p, right, 0.85) == pytest.approx(0.56)
    assert bound(p, right, 0.99) == NEVER
    assert bound(p[: ACCEPTED_MIN - 1], np.ones(ACCEPTED_MIN - 1), 0.5) == NEVER


def test_the_bound_of_one_half_of_the_questions_is_tested_on_the_other() -> None:
    """Of labels that say nothing half the questions make a bound that the other half does not keep."""
    rng = np.random.default_rng(3)
    p, right = rng.random(2000), (rng.random(2000) < 0.5).astype(np.float64)
    found = calibrated(p, right, [str(i) for i in range(2000)], 0.6)
    assert found["bound"] == NEVER or found["tested"]["accuracy"] is None or found["tested"]["accuracy"] < 0.6


def test_what_it_is_sure_of_is_taken_before_a_second_model_is_asked(trained: Path) -> None:
    read = verifier(str(trained))
    alone, paired = Panel(verifier=read, right_min=read.bound), Panel(verifier=read, right_min=read.bound, agreeing=2)
    assert alone.verdict(ASKED, [said(RIGHT)]) == Verdict(take=0, reason="verified")
    assert paired.verdict(ASKED, [said(RIGHT)]) == Verdict(take=0, reason="verified")
    assert alone.verdict(ASKED, [said(WRONG)]) == Verdict(reason="not_verified")
    assert paired.verdict(ASKED, [said(WRONG)]) == Verdict()
    assert paired.verdict(ASKED, [said(WRONG), said(WRONG)]) == Verdict(take=0)
    assert alone.verdict(ASKED, [said(RIGHT, "length")]) == Verdict(reason="truncated")


def test_the_bound_is_the_calibrated_one_unless_another_is_set(trained: Path) -> None:
    for options, least in (({}, verifier(str(trained)).bound), ({"verified_min": 0.5}, 0.5)):
        plan = Cascade(verifier=str(trained), **options).apply(
            Plan((CHEAP, STRONG)), ASKED, Context(Tenant("acme"), now=0.0)
        )
        assert plan.steps == (CHEAP, STRONG)
        assert isinstance(plan.judge, Panel)
        assert plan.judge.right_min == least


def test_what_is_no_verifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no artifact"):
        plugins.policy("cascade", {"verifier": str(tmp_path)})
    artifact.save(learn(made_outcomes(), OPTIONS).model, {}, tmp_path)
    with pytest.raises(PluginError, match="--verifier"):
        plugins.policy("cascade", {"verifier": str(tmp_path)})
    with pytest.raises(PluginError, match="verified_min"):
        plugins.policy("cascade", {"verified_min": 2})


def test_outcomes_without_answers_teach_no_verifier(tmp_path: Path) -> None:
    with pytest.raises(OutcomesError, match="answer"):
        train_verifier(made_outcomes(), tmp_path, accuracy=0.9)
    assert len(answered(recorded(50))[0]) == 100
    assert not json.dumps(sorted(tmp_path.iterdir()), default=str).count("npz")
