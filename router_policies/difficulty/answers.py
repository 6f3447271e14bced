"""Recorded answers to a verifier (see verifier.py), its bound calibrated on answers it had not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from router_policies.difficulty import artifact
from router_policies.difficulty.evaluation.curves import Floats, auroc, calibration_error
from router_policies.difficulty.learn import Learned, Options, Progress, learn, nothing
from router_policies.difficulty.outcomes import Outcomes, OutcomesError
from router_policies.difficulty.train import card
from router_policies.difficulty.verifier import ANSWER, pair_text

BOUNDS = np.round(np.arange(0.5, 0.991, 0.01), 2)
NEVER = 1.0
ACCEPTED_MIN = 30
"""A bound is judged by this many answers at least: of three, all may be right by chance."""


def pairs(prompts: Sequence[str], answers: Sequence[str], scores: Sequence[float], tasks: Sequence[str]) -> Outcomes:
    """Prompts with one answer each, as outcomes of one model: the answer."""
    column = np.array(scores, dtype=np.float64)[:, None]
    return Outcomes(
        ids=tuple(str(i) for i in range(len(prompts))),
        prompts=tuple(pair_text(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)),
        domains=tuple(tasks),
        models=(ANSWER,),
        scores=column,
        costs=np.full(column.shape, np.nan),
    )


def answered(outcomes: Outcomes) -> tuple[Outcomes, list[str]]:
    """Every answer here that has a score, as pairs, and its question.  Raises OutcomesError without any."""
    if outcomes.answers is None:
        raise OutcomesError("there is no `answer` in it: a verifier is learned from answers and their scores")
    found = [
        (prompt, str(answer), score, task, str(key))
        for prompt, answers, scores, task, key in zip(
            outcomes.texts, outcomes.answers, outcomes.scores, outcomes.domains, outcomes.ids, strict=True
        )
        for answer, score in zip(answers, scores, strict=True)
        if answer is not None and not np.isnan(score)
    ]
    if not found:
        raise OutcomesError("no answer in it has a score")
    prompts, answers, scores, tasks, questions = map(list, zip(*found, strict=True))
    return pairs(prompts, answers, scores, tasks), questions


def learn_verifier(
    labelled: Outcomes, questions: Sequence[str], options: Options | None = None, progress: Progress = nothing
) -> Learned:
    """A verifier; answers to one question are never on both sides of a split."""
    return learn(labelled, options, progress, groups=questions)


def train_verifier(
    outcomes: Outcomes,
    out: Path,
    *,
    accuracy: float,
    files: Sequence[Path] = (),
    options: Options | None = None,
    licence: str = "not stated",
    progress: Progress = nothing,
) -> dict[str, Any]:
    """A verifier of these answers in `out`; returns its card.  Raises ValueError where there is too little to learn."""
    options = options or Options()
    labelled, questions = answered(outcomes)
    learned = learn_verifier(labelled, questions, options, progress)
    p = learned.held_out[:, 0].astype(np.float64)
    right = (labelled.scores[:, 0] >= options.good_at).astype(np.float64)
    made = card(learned, labelled, files, options, licence) | {
        "what": "P(right) of an answer, from the end of its prompt and the answer",
        "verifier": calibrated(p, right, questions, accuracy)
        | {"auroc": _known(auroc(p, right)), "calibration_error": _known(calibration_error(p, right))},
    }
    artifact.save(learned.model, made, out)
    return artifact.card(out)


def calibrated(p: Floats, right: Floats, questions: Sequence[str], accuracy: float) -> dict[str, Any]:
    """The bound from which answers are right this often, and how often they were with a bound from other questions.

    `p` is what was thought of answers that were not learned from.  `tested`: the bound of one half of the questions on
    the other half, both ways.
    """
    _, question = np.unique(np.array(questions, dtype=object).astype(str), return_inverse=True)
    half = (np.random.default_rng(0).permutation(int(question.max()) + 1) % 2)[question]
    taken = np.zeros(len(p), dtype=bool)
    for tuned in (0, 1):
        taken |= (half != tuned) & (p >= bound(p[half == tuned], right[half == tuned], accuracy))
    return {
        "bound": bound(p, right, accuracy),
        "accuracy_wanted": accuracy,
        "tested": {
            "accuracy": _known(float(right[taken].mean()) if taken.any() else float("nan")),
            "accepted": round(float(taken.mean()), 4),
        },
    }


def bound(p: Floats, right: Floats, accuracy: float) -> float:
    """The least P from which answers are right this often; 1, which none reaches, where there is no such P."""
    for least in BOUNDS:
        taken = p >= least
        if taken.sum() >= ACCEPTED_MIN and right[taken].mean() >= accuracy:
            return float(least)
    return NEVER


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)


def read_responses(file: Path, prompts: dict[str, str]) -> tuple[Outcomes, list[str], list[str]]:
    """Recorded answers (`dataset, query_id, model, response, score`) whose prompt is known: pairs, questions,
    models."""
    from pyarrow import parquet  # noqa: PLC0415 - only training and evaluation need it

    rows = parquet.read_table(file, columns=["dataset", "query_id", "model", "response", "score"]).to_pylist()
    kept = [row for row in rows if row["response"] is not None and row["query_id"] in prompts]
    made = pairs(
        [prompts[row["query_id"]] for row in kept],
        [row["response"] for row in kept],
        [row["score"] for row in kept],
        [row["dataset"] for row in kept],
    )
    return made, [row["query_id"] for row in kept], [row["model"] for row in kept]
