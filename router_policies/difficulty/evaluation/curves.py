"""Quality against cost.  Pure functions of arrays.

A router sends a share c of the queries to the strong model; PGR(c) = (quality - weak) / (strong - weak);
APGR = mean of PGR over c in [0, 1]; CPT(p) = the least c with PGR >= p; AIQ = area under the non-decreasing line of
quality over cost, divided by the range of costs.  A router that abstains sends a share c of those queries at random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

GRID = np.linspace(0.0, 1.0, 201)


def gain_curve(score: Floats, gain: Floats) -> Floats:
    """PGR at each c of `GRID` when the highest scores go to the strong model first.

    Ties count as their mean, so a constant score is exactly random mixing; nan is an abstention.  `gain` must sum to
    more than zero: else there is nothing to recover, and the curve is nan.
    """
    total = float(gain.sum())
    if total <= 0:
        return np.full(len(GRID), np.nan)
    known = ~np.isnan(score)
    curve = GRID * float(gain[~known].sum())
    if known.any():
        share, recovered = _ranked(score[known], gain[known])
        curve = curve + np.interp(GRID, share, recovered)
    return curve / total


def _ranked(score: Floats, gain: Floats) -> tuple[Floats, Floats]:
    """Share sent and gain recovered at the end of each run of equal scores, from (0, 0)."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    recovered = np.cumsum(gain[order])[ends]
    return np.concatenate([[0.0], (ends + 1) / len(score)]), np.concatenate([[0.0], recovered])


def apgr(score: Floats, gain: Floats) -> float:
    """The area under the gain curve: 0.5 is random mixing."""
    return float(np.trapezoid(gain_curve(score, gain), GRID))


def cpt(score: Floats, gain: Floats, recovered: float) -> float:
    """The least share of queries to the strong model that recovers this much of the gap."""
    reached = np.flatnonzero(gain_curve(score, gain) >= recovered - 1e-9)
    return float(GRID[reached[0]]) if len(reached) else float("nan")


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """The non-decreasing concave hull: what mixing these points at random reaches, by ascending cost."""
    order = np.lexsort((-quality, cost))
    kept: list[tuple[float, float]] = []
    for x, y in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if kept and y <= kept[-1][1]:
            continue
        while len(kept) > 1 and _above(kept[-2], (x, y), kept[-1]):
            kept.pop()
        kept.append((x, y))
    return np.array([x for x, _ in kept]), np.array([y for _, y in kept])


def _above(start: tuple[float, float], end: tuple[float, float], middle: tuple[float, float]) -> bool:
    """Whether the line from start to end passes over (or through) the middle."""
    return (end[1] - start[1]) * (middle[0] - start[0]) >= (middle[1] - start[1]) * (end[0] - start[0])


def aiq(cost: Floats, quality: Floats, low: float, high: float) -> float:
    """Area under the non-decreasing line through these points between two costs, over their distance."""
    order = np.lexsort((quality, cost))
    grid = np.linspace(low, high, 512)
    return float(np.interp(grid, cost[order], np.maximum.accumulate(quality[order])).mean())


def cost_of(cost: Floats, quality: Floats, wanted: float) -> float:
    """The least cost at which a hull reaches a quality; nan where it does not."""
    x, y = hull(cost, quality)
    if wanted > y[-1] + 1e-12:
        return float("nan")
    return float(np.interp(wanted, y, x)) if wanted > y[0] else float(x[0])


def ratio(part: float, whole: float) -> float:
    """A part of a whole; nan where there is no whole."""
    return part / whole if whole else float("nan")


def calibration_error(p: Floats, good: Floats, bins: int = 10) -> float:
    """The expected calibration error in bins of equal width; nan without a pair that has both."""
    both = ~np.isnan(p) & ~np.isnan(good)
    if not both.any():
        return float("nan")
    p, good = p[both], good[both]
    place = np.minimum((p * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, p, bins) - np.bincount(place, good, bins))
    return float(gap.sum() / count.sum())


def auroc(score: Floats, good: Floats) -> float:
    """The chance that a good one scores above a bad one; ties count half.  nan with only one kind."""
    both = ~np.isnan(score) & ~np.isnan(good)
    score, label = score[both], good[both] > 0.5
    positives = int(label.sum())
    negatives = len(label) - positives
    if not positives or not negatives:
        return float("nan")
    _, inverse, count = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2
    return float((rank[inverse][label].sum() - positives * (positives + 1) / 2) / (positives * negatives))
