"""What reported usage teaches about one kind of request on one deployment.  Pure arithmetic, O(1), no clock.

The model is reported = offset + ratio x estimate: a hidden prompt moves the offset, another vocabulary the ratio.
Both are fitted by recursive least squares that forgets (so a changed model is learned again), starting from "the
estimate is right".  A surprise is clipped, so that one odd reply cannot carry the fit away; several in a row on one
side are no oddity but a change, and the fit is opened for it.  The bound follows the largest recent shortfall, which
fades; p90 of it would, by definition, be passed by every tenth request.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Final

FORGET: Final = 0.985
"""Weight left to what was known when one more report comes: a memory of about 70 requests."""
FADE: Final = 0.99
"""What is left of the largest shortfall after one more report."""
CLIP: Final = 2.0
"""Surprises beyond this many deviations count as this many."""
CHANGE: Final = 3
"""As many surprises in a row on one side are believed."""
DEVIATION_MIN: Final = 0.005
"""However well reports were foreseen."""
SCALE: Final = 40.0
"""Tokens below which an error is judged in tokens rather than as a share."""


@dataclass(slots=True)
class Calibration:
    """Offset and ratio with their covariance (`oo`, `orr`, `rr`), and the shortfall as a share of estimate + SCALE."""

    margin: float
    slack: float
    offset: float = 0.0
    ratio: float = 1.0
    oo: float = 0.0
    orr: float = 0.0
    rr: float = 0.0
    deviation: float = 0.0
    shortfall: float = 0.0
    reports: int = 0
    surprises: int = 0  # in a row; negative when reports were below what was expected

    def __post_init__(self) -> None:
        self.oo = self.slack * self.slack
        self.rr = self.margin * self.margin
        self.deviation = self.margin / 2

    def learn(self, estimate: float, reported: int) -> None:
        """One more request: what was estimated before calibration, and what the provider said."""
        weight = estimate + SCALE
        share = (reported - self.expected(estimate)) / weight
        self.shortfall *= FADE
        if share > self.shortfall:
            self.shortfall = share
        self.reports += 1
        clip = CLIP * self.deviation
        if self._changed(share, clip):
            self.surprises = 0
            self.oo = max(self.oo, (share * weight) ** 2)
            self.shortfall = min(self.shortfall, clip)
        else:
            share = _clipped(share, clip)
        self._fit(estimate, share * weight, weight)
        self.deviation = 0.9 * self.deviation + 0.1 * abs(_clipped(share, clip))
        if self.deviation < DEVIATION_MIN:
            self.deviation = DEVIATION_MIN

    def _changed(self, share: float, clip: float) -> bool:
        if -clip <= share <= clip:
            self.surprises = 0
            return False
        side = 1 if share > 0 else -1
        self.surprises = self.surprises + side if self.surprises * side > 0 else side
        return abs(self.surprises) >= CHANGE

    def _fit(self, estimate: float, error: float, weight: float) -> None:
        oo, orr, rr = self.oo, self.orr, self.rr
        gain_o = oo + orr * estimate
        gain_r = orr + rr * estimate
        noise = (self.deviation * weight) ** 2
        total = FORGET * noise + gain_o + gain_r * estimate
        self.offset += gain_o / total * error
        self.ratio += gain_r / total * error
        oo = (oo - gain_o * gain_o / total) / FORGET
        rr = (rr - gain_r * gain_r / total) / FORGET
        orr = (orr - gain_o * gain_r / total) / FORGET
        if oo > (most := self.slack * self.slack * 100):
            oo = most
        if rr > (most := self.margin * self.margin * 100):
            rr = most
        self.oo, self.rr = oo, rr
        self.orr = _clipped(orr, sqrt(oo * rr) if oo > 0 and rr > 0 else 0.0)

    def expected(self, estimate: float) -> float:
        """What is likely to be reported."""
        likely = self.offset + self.ratio * estimate
        if likely < 1.0:
            return 1.0
        return likely

    def first_headroom(self, estimate: float) -> float:
        """Tokens above `expected` for what the family may hide: the prior's doubt, which reports dispel."""
        return (self.margin * estimate + self.slack) * 8.0 / (8.0 + self.reports)

    def headroom(self, estimate: float) -> float:
        """Tokens above `expected` that recent reports show to be needed."""
        return (1.25 * self.shortfall + 2 * self.deviation) * (estimate + SCALE) + 4


def _clipped(value: float, limit: float) -> float:
    """The value, or the limit on its side of zero: a third of the time of min and max."""
    if value > limit:
        return limit
    if value < -limit:
        return -limit
    return value
