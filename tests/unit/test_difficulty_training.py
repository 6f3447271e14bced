"""Training, its artifact, and outcome files; small and made here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from easy_and_hard import EASY, HARD, made_outcomes
from hypothesis import given as any_of, strategies as st
from pyarrow import parquet

from router_policies.difficulty import artifact
from router_policies.difficulty.answers import learn_verifier, pairs
from router_policies.difficulty.evaluation.curves import auroc, calibration_error
from router_policies.difficulty.learn import Options, fold_of, learn, merged_tasks
from router_policies.difficulty.outcomes import Outcomes, OutcomesError, outcomes, read
from router_policies.difficulty.text import BUCKETS, kept, read as read_prompt
from router_policies.difficulty.train import WorseArtifact, train

OPTIONS = Options(directions_max=40)


def shuffled(given: Outcomes) -> Outcomes:
    """The same prompts with scores that say nothing."""
    scores = np.random.default_rng(5).permutation(given.scores)
    return replace(given, scores=scores, prompts=tuple(f"{prompt} Please." for prompt in given.prompts))


def test_the_same_outcomes_and_seed_give_the_same_bytes() -> None:
    first, second = (artifact.packed(learn(made_outcomes(), OPTIONS).model) for _ in range(2))
    assert first == second


def test_held_out_probabilities_rank_and_are_calibrated() -> None:
    given = made_outcomes(600)
    learned = learn(given, OPTIONS)
    assert auroc(learned.held_out[:, 0].astype(np.float64), given.scores[:, 0]) > 0.95
    assert calibration_error(learned.held_out.ravel().astype(np.float64), given.scores.ravel()) < 0.05


def test_labels_that_say_nothing_teach_nothing() -> None:
    given = shuffled(made_outcomes(600))
    learned = learn(given, OPTIONS)
    assert abs(auroc(learned.held_out[:, 0].astype(np.float64), given.scores[:, 0]) - 0.5) < 0.08


def test_prompts_without_a_score_are_learned_from_but_not_judged() -> None:
    given = made_outcomes()
    scores = given.scores.copy()
    scores[200:] = np.nan
    learned = learn(replace(given, scores=scores), OPTIONS)
    assert np.isnan(learned.held_out[200:]).all()
    assert not np.isnan(learned.held_out[:200]).all(axis=1).any()


def test_a_model_is_not_judged_on_tasks_without_its_labels() -> None:
    given = made_outcomes()
    scores = given.scores.copy()
    scores[[name == "proofs" for name in given.domains], 0] = np.nan
    model = learn(replace(given, scores=scores), OPTIONS).model
    easy, hard = model.probabilities([EASY.format("redfox", "elk"), HARD.format("redfox", "elk")])
    assert not np.isnan(easy[0])
    assert np.isnan(hard[0])
    assert not np.isnan(hard[1])


def test_a_better_artifact_is_not_replaced_unless_forced(tmp_path: Path) -> None:
    train(made_outcomes(), tmp_path, options=OPTIONS)
    before = (tmp_path / artifact.ARRAYS).read_bytes()
    few = replace(made_outcomes(120, seed=9), domains=("all",) * 120)
    blunt = Options(directions_max=40, labels_min=1000)  # nothing but each model's mean
    with pytest.raises(WorseArtifact, match="better artifact"):
        train(few, tmp_path, options=blunt)
    assert (tmp_path / artifact.ARRAYS).read_bytes() == before
    train(few, tmp_path, options=blunt, force=True)
    assert (tmp_path / artifact.ARRAYS).read_bytes() != before


def test_a_worse_artifact_is_replaced(tmp_path: Path) -> None:
    train(made_outcomes(70, seed=9), tmp_path, options=OPTIONS)
    assert train(made_outcomes(), tmp_path, options=OPTIONS)["queries"] == 400


def test_training_again_on_the_same_outcomes_is_no_worse(tmp_path: Path) -> None:
    train(made_outcomes(), tmp_path, options=OPTIONS)
    train(made_outcomes(), tmp_path, options=OPTIONS)


def test_the_card_names_data_figures_limits_and_hash(tmp_path: Path) -> None:
    file = tmp_path / "o.parquet"
    file.write_bytes(b"data")
    card = train(made_outcomes(), tmp_path / "a", files=[file], options=OPTIONS, licence="MIT")
    assert card["data"][0]["file"] == "o.parquet"
    assert len(card["data"][0]["sha256"]) == len(card["sha256"]) == 64
    assert card["licence_of_data"] == "MIT"
    assert card["queries"] == 400
    assert card["labels"] == 800
    assert card["figures"]["apgr"] > 0.7
    assert card["limits"]


def test_too_few_queries_are_refused() -> None:
    with pytest.raises(ValueError, match="too few"):
        learn(made_outcomes(19))


def test_small_tasks_are_merged_into_their_parent_then_into_other() -> None:
    names, task = merged_tasks(("a/x",) * 30 + ("a/y",) * 3 + ("a/z",) * 27 + ("b",) * 2, 25)
    assert set(names) == {"a/x", "a/z", "other"}
    assert [names[i] for i in task[[0, 30, 33, 60]]] == ["a/x", "other", "a/z", "other"]


def test_a_group_is_never_on_both_sides_of_a_split() -> None:
    groups = [f"q{i // 3}" for i in range(300)]
    fold = fold_of(groups, Options())
    assert all(len(set(fold[i : i + 3])) == 1 for i in range(0, 300, 3))
    assert set(fold) == {0, 1, 2, 3, 4}


def test_a_verifier_tells_right_answers_from_wrong_ones() -> None:
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.6
    answers = [f"The answer is {rng.integers(99)}." if ok else "I am not sure, maybe either" for ok in right]
    labelled = pairs(["How many?"] * 300, answers, right.astype(float).tolist(), ["counting"] * 300)
    learned = learn_verifier(labelled, [f"q{i}" for i in range(300)], OPTIONS)
    assert auroc(learned.held_out[:, 0].astype(np.float64), right.astype(np.float64)) > 0.95


def long_rows() -> dict[str, list[object]]:
    return {
        "query_id": ["q1", "q1", "q2", "q2"],
        "prompt": ["one", "one", "two", "two"],
        "model": ["v/A", "b", "a", "b"],
        "score": [1.0, 0.0, None, 0.5],
    }


def test_a_file_needs_four_columns_and_may_have_more(tmp_path: Path) -> None:
    parquet.write_table(pa.table(long_rows()), tmp_path / "o.parquet")
    found = read([tmp_path / "o.parquet"])
    assert found.models == ("a", "b") or found.models == ("v/A", "b")
    assert found.domains == ("all", "all")
    assert found.answers is None
    np.testing.assert_array_equal(found.scores, [[1.0, 0.0], [np.nan, 0.5]])
    assert np.isnan(found.costs).all()


@pytest.mark.parametrize("missing", ["query_id", "prompt", "model", "score"])
def test_a_file_without_a_needed_column_is_refused_by_name(tmp_path: Path, missing: str) -> None:
    rows = {name: values for name, values in long_rows().items() if name != missing}
    parquet.write_table(pa.table(rows), tmp_path / "o.parquet")
    with pytest.raises(OutcomesError, match=f"no column {missing}"):
        read([tmp_path / "o.parquet"])


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "o.parquet").write_text("no")
    with pytest.raises(OutcomesError, match="cannot be read"):
        read([tmp_path / "o.parquet"])


def test_no_rows_are_refused() -> None:
    with pytest.raises(OutcomesError, match="no outcomes"):
        outcomes({name: [] for name in ("query_id", "prompt", "model", "score", "domain", "cost", "answer")})


# readings in place of prompts

SALT = "a-secret-of-the-operator"


def as_readings(given: Outcomes, salt: str = SALT) -> Outcomes:
    return replace(given, prompts=tuple(kept(text, salt) for text in given.texts), salt=salt)


@any_of(text=st.text())
def test_a_text_is_read_as_the_reading_of_it_is(text: str) -> None:
    reading = kept(text, SALT)
    assert read_prompt(text, SALT) == read_prompt(reading) == read_prompt(reading, SALT)
    assert list(reading.words) == sorted(set(reading.words))
    assert all(0 <= number < BUCKETS for number in reading.words)
    assert len(reading) == len(text)


def test_a_reading_has_no_order_and_another_salt_gives_other_numbers() -> None:
    assert kept("red apple, old fox", SALT).words == kept("fox, old apple; red", SALT).words
    words = " ".join(f"word{n}" for n in range(50))
    assert len({kept(words, salt).words for salt in ("a" * 16, "b" * 16, "c" * 16)}) == 3


def test_what_readings_teach_holds_for_texts_and_outlives_the_file(tmp_path: Path) -> None:
    given = made_outcomes(600)
    learned = learn(as_readings(given), OPTIONS)
    assert auroc(learned.held_out[:, 0].astype(np.float64), given.scores[:, 0]) > 0.95
    artifact.save(learned.model, {}, tmp_path)
    loaded = artifact.load(tmp_path)
    texts = [EASY.format("redfox", "oldcat"), HARD.format("newowl", "bigelk")]
    thought = loaded.probabilities(texts)
    assert np.allclose(thought, loaded.probabilities([kept(text, SALT) for text in texts]))
    assert thought[0, 0] > 0.8 > 0.3 > thought[1, 0]
    assert not loaded.opinion(texts[0], None).why


def test_a_better_artifact_of_readings_is_not_replaced_by_a_worse_one(tmp_path: Path) -> None:
    train(as_readings(made_outcomes()), tmp_path, options=OPTIONS)
    kept_bytes = (tmp_path / artifact.ARRAYS).read_bytes()
    few = as_readings(replace(made_outcomes(120, seed=9), domains=("all",) * 120))
    with pytest.raises(WorseArtifact):
        train(few, tmp_path, options=Options(directions_max=40, labels_min=1000))
    assert (tmp_path / artifact.ARRAYS).read_bytes() == kept_bytes
