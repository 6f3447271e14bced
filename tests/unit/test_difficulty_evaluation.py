"""Curves against values worked out by hand, and what a whole evaluation promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from easy_and_hard import made_outcomes
from pyarrow import parquet
from typer.testing import CliRunner

from gateway.cli import app
from router_policies.difficulty.evaluation import agreement, report
from router_policies.difficulty.evaluation.curves import (
    aiq,
    apgr,
    auroc,
    calibration_error,
    cost_of,
    cpt,
    gain_curve,
    hull,
)
from router_policies.difficulty.evaluation.judge import complete, cross_fitted, figures, with_artifact
from router_policies.difficulty.evaluation.routes import Field, mixture, on_the_other_half, singles
from router_policies.difficulty.learn import Options, learn
from router_policies.difficulty.outcomes import Outcomes, OutcomesError

OPTIONS = Options(directions_max=40)
GAIN = np.array([1.0, 0.0, 1.0, 0.0])


def test_a_constant_score_is_exactly_random_mixing() -> None:
    assert apgr(np.zeros(4), GAIN) == pytest.approx(0.5)
    assert cpt(np.zeros(4), GAIN, 0.8) == pytest.approx(0.8)


def test_a_router_that_abstains_from_everything_is_exactly_random_mixing() -> None:
    assert apgr(np.full(4, np.nan), GAIN) == pytest.approx(0.5)


def test_perfect_order_recovers_all_with_the_share_that_gains() -> None:
    assert apgr(GAIN, GAIN) == pytest.approx(0.75)
    assert cpt(GAIN, GAIN, 1.0) == pytest.approx(0.5)
    assert apgr(-GAIN, GAIN) == pytest.approx(0.25)


def test_abstaining_from_half_is_worth_half_of_what_knowing_is() -> None:
    score = np.array([1.0, 0.0, np.nan, np.nan])
    assert apgr(score, GAIN) == pytest.approx((0.75 + 0.5) / 2)


def test_no_gap_to_recover_is_no_figure() -> None:
    assert np.isnan(gain_curve(GAIN, np.zeros(4))).all()


def test_the_hull_leaves_out_what_mixing_beats() -> None:
    x, y = hull(np.array([1.0, 2.0, 3.0, 2.5]), np.array([0.2, 0.3, 0.8, 0.1]))
    assert x.tolist() == [1.0, 3.0]
    assert y.tolist() == [0.2, 0.8]
    assert cost_of(x, y, 0.5) == pytest.approx(2.0)
    assert np.isnan(cost_of(x, y, 0.9))
    assert aiq(x, y, 1.0, 3.0) == pytest.approx(0.5)


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([0.1, 0.9, 0.5, 0.5]), np.array([0.0, 1.0, 0.0, 1.0])) == pytest.approx(0.875)
    assert np.isnan(auroc(np.array([0.1]), np.array([1.0])))


def test_calibration_error_is_the_gap_weighted_by_bin() -> None:
    assert calibration_error(np.array([0.25, 0.25, 0.95, np.nan]), np.array([0.0, 1.0, 1.0, 0.0])) == pytest.approx(
        (0.25 * 2 + 0.05) / 3
    )


def test_a_mixture_reaches_just_the_quality_wanted() -> None:
    mix = mixture(np.array([1.0, 3.0]), np.array([0.2, 0.8]), 0.5)
    assert mix == [(0, pytest.approx(0.5)), (1, pytest.approx(0.5))]
    assert mixture(np.array([1.0, 3.0]), np.array([0.2, 0.8]), 0.1) == [(0, 1.0)]
    assert mixture(np.array([1.0, 3.0]), np.array([0.2, 0.8]), 0.9) == [(1, 1.0)]


def test_the_threshold_of_one_half_is_tested_on_the_other() -> None:
    score = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    cost = np.tile([1.0, 10.0], (4, 1))
    field = Field(score, cost, (np.array([0, 1]), np.array([2, 3])))
    alone = singles(4, 2)
    quality, spent = on_the_other_half(field, (alone, alone), 1.0).shares()
    # Tuned where only the dear model is right: it answers rows 2, 3.  Tuned where both are: the cheap one answers 0, 1.
    assert quality == pytest.approx(2 / 2)
    assert spent == pytest.approx(22 / 22)


def evaluated() -> dict[str, object]:
    return figures(cross_fitted(made_outcomes(), OPTIONS))


def test_every_figure_stands_beside_what_no_router_is_worth() -> None:
    made = evaluated()
    routers = made["pair"]["routers"]
    assert {"router", "random", "shuffled", "task lookup", "prompt length", "oracle"} <= set(routers)
    costs = made["cost"]["routers"]
    assert {"router", "zero-router hull", "random", "shuffled", "task lookup", "oracle"} <= set(costs)
    for each in routers.values():
        assert each["apgr"]["low"] <= each["apgr"]["value"] <= each["apgr"]["high"]
        assert set(each["cpt"]) == {"50%", "80%", "95%"}
    for each in costs.values():
        assert set(each["kept"]) == {"95%", "99%", "100%"}
    assert routers["random"]["apgr"]["value"] == pytest.approx(0.5)
    assert abs(routers["shuffled"]["apgr"]["value"] - 0.5) < 0.05
    assert routers["shuffled"]["apgr"]["high"] < routers["router"]["apgr"]["low"] <= routers["oracle"]["apgr"]["high"]
    assert costs["router"]["aiq"] > costs["zero-router hull"]["aiq"]
    assert made["calibration_error"] < 0.05


def test_figures_are_the_same_every_time() -> None:
    assert json.dumps(evaluated()) == json.dumps(evaluated())


def test_queries_an_artifact_was_trained_on_are_left_out() -> None:
    given = made_outcomes(800)
    model = learn(given.rows(np.arange(400)), OPTIONS).model
    fresh = set(given.prompts) - set(given.prompts[:400])
    judged = with_artifact(given, model)
    assert set(judged.outcomes.prompts) == fresh or judged.in_sample
    assert with_artifact(given.rows(np.arange(400)), model).in_sample


def test_a_file_of_other_models_and_other_work_is_abstained_from_and_worth_random() -> None:
    given = made_outcomes()
    model = learn(given, OPTIONS).model
    strange = replace(given, models=("x", "y"), prompts=tuple(f"{p} fresh{i}" for i, p in enumerate(given.prompts)))
    made = figures(with_artifact(strange, model))
    assert made["abstained"] == 1.0
    assert made["pair"]["routers"]["router"]["apgr"]["value"] == pytest.approx(0.5)
    costs = made["cost"]["routers"]
    assert costs["router"]["aiq"] == pytest.approx(costs["zero-router hull"]["aiq"], abs=1e-6)


def answered(count: int = 200) -> Outcomes:
    """Two cheap models that agree only when right, and a strong one that is always right."""
    rng = np.random.default_rng(2)
    known = rng.random(count) < 0.8
    truth = [str(n) for n in rng.integers(0, 1000, count)]
    answers = np.array(
        [[t, f"{t}.0", t] if ok else [f"{t}1", f"{t}2", t] for t, ok in zip(truth, known, strict=True)], dtype=object
    )
    base = made_outcomes(count)
    return replace(
        base,
        models=("a", "b", "strong"),
        scores=np.column_stack([known, known, np.ones(count)]).astype(np.float64),
        costs=np.tile([0.001, 0.001, 0.1], (count, 1)),
        answers=answers,
    )


def test_agreement_keeps_the_quality_of_the_strong_model_for_a_part_of_its_cost() -> None:
    given = answered()
    opinion = np.full(given.scores.shape, np.nan)
    found = agreement.figures(given, opinion, np.random.default_rng(0))
    assert found is not None
    plain = found["plain"]
    assert plain["quality_share"]["value"] == 1.0
    assert plain["cost_share"]["value"] == pytest.approx(0.02 + 1 - plain["ended_cheap"])


@pytest.mark.parametrize(
    ("left", "right"), [("180", "180.0"), ("1,000", "1000"), ("$5", "5"), (" 'no' ", "No."), ("[1, 2]", "[1,2]")]
)
def test_answers_that_mean_the_same_are_equal(left: str, right: str) -> None:
    assert agreement.canonical(left) == agreement.canonical(right)


def test_no_answer_agrees_with_nothing() -> None:
    assert agreement.canonical(None) is None
    assert agreement.canonical("  ") is None


def test_too_little_to_evaluate_is_refused() -> None:
    with pytest.raises(OutcomesError, match="20 queries"):
        cross_fitted(made_outcomes(15))


def test_a_model_with_many_gaps_is_left_out_then_queries_with_gaps() -> None:
    given = made_outcomes(100)
    third = np.where(np.arange(100) < 50, 1.0, np.nan)
    scores = np.column_stack([given.scores, third])
    scores[:10, 0] = np.nan
    gaps = replace(given, models=("a", "b", "c"), scores=scores, costs=np.ones((100, 3)))
    kept = complete(gaps)
    assert kept.models == ("a", "b")
    assert len(kept) == 90


def test_two_models_that_share_few_queries_are_compared_on_those() -> None:
    given = made_outcomes(100)
    scores = given.scores.copy()
    scores[30:, 1] = np.nan
    assert len(complete(replace(given, scores=scores))) == 30


def test_the_page_needs_nothing_else_and_the_picture_is_a_png(tmp_path: Path) -> None:
    made = evaluated()
    png, html = report.write("small <set>".replace("<", "").replace(">", ""), made, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    page = html.read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert "zero-router hull" in page
    assert "<script>" not in report.page("<script>", made, b"")


def written(given: Outcomes, file: Path) -> Path:
    rows = [
        {"query_id": given.ids[i], "prompt": given.prompts[i], "domain": given.domains[i], "model": model}
        | {"score": given.scores[i, j], "cost": given.costs[i, j]}
        for i in range(len(given))
        for j, model in enumerate(given.models)
    ]
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


def test_train_then_evaluate_on_the_command_line(tmp_path: Path) -> None:
    given = made_outcomes(900)
    learned = written(given.rows(np.arange(450)), tmp_path / "learn.parquet")
    judged = written(given.rows(np.arange(450, 900)), tmp_path / "judge.parquet")
    run = CliRunner().invoke
    trained = run(app, ["train", "--outcomes", str(learned), "--out", str(tmp_path / "a"), "--json"])
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["queries"] == 450
    told = run(app, ["evaluate", "--outcomes", str(judged), "--artifact", str(tmp_path / "a"), "--json"])
    assert told.exit_code == 0, told.output
    made = json.loads(told.stdout)
    assert made["pair"]["routers"]["router"]["apgr"]["value"] > 0.65
    table = run(
        app,
        ["evaluate", "--outcomes", str(judged), "--artifact", str(tmp_path / "a"), "--out", str(tmp_path / "page")],
    )
    assert table.exit_code == 0, table.output
    assert "zero-router hull" in table.stdout
    assert (tmp_path / "page" / "judge.png").exists()
    assert (tmp_path / "page" / "judge.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["evaluate", "--outcomes", "nowhere.parquet"], "cannot be read"),
        (["train", "--outcomes", "nowhere.parquet", "--out", "x"], "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_status_1(arguments: list[str], said: str) -> None:
    told = CliRunner().invoke(app, arguments)
    assert told.exit_code == 1
    assert said in told.output
