"""One file of outcomes to every figure.  Deterministic: resampling is seeded.

A router is believed only where it has shown that it can rank: what it thinks of one half of the queries is used if on
the labels of the other half it beat chance, and is otherwise an abstention.  That is the test anyone can make before
switching a router on, with labels of their own; what it thinks untested stands beside it as `router, unchecked`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_policies.difficulty.evaluation import agreement
from router_policies.difficulty.evaluation.curves import Floats, apgr, auroc, calibration_error, cpt, gain_curve, hull
from router_policies.difficulty.evaluation.routes import (
    Choices,
    Field,
    areas,
    beats_the_hull,
    filled,
    on_the_other_half,
    points,
    singles,
    sweep,
)
from router_policies.difficulty.learn import (
    QUERIES_MIN as LEARNED_MIN,
    Options,
    Progress,
    fold_of,
    learn,
    merged_tasks,
    nothing,
)
from router_policies.difficulty.model import Array, Model, fingerprint
from router_policies.difficulty.outcomes import Outcomes, OutcomesError
from router_policies.difficulty.text import plain_name

RESAMPLES = 200
RECOVERED = (0.5, 0.8, 0.95)
KEPT = (0.95, 0.99, 1.0)
BY_CHANCE = 0.05
"""A router has shown that it ranks if at most this share of the resamples of its labels is no better than chance."""
COSTS_MIN = 0.5
"""A model with costs on this share of its answers is priced; its other answers count as its mean."""
COVERAGE_MIN = 0.8
"""A model joins, from the one with the most answers on, if this share of the queries so far has its answer too."""
QUERIES_MIN = 20
FRESH_MIN = 200
"""With fewer queries that the artifact was not trained on, all are used and the figures are marked `in_sample`."""
TABLE_PRIOR = 20.0
CHANCE = 0.5
TIED = 1e-6
FOLDS = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """Outcomes without gaps, and what a router thinks of each query (nan: it abstains)."""

    outcomes: Outcomes
    opinion: Floats
    tables: Mapping[str, Floats]  # other estimates of quality, queries x models
    in_sample: bool = False
    left_out: int = 0  # queries the artifact was trained on
    verified: Floats | None = None  # P(right) of each answer by a verifier that has not seen its question


def complete(outcomes: Outcomes) -> Outcomes:
    """Without the models and the queries that have gaps.  Raises OutcomesError if fewer than 20 queries are left.

    The model with the most answers joins first, then one that shares enough queries with it to compare the two.
    """
    answered = ~np.isnan(outcomes.scores)
    models: list[int] = []
    rows = np.ones(len(outcomes), dtype=bool)
    for model in np.argsort(-answered.sum(axis=0), kind="stable").tolist():
        both = rows & answered[:, model]
        if both.sum() >= (COVERAGE_MIN * rows.sum() if len(models) > 1 else QUERIES_MIN):
            models.append(model)
            rows = both
    if not models:
        most = int(answered.sum(axis=0).max(initial=0))
        raise OutcomesError(
            f"evaluation needs {QUERIES_MIN} queries with a score of one model; the most there are: {most}"
        )
    kept = outcomes.columns(sorted(models)).rows(np.flatnonzero(rows))
    return replace(kept, costs=_priced(kept.costs))


def _priced(costs: Floats) -> Floats:
    """Costs, with a model's mean where a few are not known."""
    known = ~np.isnan(costs)
    mean = np.where(known, costs, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return np.where(~known & (known.mean(axis=0) >= COSTS_MIN), mean, costs)


def with_artifact(outcomes: Outcomes, model: Model, embed: Callable[[tuple[str, ...]], Array] | None = None) -> Judged:
    """What a trained model thinks of the queries it was not trained on."""
    whole = complete(outcomes)
    seen = frozenset(model.trained_on.tolist())
    fresh = np.array([i for i, prompt in enumerate(whole.prompts) if fingerprint(prompt) not in seen], np.intp)
    in_sample = len(fresh) < min(FRESH_MIN, len(whole))
    kept = whole if in_sample else whole.rows(fresh)
    thought = model.probabilities(kept.prompts, embed(kept.texts) if embed else None)
    table = np.array(
        [model.table[model.tasks.index(d)] if d in model.tasks else model.quality * np.nan for d in kept.domains]
    )
    place = [model.place.get(plain_name(name)) for name in kept.models]
    opinion, known = (
        np.column_stack([source[:, at] if at is not None else np.full(len(kept), np.nan) for at in place])
        for source in (thought, table)
    )
    tables = {"task lookup": task_lookup(kept)}
    if not np.isnan(known).all():
        tables["artifact's task table"] = known.astype(np.float64)
    return Judged(kept, opinion.astype(np.float64), tables, in_sample, len(whole) - len(kept))


def cross_fitted(
    outcomes: Outcomes,
    options: Options | None = None,
    embeddings: Array | None = None,
    progress: Progress = nothing,
) -> Judged:
    """Five models, each trained on four fifths of these outcomes, each judging the fifth it has not seen.

    Where four fifths are too few to learn from there is no opinion.
    """
    options = options or Options()
    kept = complete(outcomes)
    if embeddings is not None:
        where = {name: i for i, name in enumerate(outcomes.ids)}
        embeddings = embeddings[[where[name] for name in kept.ids]]
    fold = fold_of(kept.prompts, replace(options, seed=options.seed + 1))
    opinion = np.full(kept.scores.shape, np.nan)
    for each in range(options.folds):
        seen, unseen = np.flatnonzero(fold != each), np.flatnonzero(fold == each)
        progress("learning from all parts but one", each, options.folds)
        if len({kept.prompts[i] for i in seen}) < LEARNED_MIN:
            continue
        model = learn(kept.rows(seen), options, embeddings=None if embeddings is None else embeddings[seen]).model
        prompts = kept.rows(unseen).prompts
        opinion[unseen] = model.probabilities(prompts, None if embeddings is None else embeddings[unseen])
    return Judged(kept, opinion, {"task lookup": task_lookup(kept)})


def task_lookup(outcomes: Outcomes) -> Floats:
    """Mean score of each model on the query's own task (its true label), without the query's own tenth."""
    fold = np.random.default_rng(0).permutation(len(outcomes)) % FOLDS
    names, task = merged_tasks(outcomes.domains, 1)
    if len(names) == 1:
        return np.tile(outcomes.scores.mean(axis=0), (len(outcomes), 1))
    out = np.empty_like(outcomes.scores)
    for each in range(FOLDS):
        out[fold == each] = task_means(outcomes.scores, task, fold != each)[task[fold == each]]
    return out


def task_means(scores: Floats, task: NDArray[np.intp], rows: NDArray[np.bool_]) -> Floats:
    """Tasks x models, drawn toward the mean of all tasks."""
    member = (task[rows, None] == np.arange(task.max() + 1)).astype(np.float64)
    mean = scores[rows].mean(axis=0)
    total: Floats = (member.T @ scores[rows] + TABLE_PRIOR * mean) / (member.sum(axis=0)[:, None] + TABLE_PRIOR)
    return total


def figures(judged: Judged, weak: str | None = None, strong: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Every figure of a file, ready for JSON."""
    rng = np.random.default_rng(seed)
    outcomes = judged.outcomes
    order = rng.permutation(len(outcomes))
    halves = (np.sort(order[: len(order) // 2]), np.sort(order[len(order) // 2 :]))
    quality = outcomes.scores.mean(axis=0)
    good = (outcomes.scores >= 0.5).astype(np.float64)
    unknown = np.isnan(judged.opinion)
    weaker, best = _pair(judged, weak, strong)
    return {
        "queries": len(outcomes),
        "models": {name: _model(outcomes, judged, i) for i, name in enumerate(outcomes.models)},
        "left_out_as_trained_on": judged.left_out,
        "in_sample": judged.in_sample,
        "abstained": float(unknown.mean()),
        "abstained_wholly": float(unknown.all(axis=1).mean()),
        "calibration_error": calibration_error(judged.opinion.ravel(), good.ravel()),
        "best_single": outcomes.models[int(quality.argmax())],
        "pair": pair(judged, weaker, best, halves, rng),
        "cost": costs(judged, halves, rng),
        "agreement": agreement.figures(outcomes, judged.opinion, rng, judged.verified),
    }


def _model(outcomes: Outcomes, judged: Judged, i: int) -> dict[str, float]:
    good = (outcomes.scores[:, i] >= 0.5).astype(np.float64)
    return {
        "quality": float(outcomes.scores[:, i].mean()),
        "cost_usd": float(outcomes.costs[:, i].mean()),
        "auroc": auroc(judged.opinion[:, i], good),
        "calibration_error": calibration_error(judged.opinion[:, i], good),
        "abstained": float(np.isnan(judged.opinion[:, i]).mean()),
    }


def _pair(judged: Judged, weak: str | None, strong: str | None) -> tuple[int, int]:
    """The named models, else the best one and the cheapest one (without costs, the worst)."""
    outcomes = judged.outcomes
    for name in (weak, strong):
        if name is not None and name not in outcomes.models:
            raise OutcomesError(f"there is no model {name!r} in it; there are {', '.join(outcomes.models)}")
    quality = outcomes.scores.mean(axis=0)
    cost = outcomes.costs.mean(axis=0)
    best = int(quality.argmax()) if strong is None else outcomes.models.index(strong)
    if weak is not None:
        return outcomes.models.index(weak), best
    others = [i for i in range(len(quality)) if i != best and quality[i] < quality[best]] or [int(quality.argmin())]
    priced = [i for i in others if not np.isnan(cost[i])]
    return min(priced, key=lambda i: cost[i]) if priced else min(others, key=lambda i: quality[i]), best


Halves = tuple[NDArray[np.intp], NDArray[np.intp]]


def pair(judged: Judged, weak: int, strong: int, halves: Halves, rng: np.random.Generator) -> dict[str, Any]:
    """Weak against strong: the area under the gain curve and what share of queries a recovery takes."""
    outcomes = judged.outcomes
    gain = outcomes.scores[:, strong] - outcomes.scores[:, weak]
    unchecked = judged.opinion[:, strong] - judged.opinion[:, weak]
    routers = {"router": checked(unchecked, gain, halves, rng), "router, unchecked": unchecked}
    routers |= {name: table[:, strong] - table[:, weak] for name, table in judged.tables.items()}
    routers["prompt length"] = np.array([len(prompt) for prompt in outcomes.prompts], dtype=np.float64)
    routers["oracle"] = gain
    resampled = rng.integers(0, len(gain), (RESAMPLES, len(gain)))
    rows = {name: _gains(score, gain, resampled) for name, score in routers.items()}
    rows["random"] = _gains(np.zeros(len(gain)), gain, resampled)
    rows["zero-router hull"] = rows["random"]  # of two models it is nothing else
    rows["shuffled"] = _shuffled(unchecked, gain, rng)
    return {
        "weak": outcomes.models[weak],
        "strong": outcomes.models[strong],
        "weak_quality": float(outcomes.scores[:, weak].mean()),
        "strong_quality": float(outcomes.scores[:, strong].mean()),
        "believed": float((~np.isnan(routers["router"])).mean()),
        "routers": rows,
        "curves": {name: gain_curve(score, gain)[::4].tolist() for name, score in routers.items()},
    }


def checked(score: Floats, gain: Floats, halves: Halves, rng: np.random.Generator) -> Floats:
    """The scores of each half if on the other half they have shown to rank better than chance; else nan."""
    out = np.full(len(score), np.nan)
    for tuned, held in (halves, halves[::-1]):
        if ranks(score[tuned], gain[tuned], rng):
            out[held] = score[held]
    return out


def ranks(score: Floats, gain: Floats, rng: np.random.Generator) -> bool:
    """Whether these scores find the gain better than chance does, and not by chance."""
    if np.isnan(score).all() or gain.sum() <= 0:
        return False
    rows = rng.integers(0, len(gain), (RESAMPLES, len(gain)))
    resampled = np.array([apgr(score[each], gain[each]) for each in rows])
    return float(np.mean(~(resampled > CHANCE + TIED))) <= BY_CHANCE


def _gains(score: Floats, gain: Floats, resampled: NDArray[np.int64]) -> dict[str, Any]:
    areas = [apgr(score[rows], gain[rows]) for rows in resampled]
    return {
        "apgr": interval(apgr(score, gain), areas),
        "cpt": {f"{recovered:.0%}": cpt(score, gain, recovered) for recovered in RECOVERED},
    }


def _shuffled(score: Floats, gain: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """The router's scores given to other queries: what the same numbers are worth without knowing the query."""
    scores = [rng.permutation(score) for _ in range(RESAMPLES)]
    areas = [apgr(each, gain) for each in scores]
    return {
        "apgr": interval(float(np.mean(areas)), areas),
        "cpt": {f"{recovered:.0%}": cpt(scores[0], gain, recovered) for recovered in RECOVERED},
    }


def interval(value: float, resampled: list[float]) -> dict[str, float]:
    """A figure with the middle 95 % of its resamples."""
    low, high = np.nanquantile(resampled, [0.025, 0.975]) if np.isfinite(resampled).any() else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}


def costs(judged: Judged, halves: Halves, rng: np.random.Generator) -> dict[str, Any] | None:
    """All models that have costs: AIQ, and what keeping 95, 99, 100 % of the best single model's quality costs."""
    priced = np.flatnonzero(~np.isnan(judged.outcomes.costs).any(axis=0)).tolist()
    if not priced:
        return None
    outcomes = judged.outcomes.columns(priced)
    field = Field(outcomes.scores, outcomes.costs, halves)
    tables = {name: table[:, priced] for name, table in judged.tables.items()}
    narrowed = replace(judged, outcomes=outcomes, opinion=judged.opinion[:, priced], tables=tables)
    routers = _routers(narrowed, field, rng)
    resampled = rng.integers(0, len(outcomes), (RESAMPLES, len(outcomes)))
    return {
        "routers": {name: _costs(field, choices, resampled, rng) for name, choices in routers.items()},
        "curves": {name: _curve(field, choices[0]) for name, choices in routers.items()},
    }


def _routers(judged: Judged, field: Field, rng: np.random.Generator) -> dict[str, tuple[Choices, Choices]]:
    """What each router chooses, knowing the first half or the second; any of them may also use one model alone."""
    shuffled = judged.opinion[rng.permutation(len(judged.opinion))]
    _, task = merged_tasks(judged.outcomes.domains, 1)
    each: dict[str, list[Choices]] = {}
    for half in field.halves:
        cost, quality = field.means(half)
        inside = np.isin(np.arange(len(task)), half)
        alone = singles(len(task), len(cost))
        own = np.concatenate([sweep(filled(judged.opinion, quality), cost), alone])
        made = {
            "router": own if beats_the_hull(field, own, alone, half, rng) else alone,
            "router, unchecked": own,
            "zero-router hull": alone,
            "random": alone[[int(cost.argmin()), int(quality.argmax())]],
            "shuffled": np.concatenate([sweep(filled(shuffled, quality), cost), alone]),
            "task lookup": np.concatenate([sweep(task_means(field.score, task, inside)[task], cost), alone]),
            "oracle": sweep(field.score, cost),
        }
        for name, choices in made.items():
            each.setdefault(name, []).append(choices)
    return {name: (first, second) for name, (first, second) in each.items()}


def _costs(
    field: Field, choices: tuple[Choices, Choices], resampled: NDArray[np.int64], rng: np.random.Generator
) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for share in KEPT:
        outcome = on_the_other_half(field, choices, share)
        each = [outcome.shares(rows) for rows in resampled]
        quality, cost = outcome.shares()
        kept[f"{share:.0%}"] = {
            "quality_share": interval(quality, [q for q, _ in each]),
            "cost_share": interval(cost, [c for _, c in each]),
        }
    value, each_area = areas(field, choices, RESAMPLES, rng)
    found = interval(value, each_area)
    return {"aiq": value, "aiq_low": found["low"], "aiq_high": found["high"], "kept": kept}


def _curve(field: Field, choices: Choices) -> dict[str, list[float]]:
    """The hull of a router tuned on the first half, on the second: dollars a query, and quality."""
    x, y = hull(*points(field, choices, field.halves[1]))
    return {"cost_usd": x.tolist(), "quality": y.tolist()}
