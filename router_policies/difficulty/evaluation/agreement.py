"""Cascades: a cheap model answers; where a verifier is not sure of it and another does not agree, the strong one does.

Agreement alone needs no training.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_policies.difficulty.evaluation.curves import ratio
from router_policies.difficulty.outcomes import Outcomes

QUALITY_KEPT = 0.99
"""A cascade must keep this share of the best single model's quality on the half it is chosen on."""
COST_WEIGHT = 0.05
"""From there to the best model's own quality a point of it is worth twenty points of cost: of hundreds of pairs, the
cheapest that just keeps the quality is one that chance flattered."""
SPLITS = 4
RESAMPLES = 200
ANSWERED_MIN = 0.5
CHEAP = 0.25
"""A model is cheap if it costs at most this share of the strong one: a cascade pays from a ratio of about ten."""
CHEAP_MAX = 16
"""Of the cheap models the best so many are paired: pairs are many."""
NO_GAIN = -1.0
GAINS = (NO_GAIN, -0.05, 0.0, 0.03, 0.06, 0.1, 0.15)
NEVER_SURE = 2.0
SURE = (NEVER_SURE, 0.98, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
"""P(right) from which a verifier ends it with the first answer."""

Floats = NDArray[np.float64]


def canonical(answer: object) -> str | None:
    """An answer as it is compared: numbers by value, text without case, quotes, spaces and final dots; None: none."""
    if answer is None:
        return None
    text = str(answer).strip().strip("'\"`$ ").rstrip(".").lower()
    try:
        return repr(float(text.replace(",", "")))
    except ValueError:
        return "".join(text.split()).replace('"', "'") or None


def figures(
    outcomes: Outcomes, opinion: Floats, rng: np.random.Generator, verified: Floats | None = None
) -> dict[str, Any] | None:
    """A cascade chosen on one half of the queries and tested on the other, both ways, in several splits.

    `plain` ends where two answers agree; `with the router` also where the strong model is not expected to do better;
    `with a verifier` first of all where `verified`, P(right) of each answer, is above a bound, before the second model
    is asked; and `verifier alone` asks no second model.  None without answers.
    """
    if outcomes.answers is None:
        return None
    codes = _codes(outcomes.answers)
    usable = np.flatnonzero(((codes >= 0).mean(axis=0) > ANSWERED_MIN) & ~np.isnan(outcomes.costs).any(axis=0))
    if len(usable) < 3:
        return None
    names = tuple(outcomes.models[i] for i in usable)
    sure = np.full(opinion.shape, np.nan) if verified is None else verified
    field = _Field(outcomes.scores, outcomes.costs, codes, opinion, sure).columns(usable)
    splits = [rng.permutation(len(outcomes)) for _ in range(SPLITS)]
    resampled = rng.integers(0, len(outcomes), (RESAMPLES, len(outcomes)))
    made = {
        "plain": _over_splits(field, names, splits, Tried(), resampled),
        "with the router": _over_splits(field, names, splits, Tried(gains=GAINS), resampled),
    }
    if verified is not None:
        both, alone = Tried(sure=SURE), Tried(sure=SURE, agreeing=False)
        made |= {
            "with a verifier": _over_splits(field, names, splits, both, resampled),
            "verifier alone": _over_splits(field, names, splits, alone, resampled),
        }
    return made


@dataclass(frozen=True, slots=True)
class Tried:
    """What is tried on the half a cascade is chosen on."""

    gains: tuple[float, ...] = (NO_GAIN,)
    sure: tuple[float, ...] = (NEVER_SURE,)
    agreeing: bool = True


def _over_splits(
    field: _Field,
    names: tuple[str, ...],
    splits: list[NDArray[np.int64]],
    wanted: Tried,
    resampled: NDArray[np.int64],
) -> dict[str, Any] | None:
    """Each query's mean over the splits, in each of which it is tested once."""
    totals = np.zeros((5, len(field.scores)))
    chosen: Counter[tuple[str, ...]] = Counter()
    for order in splits:
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for tuned, test in (halves, halves[::-1]):
            cascade = _best(field.rows(tuned), wanted)
            if cascade is None:
                return None
            held = field.rows(test)
            given, spent, ended = held.run(cascade)
            totals[:, test] += given, spent, held.scores[:, cascade.strong], held.costs[:, cascade.strong], ended
            chosen[names[cascade.first], names[cascade.second], names[cascade.strong]] += 1
    quality, cost, best, best_cost, ended = totals / len(splits)
    often = chosen.most_common(1)[0][0]
    return {
        "chosen": dict(zip(("first", "second", "strong"), often, strict=True)),
        "ended_cheap": float(ended.mean()),
        "quality_share": _ratio(quality, best, resampled),
        "cost_share": _ratio(cost, best_cost, resampled),
    }


@dataclass(frozen=True, slots=True)
class _Cascade:
    first: int
    second: int  # the first itself: none is asked
    strong: int
    gain: float  # without agreement the strong model is asked if it is expected to do better by more than this
    sure: float  # P(right) from which the first answer is taken


@dataclass(frozen=True, slots=True)
class _Field:
    """Queries x models; answers as numbers, -1 for none; what the router thinks, nan where it abstains."""

    scores: Floats
    costs: Floats
    codes: NDArray[np.int64]
    opinion: Floats
    verified: Floats  # P(right) of each answer, nan where nobody has read it

    def rows(self, rows: NDArray[np.intp]) -> _Field:
        return _Field(self.scores[rows], self.costs[rows], self.codes[rows], self.opinion[rows], self.verified[rows])

    def columns(self, models: NDArray[np.intp]) -> _Field:
        whole = _Field(self.scores.T, self.costs.T, self.codes.T, self.opinion.T, self.verified.T).rows(models)
        return _Field(whole.scores.T, whole.costs.T, whole.codes.T, whole.opinion.T, whole.verified.T)

    def run(self, cascade: _Cascade) -> tuple[Floats, Floats, Floats]:
        """Score, cost, and whether it ended with the cheap answer, of each query."""
        first, second, strong = cascade.first, cascade.second, cascade.strong
        sure = self.verified[:, first] >= cascade.sure
        ended = sure
        if second != first:
            ended = ended | ((self.codes[:, first] == self.codes[:, second]) & (self.codes[:, first] >= 0))
        if cascade.gain > NO_GAIN:
            ended = ended | (self.opinion[:, strong] - self.opinion[:, first] < cascade.gain)
        given = np.where(ended, self.scores[:, first], self.scores[:, strong])
        asked = np.where(sure | (second == first), 0.0, self.costs[:, second])
        spent = self.costs[:, first] + asked + np.where(ended, 0.0, self.costs[:, strong])
        return given, spent, ended.astype(np.float64)


def _codes(answers: NDArray[np.object_]) -> NDArray[np.int64]:
    """A number for each answer, equal for equal answers; -1 for none."""
    seen: dict[str, int] = {}
    flat = [-1 if (text := canonical(a)) is None else seen.setdefault(text, len(seen)) for a in answers.ravel()]
    return np.array(flat, dtype=np.int64).reshape(answers.shape)


def _best(field: _Field, wanted: Tried) -> _Cascade | None:
    """Of the cascades that keep the quality the most useful, else the one that keeps most; None if nobody is cheap."""
    strong = int(field.scores.mean(axis=0).argmax())
    price = field.costs.mean(axis=0)
    whole = field.scores[:, strong].mean()
    if not whole or not price[strong]:
        return None  # nothing to keep, or nothing to save
    best: tuple[tuple[float, float], _Cascade] | None = None
    quality = field.scores.mean(axis=0)
    cheap = [i for i in range(len(price)) if i != strong and price[i] <= CHEAP * price[strong]]
    cheap = sorted(cheap, key=lambda i: -quality[i])[:CHEAP_MAX]
    pairs = permutations(cheap, 2) if wanted.agreeing else zip(cheap, cheap, strict=True)
    for first, second in pairs:
        read = not np.isnan(field.verified[:, first]).all()
        for gain, sure in product(wanted.gains, wanted.sure if read else (NEVER_SURE,)):
            cascade = _Cascade(first, second, strong, gain, sure)
            given, spent, _ = field.run(cascade)
            surplus = float(given.mean() / whole) - QUALITY_KEPT
            worth = min(surplus, 1 - QUALITY_KEPT) - COST_WEIGHT * float(spent.mean() / price[strong])
            rank = (min(surplus, 0.0), worth)
            if best is None or rank > best[0]:
                best = rank, cascade
    return best[1] if best else None


def _ratio(part: Floats, whole: Floats, resampled: NDArray[np.int64]) -> dict[str, float]:
    parts, wholes = part[resampled].mean(axis=1), whole[resampled].mean(axis=1)
    low, high = np.quantile([ratio(*each) for each in zip(parts, wholes, strict=True)], [0.025, 0.975])
    return {"value": ratio(float(part.mean()), float(whole.mean())), "low": float(low), "high": float(high)}
