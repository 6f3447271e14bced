"""What a machine's tokens cost, where it begins to pay, and what a month will come to.  Pure.

Dollars are Decimal; a forecast is an estimate and says how sure it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from statistics import NormalDist, fmean

from gateway.types import NanoUSD

MILLION = 1_000_000
HOURS_A_MONTH = 720
HOURS_A_YEAR = 8760
SURE = 0.8
DAYS_MIN = 5
"""Full days below which a forecast has no interval: so few say nothing of how days differ."""
DAYS_MAX = 28
WEEKS_MIN_DAYS = 14


def per_million(per_hour: Decimal, tokens_per_second: Decimal, utilization: Decimal = Decimal(1)) -> Decimal:
    """Dollars per million tokens of a machine.  ValueError unless 0 < speed and 0 < use <= 1."""
    if tokens_per_second <= 0 or not 0 < utilization <= 1:
        raise ValueError("tokens per second must be above 0, utilisation above 0 and at most 1")
    return per_hour * MILLION / (tokens_per_second * 3600 * utilization)


def break_even(fixed: Decimal, hosted_per_million: Decimal) -> Decimal:
    """Tokens in a period from which `fixed` dollars are less than the hosted price.  ValueError for a free one."""
    if hosted_per_million <= 0:
        raise ValueError("nothing is cheaper than a hosted price of 0")
    return fixed * MILLION / hosted_per_million


def blended(parts: Sequence[tuple[Decimal, Decimal]]) -> Decimal:
    """The mean of (share, price).  ValueError unless the shares add up to 1."""
    if sum(share for share, _ in parts) != 1:
        raise ValueError("shares must add up to 1")
    return sum((share * price for share, price in parts), Decimal(0))


def with_retries(price: Decimal, failure_rate: Decimal, retries: int) -> Decimal:
    """The price of a call whose failures are tried `retries` times more, in vain, and billed each time."""
    return price * (1 + failure_rate * retries)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A machine of one's own against a hosted price, for a month of `hours`."""

    monthly: Decimal  # dollars, operations included
    per_million: Decimal  # at the utilisation given
    capacity: Decimal  # tokens a month at full use
    flips_at: Decimal  # tokens a month from which the machine is cheaper
    utilization_needed: Decimal  # of the capacity, for that; above 1: it never pays

    @property
    def pays(self) -> bool:
        """Whether any volume the machine can serve is cheaper on it."""
        return self.utilization_needed <= 1


def compare(
    per_hour: Decimal,
    tokens_per_second: Decimal,
    hosted_per_million: Decimal,
    *,
    utilization: Decimal = Decimal(1),
    hours: Decimal = Decimal(HOURS_A_MONTH),
    monthly_extra: Decimal = Decimal(0),
) -> Comparison:
    """`monthly_extra`: people, power, storage.  ValueError as `per_million`, `break_even`, and for no hours."""
    if hours <= 0:
        raise ValueError("hours must be above 0")
    monthly = per_hour * hours + monthly_extra
    flips_at = break_even(monthly, hosted_per_million)
    capacity = tokens_per_second * 3600 * hours
    effective = per_million(monthly / hours, tokens_per_second, utilization)
    return Comparison(monthly, effective, capacity, flips_at, flips_at / capacity)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Month-end spend.  `low` and `high`: the middle `SURE` of what may come; None with too few days."""

    spent: NanoUSD
    expected: NanoUSD
    low: NanoUSD | None
    high: NanoUSD | None
    days: int  # full days it rests on


def forecast(by_day: Mapping[date, NanoUSD], today: date, today_share: float = 0.0) -> Forecast:
    """What the month of `today` will come to.  `by_day`: spend of each day; days without are 0 from the first on.

    Rests on the last 28 full days, weekdays and weekends apart once there are two weeks.  `today_share` (0..1) is how
    much of today is over: today's spend so far counts, and its rest is expected as on such a day.
    """
    spent = sum(cost for day, cost in by_day.items() if (day.year, day.month) == (today.year, today.month))
    full = _full_days(by_day, today)
    costs = {day: by_day.get(day, 0) for day in full}
    left = _days_left(today)
    rest = [(day, 1.0) for day in left] + [(today, 1.0 - today_share)]
    if not costs:
        return Forecast(spent, spent, None, None, 0)
    level = _levels(costs)
    expected = spent + sum(level[_kind(day, level)] * weight for day, weight in rest)
    if len(costs) < DAYS_MIN:
        return Forecast(spent, round(expected), None, None, len(costs))
    spread = _spread(costs, level, sum(weight for _, weight in rest))
    return Forecast(spent, round(expected), max(spent, round(expected - spread)), round(expected + spread), len(costs))


def _full_days(by_day: Mapping[date, NanoUSD], today: date) -> list[date]:
    before = [day for day in by_day if day < today]
    if not before:
        return []
    first = max(min(before), today - timedelta(DAYS_MAX))
    return [first + timedelta(number) for number in range((today - first).days)]


def _days_left(today: date) -> list[date]:
    found = []
    day = today + timedelta(1)
    while day.month == today.month:
        found.append(day)
        day += timedelta(1)
    return found


def _kind(day: date, levels: Mapping[bool | None, float]) -> bool | None:
    weekend = day.weekday() >= 5
    return weekend if weekend in levels else None


def _levels(costs: Mapping[date, NanoUSD]) -> dict[bool | None, float]:
    """The mean of all days, or of weekends (True) and of other days (False)."""
    if len(costs) < WEEKS_MIN_DAYS:
        return {None: fmean(costs.values())}
    kinds = {
        weekend: [cost for day, cost in costs.items() if (day.weekday() >= 5) == weekend] for weekend in (True, False)
    }
    return {weekend: fmean(found) for weekend, found in kinds.items()}


def _spread(costs: Mapping[date, NanoUSD], level: Mapping[bool | None, float], left: float) -> float:
    """How far off a sum of `left` days may be: days differ, and the mean itself is not known exactly."""
    free = len(costs) - len(level)
    variance = sum((cost - level[_kind(day, level)]) ** 2 for day, cost in costs.items()) / free
    return _student(SURE, free) * math.sqrt(variance * (left + left**2 / len(costs)))


def _student(sure: float, free: int) -> float:
    """The quantile of Student's t, by its expansion around the normal (Abramowitz & Stegun 26.7.5)."""
    z = NormalDist().inv_cdf((1 + sure) / 2)
    return z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
