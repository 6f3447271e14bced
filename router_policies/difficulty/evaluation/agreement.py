"""Cascades that need no training: two cheap models answer; where they do not agree, the strong one does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
NO_GAIN = -1.0
GAINS = (NO_GAIN, -0.05, 0.0, 0.03, 0.06, 0.1, 0.15)

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


def figures(outcomes: Outcomes, opinion: Floats, rng: np.random.Generator) -> dict[str, Any] | None:
    """A cascade chosen on one half of the queries and tested on the other, both ways, in several splits.

    `plain` ends where two answers agree; `with the router` also where the strong model is not expected to do better.
    None without answers.
    """
    if outcomes.answers is None:
        return None
    codes = _codes(outcomes.answers)
    usable = np.flatnonzero(((codes >= 0).mean(axis=0) > ANSWERED_MIN) & ~np.isnan(outcomes.costs).any(axis=0))
    if len(usable) < 3:
        return None
    names = tuple(outcomes.models[i] for i in usable)
    field = _Field(outcomes.scores[:, usable], outcomes.costs[:, usable], codes[:, usable], opinion[:, usable])
    splits = [rng.permutation(len(outcomes)) for _ in range(SPLITS)]
    resampled = rng.integers(0, len(outcomes), (RESAMPLES, len(outcomes)))
    return {
        "plain": _over_splits(field, names, splits, (NO_GAIN,), resampled),
        "with the router": _over_splits(field, names, splits, GAINS, resampled),
    }


def _over_splits(
    field: _Field,
    names: tuple[str, ...],
    splits: list[NDArray[np.int64]],
    gains: tuple[float, ...],
    resampled: NDArray[np.int64],
) -> dict[str, Any] | None:
    """Each query's mean over the splits, in each of which it is tested once."""
    totals = np.zeros((5, len(field.scores)))
    chosen: Counter[tuple[str, ...]] = Counter()
    for order in splits:
        halves = order[: len(order) // 2], order[len(order) // 2 :]
        for tuned, test in (halves, halves[::-1]):
            cascade = _best(field.rows(tuned), gains)
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
    second: int
    strong: int
    gain: float  # without agreement the strong model is asked if it is expected to do better by more than this


@dataclass(frozen=True, slots=True)
class _Field:
    """Queries x models; answers as numbers, -1 for none; what the router thinks, nan where it abstains."""

    scores: Floats
    costs: Floats
    codes: NDArray[np.int64]
    opinion: Floats

    def rows(self, rows: NDArray[np.intp]) -> _Field:
        return _Field(self.scores[rows], self.costs[rows], self.codes[rows], self.opinion[rows])

    def run(self, cascade: _Cascade) -> tuple[Floats, Floats, Floats]:
        """Score, cost, and whether it ended with the cheap answer, of each query."""
        first, second, strong = cascade.first, cascade.second, cascade.strong
        ended = (self.codes[:, first] == self.codes[:, second]) & (self.codes[:, first] >= 0)
        if cascade.gain > NO_GAIN:
            ended |= self.opinion[:, strong] - self.opinion[:, first] < cascade.gain
        given = np.where(ended, self.scores[:, first], self.scores[:, strong])
        spent = self.costs[:, first] + self.costs[:, second] + np.where(ended, 0.0, self.costs[:, strong])
        return given, spent, ended.astype(np.float64)


def _codes(answers: NDArray[np.object_]) -> NDArray[np.int64]:
    """A number for each answer, equal for equal answers; -1 for none."""
    seen: dict[str, int] = {}
    flat = [-1 if (text := canonical(a)) is None else seen.setdefault(text, len(seen)) for a in answers.ravel()]
    return np.array(flat, dtype=np.int64).reshape(answers.shape)


def _best(field: _Field, gains: tuple[float, ...]) -> _Cascade | None:
    """Of the cascades that keep the quality the most useful, else the one that keeps most; None if nobody is cheap."""
    strong = int(field.scores.mean(axis=0).argmax())
    price = field.costs.mean(axis=0)
    whole = field.scores[:, strong].mean()
    best: tuple[tuple[float, float], _Cascade] | None = None
    cheap = [i for i in range(len(price)) if i != strong and price[i] <= CHEAP * price[strong]]
    for first, second in permutations(cheap, 2):
        for gain in gains:
            cascade = _Cascade(first, second, strong, gain)
            given, spent, _ = field.run(cascade)
            surplus = float(given.mean() / whole) - QUALITY_KEPT
            worth = min(surplus, 1 - QUALITY_KEPT) - COST_WEIGHT * float(spent.mean() / price[strong])
            rank = (min(surplus, 0.0), worth)
            if best is None or rank > best[0]:
                best = rank, cascade
    return best[1] if best else None


def _ratio(part: Floats, whole: Floats, resampled: NDArray[np.int64]) -> dict[str, float]:
    each = part[resampled].mean(axis=1) / whole[resampled].mean(axis=1)
    low, high = np.quantile(each, [0.025, 0.975])
    return {"value": float(part.mean() / whole.mean()), "low": float(low), "high": float(high)}
