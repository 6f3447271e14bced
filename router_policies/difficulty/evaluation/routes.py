"""Routers over any number of models: what each would choose, and what that costs on queries it was not tuned on.

A router has estimates of quality, queries x models.  At a price of quality `w` it takes, for each query, the model with
the highest estimate - w x mean cost.  Mixing two such settings at random is allowed to everyone; a setting is chosen on
one half of the queries and tested on the other, both ways.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from router_policies.difficulty.evaluation.curves import Floats, aiq, hull, ratio

Choices = NDArray[np.intp]  # settings x queries: a model for each
SETTINGS = 80
INNER_SPLITS = 8
NOISE = 1e-4
"""Of AIQ: what is gained below this is nothing."""


@dataclass(frozen=True, slots=True)
class Field:
    """Recorded outcomes without gaps: score and cost (dollars) for queries x models, and the two halves."""

    score: Floats
    cost: Floats
    halves: tuple[NDArray[np.intp], NDArray[np.intp]]

    def means(self, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
        """Mean cost and quality of each model on these rows."""
        return self.cost[rows].mean(axis=0), self.score[rows].mean(axis=0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One setting, tested: for each query what it gave, what it cost, and the same of the best single model."""

    quality: Floats
    cost: Floats
    best_quality: Floats
    best_cost: Floats

    def shares(self, rows: NDArray[np.intp] | slice = slice(None)) -> tuple[float, float]:
        """Quality and cost as shares of the best single model's."""
        return (
            ratio(float(self.quality[rows].mean()), float(self.best_quality[rows].mean())),
            ratio(float(self.cost[rows].mean()), float(self.best_cost[rows].mean())),
        )


def sweep(estimate: Floats, cost: Floats) -> Choices:
    """What is chosen at each price of quality, from free to dear."""
    spread = max(float(cost.max() - cost.min()), 1e-12)
    prices = np.concatenate([[0.0], np.geomspace(1e-3, 1e3, SETTINGS)]) / spread
    return np.stack([np.argmax(estimate - price * cost, axis=1) for price in prices])


def singles(queries: int, models: int) -> Choices:
    """Each model for everything: the zero router."""
    return np.repeat(np.arange(models)[:, None], queries, axis=1)


def filled(estimate: Floats, quality: Floats) -> Floats:
    """Estimates, with a model's mean quality where there is none.

    With estimates of less than half of the models a query is left to the means: those of the few are not comparable.
    """
    unknown = np.isnan(estimate)
    return np.where(unknown | (unknown.mean(axis=1, keepdims=True) > 0.5), quality, estimate)


def points(field: Field, choices: Choices, rows: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """Mean cost and quality of each setting on these rows."""
    chosen = choices[:, rows]
    return field.cost[rows, chosen].mean(axis=1), field.score[rows, chosen].mean(axis=1)


def on_the_other_half(field: Field, choices: tuple[Choices, Choices], share: float) -> Outcome:
    """The cheapest setting that keeps `share` of the best single model's quality on one half, on the other; both ways.

    `choices[i]` were made knowing half i.  Where no setting keeps it, the one of the highest quality is taken.
    """
    parts = []
    for tuned, held in ((0, 1), (1, 0)):
        rows, test = field.halves[tuned], field.halves[held]
        best = int(field.means(rows)[1].argmax())
        cost, quality = points(field, choices[tuned], rows)
        mix = mixture(cost, quality, share * float(field.score[rows, best].mean()))
        chosen = choices[tuned][:, test]
        parts.append(
            (
                sum(weight * field.score[test, chosen[setting]] for setting, weight in mix),
                sum(weight * field.cost[test, chosen[setting]] for setting, weight in mix),
                field.score[test, best],
                field.cost[test, best],
            )
        )
    return Outcome(*(np.concatenate(both) for both in zip(*parts, strict=True)))


def mixture(cost: Floats, quality: Floats, wanted: float) -> list[tuple[int, float]]:
    """Settings with their shares: the cheapest mix of two that reaches `wanted`, else the best there is."""
    _, y = hull(cost, quality)
    place = on_hull(cost, quality)
    if wanted <= y[0]:
        return [(place[0], 1.0)]
    if wanted >= y[-1]:
        return [(place[-1], 1.0)]
    at = int(np.searchsorted(y, wanted))
    upper = float((wanted - y[at - 1]) / (y[at] - y[at - 1]))
    return [(place[at - 1], 1 - upper), (place[at], upper)]


def areas(
    field: Field, choices: tuple[Choices, Choices], resamples: int, rng: np.random.Generator
) -> tuple[float, list[float]]:
    """AIQ from the cheapest model's cost to the best one's: the settings on the hull of one half, on the other half.

    Mean of both ways, and of as many resamples of the tested halves.  Settings are not chosen anew where they are
    tested: of many, some look good by chance.
    """
    total, resampled = 0.0, np.zeros(resamples)
    for tuned, held in ((0, 1), (1, 0)):
        cost, quality = field.means(field.halves[tuned])
        low, high = float(cost.min()), float(cost[quality.argmax()])
        high = high if high > low else float(cost.max())
        kept = choices[tuned][on_hull(*points(field, choices[tuned], field.halves[tuned]))]
        rows = field.halves[held]
        total += aiq(*points(field, kept, rows), low, high) / 2
        for i in range(resamples):
            drawn = rows[rng.integers(0, len(rows), len(rows))]
            resampled[i] += aiq(*points(field, kept, drawn), low, high) / 2
    return total, resampled.tolist()


def beats_the_hull(
    field: Field, own: Choices, alone: Choices, rows: NDArray[np.intp], rng: np.random.Generator
) -> bool:
    """Whether on these rows, tuned on one half of them and tested on the other, own settings beat mixing models.

    In several splits, and by more than splits differ.
    """
    gained = []
    for _ in range(INNER_SPLITS):
        order = rng.permutation(rows)
        inner = Field(field.score, field.cost, (order[: len(order) // 2], order[len(order) // 2 :]))
        gained.append(areas(inner, (own, own), 0, rng)[0] - areas(inner, (alone, alone), 0, rng)[0])
    return float(np.mean(gained)) > max(NOISE, 2 * float(np.std(gained)))


def on_hull(cost: Floats, quality: Floats) -> list[int]:
    """The settings that make up the hull, by ascending cost."""
    return [int(np.flatnonzero((cost == a) & (quality == b))[0]) for a, b in zip(*hull(cost, quality), strict=True)]
