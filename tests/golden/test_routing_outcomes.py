"""Routing on recorded outcomes: the figures of docs/routing.md, the quick ones always, all of them under `slow`.

The outcomes stay where they are (`TOLLGATE_DATA`, else ../shared/data beside the checkout).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from router_policies.difficulty import artifact
from router_policies.difficulty.answers import learn_verifier, read_responses
from router_policies.difficulty.evaluation.curves import auroc, calibration_error
from router_policies.difficulty.evaluation.judge import Judged, cross_fitted, figures, with_artifact
from router_policies.difficulty.evaluation.proof import Proof, only
from router_policies.difficulty.learn import Options, learn
from router_policies.difficulty.outcomes import Outcomes, read

DATA = Path(os.environ.get("TOLLGATE_DATA") or Path(__file__).parents[2].parent / "shared" / "data") / "outcomes"
pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not DATA.exists(), reason=f"no recorded outcomes at {DATA}; set TOLLGATE_DATA"),
]


def outcomes(name: str) -> Outcomes:
    return read([DATA / f"{name}.parquet"])


def mmlu() -> Outcomes:
    return only(outcomes("routellm_gsm8k_mmlu"), "mmlu/")


def area(made: dict[str, Any], router: str = "router") -> float:
    return float(made["pair"]["routers"][router]["apgr"]["value"])


@pytest.fixture(scope="module")
def gsm8k() -> Judged:
    return cross_fitted(outcomes("gsm8k_zeroeval"))


def test_agreement_keeps_99_percent_of_the_best_models_quality_at_half_its_cost(gsm8k: Judged) -> None:
    found = figures(gsm8k)["agreement"]["plain"]
    assert found["quality_share"]["value"] >= 0.99
    assert found["cost_share"]["high"] <= 0.55


def test_p_good_enough_is_calibrated_on_exact_answers(gsm8k: Judged) -> None:
    assert figures(gsm8k)["calibration_error"] <= 0.05


def test_one_fold_of_mmlu_is_ranked_from_text_alone() -> None:
    questions = mmlu()
    held = np.arange(len(questions)) % 5 == 0
    model = learn(questions.rows(np.flatnonzero(~held)), Options()).model
    made = figures(with_artifact(questions.rows(np.flatnonzero(held)), model))
    assert area(made) >= 0.65, "one fold has an interval of +-0.05; all five are the slow test's"
    assert made["calibration_error"] <= 0.05


@pytest.mark.parametrize("name", ["bfcl_tools_2024_08", "routerbench_arc_mbpp_winogrande"])
def test_on_sets_it_never_saw_the_shipped_artifact_is_not_below_random_or_the_hull(name: str) -> None:
    made = figures(with_artifact(outcomes(name), artifact.load(artifact.DEFAULT)))
    assert area(made) >= 0.495
    if made["cost"]:
        costs = made["cost"]["routers"]
        assert costs["router"]["aiq"] >= costs["zero-router hull"]["aiq"] - 0.005


def test_sets_of_another_kind_are_abstained_from() -> None:
    crux, gsm = outcomes("crux_zeroeval"), outcomes("gsm8k_zeroeval")
    same = [crux.models.index(name) for name in gsm.models[:2]]
    model = learn(gsm.columns([0, 1]), Options()).model
    assert with_artifact(crux.columns(same), model).opinion.shape == (len(crux), 2)
    assert np.isnan(with_artifact(crux.columns(same), model).opinion).mean() > 0.99


@pytest.mark.slow
def test_mmlu_reaches_its_figure_from_text_alone_and_is_not_below_the_task_table() -> None:
    made = figures(cross_fitted(mmlu()))
    assert area(made) >= 0.69
    assert area(made) >= area(made, "task lookup") - 0.005
    assert made["calibration_error"] <= 0.05


@pytest.mark.slow
def test_a_thousand_labels_recover_four_fifths_of_the_gain_of_all() -> None:
    line = next(line for line in Proof(DATA, None).label_efficiency().splitlines() if line.startswith("| 1,000 "))
    assert int(line.rsplit("|", 2)[1].strip().rstrip("%")) >= 80


@pytest.mark.slow
def test_the_verifier_tells_right_answers_from_wrong_ones() -> None:
    files = ("routellm_gsm8k_mmlu", "mmlu_pro", "gsm8k_zeroeval", "crux_zeroeval")
    prompts = {k: p for name in files for k, p in zip(outcomes(name).ids, outcomes(name).prompts, strict=True)}
    labelled, questions, _ = read_responses(DATA / "responses_cheap_models.parquet", prompts)
    p = learn_verifier(labelled, questions).held_out[:, 0].astype(np.float64)
    good = (labelled.scores[:, 0] >= 0.5).astype(np.float64)
    assert auroc(p, good) >= 0.75
    assert calibration_error(p, good) <= 0.05
